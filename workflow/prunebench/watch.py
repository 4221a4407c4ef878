"""What every job of a suite is doing, from files and squeue: what ``prunebench watch`` shows. It reads, and changes nothing.

Made for ten thousand jobs on a network file system: folders are listed, once each, and files are opened only of jobs at work.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from prunebench.artifacts import read_json
from prunebench.config import Suite
from prunebench.durations import Durations
from prunebench.errors import PrunebenchError
from prunebench.jobs import share_of
from prunebench.planned import STAGES, PlannedJob, planned_jobs
from prunebench.progress import FOLDER, Report, read_report, words
from prunebench.rates import read_benchmark
from prunebench.squeue import Queue, SlurmJob

State = Literal["done", "running", "silent", "failed", "queued", "waiting"]
STATES: tuple[State, ...] = get_args(State)
STARTING_SECONDS = 300.0
"""A job that has a log and has said nothing yet is taken to be starting for so long."""
BENCHMARKS = 2
"""So many finished jobs of each kind are asked how long they took."""
ERROR = re.compile(
    r"^(prunebench: .+|[\w.]*(Error|Exception|Interrupt)\b.*|.*\b(Killed|oom[-_]kill|out of memory)\b.*)", re.IGNORECASE
)


class Listing:
    """Which files there are, below the working directory; each folder is listed once, and none below one that is not there."""

    def __init__(self) -> None:
        self._names: dict[str, frozenset[str]] = {}

    def names(self, folder: str) -> frozenset[str]:
        """What is in a folder; nothing if it is not there."""
        if folder not in self._names:
            self._names[folder] = self._list(folder) if not folder or self.has(folder) else frozenset()
        return self._names[folder]

    def _list(self, folder: str) -> frozenset[str]:
        try:
            with os.scandir(folder or ".") as entries:
                return frozenset(entry.name for entry in entries)
        except OSError:
            return frozenset()

    def has(self, path: str) -> bool:
        """Whether there is such a file or folder."""
        folder, _, name = path.rpartition("/")
        return name in self.names(folder)

    def has_all(self, paths: Iterable[str]) -> bool:
        """Whether there are all of them."""
        return all(self.has(path) for path in paths)


@dataclass(frozen=True)
class Seen:
    """A job and what it is doing.

    Attributes:
        state: ``done``; ``running``; ``silent``: it began, and there has been no sign of it for too long; ``failed``; ``queued`` in
            SLURM; ``waiting`` to be started.
        report: What it says itself.
        slurm: What SLURM says of it.
        note: Why it failed, and the like.
        left: Seconds that it will take from here; None if nothing is known.
    """

    job: PlannedJob
    state: State
    report: Report | None = None
    slurm: SlurmJob | None = None
    note: str = ""
    left: float | None = None

    @property
    def share(self) -> float:
        """Which part of it is done."""
        return 1.0 if self.state == "done" else self.report.share if self.report else 0.0


@dataclass(frozen=True)
class Snapshot:
    """A suite at a time.

    Attributes:
        time: Seconds since 1970.
        seen: All jobs, in the order of the stages.
        queue: Jobs of this folder in SLURM; None where SLURM cannot be asked.
        accuracies: (dataset, model) to the validation accuracies of the dense networks that are there, in percent.
        notes: What could not be read.
    """

    suite: str
    time: float
    seen: list[Seen]
    queue: list[SlurmJob] | None
    accuracies: dict[tuple[str, str], list[float]]
    notes: list[str]

    def of(self, *states: State, stage: str | None = None) -> list[Seen]:
        """The jobs in some states, of a stage or of all."""
        return [seen for seen in self.seen if seen.state in states and stage in (None, seen.job.stage)]

    def stages(self) -> list[str]:
        """Those that the suite has."""
        return [stage for stage in STAGES if any(seen.job.stage == stage for seen in self.seen)]

    def work(self, stage: str | None = None) -> float | None:
        """Seconds that all jobs that are not done would take one after the other; None if it cannot be said of one of them."""
        ahead = [seen.left for seen in self.seen if seen.state != "done" and stage in (None, seen.job.stage)]
        return None if None in ahead else sum(filter(None, ahead))

    def left(self, stage: str | None = None) -> float | None:
        """Seconds until they are done if as many run side by side as now; None if that is not known, or none runs."""
        work, running = self.work(stage), len(self.of("running"))
        if work is None or not running:
            return None
        longest = max((seen.left or 0.0 for seen in self.seen if stage in (None, seen.job.stage)), default=0.0)
        return max(work / running, longest)

    @property
    def finished(self) -> bool:
        """Whether everything is done."""
        return all(seen.state == "done" for seen in self.seen)


class Watch:
    """Looks at a suite in the working directory, again and again; what does not change is remembered."""

    def __init__(self, suite: Suite) -> None:
        self.suite = suite
        self.jobs = planned_jobs(suite)
        self.queue = Queue(Path())
        self._places = [(keys_of(job, suite.suite), name_of(job, suite.suite)) for job in self.jobs]
        self._whole: set[str] = set()
        self._seconds: dict[str, float | None] = {}
        self._accuracies: dict[str, float | None] = {}

    def look(self) -> Snapshot:
        """What every job is doing now; that everything is done is said after a look at every file."""
        known = bool(self._whole)
        snapshot = self._look()
        if snapshot.finished and known:
            self._whole.clear()
            return self._look()
        return snapshot

    def _look(self) -> Snapshot:
        now, files = time.time(), Listing()
        self.queue.look()
        reports, notes = read_reports(self.suite.suite, files)
        if self.queue.note:
            notes.append(self.queue.note)
        # Of a job that is in the queue twice, the one at work.
        in_queue = sorted(self.queue.jobs or [], key=lambda each: each.at_work)
        queued = {tail: each for each in in_queue for tail in each.tails}
        seen: list[Seen] = []
        for job, (keys, name) in zip(self.jobs, self._places, strict=True):
            told = [reports[key] for key in keys if key in reports]
            report = max(told, key=lambda each: each.updated, default=None)
            found = self._see(job, report, queued.get(name), files, now)
            if job.dataset is None and found.state == "done" and not _up_to_date(job, seen, files):
                found = Seen(job, "waiting")
            seen.append(found)
        return Snapshot(self.suite.suite, now, self._with_left(seen, now), self.queue.jobs, self._dense(seen), notes)

    def _see(self, job: PlannedJob, report: Report | None, slurm: SlurmJob | None, files: Listing, now: float) -> Seen:
        """A job's state; what lives comes before what lies about."""
        quiet = now - report.updated if report else 0.0
        if report and report.state == "running" and quiet < report.alive_seconds:
            return Seen(job, "running", report, slurm)
        if slurm and not slurm.at_work:
            return Seen(job, "queued", None, slurm)
        if slurm and not (report and report.state == "running" and report.slurm_job == slurm.number):
            return Seen(job, "running", None, slurm, "starting")
        if not slurm and self._done(job, report is not None, files):
            return Seen(job, "done")
        if report and report.state == "running":
            gone = self.queue.jobs is not None and report.slurm_job and not slurm
            return Seen(job, "silent", report, slurm, "SLURM has it no more" if gone else "no sign of life")
        if report and report.state == "failed":
            return Seen(job, "failed", report, None, report.error)
        if report:
            return Seen(job, "waiting", report, None, "stopped")
        if files.has(job.log) and not (job.benchmark and files.has(job.benchmark)):
            return self._by_log(job, now)
        return Seen(job, "waiting")

    def _done(self, job: PlannedJob, suspect: bool, files: Listing) -> bool:
        """Whether its results are there, all of them.

        Every network has a folder. So of a job that was whole at an earlier look, the benchmark, which Snakemake writes when it
        succeeds, and the chain's folder are enough.
        """
        folder = "/".join(job.outputs[0].split("/")[:7])
        if job.log in self._whole and not suspect and job.benchmark and files.has_all([job.benchmark, folder]):
            return True
        if files.has_all(job.outputs):
            self._whole.add(job.log)
            return True
        self._whole.discard(job.log)
        return False

    def _by_log(self, job: PlannedJob, now: float) -> Seen:
        """The state of a job of which there is a log alone."""
        try:
            last, written = last_line(Path(job.log))
        except OSError:
            return Seen(job, "waiting")
        if last.startswith("prunebench: stopped"):
            return Seen(job, "waiting", note="stopped")
        if ERROR.match(last):
            return Seen(job, "failed", note=last)
        if now - written < STARTING_SECONDS:
            return Seen(job, "running", note="starting")
        return Seen(job, "silent", note="its log ends without an error")

    def _with_left(self, seen: list[Seen], now: float) -> list[Seen]:
        """The same jobs with the time that each will take."""
        durations = Durations()
        asked: dict[tuple[str, ...], int] = {}
        for each in seen:
            kind = kind_of(each.job)
            if each.state == "done" and each.job.benchmark and asked.get(kind, 0) < BENCHMARKS:
                asked[kind] = asked.get(kind, 0) + 1
                seconds = self._benchmark(each.job.benchmark)
                if seconds is not None:
                    durations.add(kind, seconds)
        for each in seen:
            # Where none has finished, those at work say how long it will be. A later attempt began somewhere in the middle.
            report = each.report
            if report and each.state == "running" and report.attempt == 1 and report.share >= 0.1:
                kind = kind_of(each.job)
                if not durations.number(kind[:1]):
                    durations.add(kind, (now - report.started) / report.share)
        return [each if each.state == "done" else _with_time(each, durations) for each in seen]

    def _benchmark(self, path: str) -> float | None:
        if path not in self._seconds:
            try:
                self._seconds[path] = read_benchmark(Path(path)).seconds
            except PrunebenchError:
                # Others of its kind say it too; `prunebench plan` names the file.
                self._seconds[path] = None
        return self._seconds[path]

    def _dense(self, seen: list[Seen]) -> dict[tuple[str, str], list[float]]:
        """Validation accuracies of the dense networks by experiment."""
        found: dict[tuple[str, str], list[float]] = {}
        for each in seen:
            if each.job.dataset and each.job.model:
                mine = found.setdefault((each.job.dataset, each.job.model), [])
                if each.job.stage == "dense" and each.state == "done":
                    accuracy = self._accuracy(each.job.outputs[0].rpartition("/")[0] + "/training.json")
                    mine += [] if accuracy is None else [accuracy]
        return found

    def _accuracy(self, path: str) -> float | None:
        if path not in self._accuracies:
            try:
                self._accuracies[path] = float(read_json(Path(path), ["validation_accuracy"])["validation_accuracy"])
            except (PrunebenchError, OSError, TypeError, ValueError):
                # Not here: who reads it for a table says what is wrong with it.
                self._accuracies[path] = None
        return self._accuracies[path]


def _up_to_date(job: PlannedJob, others: list[Seen], files: Listing) -> bool:
    """Whether a job on the whole suite came after all others: if not, its results are those of a smaller or an earlier suite."""
    if any(seen.state != "done" for seen in others):
        return False
    # Snakemake writes a benchmark whenever a job has run.
    benchmarks = (seen.job.benchmark for seen in others if seen.job.benchmark and files.has(seen.job.benchmark))
    try:
        made = Path(job.outputs[0]).stat().st_mtime
        return all(Path(benchmark).stat().st_mtime <= made for benchmark in benchmarks)
    except OSError:
        return False


def _with_time(seen: Seen, durations: Durations) -> Seen:
    # What runs where Snakemake runs takes seconds, and no record is kept of it.
    mean = 0.0 if seen.job.local else durations.mean(kind_of(seen.job))
    left = None if mean is None else mean * (1.0 - seen.share)
    return Seen(seen.job, seen.state, seen.report, seen.slurm, seen.note, left)


def keys_of(job: PlannedJob, suite: str) -> list[str]:
    """The work folders that a job's progress files may be of, below ``.work``."""
    if job.work is None:
        return []
    work = job.work.removeprefix(f"results/{suite}/.work/")
    if job.chains:
        return [f"{work}/{name}" for name in job.chains.chains]
    if job.group:
        assert job.batch is not None
        references = [item.evaluation for item in job.group.items]
        return [f"{work}/.jobs/{share_of(job.group.folders(job.batch), references)}"]
    return [work]


def kind_of(job: PlannedJob) -> tuple[str, ...]:
    """What decides how long a job takes, but the replicate."""
    what = job.group.names[0] if job.group else job.name
    return (job.stage, job.dataset or "", job.model or "", what)


def name_of(job: PlannedJob, suite: str) -> str:
    """A job's name in SLURM's queue, without the prefix: its rule, the suite and the values of its wildcards."""
    values = [] if job.replicate is None else [str(job.replicate)]
    if job.rule == job.stage and job.dataset and job.model:
        # One rule for all experiments.
        values = [suite, job.dataset, job.model, *values]
    return "-".join(filter(None, [job.rule, suite, "_".join(values)]))


def read_reports(suite: str, files: Listing) -> tuple[dict[str, Report], list[str]]:
    """The progress files of a suite by work folder, and what is wrong with those that cannot be read."""
    found: dict[str, Report] = {}
    notes = []
    folder = f"results/{suite}/.work/{FOLDER}"
    for name in sorted(files.names(folder)):
        if name.endswith(".json") and not name.startswith("."):
            path = Path(folder, name)
            try:
                report = read_report(path)
            except PrunebenchError as error:
                # One that has gone meanwhile is of a job that has just finished.
                notes += [str(error)] if path.exists() else []
            except OSError as error:
                notes.append(f"{path}: {error.strerror}")
            else:
                found[report.work] = report
    return found, notes


def last_line(log: Path) -> tuple[str, float]:
    """The last line of a log that is not empty, and when the log was written."""
    with open(log, "rb") as handle:
        status = os.fstat(handle.fileno())
        handle.seek(max(0, status.st_size - 4000))
        text = handle.read().decode("utf-8", errors="replace")
    # Progress bars go back to the beginning of their line.
    lines = [line.strip() for line in text.replace("\r", "\n").splitlines()]
    return next((line for line in reversed(lines) if line), ""), status.st_mtime


def label(job: PlannedJob, several: bool = True) -> str:
    """A job for people: ``one-shot cka, digits resnet20 r0``; without the experiment if there are not several."""
    name = f"{job.group.names[0]} batch {job.batch}" if job.group else job.name
    experiment = f"{job.dataset} {job.model}" if several and job.dataset else ""
    replicate = "" if job.replicate is None else f"r{job.replicate}"
    return ", ".join(filter(None, [f"{job.stage} {name}".strip(), f"{experiment} {replicate}".strip()]))


def to_json(snapshot: Snapshot) -> dict[str, Any]:
    """A snapshot as plain values; times in seconds, accuracies in percent."""
    return {
        "suite": snapshot.suite,
        "time": snapshot.time,
        "finished": snapshot.finished,
        "left_s": snapshot.left(),
        "work_left_s": snapshot.work(),
        "stages": {
            stage: {
                "total": len(snapshot.of(*STATES, stage=stage)),
                **{state: len(snapshot.of(state, stage=stage)) for state in STATES},
                "left_s": snapshot.left(stage),
                "work_left_s": snapshot.work(stage),
            }
            for stage in snapshot.stages()
        },
        "jobs": [_job(seen) for seen in snapshot.seen if seen.state not in ("done", "waiting") or seen.report],
        "dense_validation_accuracy_percent": [
            {"dataset": dataset, "model": model, "replicates": values} for (dataset, model), values in snapshot.accuracies.items()
        ],
        "slurm": None if snapshot.queue is None else [vars(job) for job in snapshot.queue],
        "notes": snapshot.notes,
    }


def _job(seen: Seen) -> dict[str, Any]:
    job = seen.job
    return {
        **{key: getattr(job, key) for key in ("stage", "rule", "name", "dataset", "model", "replicate", "log")},
        "state": seen.state,
        "note": seen.note,
        "share": seen.share,
        "left_s": seen.left,
        "at": words(seen.report.at) if seen.report else "",
        "report": seen.report.model_dump(mode="json") if seen.report else None,
        "slurm": vars(seen.slurm) if seen.slurm else None,
    }
