"""What a suite will take, before it runs: jobs, hours, disk and memory by stage, and whether its jobs are worth their start."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from tabulate import tabulate

from prunebench.config import Suite, read
from prunebench.costs import Cost, Costs
from prunebench.division import LONG_ENOUGH_MINUTES, advice
from prunebench.errors import PrunebenchError
from prunebench.planned import RUNTIME_MINUTES, STAGES, PlannedJob, planned_jobs
from prunebench.rates import Clock, Duration, Record, ran_on, records_of

OVERHEAD_SECONDS = 30
"""What a job on a cluster waits for at most beside its queue: submission, start, and the next look at its state."""
WITHOUT_GPU = ("deliver",)
ATTEMPTS = 4
"""The first and the retries of the profile for SLURM; a rule asks at each for as many times what it asks for first."""


@dataclass(frozen=True)
class Estimate:
    """A job and what it takes.

    Attributes:
        job: The job.
        cost: What it has to do.
        duration: What it took if that was recorded, else what it is expected to take.
        done: Whether its files are there.
    """

    job: PlannedJob
    cost: Cost
    duration: Duration
    done: bool

    @property
    def left(self) -> float:
        """Seconds still to be spent on it."""
        return 0.0 if self.done else self.duration.seconds


def plan(config: Path, others: Sequence[Sequence[Path]], hardware: str | None, at_once: int) -> dict[str, Any]:
    """The summary of a suite that runs, or will run, in the working directory.

    Args:
        config: Its file.
        others: Suites whose records say how fast such machines are: their configs and, if not here, the folders that they ran in.
        hardware: ``cpu``, ``gpu``, or None for what the records or the config say.
        at_once: Jobs that may run at the same time.

    Raises:
        PrunebenchError: a config is refused.
    """
    suite = read(config)
    costs, here = Costs(suite), Path()
    own, notes = records_of(suite, costs, here)
    recorded = [(str(config), ran_on(suite, here), own)]
    for option in others:
        found, problems = _of_other(option, here)
        recorded.append(found)
        notes += problems
    hardware = hardware or next((machine for _, machine, _ in recorded if machine), None) or hardware_of(suite)
    usable = []
    for name, machine, records in recorded:
        if machine in (None, hardware):
            usable += records
        elif records:
            notes.append(f"{name}: its records are of a {machine}, so they are left out; --hardware {machine} plans with them")
    clock = Clock(hardware, suite.threads, usable)
    if suite.external.rules:
        notes.append(f"jobs of your own rules are not counted: {', '.join(suite.external.rules)}")
    some = estimates(suite, costs, clock, own, here)
    better = None if all(each.done for each in some) else advice(suite, costs, clock, at_once)
    return {**summary(suite, some, clock, at_once, notes), "advice": better}


def _of_other(option: Sequence[Path], here: Path) -> tuple[tuple[str, str | None, list[Record]], list[str]]:
    """Of a value of ``--records``: its name, what the suite ran on, its records, and what cannot be read."""
    config, *folders = option
    if len(folders) > 1:
        raise PrunebenchError(
            f"--records {config}: {len(folders)} folders, expected one at most; repeat the option for more suites"
        )
    suite, folder = read(config), folders[0] if folders else here
    records, problems = records_of(suite, Costs(suite), folder)
    if not records:
        problems.append(f"{config}: no benchmarks in {folder / 'logs' / suite.suite}; name the folder that it ran in after it")
    return (str(config), ran_on(suite, folder), records), problems


def hardware_of(suite: Suite) -> str:
    """What jobs would run on here."""
    if suite.device == "auto":
        return "gpu" if Path("/dev/nvidiactl").exists() else "cpu"
    return "cpu" if suite.device == "cpu" else "gpu"


def estimates(suite: Suite, costs: Costs, clock: Clock, records: Sequence[Record], folder: Path) -> list[Estimate]:
    """All jobs of a suite that runs in a folder; ``records`` are of its own finished jobs."""
    recorded = {record.job.log: record.benchmark for record in records}
    found = []
    for job in planned_jobs(suite):
        cost = costs.of(job)
        done = is_done(job, folder)
        known = recorded.get(job.log) if done else None
        found.append(Estimate(job, cost, Duration(known.seconds, 1.0) if known else clock.of(job, cost.work), done))
    return found


def is_done(job: PlannedJob, folder: Path) -> bool:
    """Whether a job's results are there; its log and its benchmark may be gone."""
    return all((folder / output).exists() for output in job.outputs)


def submitted(some: Iterable[Estimate]) -> list[Estimate]:
    """Those that a cluster sees: not the local ones, and, as long as there are others, not the finished ones."""
    seen = [each for each in some if not each.job.local]
    return [each for each in seen if not each.done] or seen


def longest_path(some: Iterable[Estimate]) -> float:
    """Seconds that are left with any number of jobs at once: the longest chain of jobs that wait for each other."""
    longest: dict[tuple[Any, ...], dict[str, float]] = {}
    for each in some:
        place = longest.setdefault((each.job.dataset, each.job.model, each.job.replicate), dict.fromkeys(STAGES, 0.0))
        place[each.job.stage] = max(place[each.job.stage], each.left)
    measured: dict[tuple[Any, Any], float] = {}
    everything = [0.0]
    for (dataset, model, _), of in longest.items():
        scored = of["score"] + of["rank"] + max(of["iterative"], of["one-shot"] + of["one-shot-filters"])
        networks = max(of["dense"] + scored, of["deliver"])
        measured[dataset, model] = max(measured.get((dataset, model), 0.0), networks)
        everything += [networks + of["evaluate"], of["dense"] + of["oracle"], max(of["dense"], of["deliver"]) + of["audit"]]
    for (dataset, model, _), of in longest.items():
        everything.append(measured[dataset, model] + of["measure"])
    of_suite = longest.get((None, None, None), {})
    return max(everything) + of_suite.get("collect", 0.0) + max(of_suite.get("tables", 0.0), of_suite.get("figures", 0.0))


def hours(some: Iterable[Estimate], cores: int = 1) -> list[float]:
    """Hours that are left, as low, expected, high."""
    left = [(each.left * cores / 3600, each.duration.factor) for each in some]
    return [sum(h / f for h, f in left), sum(h for h, _ in left), sum(h * f for h, f in left)]


def summary(suite: Suite, some: Sequence[Estimate], clock: Clock, at_once: int, notes: Sequence[str]) -> dict[str, Any]:
    """All that is known, as plain values: for ``--json`` and for ``text``.

    Args:
        suite: The suite.
        some: Its jobs.
        clock: What they were estimated by.
        at_once: Jobs that may run at the same time.
        notes: What a reader has to know beside.
    """
    stages = [_row(stage, [each for each in some if each.job.stage == stage], suite, clock) for stage in STAGES]
    rows = [row for row in stages if row["jobs"]]
    on_cluster = submitted(some)
    minutes = [each.duration.seconds / 60 for each in on_cluster]
    work = hours(each for each in some if not each.job.local)
    path = longest_path(some) / 3600
    doubt = work[2] / work[1] if work[1] else 1.0
    shares = clock.shares([each.cost.work for each in some if not each.job.local])
    return {
        "suite": suite.suite,
        "hardware": clock.hardware,
        "stages": rows,
        "total": {
            "jobs": len(some),
            "done": sum(each.done for each in some),
            "gpu_hours": [sum(row["gpu_hours"][i] for row in rows) for i in range(3)],
            "cpu_hours": [sum(row["cpu_hours"][i] for row in rows) for i in range(3)],
            "disk_bytes": sum(row["disk_bytes"] for row in rows),
            "memory_mb": max((row["memory_mb"] for row in rows if row["memory_mb"]), default=None),
        },
        "submitted": {
            "jobs": len(on_cluster),
            "median_minutes": statistics.median(minutes) if minutes else 0.0,
            "shorter_than_10_minutes": sum(each < LONG_ENOUGH_MINUTES for each in minutes) / max(1, len(minutes)),
        },
        "wall_hours": {
            "jobs_at_once": at_once,
            "longest_chain": path,
            "low": max(path, work[1] / at_once) / doubt,
            "high": (path * (1 - 1 / at_once) + work[1] / at_once) * doubt,
        },
        "start_seconds": clock.start,
        "rates": {name: {**vars(rate), "share": shares[name]} for name, rate in clock.rates.items()},
        "records": {name: len(factors) for name, factors in clock.factors.items() if name in STAGES},
        "warnings": [*notes, *_too_long(on_cluster, clock.hardware)],
    }


def _row(stage: str, some: Sequence[Estimate], suite: Suite, clock: Clock) -> dict[str, Any]:
    """A stage's part of the summary."""
    minutes = [each.duration.seconds / 60 for each in some]
    local = any(each.job.local for each in some)
    on_gpu = clock.hardware == "gpu" and not local and stage not in WITHOUT_GPU
    return {
        "stage": stage,
        "local": local,
        "jobs": len(some),
        "done": sum(each.done for each in some),
        "median_minutes": statistics.median(minutes) if minutes else 0.0,
        "longest_minutes": max(minutes, default=0.0),
        "gpu_hours": hours(some) if on_gpu else [0.0, 0.0, 0.0],
        "cpu_hours": hours(some, 1 if local else suite.threads),
        "disk_bytes": sum(each.cost.disk for each in some),
        "memory_mb": clock.memory_mb.get(stage),
    }


def _too_long(some: Iterable[Estimate], hardware: str) -> list[str]:
    """A line on each stage whose jobs take longer than their rule asks for, on a cluster that ends them then."""
    longest: dict[str, Estimate] = {}
    for each in some:
        asked = RUNTIME_MINUTES.get(each.job.stage, math.inf)
        if each.duration.seconds / 60 > asked and each.left > getattr(longest.get(each.job.stage), "left", 0.0):
            longest[each.job.stage] = each
    # Each attempt goes on where the one before was ended: 1, 1 + 2, 1 + 2 + 3 ... times what is asked for first.
    within = list(accumulate(range(1, ATTEMPTS + 1)))
    lines = []
    for stage, each in longest.items():
        minutes, asked = each.duration.seconds / 60, RUNTIME_MINUTES[stage]
        line = f"{stage}: jobs of up to {minutes:.0f} minutes, but rules ask a cluster for {asked}. "
        if minutes <= within[-1] * asked:
            attempt = next(number for number, times in enumerate(within, start=1) if minutes <= times * asked)
            line += f"Retries ask for more and go on from checkpoints: such a job ends in attempt {attempt} of {ATTEMPTS}"
        else:
            less = "Smaller jobs" if hardware == "gpu" else "A GPU (--hardware gpu) or smaller jobs"
            line += (
                f"All {ATTEMPTS} attempts together have {within[-1] * asked}: such a job fails, and goes on when the run is started "
                f"again. {less} take less"
            )
        lines.append(line)
    return lines


def text(found: dict[str, Any]) -> str:
    """The summary for people."""
    on_gpu = found["hardware"] == "gpu"
    headers = ["stage", "jobs", "done", "median job", "longest", *(["GPU hours left"] if on_gpu else []), "CPU hours left"]
    headers += ["disk, GB", "memory, GB"]
    rows = []
    for row in [*found["stages"], {"stage": "total", **found["total"]}]:
        of_job = [_time(row[key]) if key in row else "" for key in ("median_minutes", "longest_minutes")]
        of_hours = [_span(row[key]) for key in (["gpu_hours"] if on_gpu else []) + ["cpu_hours"]]
        memory = f"{row['memory_mb'] / 1000:.1f}" if row["memory_mb"] else "–"
        disk = _number(row["disk_bytes"] / 1e9) if row["disk_bytes"] >= 1e7 else "< 0.01"
        stage = f"{row['stage']} (local)" if row.get("local") else row["stage"]
        rows.append([stage, row["jobs"], row["done"], *of_job, *of_hours, disk, memory])
    alignment = ("left", *["right"] * (len(headers) - 1))
    table = tabulate(rows, headers, tablefmt="simple", disable_numparse=True, colalign=alignment)
    return "\n".join([table, "", *_read(found), _basis(found), *(f"Note: {warning}" for warning in found["warnings"])])


def _read(found: dict[str, Any]) -> list[str]:
    """What the table says of the whole, in sentences."""
    seen, wall, better = found["submitted"], found["wall_hours"], found["advice"]
    median = seen["median_minutes"]
    overhead = OVERHEAD_SECONDS / (OVERHEAD_SECONDS + 60 * median)
    lines = [
        f"Of {seen['jobs']} jobs that a cluster sees, half take less than {_time(median)}, and {seen['shorter_than_10_minutes']:.0%} "
        f"less than {LONG_ENOUGH_MINUTES} min. Where {OVERHEAD_SECONDS} s go by around each, they are {overhead:.0%} of the median job."
    ]
    if found["total"]["done"] == found["total"]["jobs"]:
        return [*lines, "Nothing is left to do."]
    lines.append(
        f"With {wall['jobs_at_once']} jobs at once: {_time(60 * wall['low'])} to {_time(60 * wall['high'])}, waiting in a queue "
        f"not counted; the longest chain of jobs that wait for each other takes about {_time(60 * wall['longest_chain'])}."
    )
    if better:
        lines.append(
            f"Better is `jobs: {{chains_per_job: {better['chains_per_job']}, chains_per_evaluation: {better['chains_per_evaluation']}}}`: "
            f"{better['jobs']} jobs, in the median of {_time(better['median_minutes'])}, the longest of {_time(better['longest_minutes'])}."
        )
        median = better["median_minutes"]
    if median < LONG_ENOUGH_MINUTES:
        lines.append(
            f"More chains in a job would not bring the median to {LONG_ENOUGH_MINUTES} min, or leave fewer jobs than can run at once, or "
            "some of hours."
        )
    return lines


def _basis(found: dict[str, Any]) -> str:
    """What the estimates rest on."""
    shares = {name: rate for name, rate in found["rates"].items() if rate["share"] >= 0.005}
    parts = ", ".join(f"{name} {rate['share']:.0%} ({rate['status']})" for name, rate in shares.items())
    machine = "one core of a CPU" if found["hardware"] == "cpu" else "a GPU"
    recorded = ", ".join(f"{number} {stage}" for stage, number in found["records"].items())
    held = f"corrected by recorded jobs: {recorded}" if recorded else "no recorded jobs to correct them: see --records"
    return f"Where the time goes, by the reference rates of {machine}: {parts}; {held}."


def _time(minutes: float) -> str:
    """In seconds, minutes or hours, to two digits."""
    if minutes < 1:
        return f"{_number(60 * minutes)} s"
    return f"{_number(minutes)} min" if minutes < 120 else f"{_number(minutes / 60)} h"


def _number(value: float) -> str:
    """Two significant digits, or whole."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{float(f'{value:.2g}'):g}"


def _span(values: Sequence[float]) -> str:
    """Low to high."""
    low, _, high = values
    return f"{_number(low)} – {_number(high)}" if high else "0"


def as_json(found: dict[str, Any]) -> str:
    """The summary for programs."""
    return json.dumps(found, indent=2)
