"""Provenance: in a repository, outside one, and inside somebody else's."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from prunebench.provenance import commit_of, provenance


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one commit of one file, ``package/module.py``."""
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / "repository"
    (folder / "package").mkdir(parents=True)
    (folder / "package" / "module.py").write_text("x = 1\n")
    for arguments in (
        ("init", "--quiet"),
        ("add", "."),
        ("-c", "user.name=A", "-c", "user.email=a@example.org", "commit", "--quiet", "--message", "first"),
    ):
        subprocess.run(["git", *arguments], cwd=folder, check=True)
    return folder


def head(folder: Path) -> str:
    return subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


def test_commit_in_a_repository(repository: Path) -> None:
    commit = commit_of(repository / "package" / "module.py")
    assert commit == head(repository)
    assert re.fullmatch("[0-9a-f]{40}", commit)


def test_changed_checkout_is_dirty_and_untracked_files_do_not_matter(repository: Path) -> None:
    module = repository / "package" / "module.py"
    (repository / "results.csv").write_text("")
    assert commit_of(module) == head(repository)
    module.write_text("x = 2\n")
    assert commit_of(module) == f"{head(repository)}-dirty"


def test_outside_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    (tmp_path / "module.py").write_text("x = 1\n")
    assert commit_of(tmp_path / "module.py") == "unknown"


def test_package_installed_inside_somebody_elses_repository(repository: Path) -> None:
    installed = repository / "venv" / "module.py"
    installed.parent.mkdir()
    installed.write_text("x = 1\n")
    assert commit_of(installed) == "unknown"


def test_repository_of_a_git_hook_is_not_taken(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DIR", str(repository / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(repository))
    other = tmp_path / "other" / "package" / "module.py"
    other.parent.mkdir(parents=True)
    other.write_text("x = 1\n")
    assert commit_of(other) == "unknown"


def test_without_git(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert commit_of(repository / "package" / "module.py") == "unknown"


def test_keys_of_the_contract() -> None:
    found = provenance("ab" * 32, 7)
    assert list(found) == ["config_sha256", "seed", "versions", "hardware", "commit", "created"]
    assert found["config_sha256"] == "ab" * 32
    assert found["seed"] == 7
    assert provenance("", None)["seed"] is None
    assert found["versions"]["python"] == sys.version.split()[0]
    assert {"prunebench", "torch", "numpy"} <= set(found["versions"])
    assert found["hardware"]["cpu"]
    assert found["hardware"]["logical_cores"] >= 1
    created = datetime.fromisoformat(found["created"])
    assert created.tzinfo == UTC
    assert abs(datetime.now(UTC) - created) < timedelta(minutes=1)
    assert json.loads(json.dumps(found)) == found


def test_heavy_packages_are_not_imported_for_it() -> None:
    script = (
        "import sys\nfrom prunebench.provenance import provenance\nfound = provenance('', 0)\n"
        "assert found['versions']['torch']\n"
        "print([name for name in ('torch', 'numpy', 'snakemake', 'codecarbon', 'fvcore') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
