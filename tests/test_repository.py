"""What holds of the repository itself: pins, formats, files that the workflow catalog looks for."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import tomllib

import pytest
import yaml

from shared import REPOSITORY


def load_tool(name: str):  # type: ignore[no-untyped-def]
    spec = importlib.util.spec_from_file_location(name, REPOSITORY / "tools" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_conda_environment_carries_the_pins_of_the_lock() -> None:
    written = (REPOSITORY / "envs/prunebench.yaml").read_text()
    assert written == load_tool("lock").environment(), "run `python tools/lock.py`"
    pip = next(entry["pip"] for entry in yaml.safe_load(written)["dependencies"] if isinstance(entry, dict))
    lock = (REPOSITORY / "requirements.lock").read_text()
    for pin in pip:
        assert re.search(rf"^{re.escape(pin)}(\s|$)", lock, flags=re.MULTILINE), f"{pin} is not in requirements.lock"


def test_every_dependency_is_pinned_without_a_url() -> None:
    lock = (REPOSITORY / "requirements.lock").read_text()
    assert "://" not in lock
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    for text in [*project["dependencies"], *project["optional-dependencies"]["dev"]]:
        name = re.split(r"[<>=;\[ ]", text)[0]
        assert re.search(rf"^{re.escape(name)}==", lock, flags=re.MULTILINE | re.IGNORECASE), f"{name} is not pinned"


def test_every_rule_has_an_environment_that_exists() -> None:
    for rules in (REPOSITORY / "workflow/rules").glob("*.smk"):
        for path in re.findall(r'conda:\s+"([^"]+)"', rules.read_text()):
            assert (rules.parent / path).is_file()


def test_workflow_catalog_finds_what_it_needs() -> None:
    assert (REPOSITORY / "workflow/Snakefile").is_file()
    assert (REPOSITORY / "config/README.md").is_file()
    usage = yaml.safe_load((REPOSITORY / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert usage["report"] is True and usage["software-stack-deployment"]["conda"] is True
    readme = (REPOSITORY / "README.md").read_text().lower()
    assert "snakemake" in readme and "workflow" in readme


@pytest.mark.parametrize("pattern", [r"/ro[o]t/", r"/wo[r]k/", r"pyp[i]\.org", r"pythonhos[t]ed", r"deb[.]d[e]bian"])
def test_the_repository_names_no_machine_and_no_registry(pattern: str) -> None:
    if not (REPOSITORY / ".git").exists():
        pytest.skip("not a git checkout")
    found = subprocess.run(
        ["git", "grep", "-nIE", pattern, "--", ".", ":!tests/test_repository.py"],
        cwd=REPOSITORY,
        text=True,
        capture_output=True,
        check=False,
    )
    assert found.stdout == ""


def test_readme_shows_the_headline_of_the_demo_as_it_was_made() -> None:
    tool = load_tool("readme")
    readme = (REPOSITORY / "README.md").read_text()
    headline = (REPOSITORY / "docs/demo/headline.md").read_text()
    assert readme == tool.with_table(readme, tool.table_of(headline)), "run `make readme` after `make demo`"
