"""Is a criterion better than random removal, or than any other? Paired comparisons over replicates, from the tidy tables."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any, Literal

import pandas as pd

from prunebench.reporting import ENOUGH
from prunebench.reporting.collect import DENSE
from prunebench.reporting.display import select, sort_for_display
from prunebench.reporting.paired import (
    LEVEL,
    SIGNIFICANCE,
    PairedComparison,
    detectable_effect,
    holm,
    is_tie,
    paired_comparison,
    verdict,
)

__all__ = [
    "COMPARISON_COLUMNS",
    "ENOUGH",
    "LEVEL",
    "POINT",
    "SIGNIFICANCE",
    "PairedComparison",
    "among_best",
    "compare",
    "holm",
    "paired_comparison",
    "replicate_means",
    "verdict",
]

FLOPS = ("complexity", "flops_reduction_percent")
"""Evaluation and quantity of the reduction that networks are compared at."""
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
    "p_holm_all_points",
    "detectable_difference",
    "hedges_g",
    "hedges_g_low",
    "hedges_g_high",
    "share_better",
    "bootstrap_low",
    "bootstrap_high",
    "p_wilcoxon",
    "p_wilcoxon_holm",
]
Better = Literal["higher", "lower"]


def by_network(results: pd.DataFrame, evaluation: str, quantities: Mapping[str, tuple[str, str]]) -> pd.DataFrame:
    """One row for each network that was evaluated.

    Args:
        results: the tidy table ``results``.
        evaluation: which evaluation.
        quantities: the columns wanted, each with its evaluation and quantity.

    Returns:
        Columns of the network, ``blocks_removed``, ``flops_reduction_percent`` and those wanted; ``nan`` where not known.
    """
    keys = [*POINT, "criterion", "replicate", "draw"]
    frame = results.loc[results["evaluation"] == evaluation, [*keys, "blocks_removed"]].drop_duplicates().set_index(keys)
    for column, (source, quantity) in {**quantities, FLOPS[1]: FLOPS}.items():
        frame[column] = select(results, source, quantity).set_index(keys)["value"]
    frame.loc[frame.index.get_level_values("schedule") == DENSE, FLOPS[1]] = 0.0
    return frame.reset_index()


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
    better: Better | None = "higher",
) -> pd.DataFrame:
    """Compare every criterion with a baseline in the same replicate, at every operating point.

    Args:
        results: the tidy table ``results``, or ``measured``.
        against: a criterion at the same schedule and operating point (for delivered networks the one-shot one), or ``dense``.
            Criteria that draw at random enter with the mean over their draws in a replicate.
        evaluation: which evaluation the quantity belongs to.
        quantity: what is compared.
        better: whether more or less of it is better; None where that is not known, and verdicts say ``higher`` or ``lower``.

    Returns:
        One row for each dataset, model, schedule, operating point and criterion that shares a replicate with the
        baseline; columns ``COMPARISON_COLUMNS``. The p values of one operating point are one family for Holm's
        adjustment, those of all points of a schedule another (``p_holm_all_points``); intervals are not adjusted.
        ``detectable_difference`` is the smallest true difference that the verdict would find 4 times in 5: at the level of
        the first step of Holm's adjustment in the point's family, with the spread that was observed. It and ``mean_difference``
        are in the quantity's unit (percentages give percentage points).
    """
    pairs = _pairs(replicate_means(results, evaluation, quantity), against)
    rows: list[dict[str, Any]] = []
    for _, family in pairs.groupby(POINT):
        groups = list(family.groupby("criterion"))
        tests = [paired_comparison(group["difference"].to_list()) for _, group in groups]
        adjusted = holm([test.p_value for test in tests])
        ranked = holm([test.p_wilcoxon for test in tests])
        level = SIGNIFICANCE / max(1, sum(value == value for value in adjusted))
        for (criterion, group), test, p_holm, p_ranked in zip(groups, tests, adjusted, ranked, strict=True):
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
                    "verdict": verdict(test.mean_difference, p_holm, better),
                    "detectable_difference": detectable_effect(test.n, level) * test.sd,
                    "hedges_g": test.hedges_g,
                    "hedges_g_low": test.g_low,
                    "hedges_g_high": test.g_high,
                    "share_better": 1 - test.share_above if better == "lower" else test.share_above,
                    "bootstrap_low": test.bootstrap_low,
                    "bootstrap_high": test.bootstrap_high,
                    "p_wilcoxon": test.p_wilcoxon,
                    "p_wilcoxon_holm": p_ranked,
                }
            )
    table = pd.DataFrame(rows, columns=COMPARISON_COLUMNS)
    if rows:
        families = table.groupby(["dataset", "model", "schedule"])["p_value"]
        table["p_holm_all_points"] = families.transform(lambda p: holm(p.to_list()))
    return sort_for_display(table)


def _pairs(values: pd.DataFrame, against: str) -> pd.DataFrame:
    """Every value beside the baseline's of the same replicate, and the ``difference``."""
    pruned = values[values["schedule"] != DENSE]
    shared = ["dataset", "model", "replicate"] if against == DENSE else [*POINT, "replicate"]
    baseline = values[values["criterion"] == against]
    if against != DENSE:
        # A delivered network was not made on any schedule here; it meets the baseline that was fine-tuned once, as it was.
        lent = baseline[baseline["schedule"] == "one-shot"].assign(schedule="delivered")
        baseline = pd.concat([baseline[baseline["schedule"] != "delivered"], lent], ignore_index=True)
    baseline = baseline[[*shared, "value"]]
    pairs = pruned[pruned["criterion"] != against].merge(baseline, on=shared, suffixes=("", "_baseline"))
    pairs["difference"] = pairs["value"] - pairs["value_baseline"]
    return pairs


def among_best(
    results: pd.DataFrame, evaluation: str = "accuracy", quantity: str = "accuracy_percent", better: Better = "higher"
) -> set[tuple[str, ...]]:
    """What a table may set in bold: at each operating point the best criterion and those that cannot be told from it.

    All pairs of criteria are compared by paired t tests, with Holm's adjustment over all pairs of the point: the best one is picked by
    the same numbers, so that tests of it alone would decide too often. Where nothing can be told from the best, nothing is returned.
    A criterion that could not be tested against the best (a single common replicate, or differences without spread) is not returned,
    unless it equals the best in two or more replicates and differs in none.

    Returns:
        (dataset, model, schedule, operating point, criterion) of each.
    """
    found: set[tuple[str, ...]] = set()
    values = replicate_means(results, evaluation, quantity)
    for point, rows in values[values["schedule"] != DENSE].groupby(POINT):
        # nan where a criterion lacks a replicate: pairs are of the replicates that both have.
        wide = rows.pivot(index="replicate", columns="criterion", values="value")
        means = wide.mean()
        best = means.idxmax() if better == "higher" else means.idxmin()
        couples = list(combinations(wide.columns, 2))
        differences = [(wide[a] - wide[b]).dropna().to_list() for a, b in couples]
        tests = [paired_comparison(each).p_value if each else float("nan") for each in differences]
        told, together = set(), {best}
        for (a, b), p, each in zip(couples, holm(tests), differences, strict=True):
            if best not in (a, b):
                continue
            other = a if b == best else b
            if p < SIGNIFICANCE and (sum(each) > 0) == ((a == best) == (better == "higher")):
                told.add(other)
            elif p == p or is_tie(each):
                together.add(other)
        if told:
            found |= {(*map(str, point), str(criterion)) for criterion in together}
    return found
