"""The list of jobs is that of the workflow: held to what Snakemake says that it would run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from prunebench.config import read
from prunebench.planned import LOCAL, RUNTIME_MINUTES, STAGES, planned_jobs
from shared import REPOSITORY

# Rules of the tiny suite's user, and the target.
FOREIGN = {"odd_first", "slim", "all", "default"}
# What the demo and the tiny suite have not: networks from files, with an audit, and several chains in a job.
DELIVERED: dict[str, Any] = {
    "suite": "files",
    "replicates": 2,
    "experiments": [
        {
            "dataset": "digits",
            "model": "resnet20",
            "delivered": [{"method": "mine", "network": "nets/{replicate}/{point}", "points": ["a", "b"]}],
        }
    ],
    "schedules": {"one-shot": {"criteria": ["first", "last", "random"], "draws": 2}},
    "operating_points": [{"blocks": 1}],
    "audit": {"criteria": ["l1_norm"]},
    "evaluations": ["accuracy", {"evaluation": "calibration", "replicates": 1}],
    "jobs": {"chains_per_job": 2, "chains_per_evaluation": 3},
}


def dry_run(folder: Path, config: Path) -> list[dict[str, Any]]:
    """The jobs that Snakemake would run in an empty folder."""
    command = [sys.executable, "-m", "snakemake", "-n", "--snakefile", str(REPOSITORY / "Snakefile"), "--directory", str(folder)]
    command += ["--configfile", str(config), "--cores", "2", "--nolock", "--logger", "listing"]
    path = os.pathsep.join([str(REPOSITORY / "workflow"), str(REPOSITORY / "tests")])
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, text=True, capture_output=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    jobs = [json.loads(line) for line in (done.stdout + done.stderr).splitlines() if line.startswith("{")]
    return [job for job in jobs if job["rule_name"] not in FOREIGN]


@pytest.mark.parametrize("name", ["tests/suites/tiny.yaml", "config/config.yaml", "networks from files"])
def test_the_jobs_are_those_that_snakemake_would_run(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").symlink_to(REPOSITORY / "docs")
    config = REPOSITORY / name
    if name == "networks from files":
        config = tmp_path / "files.yaml"
        config.write_text(yaml.safe_dump(DELIVERED))
        for file in ("architecture.json", "weights.safetensors"):
            for place in ("0/a", "0/b", "1/a", "1/b"):
                (tmp_path / "nets" / place).mkdir(parents=True, exist_ok=True)
                (tmp_path / "nets" / place / file).touch()
    jobs = planned_jobs(read(config))
    expected = dry_run(tmp_path, config)
    assert sorted(job.log for job in jobs) == sorted(log for told in expected for log in told["log"])
    found = {job.log: job for job in jobs}
    for told in expected:
        job = found[told["log"][0]]
        assert told["rule_name"] == job.rule
        assert told["benchmark"] == job.benchmark
        assert sorted(told["output"]) == sorted(job.outputs)
        assert told["runtime"] == RUNTIME_MINUTES.get(job.stage)
        # Local rules ask for nothing; Snakemake does not say in a dry run which they are.
        assert (told["runtime"] is None) == job.local == (job.stage in LOCAL)
    order = [STAGES.index(job.stage) for job in jobs]
    assert order == sorted(order)


def test_jobs_of_different_experiments_share_no_work_folder(tmp_path: Path) -> None:
    """One holds its folder while it is at work: others would wait for it, and lose their checkpoints to it."""
    content = {
        "suite": "two",
        "replicates": 2,
        "experiments": [{"dataset": "digits", "model": "resnet20"}, {"dataset": "digits", "model": "resnet32"}],
        "schedules": {"one-shot": {"criteria": ["cka"]}, "iterative": {"criteria": ["cka"]}},
        "operating_points": [{"blocks": 1}],
        "oracle": {"epochs": 1},
    }
    config = tmp_path / "two.yaml"
    config.write_text(yaml.safe_dump(content))
    command = [sys.executable, "-m", "snakemake", "-n", "-p", "--snakefile", str(REPOSITORY / "Snakefile"), "--nolock"]
    command += ["--directory", str(tmp_path), "--configfile", str(config), "--cores", "1"]
    done = subprocess.run(command, text=True, capture_output=True, timeout=120, check=True)
    told = re.findall(r"prunebench (dense|score|oracle) .* --work (\S+)", done.stdout + done.stderr)
    assert len(told) == 3 * 2 * 2 == len(set(told))
    jobs = planned_jobs(read(config))
    assert set(told) == {(job.stage, str(job.work)) for job in jobs if job.stage in ("dense", "score", "oracle")}
