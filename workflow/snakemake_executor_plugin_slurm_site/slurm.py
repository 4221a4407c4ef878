"""SLURM's commands, and the two things that an executor does before its first job: take the lock, cancel what an earlier run left."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from prunebench.squeue import FORMAT, SlurmJob, parse

# https://slurm.schedmd.com/squeue.html#SECTION_JOB-STATE-CODES; all others are on the way.
FAILED = {"BOOT_FAIL", "CANCELLED", "DEADLINE", "FAILED", "OUT_OF_MEMORY", "REVOKED", "TIMEOUT"}
# A requeued job passes through these, so they are final only if they stay.
LOST = {"NODE_FAIL", "PREEMPTED"}
FINAL = {"COMPLETED"} | FAILED | LOST
# Pending by another name, until a person releases them.
HELD = {"REQUEUE_HOLD", "SPECIAL_EXIT"}
# What SLURM says when it is its own fault, or when the queue is full for now: to be asked again.
LATER = re.compile(
    r"unable to contact|connection refused|timed out|temporarily|try again|in standby|zero bytes|SubmitJob|MaxJobCount"
    r"|munge|authentication|configuration source|unexpected message|inactive or drain|i/o error",
    re.IGNORECASE,
)
# Why a pending job waits that nothing but a person can help.
NEVER = re.compile(r"held|PartitionTimeLimit|PartitionNodeLimit|BadConstraints|PerJob|Minutes|Invalid", re.IGNORECASE)


class SlurmError(Exception):
    """One of SLURM's commands failed; the message is SLURM's."""

    @property
    def passes(self) -> bool:
        """Whether the same command may work later."""
        return bool(LATER.search(str(self)))


def ask(*command: str, text: str = "", seconds: float = 120) -> str:
    """What a command prints.

    Raises:
        SlurmError: it is not there, fails or does not answer.
    """
    try:
        done = subprocess.run(
            command, input=text, capture_output=True, encoding="utf-8", errors="replace", check=True, timeout=seconds
        )
    except FileNotFoundError:
        raise SlurmError(f"{command[0]}: no such command here; start on a login node of a SLURM cluster") from None
    except OSError as error:
        raise SlurmError(f"{command[0]}: temporarily not to be started: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise SlurmError(f"{command[0]}: timed out after {seconds:g} s") from None
    except subprocess.CalledProcessError as error:
        raise SlurmError(" ".join(error.stderr.split()) or f"{command[0]}: exit code {error.returncode}") from None
    return done.stdout


def queue() -> dict[str, SlurmJob]:
    """The user's jobs by number, those that ended some minutes ago (MinJobAge) too."""
    jobs = parse(ask("squeue", "--me", "--noheader", "--states=all", f"--format={FORMAT}"))
    return {job.number: job for job in jobs}


def accounted(numbers: Iterable[str]) -> dict[str, str]:
    """States of jobs by the accounting database; empty where there is none."""
    if not shutil.which("sacct"):
        return {}
    try:
        lines = ask("sacct", "-X", "-n", "-P", "-o", "JobIDRaw,State", "-j", ",".join(numbers)).splitlines()
    except SlurmError:
        return {}
    # Of a cancelled job it says by whom: CANCELLED by 1000.
    return {number: state.split()[0] for number, state in (line.split("|", 1) for line in lines if "|" in line) if state}


def cancel(numbers: Iterable[str]) -> None:
    """Take jobs out of the queue; those that have ended are passed over."""
    left = sorted(numbers)
    for start in range(0, len(left), 500):
        ask("scancel", "--quiet", *left[start : start + 500])


def take_lock(path: Path) -> IO[str]:
    """Hold a lock until this process ends, in whatever way. Keep what is returned: the lock goes with it.

    Raises:
        SlurmError: another run holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = open(path, "a")  # noqa: SIM115
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise SlurmError(
            f"{path}: another run is at work in this folder (perhaps on another login node); wait for it, or stop it first"
        ) from None
    except OSError:
        pass  # a file system without locks: then the user has to see to it
    return handle


def cancel_left(prefix: str, folder: str, seconds: float = 120, step: float = 2) -> list[str]:
    """Cancel the jobs that a killed run left in the queue and wait until they are gone.

    They go on from their checkpoints when they are submitted again.

    Args:
        prefix: Of their names.
        folder: Their working directory.
        seconds: How long to wait.
        step: Between two looks, in seconds.

    Returns:
        Their numbers.

    Raises:
        SlurmError: they do not go.
    """

    def left() -> list[SlurmJob]:
        ours = [job for job in queue().values() if job.name.startswith(prefix) and os.path.realpath(job.folder) == folder]
        # Snakemake may itself be at work in a job, whatever its name.
        return [job for job in ours if job.state not in FINAL and job.number != os.environ.get("SLURM_JOB_ID")]

    found = [job.number for job in left()]
    if not found:
        return []
    cancel(found)
    end = time.monotonic() + seconds
    while jobs := left():
        if time.monotonic() > end:
            # A lost node cannot say that its jobs have ended; nothing of theirs can be at work then.
            if all(job.state == "COMPLETING" for job in jobs):
                break
            names = ", ".join(job.number for job in jobs)
            raise SlurmError(
                f"jobs {names} of an earlier run do not end (squeue --me); wait until they are gone, then start again"
            )
        time.sleep(step)
    return found
