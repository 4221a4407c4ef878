"""Is a criterion better than random removal? Paired comparisons over replicates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.multitest import multipletests

from prunebench.reporting.collect import DENSE
from prunebench.reporting.display import select, sort_for_display

LEVEL = 0.95
SIGNIFICANCE = 0.05
POINT = ["dataset", "model", "schedule", "operating_point"]
COMPARISON_COLUMNS = [
    *POINT,
    "criterion",
    "against",
    "blocks_removed",
    "n",
    "mean_difference",
    "ci_low",
    "ci_high",
    "p_value",
    "p_holm",
    "verdict",
]


@dataclass(frozen=True)
class PairedComparison:
    """A paired t test of n differences; ``nan`` where n or the spread of the differences does not allow one.

    ``ci_low`` and ``ci_high`` bound the two-sided 95 % t interval of the mean difference.
    """

    n: int
    mean_difference: float
    ci_low: float
    ci_high: float
    p_value: float


def paired_comparison(differences: Sequence[float]) -> PairedComparison:
    """Test whether the mean of paired differences is zero (two-sided one-sample t test of the differences).

    With a single difference, or with differences that are all the same, there is no spread to judge by: a handful
    of replicates that happen to agree on a finite test set does not make an infinitely certain result. Interval and
    p value are then ``nan``.
    """
    values = np.asarray(differences, dtype=np.float64)
    if values.size == 0:
        raise ValueError("no differences to compare")
    mean = float(values.mean())
    # Percentages lie in 0 to 100, so spreads below 1e-9 are rounding of the subtraction and no variance.
    if values.size < 2 or float(np.ptp(values)) <= 1e-9:
        return PairedComparison(values.size, mean, math.nan, math.nan, math.nan)
    test = stats.ttest_1samp(values, 0.0)
    interval = test.confidence_interval(LEVEL)
    return PairedComparison(values.size, mean, float(interval.low), float(interval.high), float(test.pvalue))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (Holm 1979) of one family of tests; ``nan`` is no test and stays ``nan``."""
    values = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(values.shape, math.nan)
    tested = ~np.isnan(values)
    if tested.any():
        adjusted[tested] = multipletests(values[tested], alpha=SIGNIFICANCE, method="holm")[1]
    return [float(value) for value in adjusted]


def verdict(mean_difference: float, p_holm: float) -> str:
    """``better`` or ``worse`` where the Holm-adjusted p value is below 0.05, ``undecided`` otherwise."""
    if math.isnan(p_holm) or p_holm >= SIGNIFICANCE:
        return "undecided"
    return "better" if mean_difference > 0 else "worse"


def replicate_means(results: pd.DataFrame, evaluation: str = "accuracy", quantity: str = "accuracy_percent") -> pd.DataFrame:
    """One value for each replicate of each criterion at each operating point: the mean over the criterion's draws.

    Returns:
        Columns dataset, model, schedule, operating_point, criterion, replicate, blocks_removed, value.
    """
    keys = [*POINT, "criterion", "replicate"]
    chosen = select(results, evaluation, quantity)
    return chosen.groupby(keys, as_index=False)[["blocks_removed", "value"]].mean()


def compare(
    results: pd.DataFrame,
    against: str = "random",
    evaluation: str = "accuracy",
    quantity: str = "accuracy_percent",
) -> pd.DataFrame:
    """Compare every criterion with a baseline in the same replicate, at every operating point.

    Args:
        results: the tidy table ``results``.
        against: a criterion at the same schedule and operating point (for delivered networks the one-shot one), or ``dense``.
            Criteria that draw at random enter with the mean over their draws in a replicate.
        evaluation: which evaluation the quantity belongs to.
        quantity: a quantity of which more is better.

    Returns:
        One row for each dataset, model, schedule, operating point and criterion that shares a replicate with the
        baseline; columns ``COMPARISON_COLUMNS``. The p values of one operating point are one family for Holm's
        adjustment; the interval is not adjusted. The quantity's unit is that of ``mean_difference`` (percentages
        give percentage points).
    """
    values = replicate_means(results, evaluation, quantity)
    pruned = values[values["schedule"] != DENSE]
    shared = ["dataset", "model", "replicate"] if against == DENSE else [*POINT, "replicate"]
    baseline = values[values["criterion"] == against]
    if against != DENSE and "schedule" in shared:
        # A delivered network was not made on any schedule here; it meets the baseline that was fine-tuned once, as it was.
        lent = baseline[baseline["schedule"] == "one-shot"].assign(schedule="delivered")
        baseline = pd.concat([baseline[baseline["schedule"] != "delivered"], lent], ignore_index=True)
    baseline = baseline[[*shared, "value"]]
    pairs = pruned[pruned["criterion"] != against].merge(baseline, on=shared, suffixes=("", "_baseline"))
    pairs["difference"] = pairs["value"] - pairs["value_baseline"]
    rows = []
    for _, family in pairs.groupby(POINT):
        groups = list(family.groupby("criterion"))
        tests = [paired_comparison(group["difference"].to_list()) for _, group in groups]
        adjusted = holm([test.p_value for test in tests])
        for (criterion, group), test, p_holm in zip(groups, tests, adjusted, strict=True):
            rows.append(
                {
                    **{key: group[key].iloc[0] for key in POINT},
                    "criterion": criterion,
                    "against": against,
                    "blocks_removed": group["blocks_removed"].mean(),
                    "n": test.n,
                    "mean_difference": test.mean_difference,
                    "ci_low": test.ci_low,
                    "ci_high": test.ci_high,
                    "p_value": test.p_value,
                    "p_holm": p_holm,
                    "verdict": verdict(test.mean_difference, p_holm),
                }
            )
    return sort_for_display(pd.DataFrame(rows, columns=COMPARISON_COLUMNS))
