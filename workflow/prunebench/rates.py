"""How fast work is done: a table of reference rates, held to the benchmarks that Snakemake recorded of finished jobs.

The reference says how time divides among the kinds of work, the records by which factor a stage is slower or faster. The median of the
recorded factors is taken, since a job that found finished steps after a kill took seconds; what is recorded of it is its last attempt.
"""

from __future__ import annotations

import csv
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from prunebench.artifacts import read_json
from prunebench.config import Suite
from prunebench.costs import Costs, Work
from prunebench.errors import PrunebenchError
from prunebench.planned import PlannedJob, planned_jobs

KINDS = {
    "dense": "training",
    "oracle": "training",
    "one-shot": "training",
    "iterative": "training",
    "one-shot-filters": "training",
    "score": "scoring",
    "audit": "scoring",
    "evaluate": "evaluation",
    "deliver": "files",
    "measure": "measuring",
}
"""Stages whose records stand in for each other."""
FEWEST = 3
"""Records below which their scatter says nothing."""
LEAST_FACTOR = 1.2
"""No estimate is said to be better than this: machines differ from day to day."""
FOREIGN_FACTOR = 1.5
"""Nor than this where records are of other stages of the same kind."""


@dataclass(frozen=True)
class Rate:
    """A row of the table: units a second (``start``: seconds of a job), and by which factor it may be off.

    Attributes:
        value: In the row's unit.
        unit: In words.
        factor: The truth may be so many times larger or smaller.
        status: ``measured`` or ``assumed``.
        source: Where it is from.
    """

    value: float
    unit: str
    factor: float
    status: str
    source: str


@dataclass(frozen=True)
class Duration:
    """Seconds that a job is expected to take, between ``seconds`` / ``factor`` and ``seconds`` * ``factor``."""

    seconds: float
    factor: float


@dataclass(frozen=True)
class Benchmark:
    """What Snakemake recorded of a job.

    Attributes:
        seconds: Wall time.
        memory_mb: Largest resident memory in MB; None where the system did not tell.
    """

    seconds: float
    memory_mb: float | None


@dataclass(frozen=True)
class Record:
    """A finished job: what it was, what it had to do, and what it took with how many CPU threads."""

    job: PlannedJob
    work: Work
    benchmark: Benchmark
    threads: int = 1


def reference(hardware: str) -> dict[str, Rate]:
    """The rates of ``cpu``, one core, or ``gpu``, by the names of ``Work``, and ``start``."""
    with (resources.files("prunebench") / "rates.csv").open(encoding="utf-8") as handle:
        rows = [row for row in csv.DictReader(handle) if row["hardware"] == hardware]
    return {
        row["quantity"]: Rate(float(row["value"]), row["unit"], float(row["factor"]), row["status"], row["source"])
        for row in rows
    }


def read_benchmark(path: Path) -> Benchmark:
    """What Snakemake wrote of a job; of several runs the last.

    Raises:
        PrunebenchError: the file cannot be read or is no such record.
    """
    try:
        with open(path, encoding="utf-8", newline="") as handle:
            rows = list(csv.DictReader(handle, delimiter="\t"))
        seconds = float(rows[-1]["s"])
        # Snakemake writes NA or - where a job was over before it looked.
        memory = rows[-1].get("max_rss") or "NA"
        found = Benchmark(seconds, None if memory in ("NA", "-") else float(memory))
    except OSError as error:
        raise PrunebenchError(f"{path}: cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error, IndexError, KeyError, TypeError, ValueError):
        raise PrunebenchError(f"{path}: not a benchmark that Snakemake wrote; delete the file") from None
    if not (math.isfinite(seconds) and seconds >= 0):
        raise PrunebenchError(f"{path}: a time of {seconds} s; delete the file")
    return found


def _names(job: PlannedJob) -> list[str]:
    """Jobs that records are shared by, the most like it first: of the same evaluations, of the stage, of its kind."""
    own = [f"{job.stage}: {', '.join(job.group.names)}"] if job.group else []
    return [*own, job.stage, f"kind: {KINDS.get(job.stage)}"]


class Clock:
    """From work to time, by the reference rates of some hardware and the records that there are."""

    def __init__(self, hardware: str, threads: int = 1, records: Sequence[Record] = ()) -> None:
        self.hardware = hardware
        self.threads = threads
        self.rates = reference(hardware)
        self.start = self._fitted_start(records)
        self.factors: dict[str, list[float]] = {}
        self.memory_mb: dict[str, float] = {}
        for record in records:
            worked = self._worked(record.work, record.threads)
            if record.benchmark.memory_mb is not None:
                known = self.memory_mb.get(record.job.stage, 0.0)
                self.memory_mb[record.job.stage] = max(known, record.benchmark.memory_mb)
            if worked <= 0:
                continue
            # A twentieth at least: a start that took all of the time says nothing of the work.
            factor = max(record.benchmark.seconds - self.start, record.benchmark.seconds / 20) / worked
            for name in _names(record.job):
                self.factors.setdefault(name, []).append(factor)

    def of(self, job: PlannedJob, work: Work) -> Duration:
        """How long a job takes."""
        worked = self._worked(work, self.threads)
        for name in _names(job):
            if name in self.factors:
                factors = self.factors[name]
                return Duration(self.start + worked * statistics.median(factors), _scatter(factors, own=name == _names(job)[0]))
        return Duration(self.start + worked, self._doubt(work))

    def _shares(self, work: Work, threads: int) -> dict[str, float]:
        """Seconds by the reference rates, of each kind of work."""
        shares = {name: amount / self.rates[name].value for name, amount in vars(work).items()}
        if self.hardware == "cpu":
            # A further thread does two thirds of what the first does.
            shares["macs"] /= 1 + (threads - 1) * 2 / 3
        return shares

    def shares(self, works: Sequence[Work]) -> dict[str, float]:
        """Which part of the time of some jobs each kind of work has, by the reference rates, the start included."""
        seconds = {**self._shares(sum(works, Work()), self.threads), "start": self.start * len(works)}
        whole = sum(seconds.values()) or 1.0
        return {name: part / whole for name, part in seconds.items()}

    def _worked(self, work: Work, threads: int) -> float:
        """Seconds by the reference rates, without the start."""
        return sum(self._shares(work, threads).values())

    def _doubt(self, work: Work) -> float:
        """The factors of the rates, by the time that each has a part in."""
        shares = {**self._shares(work, self.threads), "start": self.start}
        logarithms = sum(seconds * math.log(self.rates[name].factor) for name, seconds in shares.items())
        return float(math.exp(logarithms / max(sum(shares.values()), 1e-9)))

    def _fitted_start(self, records: Sequence[Record]) -> float:
        """Seconds until a job begins to work: what is left of the records of training where there is no work."""
        start = self.rates["start"].value
        trained = [record for record in records if KINDS.get(record.job.stage) == "training" and record.benchmark.seconds > 0]
        works = [self._worked(record.work, record.threads) for record in trained]
        if len(trained) < FEWEST or max(works) < 3 * min(works):
            return min([start, *(record.benchmark.seconds for record in trained)])
        # Least squares of relative errors: seconds = start + factor * work, each equation divided by its seconds.
        import numpy as np

        seconds = np.array([record.benchmark.seconds for record in trained])
        matrix = np.stack([1 / seconds, np.array(works) / seconds], axis=1)
        fitted = float(np.linalg.lstsq(matrix, np.ones(len(trained)), rcond=None)[0][0])
        return min(max(fitted, 0.0), float(seconds.min()))


def _scatter(factors: Sequence[float], own: bool) -> float:
    """By which factor nine of ten records are off the median at most."""
    least = LEAST_FACTOR if own else FOREIGN_FACTOR
    if len(factors) < FEWEST:
        return max(least, FOREIGN_FACTOR)
    middle = statistics.median(factors)
    off = sorted(abs(math.log(factor / middle)) for factor in factors)
    return max(least, math.exp(off[math.ceil(0.9 * len(off)) - 1]))


def records_of(suite: Suite, costs: Costs, folder: Path) -> tuple[list[Record], list[str]]:
    """What was recorded of the jobs of a suite that ran in a folder, and a line on each record that cannot be read."""
    records, problems = [], []
    for job in planned_jobs(suite):
        path = folder / job.benchmark if job.benchmark else None
        if path is None or not path.is_file():
            continue
        try:
            records.append(Record(job, costs.of(job).work, read_benchmark(path), suite.threads))
        except PrunebenchError as error:
            problems.append(str(error))
    return records, problems


def ran_on(suite: Suite, folder: Path) -> str | None:
    """``cpu`` or ``gpu``: what the jobs of a suite ran on, by what they noted of the machine; None where none is finished.

    Raises:
        PrunebenchError: the first note that there is cannot be read.
    """
    for job in planned_jobs(suite):
        path = folder / next((output for output in job.outputs if output.endswith("training.json")), "")
        if job.stage == "dense" and path.is_file():
            hardware = read_json(path, ["provenance"])["provenance"].get("hardware", {})
            return "gpu" if hardware.get("gpus") and suite.device != "cpu" else "cpu"
    return None
