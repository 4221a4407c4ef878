"""What SLURM says of one's own jobs, by ``squeue``; nothing where there is no SLURM."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

FORMAT = "%i|%T|%r|%M|%l|%N|%j|%Z"
ASK_SECONDS = 30.0
"""squeue is asked this often at most: the scheduler has others to serve."""
AT_WORK = ("RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED", "STOPPED")


@dataclass(frozen=True)
class SlurmJob:
    """A line of squeue.

    Attributes:
        reason: Why it waits: ``Resources``, ``Priority`` ...
        elapsed: As SLURM writes it, ``1-02:03:04``, as is ``limit``.
        name: Which job of the workflow it is, as our executor says it: ``<prefix>-<rule>-<suite>-<values of wildcards>``.
        folder: Its working directory.
    """

    number: str
    state: str
    reason: str
    elapsed: str
    limit: str
    nodes: str
    name: str
    folder: str

    @property
    def tails(self) -> Iterator[str]:
        """Its name without a prefix, which may be of several parts."""
        tail = self.name
        while "-" in tail:
            tail = tail.partition("-")[2]
            yield tail

    @property
    def at_work(self) -> bool:
        """Whether it has a node."""
        return self.state in AT_WORK


def parse(text: str) -> list[SlurmJob]:
    """The jobs in squeue's output; lines of another form are none."""
    # The folder comes last, since it may hold any character.
    fields = [line.split("|", FORMAT.count("|")) for line in text.splitlines()]
    return [SlurmJob(*each) for each in fields if len(each) == FORMAT.count("|") + 1]


@dataclass
class Queue:
    """One's own jobs that were submitted from a folder.

    Attributes:
        jobs: As of the last question; None where SLURM could not be asked.
        note: Why not, where there is a squeue.
    """

    folder: Path
    jobs: list[SlurmJob] | None = None
    note: str = ""
    _asked: float = field(default=-ASK_SECONDS)

    def look(self) -> None:
        """Ask squeue, unless it was asked just before."""
        if shutil.which("squeue") is None or time.monotonic() - self._asked < ASK_SECONDS:
            return
        self._asked = time.monotonic()
        try:
            answer = subprocess.run(
                ["squeue", "--me", "--noheader", "-o", FORMAT], capture_output=True, text=True, timeout=20, check=True
            )
        except subprocess.CalledProcessError as error:
            said = (error.stderr or "").strip().splitlines() or [f"exit code {error.returncode}"]
            self.jobs, self.note = None, f"squeue failed: {said[-1]}"
        except (OSError, subprocess.TimeoutExpired) as error:
            self.jobs, self.note = None, f"squeue failed: {error}"
        else:
            here = str(self.folder.resolve())
            self.jobs, self.note = [job for job in parse(answer.stdout) if str(Path(job.folder).resolve()) == here], ""
