"""Ranks of criteria over many replicates: the table ``ranks`` and the critical-difference diagram, from 8 replicates on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scikit_posthocs
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy import stats

from prunebench.reporting import statistics
from prunebench.reporting.collect import DENSE, Tables
from prunebench.reporting.comparison import conditional
from prunebench.reporting.display import ordered_criteria, ordered_schedules, sort_for_display
from prunebench.reporting.drawing import note
from prunebench.reporting.formats import Column, Origin, Table, number, p_text

_FAMILY = (Origin(evaluation="accuracy", quantity="accuracy_percent", criterion="*"),)


@dataclass(frozen=True)
class Ranking:
    """Ranks of the criteria at one operating point, in each replicate by test accuracy.

    Attributes:
        point: Dataset, model, schedule and operating point.
        blocks_removed: On average.
        mean_ranks: By criterion; 1 is the highest accuracy, ties share their mean rank.
        n: Replicates that all criteria have.
        p_friedman: Of Friedman's test that all criteria rank alike.
        p_pairs: Of Nemenyi's test, criterion by criterion, adjusted for all pairs.
        critical_difference: Mean ranks that differ by more differ by Nemenyi's test at 0.05.
    """

    point: tuple[str, ...]
    blocks_removed: float
    mean_ranks: pd.Series
    n: int
    p_friedman: float
    p_pairs: pd.DataFrame
    critical_difference: float

    @property
    def tells(self) -> bool:
        """Whether Friedman's test finds any difference: only then are pairs looked at (Demsar 2006)."""
        return self.p_friedman < statistics.SIGNIFICANCE

    def together(self) -> pd.DataFrame:
        """The p values of pairs; 1 throughout where Friedman's test finds no difference."""
        return self.p_pairs if self.tells else self.p_pairs * 0 + 1.0


def rankings(results: pd.DataFrame) -> Iterator[Ranking]:
    """The ranking of every operating point that has at least 3 criteria and 8 replicates with all of them."""
    values = statistics.replicate_means(results)
    values = values[values["schedule"] != DENSE]
    for point, rows in values.groupby(statistics.POINT):
        wide = rows.pivot(index="replicate", columns="criterion", values="value").dropna(axis=0)
        wide = wide[ordered_criteria(map(str, wide.columns))]
        n, k = wide.shape
        if n < statistics.ENOUGH or k < 3:
            continue
        # Rounding of sums must not make ties into ranks; all tied in all replicates give no statistic.
        accuracy = wide.round(9)
        ranks = accuracy.rank(axis=1, ascending=False)
        p = float(stats.friedmanchisquare(*accuracy.to_numpy().T).pvalue) if (accuracy.nunique(axis=1) > 1).any() else 1.0
        pairs = scikit_posthocs.posthoc_nemenyi_friedman(-accuracy.to_numpy())
        pairs = pd.DataFrame(pairs.to_numpy(), index=wide.columns, columns=wide.columns)
        quantile = float(stats.studentized_range.ppf(1 - statistics.SIGNIFICANCE, k, np.inf)) / math.sqrt(2)
        difference = quantile * math.sqrt(k * (k + 1) / (6 * n))
        removed = float(rows["blocks_removed"].mean())
        yield Ranking(tuple(map(str, point)), removed, ranks.mean(), n, p, pairs, difference)


def _ranks(tidy: Tables) -> Table:
    columns = [
        *statistics.POINT,
        "criterion",
        "blocks_removed",
        "n",
        "mean_rank",
        "criteria",
        "p_friedman",
        "critical_difference",
    ]
    rows = [
        (*ranking.point, criterion, ranking.blocks_removed, ranking.n, rank, len(ranking.mean_ranks), ranking.p_friedman)
        + (ranking.critical_difference,)
        for ranking in rankings(tidy.results)
        for criterion, rank in ranking.mean_ranks.items()
    ]
    shown = [
        Column("Point", lambda row: row.operating_point, right=False),
        Column("Criterion", lambda row: row.criterion, right=False),
        Column("Mean rank", lambda row: number(row.mean_rank, 2), origins=_FAMILY),
        Column("of", lambda row: str(row.criteria), origins=_FAMILY),
        Column("Critical difference", lambda row: number(row.critical_difference, 2), origins=_FAMILY),
        Column("p (Friedman)", lambda row: p_text(row.p_friedman), origins=_FAMILY),
        Column("n", lambda row: str(row.n), origins=_FAMILY),
    ]
    caption = (
        "Ranks by test accuracy among the criteria of an operating point, mean over n replicates; 1 is the highest accuracy, ties share "
        "their mean rank. Friedman: test that all criteria rank alike. Where it is below 0.05, mean ranks that differ by more than the "
        "critical difference differ by Nemenyi's test at 0.05, which is adjusted for all pairs; elsewhere none do. A rank says nothing of "
        f"how far apart accuracies are.{conditional(tidy)}"
    )
    return Table("ranks", caption, sort_for_display(pd.DataFrame(rows, columns=columns)), shown)


def _critical_difference(tables: Tables, title: str) -> Figure:
    found = sorted(rankings(tables.results), key=lambda ranking: ranking.blocks_removed)
    schedules = ordered_schedules(ranking.point[2] for ranking in found)
    if not found:
        return note(title, f"No point has 3 criteria in {statistics.ENOUGH} replicates.")
    ordered = [ranking for schedule in schedules for ranking in found if ranking.point[2] == schedule]
    heights = [1.0 + 0.19 * math.ceil(len(ranking.mean_ranks) / 2) + 0.025 * len(ranking.mean_ranks) for ranking in ordered]
    figure = Figure(figsize=(7.0, sum(heights) + 0.5), layout="constrained")
    panels = figure.subplots(len(ordered), 1, squeeze=False, height_ratios=heights)[:, 0]
    for panel, ranking in zip(panels, ordered, strict=True):
        _diagram(panel, ranking)
    figure.suptitle(f"{title}: ranks by test accuracy (1 is best)", fontsize=9.5)
    return figure


def _diagram(panel: Axes, ranking: Ranking) -> None:
    scikit_posthocs.critical_difference_diagram(
        ranking.mean_ranks,
        ranking.together(),
        ax=panel,
        alpha=statistics.SIGNIFICANCE,
        label_fmt_left="{label} ({rank:.1f})",
        label_fmt_right="({rank:.1f}) {label}",
        label_props={"fontsize": 7},
        marker_props={"marker": "o", "s": 14, "clip_on": False},
        elbow_props={"linewidth": 0.7, "clip_on": False},
        crossbar_props={"color": "#0072B2", "linewidth": 2.4, "marker": ""},
        text_h_margin=0.015 * len(ranking.mean_ranks),
        color_palette=dict.fromkeys(ranking.mean_ranks.index, "0.2"),
    )
    panel.set_xlabel("Mean rank", fontsize=7.5)
    panel.xaxis.set_label_position("top")
    panel.set_xlim(1, len(ranking.mean_ranks))
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    difference = f"critical difference {ranking.critical_difference:.2f}" if ranking.tells else "no difference found"
    p = p_text(ranking.p_friedman)
    panel.set_title(
        f"{ranking.point[2]}, {ranking.point[3]}: Friedman p {'' if p.startswith('<') else '= '}{p}, {difference}, n = {ranking.n}",
        fontsize=8,
        pad=6,
    )


TABLES: dict[str, Callable[[Tables], Table]] = {"ranks": _ranks}
FIGURES: dict[str, Callable[[Tables, str], Figure]] = {"critical_difference": _critical_difference}
