"""The paper's figures, from the tidy tables alone: PDF with embedded TrueType fonts and PNG at 200 dpi."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from scipy.stats import kendalltau, rankdata

from prunebench import reporting
from prunebench.criteria.consensus import METRICS, OF_EIGHT
from prunebench.errors import PrunebenchError
from prunebench.reporting import maker, quality, shown
from prunebench.reporting.audit import draw_audit
from prunebench.reporting.collect import DENSE, Tables, control_of, read_tables
from prunebench.reporting.comparison import accuracy_by_replicate
from prunebench.reporting.display import BASELINES, natural, ordered_criteria, ordered_schedules
from prunebench.reporting.drawing import (
    ORDERED,
    PAGE,
    Widths,
    bare,
    block_axis,
    cells,
    colour_bar,
    column_inches,
    grid_size,
    head,
    ink,
    legend_grid,
    mean_over,
    note,
    printed,
    save,
    style,
    text_inches,
)
from prunebench.reporting.formats import MINUS

_GREY = "0.55"


@dataclass(frozen=True)
class _Look:
    """How a criterion's line is drawn; markers and dashes tell lines apart where colours are printed in grey."""

    colour: str
    marker: str
    dashes: Any = "-"
    prominent: bool = True

    def line(self) -> dict[str, Any]:
        """Properties of a matplotlib line."""
        filled = self.marker not in _UNFILLED
        return {
            "color": self.colour,
            "marker": self.marker,
            "linestyle": self.dashes,
            "linewidth": 1.6 if self.prominent else 0.7,
            "markersize": 5.5 if self.prominent else 4.8,
            # A thin white edge keeps markers apart that lie on each other.
            "markeredgecolor": "white" if filled else self.colour,
            "markeredgewidth": 0.4 if filled else 0.9,
        }


# Colours of Okabe and Ito (2008), which keep apart for all common kinds of colour blindness.
_LOOKS = {
    "consensus": _Look("#0072B2", "o"),
    "cka": _Look("#D55E00", "s", (0, (5, 1.5))),
    "first": _Look("#009E73", "^", (0, (4, 1.5, 1, 1.5))),
    "last": _Look("#CC79A7", "v", (0, (1, 1.2))),
    "random": _Look("0.35", "", (0, (2, 1))),
}
_OWN = [("#E69F00", "D", (0, (6, 1, 1, 1, 1, 1))), ("#56B4E9", "P", (0, (3, 1))), ("#000000", "X", (0, (8, 2)))]
_MUTED_MARKERS = "<>dx1p+"
_UNFILLED = "x1+"
_VOTES = {name for name in OF_EIGHT if name != "consensus"} | {f"consensus_without_{metric}" for metric in METRICS}
_METRICS = tuple(metric for metric in METRICS if metric != "cka")


def write_figures(tables: Path, out: Path, widths: Widths = PAGE) -> list[Path]:
    """Draw every figure of every dataset and model: ``<out>/<figure>_<dataset>_<model>.pdf`` and ``.png``.

    Args:
        tables: the folder of the tidy tables.
        out: the folder of the figures.
        widths: of the printed page.

    Returns:
        The files written. A figure that the suite has no values for is drawn as a note that says so.

    Raises:
        PrunebenchError: a tidy table is missing or corrupt.
    """
    tidy = read_tables(tables)
    written = []
    for dataset, model in tidy.designs():
        for name in shown(reporting.FIGURES, tidy.of(dataset, model).subjects()):
            with printed(widths):
                figure = make_figure(name, tidy, dataset, model)
            written += save(figure, out / f"{name}_{dataset}_{model}")
    return written


def make_figure(name: str, tables: Tables, dataset: str, model: str) -> Figure:
    """Make one of ``reporting.FIGURES`` for a dataset and model.

    Raises:
        PrunebenchError: there is no figure of that name, or the tables do not know the dataset and model.
    """
    if name not in reporting.FIGURES:
        raise PrunebenchError(f"figure {name!r} does not exist; there are {', '.join(reporting.FIGURES)}")
    if (dataset, model) not in tables.designs():
        raise PrunebenchError(f"results.csv has no row of dataset {dataset!r} and model {model!r}")
    with style():
        place = reporting.FIGURES[name]
        beside = control_of(dataset, tables.results) if place.with_control else None
        figure: Figure = maker("FIGURES", name, place)(tables.of(dataset, model, *filter(None, [beside])), f"{dataset}, {model}")
        return figure


# --- accuracy against FLOPs reduction --------------------------------------------------------------------------------


def _accuracy(tables: Tables, title: str) -> Figure:
    """Accuracy change by criterion at every operating point, one panel for each schedule."""
    networks = accuracy_by_replicate(tables.results)
    networks = networks[(networks["schedule"] != DENSE)].dropna(subset=["change_pp", "flops_reduction_percent"])
    schedules = ordered_schedules(networks["schedule"])
    if not schedules:
        return note(title, "No pruned network has both an accuracy and a FLOPs reduction.")
    criteria = ordered_criteria(networks["criterion"])
    looks = looks_of(criteria)
    legend = legend_of(criteria, looks, spread=networks["replicate"].nunique() > 1)
    # One panel stands in one column, unless its legend were to take more of it. Beside one or two panels the legend has room, and may be
    # the longer of the two; below more.
    width = column_inches()
    columns, below = legend_grid(legend, width)
    narrow = len(schedules) == 1 and below <= 2.8
    beside = len(schedules) <= 2 and not narrow
    if not narrow:
        width = text_inches() if len(schedules) > 1 else min(5.2, text_inches())
        columns, below = legend_grid(legend, text_inches())
    lines = sum(1 + handle.get_label().count("\n") for handle in legend)
    height = max(3.4, 0.16 * lines + 0.3) if beside else 3.2 + below
    figure = Figure(figsize=(width, height), layout="constrained")
    panels = figure.subplots(1, len(schedules), sharey=True, squeeze=False)[0]
    for panel, schedule in zip(panels, schedules, strict=True):
        rows = networks[networks["schedule"] == schedule]
        criteria_panel(panel, rows, looks)
        panel.set_title(f"{title}: {schedule}" if len(schedules) == 1 else schedule)
        panel.set_xlabel("FLOPs reduction (%)")
    panels[0].set_ylabel("Accuracy change against dense (pp)")
    if len(schedules) > 1:
        head(figure, title)
    place = {"loc": "outside right upper"} if beside else {"loc": "outside lower center", "ncols": columns, "columnspacing": 1.0}
    figure.legend(handles=legend, frameon=False, handlelength=2.6, **place)
    return figure


def criteria_panel(panel: Axes, rows: pd.DataFrame, looks: dict[str, _Look]) -> None:
    """Change of accuracy against FLOPs reduction on one schedule: a line for each criterion, a band for random removal."""
    panel.axhline(0, color="0.2", linewidth=0.9, zorder=1)
    levels = np.sort(rows.groupby("operating_point")["flops_reduction_percent"].mean().to_numpy())
    gap = float(np.diff(levels).min()) if levels.size > 1 else 10.0
    shown = [c for c in ordered_criteria(rows["criterion"]) if c != "random"]
    # Criteria that reach the same reduction would hide each other, so they stand side by side around it.
    together = rows.groupby("operating_point")["criterion"].nunique().max() > 1
    span = float(np.ptp(levels)) or gap
    reach = min(0.17 * gap, 0.012 * span * len(shown)) if together else 0.0
    offsets = np.linspace(-reach, reach, len(shown)) if len(shown) > 1 else np.zeros(len(shown))
    random_rows = rows[rows["criterion"] == "random"]
    if not random_rows.empty:
        _random_band(panel, random_rows, 0.2 * gap, looks["random"])
    for criterion, offset in zip(shown, offsets, strict=True):
        replicates = rows[rows["criterion"] == criterion].groupby(["operating_point", "replicate"])
        points = replicates[["flops_reduction_percent", "change_pp"]].mean().groupby("operating_point")
        mean, deviation = points.mean(), points["change_pp"].std(ddof=1).fillna(0.0)
        order = np.argsort(mean["flops_reduction_percent"].to_numpy(), kind="stable")
        look = looks[criterion]
        panel.errorbar(
            mean["flops_reduction_percent"].to_numpy()[order] + offset,
            mean["change_pp"].to_numpy()[order],
            yerr=deviation.to_numpy()[order],
            elinewidth=1.0 if look.prominent else 0.6,
            **look.line(),
            zorder=4 if look.prominent else 3,
        )
    panel.margins(x=0.08, y=0.08)
    # The points themselves are the ticks unless their numbers would run into each other.
    if levels.size == 1 or gap > 0.16 * span:
        panel.set_xticks(levels, [f"{level:.2f}" for level in levels])
    sns.despine(ax=panel)


def _random_band(panel: Axes, rows: pd.DataFrame, half_width: float, look: _Look) -> None:
    points = rows.groupby("operating_point").agg(
        x=("flops_reduction_percent", "mean"), low=("change_pp", "min"), high=("change_pp", "max")
    )
    replicates = rows.groupby(["operating_point", "replicate"])["change_pp"].mean()
    points["mean"] = replicates.groupby("operating_point").mean()
    points = points.sort_values("x")
    # The band reaches as far as the criteria that stand beside a point, and is seen where there is one point only.
    x = points["x"].to_numpy()
    x = np.concatenate([[x[0] - half_width], x, [x[-1] + half_width]])
    low, high, mean = (np.pad(points[name].to_numpy(), 1, mode="edge") for name in ("low", "high", "mean"))
    panel.fill_between(x, low, high, color="0.86", linewidth=0, zorder=0.5)
    panel.plot(x, mean, color=look.colour, linestyle=look.dashes, linewidth=1.6, zorder=2)


def looks_of(criteria: Sequence[str]) -> dict[str, _Look]:
    """How each criterion is drawn, the same in all figures."""
    looks, own, muted = {}, 0, 0
    for criterion in criteria:
        if criterion in _LOOKS:
            looks[criterion] = _LOOKS[criterion]
        elif criterion in _METRICS or criterion in _VOTES or own == len(_OWN):
            looks[criterion] = _Look(_GREY, _MUTED_MARKERS[muted % len(_MUTED_MARKERS)], "-", prominent=False)
            muted += 1
        else:
            looks[criterion] = _Look(*_OWN[own])
            own += 1
    return looks


def legend_of(criteria: Sequence[str], looks: dict[str, _Look], spread: bool) -> list[Any]:
    """Handles of a legend of ``criteria_panel``; ``spread``: whether there are bars."""
    prominent = [c for c in criteria if looks[c].prominent and c != "random"]
    muted = [c for c in criteria if not looks[c].prominent]
    handles: list[Any] = [Line2D([], [], label=c, **looks[c].line()) for c in [*prominent, *muted]]
    if "random" in criteria:
        look = looks["random"]
        handles.append(Line2D([], [], color=look.colour, linestyle=look.dashes, linewidth=1.6, label="random: mean"))
        handles.append(Patch(facecolor="0.86", label="random: lowest to highest\nof all draws and replicates"))
    if spread:
        handles.append(Line2D([], [], color="none", label=f"bars: {chr(177)} 1 standard deviation\nover replicates"))
    return handles


# --- scores and their agreement --------------------------------------------------------------------------------------


def dense_ranks(scores: pd.DataFrame) -> pd.DataFrame:
    """Ranks of the dense network's blocks by every criterion but random: 1 goes first, ties share their mean rank.

    Args:
        scores: rows of the tidy table ``scores`` of one dataset and model.

    Returns:
        One row for each (replicate, criterion), one column for each block.
    """
    rows = scores[(scores["schedule"] == DENSE) & (scores["step"] == 0) & (scores["criterion"] != "random")]
    # A criterion of the user that draws at random is shown by its first draw.
    rows = rows[rows["draw"] == 0]
    oriented = rows.assign(score=rows["score"].where(rows["removes"] == "lowest", -rows["score"]))
    wide = oriented.pivot(index=["replicate", "criterion"], columns="block", values="score")
    blocks: list[str] = sorted(map(str, wide.columns), key=natural)
    wide = wide[blocks]
    ranks = rankdata(wide.to_numpy(), axis=1, nan_policy="omit") if wide.size else wide.to_numpy()
    return pd.DataFrame(ranks, index=wide.index, columns=wide.columns)


def rank_agreement(ranks: pd.DataFrame) -> pd.DataFrame:
    """Kendall's tau-b between criteria over the blocks, mean over replicates; ``nan`` where a criterion ties all blocks.

    Args:
        ranks: as ``dense_ranks`` returns them.
    """
    criteria = ordered_criteria(ranks.index.get_level_values("criterion"))
    of_replicate = []
    for _, group in ranks.groupby(level="replicate"):
        rows = group.droplevel("replicate").reindex(criteria)
        table = np.full((len(criteria), len(criteria)), math.nan)
        for i in range(len(criteria)):
            for j in range(len(criteria)):
                table[i, j] = kendalltau(rows.iloc[i], rows.iloc[j], nan_policy="omit").statistic
        of_replicate.append(table)
    stack = np.stack(of_replicate)
    known = ~np.isnan(stack)
    count = known.sum(axis=0)
    mean = np.where(count > 0, np.where(known, stack, 0.0).sum(axis=0) / np.maximum(count, 1), math.nan)
    return pd.DataFrame(mean, index=criteria, columns=criteria)


def _scores(tables: Tables, title: str) -> Figure:
    """Heat map of the ranks that criteria give to the dense network's blocks."""
    scores = tables.scores[~tables.scores["criterion"].isin(BASELINES)]
    ranks = dense_ranks(scores)
    if ranks.empty:
        return note(title, "No criterion scored the blocks of the dense network.")
    criteria = ordered_criteria(ranks.index.get_level_values("criterion"))
    replicates = ranks.index.get_level_values("replicate").nunique()
    mean = ranks.groupby(level="criterion").mean().reindex(criteria)
    blocks = list(mean.columns)
    figure = Figure(figsize=grid_size(blocks, len(criteria)), layout="constrained")
    axes = figure.subplots()
    digits = 1 if replicates > 1 and len(blocks) <= 30 else 0
    cells(axes, mean.to_numpy(), 1, len(blocks), digits)
    axes.set_yticks(range(len(criteria)), criteria)
    block_axis(axes, blocks)
    axes.set_title(f"{title}: ranks of the dense network's blocks", pad=8)
    colour_bar(figure, axes, 1, len(blocks), "Rank (1 goes first)" + mean_over(replicates))
    return figure


def _agreement(tables: Tables, title: str) -> Figure:
    """Kendall's tau between the rankings of the dense network's blocks."""
    ranks = dense_ranks(tables.scores)
    if ranks.index.get_level_values("criterion").nunique() < 2:
        return note(title, "Fewer than two criteria scored the blocks of the dense network.")
    tau = rank_agreement(ranks)
    size = len(tau)
    replicates = ranks.index.get_level_values("replicate").nunique()
    # As wide as the page unless the numbers would not fit into their cells.
    cell = min(0.46, max(0.37, (text_inches() - 3.0) / size))
    figure = Figure(figsize=(max(5.0, cell * size + 3.0), max(3.6, 0.9 * cell * size + 2.0)), layout="constrained")
    axes = figure.subplots()
    values = tau.to_numpy()
    axes.imshow(values, cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto")
    for i in range(size):
        for j in range(size):
            text = "" if math.isnan(values[i, j]) else f"{values[i, j]:z.2f}".replace("-", MINUS)
            axes.text(
                j,
                i,
                text or "tied",
                ha="center",
                va="center",
                fontsize=6.5,
                color="white" if abs(values[i, j]) > 0.6 else "black",
            )
    axes.set_xticks(range(size), list(tau.columns), rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(size), list(tau.index))
    bare(axes)
    axes.set_title(f"{title}: rank agreement", pad=8)
    colour_bar(figure, axes, -1, 1, "Kendall's \u03c4" + mean_over(replicates), "RdBu_r")
    return figure


# --- how good criteria are -------------------------------------------------------------------------------------------

# Two colours of Okabe and Ito that differ in lightness too; the markers differ in shape and filling.
_VARIANTS: list[dict[str, Any]] = [
    {"color": "#D55E00", "marker": "o", "markerfacecolor": "white"},
    {"color": "#0072B2", "marker": "D"},
]


def _quality(tables: Tables, title: str) -> Figure:
    """Rank correlation with the oracle and relative regret of each criterion, with intervals."""
    data = quality.quality(tables)
    data = data[data["criterion"] != quality.RANDOM]
    if data.empty:
        return note(title, "No criterion was held to the oracle.")
    criteria, lengths = ordered_criteria(data["criterion"]), sorted(data["fine_tuning_epochs"].unique())
    figure = Figure(figsize=(text_inches(), 0.27 * len(criteria) + 1.7), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    handles = []
    for number, (epochs, look) in enumerate(zip(lengths, _VARIANTS, strict=False)):
        rows = data[data["fine_tuning_epochs"] == epochs].set_index("criterion").loc[criteria]
        places = np.arange(len(criteria)) + (number - (len(lengths) - 1) / 2) * 0.3
        for axes, name in ((left, "tau"), (right, "relative_regret")):
            low, high = rows[f"{name}_low"], rows[f"{name}_high"]
            axes.hlines(places, low, high, color=look["color"], linewidth=1.2, zorder=2)
            axes.plot(rows[name], places, linestyle="", markersize=4.2, markeredgewidth=1.0, zorder=3, **look)
        label = f"after {epochs} epoch{'s' if epochs > 1 else ''} of fine-tuning" if epochs else "without fine-tuning"
        handles.append(Line2D([], [], label=f"loss {label}", linewidth=1.2, markersize=4.2, **look))
    left.set_yticks(range(len(criteria)), criteria)
    left.set_ylim(len(criteria) - 0.5, -0.5)
    left.set_xlim(-1.05, 1.05)
    left.set_xticks([-1, -0.5, 0, 0.5, 1], [f"{tick:g}".replace("-", MINUS) for tick in (-1, -0.5, 0, 0.5, 1)])
    # The worst choices are many times as bad as a random one: above 1 the axis is logarithmic, so that it holds them too.
    right.set_xscale("symlog", linthresh=1, linscale=1.4)
    furthest = max(1.2, float(np.nanmax(data[["relative_regret", "relative_regret_high"]].to_numpy(float), initial=0.0)))
    right.set_xlim(-0.06, 1.1 * furthest)
    ticks = [tick for tick in (0, 0.25, 0.5, 0.75, 1, 2, 5, 10, 20, 50, 100) if tick <= furthest]
    right.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    right.minorticks_off()
    for axes, marks in ((left, {0: "random", 1: "oracle"}), (right, {0: "oracle", 1: "random"})):
        for place, word in marks.items():
            axes.axvline(place, color="0.3", linewidth=0.9, linestyle="-" if word == "oracle" else (0, (2, 1)), zorder=1)
            axes.text(place, 1.01, word, ha="center", va="bottom", fontsize=7, transform=axes.get_xaxis_transform())
        axes.grid(axis="y", visible=False)
        sns.despine(ax=axes, left=True)
        axes.tick_params(axis="y", length=0)
        for place in range(0, len(criteria), 2):
            axes.axhspan(place - 0.5, place + 0.5, color="0.965", linewidth=0, zorder=0)
    replicates = int(data["n"].max())
    left.set_xlabel("Kendall's \u03c4 with the oracle" + mean_over(replicates))
    right.set_xlabel("Relative regret (logarithmic above 1)" + mean_over(replicates))
    over = data["resampled"].iloc[0] + (" of one dense network" if replicates == 1 else "")
    handles.append(Line2D([], [], color="none", label=f"bars: 95 % bootstrap over {over}"))
    head(figure, f"{title}: criteria held to the oracle")
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    return figure


# --- which blocks went -----------------------------------------------------------------------------------------------


def _removals(tables: Tables, title: str) -> Figure:
    """Which blocks each criterion removed at which step: colour is the step, area the share of replicates."""
    rows = tables.removals[tables.removals["chain_criterion"] != "random"]
    if rows.empty:
        return note(title, "No criterion but random removed blocks step by step.")
    blocks = sorted({*map(str, rows["block"]), *map(str, tables.scores["block"])}, key=natural)
    schedules = ordered_schedules(rows["schedule"])
    criteria = {s: ordered_criteria(rows.loc[rows["schedule"] == s, "chain_criterion"]) for s in schedules}
    heights = [len(criteria[schedule]) + 1.5 for schedule in schedules]
    figure = Figure(figsize=grid_size(blocks, sum(heights), len(schedules)), layout="constrained")
    panels = figure.subplots(len(schedules), 1, height_ratios=heights, squeeze=False)[:, 0]
    last = int(rows["step"].max())
    replicates = rows["replicate"].nunique()
    for panel, schedule in zip(panels, schedules, strict=True):
        chosen = rows[rows["schedule"] == schedule]
        _removal_panel(panel, chosen, criteria[schedule], blocks, last)
        panel.set_title(f"{title}: {schedule}", pad=8)
    label = "Step at which the block went" + mean_over(replicates)
    colour_bar(figure, list(panels), 1, max(last, 2), label)
    if replicates > 1:
        figure.supxlabel("Area of a square: share of the replicates that removed the block", fontsize=7.5)
    return figure


def _removal_panel(panel: Axes, rows: pd.DataFrame, criteria: Sequence[str], blocks: Sequence[str], last: int) -> None:
    norm, colours = Normalize(1, max(last, 2)), mpl.colormaps[ORDERED]
    panel.set_xlim(-0.5, len(blocks) - 0.5)
    panel.set_ylim(len(criteria) - 0.5, -0.5)
    runs = rows.groupby("chain_criterion")[["replicate", "draw"]].apply(lambda f: len(f.drop_duplicates()))
    for (criterion, block), steps in rows.groupby(["chain_criterion", "block"])["step"]:
        x, y = blocks.index(str(block)), list(criteria).index(str(criterion))
        side = 0.92 * math.sqrt(len(steps) / runs[str(criterion)])
        step = float(steps.mean())
        colour = colours(norm(step))
        panel.add_patch(Rectangle((x - side / 2, y - side / 2), side, side, facecolor=colour, linewidth=0))
        if side >= 0.5:
            panel.text(x, y, f"{step:.0f}", ha="center", va="center", fontsize=6.5, color=ink(colour))
    panel.set_yticks(range(len(criteria)), criteria)
    panel.set_facecolor("0.96")
    block_axis(panel, blocks, separator="0.4", width=0.8)


def _audit(tables: Tables, title: str) -> Figure:
    if tables.audit_blocks.empty:
        return note(title, "No delivered networks were audited.")
    return draw_audit(tables.audit_blocks, tables.audit_choices, title)


FIGURES: dict[str, Callable[[Tables, str], Figure]] = {
    "audit": _audit,
    "quality": _quality,
    "accuracy": _accuracy,
    "scores": _scores,
    "agreement": _agreement,
    "removals": _removals,
}
