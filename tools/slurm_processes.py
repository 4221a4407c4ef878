"""Processes of the test cluster: which are its own, and how they are ended without touching anyone else's.

A process is the cluster's own if it carries the cluster's SLURM_CONF in the environment that it was started with. A pid file
alone proves nothing: after a kill its number may belong to somebody else.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from slurm_files import ClusterError

PROC = Path("/proc")


def wait_until(true: Callable[[], bool], seconds: float) -> bool:
    """Whether it became true within so many seconds."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode(errors="replace")
    except OSError:
        return ""


def program(pid: int) -> str:
    """The name of a running process's program, at most 15 characters; empty where none runs (a zombie does not)."""
    stat = _read(PROC / str(pid) / "stat")
    name, _, rest = stat.partition("(")[2].rpartition(")")
    return "" if rest.split()[:1] in ([], ["Z"], ["X"]) else name


def parent(pid: int) -> int:
    """The parent's number, 0 where there is none."""
    fields = _read(PROC / str(pid) / "stat").rpartition(")")[2].split()
    return int(fields[1]) if len(fields) > 1 else 0


def environment(pid: int) -> dict[str, str]:
    """The environment that a process was started with."""
    return dict(entry.split("=", 1) for entry in _read(PROC / str(pid) / "environ").split("\0") if "=" in entry)


def open_files(pid: int) -> set[Path]:
    """What a process has open. What slurmd starts for a job keeps the log of its node open, and hides its environment."""
    found = set()
    with suppress(OSError):
        for entry in (PROC / str(pid) / "fd").iterdir():
            # It may be closed while we look.
            with suppress(OSError):
                found.add(entry.readlink())
    return found


def pids() -> list[int]:
    """The numbers of all processes of this machine."""
    return [int(path.name) for path in PROC.iterdir() if path.name.isdigit()]


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal; a process that is gone already is no error."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


@dataclass(frozen=True)
class Daemon:
    """One daemon of a cluster, by its pid file."""

    program: str
    pid_file: Path
    log: Path
    conf: Path

    @property
    def pid(self) -> int | None:
        """Its process, or None: no pid file, nothing running under that number, or somebody else's process."""
        text = _read(self.pid_file).strip()
        if not text.isdigit() or program(int(text)) != self.program:
            return None
        return int(text) if environment(int(text)).get("SLURM_CONF") == str(self.conf) else None

    def stop(self, patience: float = 20) -> None:
        """End it, by force after so many seconds, and remove what it left."""
        pid = self.pid
        if pid is not None:
            if patience > 0:
                send(pid, signal.SIGTERM)
            if not wait_until(lambda: self.pid != pid, patience):
                kill_at_once(lambda: tree([pid]))
        self.pid_file.unlink(missing_ok=True)

    def failure(self, what: str) -> ClusterError:
        """An error with the last lines of its log."""
        lines = _read(self.log).splitlines()[-12:]
        return ClusterError("\n  ".join([f"{self.program} {what}; the end of {self.log}:", *(lines or ["(empty)"])]))


def tree(roots: Iterable[int]) -> set[int]:
    """These processes and all that descend from them."""
    children: dict[int, list[int]] = {}
    for pid in pids():
        children.setdefault(parent(pid), []).append(pid)
    found: set[int] = set()
    waiting = list(roots)
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found.add(pid)
            waiting += children.get(pid, [])
    return found


def kill_at_once(find: Callable[[], set[int]]) -> None:
    """Kill all that is found. Each is stopped first, so that none can start another one or see the others die."""
    stopped: set[int] = set()
    while found := find() - stopped:
        for pid in found:
            send(pid, signal.SIGSTOP)
        stopped |= found
    for pid in stopped:
        send(pid, signal.SIGKILL)
    wait_until(lambda: not any(program(pid) for pid in stopped), 10)
