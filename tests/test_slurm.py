"""Drills on a real SLURM: whatever happens to a run, it ends with the tables of an undisturbed one, byte for byte.

Each drill strikes at a random moment; a failure prints the seed, and PRUNEBENCH_DRILL_SEED repeats it.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeVar

import psutil
import pytest

from drill import environment, make_clone, tables
from shared import REPOSITORY
from slurm_cluster import Cluster
from slurm_lab import missing_packages

# Marks, though the fixture skips too: a run to compare with would take a minute in vain.
pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(os.geteuid() != 0, reason="a test cluster is started as root"),
    pytest.mark.skipif(bool(missing_packages()), reason="SLURM is not installed (make test-slurm installs it)"),
]

# A job of the drill takes about as long.
JOB_SECONDS = 12.0

T = TypeVar("T")


@pytest.fixture(autouse=True)
def nothing_left(cluster: Cluster) -> Iterator[None]:
    """After a failure too: what a run left would disturb the next one."""
    yield
    for run in Run.started:
        if run.process.poll() is None:
            run.process.kill()
            run.process.wait()
    Run.started.clear()
    cluster.try_run("scancel", "--user=root")


@pytest.fixture
def moments() -> random.Random:
    seed = os.environ.get("PRUNEBENCH_DRILL_SEED") or str(random.SystemRandom().randrange(10**6))
    print(f"PRUNEBENCH_DRILL_SEED={seed}")
    return random.Random(seed)


@dataclass(frozen=True)
class Job:
    number: str
    name: str
    node: str


class Run:
    """The literal command of the README, in a clone."""

    started: ClassVar[list[Run]] = []

    def __init__(self, cluster: Cluster, folder: Path, *options: str, config: str = "config/drill.yaml") -> None:
        self.cluster, self.folder, self.options, self.config = cluster, folder, options, config
        self.output = folder / "output.txt"
        self.started.append(self)
        self.start()

    def start(self) -> None:
        command = ["snakemake", "--profile", "slurm", "--cores", "64", "--configfile", self.config, *self.options]
        with self.output.open("a", encoding="utf-8") as output:
            self.process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=environment(**self.cluster.environment),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait(self, seconds: float = 600) -> int:
        try:
            return self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"the run hangs:\n{self.said()}\n{self.cluster.run('squeue', '--states=all')}") from None

    def said(self) -> str:
        return self.output.read_text(encoding="utf-8", errors="replace")[-5000:]

    def jobs(self, state: str = "RUNNING") -> list[Job]:
        """This run's jobs in a state."""
        lines = self.cluster.run("squeue", "--noheader", f"--states={state}", "--format=%i|%j|%N|%Z").splitlines()
        parts = [line.strip().split("|") for line in lines]
        return [Job(*part[:3]) for part in parts if Path(part[3]) == self.folder]

    def running(self, beginning: str = "") -> Job:
        """Wait for a job at work."""
        return waited(lambda: next((job for job in self.jobs() if beginning in job.name), None), self)

    def ends_well(self, undisturbed: dict[str, bytes]) -> None:
        assert self.wait() == 0, self.said()
        assert tables(self.folder) == undisturbed


def waited(find: Callable[[], T | None], run: Run, seconds: float = 240) -> T:
    """What is found in the end."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = find()
        if found is not None:
            return found
        assert run.process.poll() is None, f"the run ended:\n{run.said()}"
        time.sleep(0.2)
    raise AssertionError(f"waited in vain:\n{run.said()}")


def at_random(run: Run, moments: random.Random) -> Job:
    """A job at work, some random time into the run: jobs of every kind are struck."""
    skipped: set[str] = set()
    for _ in range(moments.randrange(3)):
        skipped.add(waited(lambda: next((job.number for job in run.jobs() if job.number not in skipped), None), run))
    job = waited(lambda: next((job for job in run.jobs() if job.number not in skipped), None), run)
    time.sleep(moments.uniform(0, JOB_SECONDS / 2))
    return next((other for other in run.jobs() if other.number == job.number), None) or run.running()


def strike(run: Run, moments: random.Random, act: Callable[[Job], None], state: str, seconds: float = 10) -> Job:
    """Do something to a job at a random moment, until one is in the state that follows: it may have ended just before."""
    job = at_random(run, moments)
    for _ in range(5):
        act(job)
        for _ in range(int(seconds * 5)):
            if state in states(run.cluster, job.number):
                return job
            if "COMPLETED" in states(run.cluster, job.number):
                break
            time.sleep(0.2)
        job = run.running()
    raise AssertionError(f"no job came to be {state}:\n{run.said()}")


def states(cluster: Cluster, number: str) -> str:
    """All states that accounting has of a job, in order; a requeued one has several."""
    return cluster.run("sacct", "--duplicates", "-X", "-n", "-P", "-o", "State", "-j", number)


def test_undisturbed(cluster: Cluster, undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    run = Run(cluster, make_clone(tmp_path / "clone"))
    job = run.running("dense")
    # The suite asks for a GPU where there is one.
    assert job.node.startswith("gpu")
    run.ends_well(undisturbed)
    again = Run(cluster, run.folder)
    assert again.wait() == 0 and "Nothing to be done" in again.said()


def test_a_person_cancels_a_job(cluster: Cluster, undisturbed: dict[str, bytes], tmp_path: Path, moments: random.Random) -> None:
    run = Run(cluster, make_clone(tmp_path / "clone"))
    strike(run, moments, lambda job: str(cluster.run("scancel", job.number)), "CANCELLED")
    run.ends_well(undisturbed)


def test_a_time_limit_is_hit(cluster: Cluster, undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    """The job is made slow by stopping it; its next attempt has a longer limit and goes on where it was."""
    run = Run(cluster, make_clone(tmp_path / "clone"), "--set-resources", "dense:runtime=attempt")
    job = run.running("dense")
    work = run.folder / "results/drill/.work/digits/resnet20/replicate0"
    log = run.folder / "logs/drill/digits/resnet20/replicate0/dense.log"
    waited(lambda: (log.is_file() and re.search(r" [1-9]\d?/25", log.read_text(encoding="utf-8", errors="replace"))) or None, run)
    processes = python_of("dense", run.folder)
    # A checkpoint is written every 10 s at most, and a fast machine needs no longer for all: the clock goes on while it is stopped.
    for process in processes:
        process.suspend()
    time.sleep(11)
    for process in processes:
        process.resume()
    waited(lambda: next(work.rglob("checkpoint.safetensors"), None), run)
    for process in processes:
        process.suspend()
    second = waited(lambda: next((other for other in run.jobs() if other.number != job.number), None), run)
    assert "TIMEOUT" in states(cluster, job.number)
    limit = cluster.run("squeue", "--noheader", "--format=%l", "-j", second.number).strip()
    assert limit == "2:00"
    run.ends_well(undisturbed)
    said = log.read_text(encoding="utf-8")
    assert "25/25" in said and " 0/25" not in said, "the second attempt goes on from the checkpoint"


def python_of(command: str, folder: Path) -> list[psutil.Process]:
    """Processes of `prunebench COMMAND` in a folder."""
    found = []
    for process in psutil.process_iter(["cmdline", "cwd"]):
        line = process.info["cmdline"] or []
        if process.info["cwd"] == str(folder) and line[1:4] == ["-m", "prunebench", command]:
            found.append(process)
    assert found
    return found


def test_a_node_is_lost(cluster: Cluster, undisturbed: dict[str, bytes], tmp_path: Path, moments: random.Random) -> None:
    run = Run(cluster, make_clone(tmp_path / "clone"))
    killed: list[str] = []

    def crash(job: Job) -> None:
        # The one before, whose job had just ended, is to be there for the others.
        for node in killed:
            cluster.start_node(node)
        killed[:] = [job.node]
        cluster.kill_node(job.node)

    try:
        # SLURM notices after SlurmdTimeout, requeues the job, and holds it for two minutes unless a person is in a hurry.
        job = strike(run, moments, crash, "NODE_FAIL", seconds=120)
        other = next(name for name in cluster.nodes if name.startswith("gpu") and name != job.node)
        cluster.try_run("scontrol", "update", f"JobId={job.number}", "StartTime=now", f"ReqNodeList={other}")
        run.ends_well(undisturbed)
    finally:
        for node in killed:
            cluster.start_node(node)


def test_the_controller_is_restarted(
    cluster: Cluster, undisturbed: dict[str, bytes], tmp_path: Path, moments: random.Random
) -> None:
    run = Run(cluster, make_clone(tmp_path / "clone"))
    at_random(run, moments)
    cluster.restart_controller(crash=moments.random() < 0.5)
    run.ends_well(undisturbed)


def test_a_job_is_preempted(cluster: Cluster, undisturbed: dict[str, bytes], tmp_path: Path, moments: random.Random) -> None:
    run = Run(cluster, make_clone(tmp_path / "clone"))

    def take_its_place(job: Job) -> None:
        options = ["--qos=urgent", "--partition=gpu", "--nodes=2", "--exclusive", "--time=2", "--output=/dev/null"]
        number = cluster.run("sbatch", "--parsable", *options, "--wrap=sleep 5").strip()
        waited(lambda: "COMPLETED" in states(cluster, number) or None, run)

    strike(run, moments, take_its_place, "PREEMPTED")
    # As after the loss of a node: SLURM holds what it requeues for two minutes.
    for waiting in run.jobs("PENDING"):
        cluster.try_run("scontrol", "update", f"JobId={waiting.number}", "StartTime=now")
    run.ends_well(undisturbed)


def test_snakemake_is_killed(cluster: Cluster, undisturbed: dict[str, bytes], tmp_path: Path, moments: random.Random) -> None:
    run = Run(cluster, make_clone(tmp_path / "clone"))
    at_random(run, moments)
    # Not between two jobs: what is in the queue has to be found by the next run.
    while not run.jobs():
        run.running()
    run.process.kill()
    run.process.wait()
    left = run.jobs()
    run.start()
    run.ends_well(undisturbed)
    assert "An earlier run left" in run.said() or all("COMPLETED" in states(cluster, job.number) for job in left)


def test_the_disk_is_full(cluster: Cluster, undisturbed: dict[str, bytes], tmp_path: Path, moments: random.Random) -> None:
    folder = make_clone(tmp_path / "clone")
    (folder / "results").mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder / "results"], check=False).returncode:
        pytest.skip("no small file system can be mounted here (a container without the right to)")
    try:
        run = Run(cluster, folder)
        at_random(run, moments)
        ballast = folder / "results/ballast"
        with suppress(OSError), ballast.open("wb", buffering=0) as handle:
            while True:
                handle.write(bytes(1 << 16))
        number = len(run.said())
        # Until something fails, or the whole run gives up.
        end = time.monotonic() + 90
        while time.monotonic() < end and run.process.poll() is None and "FAILED" not in run.said()[number:]:
            time.sleep(0.5)
        ballast.unlink()
        assert "FAILED" in run.said()[number:] and re.search("disk full|No space left", run.said()[number:]), run.said()
        if run.wait() != 0:
            run.start()
        run.ends_well(undisturbed)
    finally:
        subprocess.run(["umount", "--lazy", folder / "results"], check=False)


def test_a_job_is_out_of_memory(cluster: Cluster, undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    """An attempt with too little memory is killed, and the next ones have more."""
    run = Run(cluster, make_clone(tmp_path / "clone"), "--set-resources", "dense:mem_mb=300*attempt")
    job = run.running("dense")
    run.ends_well(undisturbed)
    assert "COMPLETED" not in states(cluster, job.number)


def test_a_result_is_truncated(cluster: Cluster, undisturbed: dict[str, bytes], tmp_path: Path, moments: random.Random) -> None:
    run = Run(cluster, make_clone(tmp_path / "clone"))
    at_random(run, moments)
    time.sleep(moments.uniform(0, 2 * JOB_SECONDS))
    experiment = run.folder / "results/drill/digits"
    files = waited(
        lambda: sorted(path for path in experiment.rglob("*.*") if path.is_file() and path.name[0] != ".") or None, run
    )
    victim = moments.choice(files)
    os.truncate(victim, moments.randrange(victim.stat().st_size))
    print(f"truncated: {victim}")
    calls = 1
    while run.wait() != 0 or not run.said().rstrip().endswith("Nothing to be done: all results are there and up to date."):
        calls += 1
        assert calls < 6, run.said()
        run.start()
    assert tables(run.folder) == undisturbed


@pytest.mark.slow
def test_the_demo_through_the_profile(cluster: Cluster, tmp_path: Path) -> None:
    """As on a cluster, and as `make demo` runs it on this machine."""
    run = Run(cluster, make_clone(tmp_path / "clone"), config="config/config.yaml")
    assert run.wait(3600) == 0, run.said()
    found = tables(run.folder, "demo")
    local = REPOSITORY / "results/demo/tables"
    if not (local / "results.csv").is_file():
        pytest.skip("the demo ran on the cluster; `make demo` has not been run here, so there is nothing to compare it with")
    assert found == tables(REPOSITORY, "demo")
