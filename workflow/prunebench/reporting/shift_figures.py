"""Figures of errors on corrupted images: against FLOPs reduction, and one by one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from prunebench.evaluation.corruptions import ALL
from prunebench.reporting.collect import DELIVERED, DENSE, Tables
from prunebench.reporting.display import ordered_criteria, ordered_schedules
from prunebench.reporting.drawing import bare, head, ink, mean_over, note
from prunebench.reporting.figures import criteria_panel, legend_of, looks_of
from prunebench.reporting.formats import MINUS
from prunebench.reporting.shift import CLEAN, CORRUPTIONS, MEAN, NETWORK, known
from prunebench.reporting.statistics import FLOPS, by_network


def changes(results: pd.DataFrame, quantities: Iterable[str]) -> pd.DataFrame:
    """Errors of pruned networks on corrupted images less the dense network's of the same replicate, in percentage points.

    Returns:
        One row for each network and quantity: columns of the network, ``flops_reduction_percent``, ``quantity``, ``change_pp``.
    """
    wanted = known(results, CORRUPTIONS, quantities)
    networks = by_network(results, CORRUPTIONS, wanted)
    kept = [*NETWORK, "replicate", "draw", "blocks_removed", FLOPS[1]]
    long = networks.melt(kept, list(wanted), var_name="quantity", value_name="error").dropna(subset=["error"])
    shared = ["dataset", "model", "replicate", "quantity"]
    dense = long.loc[long["schedule"] == DENSE, [*shared, "error"]]
    pairs = long[long["schedule"] != DENSE].merge(dense, on=shared, suffixes=("", "_dense"))
    pairs["change_pp"] = pairs["error"] - pairs["error_dense"]
    return pairs


def _figure(tables: Tables, title: str) -> Figure:
    """Change of accuracy by criterion against FLOPs reduction: above on the clean images, below under corruption."""
    found = changes(tables.results, [CLEAN, MEAN]).dropna(subset=[FLOPS[1]])
    # As accuracy, so that down is bad in both rows and in the figure of accuracy.
    found["change_pp"] = -found["change_pp"]
    schedules = ordered_schedules(found["schedule"])
    rows = [
        (quantity, words) for quantity, words in ((CLEAN, "clean"), (MEAN, "corrupted")) if (found["quantity"] == quantity).any()
    ]
    if not schedules or len(rows) < 2:
        return note(
            title, "No pruned network has errors on corrupted images, a FLOPs reduction and a dense network to compare with."
        )
    criteria = ordered_criteria(found["criterion"])
    looks = looks_of(criteria)
    legend = legend_of(criteria, looks, spread=found["replicate"].nunique() > 1)
    figure = Figure(figsize=(3.1 * len(schedules) + 2.3, 5.4), layout="constrained")
    panels = figure.subplots(2, len(schedules), sharey=True, sharex="col", squeeze=False)
    for line, (quantity, words) in zip(panels, rows, strict=True):
        for panel, schedule in zip(line, schedules, strict=True):
            here = found[(found["schedule"] == schedule) & (found["quantity"] == quantity)]
            criteria_panel(panel, here, looks)
            panel.set_title(f"{schedule}, {words} images", fontsize=8.5)
        line[0].set_ylabel("Accuracy change\nagainst dense (pp)")
    for panel in panels[-1]:
        panel.set_xlabel("FLOPs reduction (%)")
    head(figure, title)
    figure.legend(handles=legend, loc="outside right upper", frameon=False, handlelength=3.4)
    return figure


def _map(tables: Tables, title: str) -> Figure:
    """Heat map: change of the error under each corruption, at the operating point of each schedule that removes the most."""
    quantities = [CLEAN, *(f"{name}_error_percent" for name in ALL)]
    found = changes(tables.results, quantities)
    schedules = ordered_schedules(found["schedule"])
    if not schedules:
        return note(title, "No pruned network has errors on corrupted images and a dense network to compare with.")
    shown = [quantity for quantity in quantities if (found["quantity"] == quantity).any()]
    panels_of: dict[str, pd.DataFrame] = {}
    for schedule in schedules:
        words, columns, here = _networks(found[found["schedule"] == schedule], schedule)
        replicates = here.groupby(["quantity", "column", "replicate"], as_index=False)["change_pp"].mean()
        means = replicates.pivot_table("change_pp", "quantity", "column", aggfunc="mean")
        panels_of[words] = means.reindex(index=shown, columns=columns)
    limit = max(1.0, max(float(np.nanmax(np.abs(means.to_numpy()))) for means in panels_of.values()))
    widths = [len(means.columns) for means in panels_of.values()]
    figure = Figure(
        figsize=(max(4.6, 0.36 * sum(widths) + 0.3 * len(widths) + 2.2), 0.21 * len(shown) + 2.1), layout="constrained"
    )
    panels = figure.subplots(1, len(panels_of), squeeze=False, sharey=True, width_ratios=widths)[0]
    for panel, (title_of, means) in zip(panels, panels_of.items(), strict=True):
        _signed_cells(panel, means.to_numpy(), limit)
        panel.set_xticks(range(len(means.columns)), list(means.columns), rotation=90)
        panel.set_title(title_of, fontsize=8.5)
        for edge in _edges(shown):
            panel.axhline(edge - 0.5, color="white", linewidth=3)
    panels[0].set_yticks(range(len(shown)), [_words(quantity) for quantity in shown])
    head(figure, title)
    mapped = mpl.cm.ScalarMappable(Normalize(-limit, limit), "RdBu_r")
    bar = figure.colorbar(mapped, ax=list(panels), pad=0.02, aspect=25)
    bar.set_label("Error against dense (pp)" + mean_over(found["replicate"].nunique()))
    bar.outline.set_visible(False)
    return figure


def _networks(rows: pd.DataFrame, schedule: str) -> tuple[str, list[str], pd.DataFrame]:
    """What a panel shows: its title, its columns, and the rows with their ``column``.

    Criteria share their operating points, and stand side by side at the last. Delivered networks have points of their own: all are shown.
    """
    if schedule == DELIVERED:
        order = rows.groupby(["criterion", "operating_point"])[FLOPS[1]].mean().fillna(0).reset_index()
        methods = ordered_criteria(order["criterion"])
        order["method"] = order["criterion"].map(methods.index)
        order = order.sort_values(["method", FLOPS[1], "operating_point"])
        columns = [f"{method} {point}" for method, point in zip(order["criterion"], order["operating_point"], strict=True)]
        return schedule, columns, rows.assign(column=rows["criterion"] + " " + rows["operating_point"])
    furthest = (
        rows.groupby("operating_point")[[FLOPS[1], "blocks_removed"]].mean().fillna(-1).sort_values([FLOPS[1], "blocks_removed"])
    )
    last = str(furthest.index[-1])
    here = rows[rows["operating_point"] == last]
    return f"{schedule}, {last}", ordered_criteria(here["criterion"]), here.assign(column=here["criterion"])


def _words(quantity: str) -> str:
    return (
        "no corruption"
        if quantity == CLEAN
        else quantity.removesuffix("_error_percent").replace("_", " ").replace("jpeg", "JPEG")
    )


def _edges(quantities: list[str]) -> list[int]:
    """Rows at which another group of corruptions begins."""
    sizes = (3, 4, 4, 4, 4)
    groups = [group for group, size in enumerate(sizes) for _ in range(size)]
    group = {CLEAN: -1, **{f"{name}_error_percent": number for name, number in zip(ALL, groups, strict=True)}}
    return [row for row in range(1, len(quantities)) if group[quantities[row]] != group[quantities[row - 1]]]


def _signed_cells(axes: Axes, values: Any, limit: float) -> None:
    """A heat map around zero with a number in every cell that has a value."""
    norm, colours = Normalize(-limit, limit), mpl.colormaps["RdBu_r"]
    axes.imshow(np.ma.masked_invalid(values), cmap="RdBu_r", norm=norm, aspect="auto")
    for (i, j), value in np.ndenumerate(values):
        if not math.isnan(value):
            text = f"{value:+z.1f}" if abs(value) < 9.95 else f"{value:+.0f}"
            axes.text(j, i, text.replace("-", MINUS), ha="center", va="center", fontsize=5.8, color=ink(colours(norm(value))))
    bare(axes)


FIGURES: dict[str, Callable[[Tables, str], Figure]] = {"corruptions": _figure, "corruption_map": _map}
