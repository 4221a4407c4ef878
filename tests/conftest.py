"""What several files of tests share."""

from __future__ import annotations

import subprocess

import pytest

from drill import environment, make_clone, tables


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The tables of a local run of config/drill.yaml: a minute."""
    folder = make_clone(tmp_path_factory.mktemp("undisturbed") / "clone")
    command = ["snakemake", "--cores", "2", "--configfile", "config/drill.yaml", "--logger", "prunebench"]
    subprocess.run(command, cwd=folder, env=environment(), check=True, timeout=900)
    return tables(folder)
