"""The workflow on an engine that is neither this machine's cores nor SLURM: nothing in it knows where its jobs run."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from drill import environment, make_clone, tables
from shared import REPOSITORY


@pytest.mark.slow
def test_any_executor_plugin_that_shares_a_file_system(undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    """One that hands a script to any command, as for LSF or PBS; here the command is a shell in the background."""
    folder = make_clone(tmp_path / "clone")
    (folder / "submit.sh").write_text('#!/bin/sh\nnohup sh "$1" >/dev/null 2>&1 &\necho $!\n')
    (folder / "submit.sh").chmod(0o755)
    command = ["snakemake", "--executor", "cluster-generic", "--cluster-generic-submit-cmd", "./submit.sh", "--jobs", "2"]
    further = ["--seconds-between-status-checks", "1", "--configfile", "config/drill.yaml", "--logger", "prunebench"]
    subprocess.run([*command, *further], cwd=folder, env=environment(), check=True, timeout=900)
    assert tables(folder) == undisturbed


def test_no_rule_and_no_job_names_an_engine() -> None:
    engine = re.compile(r"slurm|sbatch|srun\b|SLURM_|\bpbs\b|\blsf\b", re.IGNORECASE)
    files = [*REPOSITORY.glob("workflow/rules/*.smk"), REPOSITORY / "workflow/Snakefile", REPOSITORY / "Snakefile"]
    assert files
    for path in files:
        assert not engine.search(path.read_text(encoding="utf-8")), path
