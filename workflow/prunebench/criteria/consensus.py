"""Votes: several metrics rank the blocks, and the ranks are put together. The Consensus paper adds up those of eight metrics."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from prunebench import plugins
from prunebench.criteria import Criterion, find_criterion, ranks
from prunebench.errors import PrunebenchError

if TYPE_CHECKING:
    import numpy as np

    from prunebench.scoring import Probe


# The paper's eight, named: another metric in the package must not change what the consensus is.
METRICS = (
    "cka",
    "linear_0",
    "linear_1",
    "permutation",
    "gaussian_stochastic_0",
    "gaussian_stochastic_1",
    "gaussian_stochastic_2",
    "wasserstein",
)
RULES = ("borda", "median")
OF_EIGHT = {"consensus": "borda", "consensus_median": "median"}
"""The criteria in which all eight vote, with their rules."""


def aggregate(votes: Sequence[np.ndarray] | np.ndarray, rule: str) -> np.ndarray:
    """One number for each block from the ranks that several metrics give it; the lowest goes first.

    Args:
        votes: (metrics, blocks), as ``ranks`` returns them: 1 goes first, ties share their mean rank.
        rule: ``borda`` adds up the ranks. ``median`` takes their median; equal medians go by the sum of ranks, which is added
            as a fraction that is too small to change anything else.

    Returns:
        (blocks,).
    """
    import numpy as np

    table = np.asarray(votes, dtype=float)
    total: np.ndarray = table.sum(axis=0)
    if rule == "borda":
        return total
    # Ranks are multiples of 1/2, so medians are multiples of 1/4 and a fraction below that orders equal ones alone.
    metrics, blocks = table.shape
    result: np.ndarray = np.median(table, axis=0) + 0.25 * total / (metrics * blocks + 1)
    return result


def _score(metrics: Sequence[str], rule: str, probe: Probe) -> Sequence[float]:
    votes = [ranks(probe.scores(metric), find_criterion(metric).removes) for metric in metrics]
    return [float(value) for value in aggregate(votes, rule)]


def consensus(name: str, metrics: Sequence[str] = METRICS, rule: str = "borda", *, source: str = "") -> Criterion:
    """A criterion that lets metrics vote.

    Args:
        name: As in configs, paths and tables.
        metrics: Two or more built-in criteria that do not draw, each once.
        rule: ``borda`` or ``median`` (see ``aggregate``).
        source: Paper and equation.

    Raises:
        PrunebenchError: an unknown, repeated or drawing metric, fewer than two metrics, or an unknown rule.
    """
    if rule not in RULES:
        raise PrunebenchError(f"criterion {name}: rule is {rule!r}, expected {' or '.join(map(repr, RULES))}")
    if isinstance(metrics, str) or len(metrics) < 2:
        raise PrunebenchError(f"criterion {name}: metrics is {metrics!r}, expected a list of two or more")
    twice = sorted({metric for metric in metrics if list(metrics).count(metric) > 1})
    if twice:
        raise PrunebenchError(f"criterion {name}: metrics names {', '.join(twice)} more than once; each has one vote")
    # The package's own are made of the eight, which cannot be looked up while the package is still being read.
    for metric in [metric for metric in metrics if metric not in METRICS]:
        known = plugins.builtin(Criterion, "criteria")
        if metric not in known:
            raise PrunebenchError(f"criterion {name}: metrics: {metric!r} is no built-in criterion; there are {', '.join(known)}")
        if known[metric].draws:
            raise PrunebenchError(f"criterion {name}: metrics: {metric} draws at random; leave it out")
    chosen = tuple(metrics)
    return Criterion(name, partial(_score, chosen, rule), combines=chosen, source=source or f"{rule} of {', '.join(chosen)}")


PAPER = "Mugnaini et al. 2024, arXiv 2411.14345"

CRITERIA = [
    *(consensus(name, rule=rule, source=f"{PAPER}; {rule}") for name, rule in OF_EIGHT.items()),
    *(
        consensus(f"consensus_without_{out}", [metric for metric in METRICS if metric != out], source=f"{PAPER}, without {out}")
        for out in METRICS
    ),
]
