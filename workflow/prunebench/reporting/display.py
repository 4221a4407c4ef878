"""What tables and figures share: the order of criteria, of names with numbers in them, and the selection of values."""

from __future__ import annotations

import re
from collections.abc import Iterable

import pandas as pd

from prunebench.criteria.consensus import METRICS, OF_EIGHT
from prunebench.reporting.collect import DENSE

BASELINES = ("random", "first", "last")
# Each consensus, then the metrics in the same order as those that were left out.
_LEADING = (*OF_EIGHT, *(f"consensus_without_{metric}" for metric in METRICS), *METRICS)
_SCHEDULES = ("one-shot", "iterative", "one-shot-filters", "delivered")


def natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """A sort key that puts ``block2`` before ``block10``."""
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name) if part)


def criterion_order(criterion: str) -> tuple[int, int, str]:
    """A sort key: dense, the consensus, the single metrics, criteria of the user, and the baselines at the end."""
    if criterion == DENSE:
        return (0, 0, "")
    if criterion in _LEADING:
        return (1, _LEADING.index(criterion), "")
    if criterion in BASELINES:
        return (3, BASELINES.index(criterion), "")
    return (2, 0, criterion)


def ordered_criteria(criteria: Iterable[str]) -> list[str]:
    """Distinct criteria in the order in which tables and legends show them."""
    return sorted(set(criteria), key=criterion_order)


def ordered_schedules(schedules: Iterable[str]) -> list[str]:
    """Distinct schedules, without the dense network's, in the order in which tables and panels show them."""
    known = {name: number for number, name in enumerate(_SCHEDULES)}
    return sorted(set(schedules) - {DENSE}, key=lambda name: (known.get(name, len(known)), name))


def sort_for_display(frame: pd.DataFrame) -> pd.DataFrame:
    """Sort rows by dataset, model, schedule, blocks removed, operating point and criterion, as tables show them."""
    if frame.empty:
        return frame.reset_index(drop=True)
    schedules = {name: number for number, name in enumerate([DENSE, *ordered_schedules(frame["schedule"])])}
    # Points are ordered by what they remove on average, not by name: flops9_5 comes before flops54_6.
    point = ["dataset", "model", "schedule", "operating_point"]
    removed = frame.groupby(point)["blocks_removed"].transform("mean")
    keys = [
        (d, natural(m), schedules[s], r, natural(p), criterion_order(c))
        for d, m, s, r, p, c in zip(
            frame["dataset"],
            frame["model"],
            frame["schedule"],
            removed,
            frame["operating_point"],
            frame["criterion"],
            strict=True,
        )
    ]
    return frame.iloc[sorted(range(len(keys)), key=keys.__getitem__)].reset_index(drop=True)


def select(results: pd.DataFrame, evaluation: str, quantity: str) -> pd.DataFrame:
    """The rows of one quantity of one evaluation."""
    return results[(results["evaluation"] == evaluation) & (results["quantity"] == quantity)]
