"""What several files of tests share."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from drill import environment, free_port, make_clone, tables
from slurm_cluster import Cluster, Settings
from slurm_lab import missing_packages


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The tables of a local run of config/drill.yaml: a minute."""
    folder = make_clone(tmp_path_factory.mktemp("undisturbed") / "clone")
    command = ["snakemake", "--cores", "2", "--configfile", "config/drill.yaml", "--logger", "prunebench"]
    subprocess.run(command, cwd=folder, env=environment(), check=True, timeout=900)
    return tables(folder)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A real SLURM of a file's own, beside any other."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to start SLURM")
    if missing := missing_packages():
        pytest.skip(f"needs SLURM: python tools/slurm_cluster.py install ({', '.join(missing)})")
    # Sockets have short names, so not in pytest's deep folders.
    with TemporaryDirectory(prefix="slurm-") as folder:
        made = Cluster(Settings(folder=Path(folder) / "lab", port=free_port(8), link=False))
        try:
            made.up()
            yield made
        finally:
            made.down(purge=True)
