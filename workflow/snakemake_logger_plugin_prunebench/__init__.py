"""Progress for people: one line for each finished job, with the share done and the time left. ``snakemake --logger prunebench``.

Snakemake finds this module by its name once the package is installed. Warnings and errors pass through as Snakemake words them; the
long lists of files do not.
"""

from __future__ import annotations

import logging
import sys
import time
from collections import Counter
from typing import Any

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

from prunebench.durations import Durations, clock


class Estimate:
    """Time left from what has finished: jobs of the same rule take about as long, and jobs side by side share the time."""

    def __init__(self) -> None:
        self.total: Counter[str] = Counter()
        self.done: Counter[str] = Counter()
        self.durations = Durations()
        self.spent = 0.0

    def finish(self, rule: str, seconds: float) -> None:
        """Count a finished job."""
        self.done[rule] += 1
        self.spent += seconds
        self.durations.add(_kind(rule), seconds)

    def left(self, elapsed: float) -> float | None:
        """Seconds that the remaining jobs will take, or None as long as nothing is known."""
        # The first few say little: they are of one kind.
        if self.done.total() < min(5, self.total.total()) or elapsed <= 0:
            return None
        ahead = {rule: number - self.done[rule] for rule, number in self.total.items()}
        remaining = sum(number * (self.durations.mean(_kind(rule)) or 0.0) for rule, number in ahead.items())
        return remaining / max(self.spent / elapsed, 1.0)


def _kind(rule: str) -> tuple[str, ...]:
    """Rules are named from the general to the particular: one_shot_cka_digits_resnet20."""
    return tuple(rule.split("_"))


class LogHandler(LogHandlerBase):
    """What Snakemake calls with every record of its log."""

    def __post_init__(self) -> None:
        """Begin with nothing known."""
        self.estimate = Estimate()
        self.started = time.monotonic()
        self.running: dict[int, tuple[str, str, float]] = {}
        self.stream = sys.stdout if self.common_settings.stdout else sys.stderr

    def emit(self, record: logging.LogRecord) -> None:
        """Print what a person wants to know of a record; nothing for the others."""
        try:
            event = getattr(record, "event", None)
            handle = {
                LogEvent.RUN_INFO: self._plan,
                LogEvent.JOB_INFO: self._start,
                LogEvent.JOB_FINISHED: self._finish,
                LogEvent.JOB_ERROR: self._fail,
                LogEvent.GROUP_ERROR: self._fail,
            }.get(event)
            if handle:
                handle(vars(record))
            elif event == LogEvent.ERROR or record.levelno >= logging.WARNING:
                self._print(record.getMessage())
            elif str(record.msg).startswith("Trying to restart job"):
                jobid = int("".join(filter(str.isdigit, str(record.msg))))
                self._print(f"Tried again: {self.running[jobid][1]}")
            elif str(record.msg).startswith("Nothing to be done"):
                self._print("Nothing to be done: all results are there and up to date.")
        except Exception:
            self.handleError(record)

    def _print(self, text: str) -> None:
        print(text, file=self.stream, flush=True)

    def _plan(self, record: dict[str, Any]) -> None:
        stats = record.get("stats") or {}
        self.estimate.total = Counter({rule: number for rule, number in stats.items() if rule != "total"})
        self.started = time.monotonic()
        self._print(f"{self.estimate.total.total()} jobs: {', '.join(f'{n} {rule}' for rule, n in self.estimate.total.items())}")

    def _start(self, record: dict[str, Any]) -> None:
        rule = record.get("rule_name") or "?"
        self.running[record["jobid"]] = (rule, record.get("rule_msg") or rule, time.monotonic())

    def _finish(self, record: dict[str, Any]) -> None:
        rule, message, began = self.running.pop(record["job_id"], ("?", "", time.monotonic()))
        now = time.monotonic()
        self.estimate.finish(rule, now - began)
        done, total = self.estimate.done.total(), self.estimate.total.total()
        left = self.estimate.left(now - self.started)
        ahead = f", about {clock(left)} left" if left and done < total else ""
        width = len(str(total))
        self._print(f"[{done:{width}}/{total}] {done / max(total, 1):4.0%}  {clock(now - self.started)}{ahead}  {message}")

    def _fail(self, record: dict[str, Any]) -> None:
        # On a cluster the executor adds the log of the scheduler, and says what became of the job: a time limit is in no log of ours.
        logs = record.get("log") or record.get("aux_logs") or []
        self._print(f"FAILED: {record.get('rule_name', 'a group of jobs')}; its log says why: {', '.join(logs) or 'none'}")
        if record.get("rule_msg"):
            self._print(f"    {record['rule_msg']}")
        for path in logs:
            try:
                with open(path, encoding="utf-8", errors="replace") as handle:
                    lines = handle.read().replace("\r", "\n").strip().splitlines()
            except OSError:
                continue
            for line in lines[-3:]:
                self._print(f"    {line}")

    @property
    def writes_to_stream(self) -> bool:
        """It replaces Snakemake's own output."""
        return True

    @property
    def writes_to_file(self) -> bool:
        """It keeps no file."""
        return False

    @property
    def has_filter(self) -> bool:
        """It decides by itself what to print."""
        return True

    @property
    def has_formatter(self) -> bool:
        """It words its lines itself."""
        return True

    @property
    def needs_rulegraph(self) -> bool:
        """It needs no graph."""
        return False
