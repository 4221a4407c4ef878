"""Into how many jobs the work of a suite should be divided, so that its jobs are worth their start."""

from __future__ import annotations

import bisect
import statistics
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from prunebench.config import Jobs, Suite
from prunebench.costs import Costs
from prunebench.experiments import SCHEDULES
from prunebench.planned import PlannedJob, planned_jobs
from prunebench.rates import Clock

LONG_ENOUGH_MINUTES = 10
TOO_LONG_MINUTES = 240


def advice(suite: Suite, costs: Costs, clock: Clock, at_once: int) -> dict[str, Any] | None:
    """How work should be divided so that the median job lasts ten minutes; None if that made neither fewer nor longer jobs.

    The numbers are the smallest with which the median job that follows chains, and the median job that evaluates, is long enough,
    as far as no job takes more than four hours (or than the longest does now) and there are no fewer jobs than can run at once.

    Args:
        suite: The suite.
        costs: Of its jobs.
        clock: What they are estimated by.
        at_once: Jobs that may run at the same time.

    Returns:
        ``chains_per_job``, ``chains_per_evaluation``, and with them ``jobs`` on a cluster, ``median_minutes``, ``longest_minutes``.
    """
    # All replicates are divided in the same way.
    one = suite.model_copy(update={"replicates": 1})

    def best(stages: Sequence[str], key: str) -> int:
        now: int = getattr(suite.jobs, key)

        @cache
        def minutes(value: int) -> list[float]:
            return _minutes(one.model_copy(update={"jobs": suite.jobs.model_copy(update={key: value})}), costs, clock, stages)

        if not minutes(now):
            return now
        values = range(now, max(now, _most_chains(one, stages)) + 1)
        least_jobs = min(at_once, len(minutes(now)) * suite.replicates)
        most_minutes = max(TOO_LONG_MINUTES, *minutes(now))

        def long_enough(value: int) -> bool:
            return statistics.median(minutes(value)) >= LONG_ENOUGH_MINUTES

        def too_far(value: int) -> bool:
            return max(minutes(value)) > most_minutes or len(minutes(value)) * suite.replicates < least_jobs

        first, beyond = _first(long_enough, values), _first(too_far, values)
        found = minutes(values[max(0, min(first, beyond - 1, len(values) - 1))])

        def as_good(value: int) -> bool:
            return len(minutes(value)) <= len(found) and statistics.median(minutes(value)) >= statistics.median(found)

        # There may be no more chains to put together, and larger numbers the same as smaller ones.
        return values[_first(as_good, values)]

    wanted = Jobs(
        chains_per_job=best(SCHEDULES, "chains_per_job"), chains_per_evaluation=best(["evaluate"], "chains_per_evaluation")
    )
    if wanted == suite.jobs:
        return None
    before, after = (_minutes(suite.model_copy(update={"jobs": jobs}), costs, clock) for jobs in (suite.jobs, wanted))
    if len(after) >= len(before) and statistics.median(after) <= statistics.median(before):
        return None
    return {**wanted.model_dump(), "jobs": len(after), "median_minutes": statistics.median(after), "longest_minutes": max(after)}


def _first(holds: Callable[[int], bool], values: range) -> int:
    """Place of the first value that something holds for, which then holds for all larger ones; behind the last if for none."""
    return bisect.bisect_left(values, True, key=holds)


def _minutes(suite: Suite, costs: Costs, clock: Clock, stages: Sequence[str] = ()) -> list[float]:
    """Of the jobs of some stages, or of all that are not local, of a suite that is divided in another way."""
    counted = Costs(suite, costs.scales)
    jobs = [job for job in planned_jobs(suite) if (job.stage in stages if stages else not job.local)]
    return [clock.of(job, counted.of(job).work).seconds / 60 for job in jobs]


def _most_chains(suite: Suite, stages: Sequence[str]) -> int:
    """Most chains that a job of these stages can have: all of an experiment and replicate."""
    undivided = suite.model_copy(update={"jobs": Jobs(chains_per_job=10**9, chains_per_evaluation=10**9)})
    return max((_chains(job) for job in planned_jobs(undivided) if job.stage in stages), default=1)


def _chains(job: PlannedJob) -> int:
    """How many chains a job follows or evaluates."""
    if job.chains is not None:
        return len(job.chains.chains)
    return len(job.group.batches[job.batch or 0]) if job.group is not None else 0
