"""Make the conda environments from requirements.lock, so that both carry the same pins. `make lock` runs it."""

from __future__ import annotations

import tomllib
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement

REPOSITORY = Path(__file__).resolve().parents[1]
PYTHON = "3.12"


def pins(lock: str) -> dict[str, str]:
    """Name to version of everything that the lock installs on Linux with the environments' Python."""
    environment = {key: str(value) for key, value in default_environment().items()}
    environment |= {"python_version": PYTHON, "python_full_version": f"{PYTHON}.0"}
    environment |= {
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
        "os_name": "posix",
    }
    found = {}
    for line in lock.splitlines():
        if line.strip() and not line.startswith((" ", "#", "-")):
            requirement = Requirement(line.rstrip(" \\"))
            if requirement.marker is None or requirement.marker.evaluate(environment):
                found[requirement.name.lower()] = str(requirement.specifier).removeprefix("==")
    return found


def environment() -> str:
    """The text of envs/prunebench.yaml: Python from conda, the package's dependencies from the lock."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    locked = pins((REPOSITORY / "requirements.lock").read_text())
    names = [Requirement(text).name.lower() for text in project["dependencies"]]
    lines = [
        "# Made from requirements.lock by `make lock`; a test holds them to each other.",
        "channels:",
        "  - conda-forge",
    ]
    lines += ["dependencies:", f"  - python ={PYTHON}", "  - pip", "  - pip:"]
    lines += [f"      - {name}=={locked[name]}" for name in names if not name.startswith("snakemake")]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    (REPOSITORY / "envs" / "prunebench.yaml").write_text(environment())
