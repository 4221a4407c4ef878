"""Figures of adversarial robustness: against FLOPs reduction, and over the distance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from prunebench.reporting.collect import DENSE, Tables
from prunebench.reporting.display import ordered_criteria, ordered_schedules
from prunebench.reporting.drawing import head, note, nothing_in
from prunebench.reporting.figures import criteria_panel, legend_of, looks_of
from prunebench.reporting.formats import PLUS_MINUS
from prunebench.reporting.robustness import ATTACKS, NORMS, by_network, distance, main_threat


def _changes(tables: Tables, title: str) -> Figure:
    """Change of robust accuracy against FLOPs reduction: a column of panels for each attack, a row for each schedule."""
    networks = by_network(tables.results)
    pruned = networks[networks["schedule"] != DENSE].dropna(subset=["change_pp", "flops_reduction_percent"])
    schedules = ordered_schedules(pruned["schedule"])
    if not schedules:
        return note(title, "No pruned network has a robust accuracy, a FLOPs reduction and an attacked dense network.")
    attacks = [attack for attack in ATTACKS if attack in set(pruned["attack"])]
    criteria = ordered_criteria(pruned["criterion"])
    looks = looks_of(criteria)
    legend = legend_of(criteria, looks, spread=pruned["replicate"].nunique() > 1)
    figure = Figure(figsize=_size(len(attacks), len(schedules), legend), layout="constrained")
    panels = figure.subplots(len(schedules), len(attacks), sharey=True, squeeze=False)
    for row, schedule in zip(panels, schedules, strict=True):
        for panel, attack in zip(row, attacks, strict=True):
            mine = networks[networks["attack"] == attack]
            threat = main_threat(mine)
            here = pruned[(pruned["schedule"] == schedule) & (pruned["attack"] == attack) & (pruned["threat"] == threat)]
            panel.set_title(f"{schedule}\n{_attacked(mine, attack, threat)}", fontsize=8)
            panel.set_xlabel("FLOPs reduction (%)")
            if here.empty:
                nothing_in(panel, "not attacked")
            else:
                criteria_panel(panel, here, looks)
        row[0].set_ylabel("Robust accuracy change\nagainst dense (pp)")
    head(figure, title)
    figure.legend(handles=legend, loc="outside right upper", frameon=False, handlelength=3.4)
    return figure


def _attacked(mine: pd.DataFrame, attack: str, threat: str) -> str:
    """Attack, distance, images and replicates, for the title of a panel."""
    images, n = mine["images"].max(), mine["replicate"].nunique()
    return f"{ATTACKS[attack]}, {distance(threat)[2]}, {images:.0f} images, n = {n}"


def _size(columns: int, rows: int, legend: Sequence[Any]) -> tuple[float, float]:
    # The legend stands beside the panels and may be the longer of the two.
    lines = sum(1 + handle.get_label().count("\n") for handle in legend)
    return 2.7 * columns + 2.3, max(2.7 * rows + 0.6, 0.17 * lines + 0.5)


def _curves(tables: Tables, title: str) -> Figure:
    """Robust accuracy over the distance, of dense networks and of every criterion at one point: a panel for each attack and norm."""
    networks = by_network(tables.results)
    if networks.empty:
        return note(title, "No network was attacked.")
    point = shown_point(networks)
    chosen = networks[(networks["schedule"] == DENSE) | (networks[["schedule", "operating_point"]] == point).all(axis=1)]
    attacks = [attack for attack in ATTACKS if attack in set(chosen["attack"])]
    norms = [norm for norm in NORMS if norm in set(chosen["norm"])]
    criteria = ordered_criteria(chosen["criterion"])
    looks = looks_of([criterion for criterion in criteria if criterion != DENSE])
    legend = [Line2D([], [], label="dense", **_DENSE_LINE)] if DENSE in criteria else []
    legend += legend_of([criterion for criterion in criteria if criterion != DENSE], looks, spread=False)
    if chosen["replicate"].nunique() > 1 and DENSE in criteria:
        legend.append(Line2D([], [], color="none", label=f"bars: {PLUS_MINUS} 1 standard deviation\nof dense over replicates"))
    legend = [handle for handle in legend if not isinstance(handle, Patch)]
    figure = Figure(figsize=_size(len(attacks), len(norms), legend), layout="constrained")
    panels = figure.subplots(len(norms), len(attacks), sharey=True, squeeze=False)
    for row, norm in zip(panels, norms, strict=True):
        for panel, attack in zip(row, attacks, strict=True):
            mine = _of(chosen, attack, norm)
            if mine.empty:
                panel.set_axis_off()
                continue
            _curve_panel(panel, mine, criteria, looks, norm)
            images, n = mine["images"].max(), mine["replicate"].nunique()
            panel.set_title(f"{ATTACKS[attack]}, {NORMS[norm]}, {images:.0f} images, n = {n}", fontsize=8)
            panel.tick_params(labelleft=True)
        row[0].set_ylabel("Robust accuracy (%)")
    panels[0, 0].set_ylim(bottom=0)
    where = f": {point[0]}, {point[1]}" if point[0] != DENSE else ""
    head(figure, f"{title}{where}")
    figure.legend(handles=legend, loc="outside right upper", frameon=False, handlelength=3.4)
    return figure


_DENSE_LINE: dict[str, Any] = {"color": "black", "linewidth": 2.0, "marker": "h", "markersize": 5.5, "markeredgecolor": "white"}
_DENSE_LINE["markeredgewidth"] = 0.4


def _of(networks: pd.DataFrame, attack: str, norm: str) -> pd.DataFrame:
    return networks[(networks["attack"] == attack) & (networks["norm"] == norm)]


def shown_point(networks: pd.DataFrame) -> list[str]:
    """Schedule and operating point of the curves: where most attacks and criteria are; of equal ones the furthest of the first schedule."""
    pruned = networks[networks["schedule"] != DENSE]
    if pruned.empty:
        return [DENSE, DENSE]
    schedules = ordered_schedules(pruned["schedule"])
    points = pruned.groupby(["schedule", "operating_point"])

    def rank(item: tuple[Any, pd.DataFrame]) -> tuple[int, int, float]:
        (schedule, _), rows = item
        return (
            len(rows[["attack", "criterion"]].drop_duplicates()),
            -schedules.index(str(schedule)),
            float(rows["blocks_removed"].mean()),
        )

    (schedule, operating_point), _ = max(points, key=rank)
    return [str(schedule), str(operating_point)]


def _curve_panel(panel: Axes, rows: pd.DataFrame, criteria: Sequence[str], looks: Any, norm: str) -> None:
    sizes = [0.0, *sorted(set(rows["size"]))]
    for criterion in criteria:
        mine = rows[rows["criterion"] == criterion]
        if mine.empty:
            continue
        robust = mine.groupby(["size", "replicate"])["robust"].mean().unstack("size")
        robust.insert(0, 0.0, mine.groupby("replicate")["clean"].mean())
        mean, deviation = robust.mean().to_numpy(), robust.std(ddof=1).fillna(0.0).to_numpy()
        x = robust.columns.to_numpy(float)
        if criterion == DENSE:
            panel.errorbar(x, mean, yerr=deviation, elinewidth=1.0, zorder=5, **_DENSE_LINE)
        else:
            look = looks[criterion]
            panel.plot(x, mean, zorder=4 if look.prominent else 3, **look.line())
    # Small distances are where curves fall: a square root gives them room and leaves 0 on the axis.
    panel.set_xscale("function", functions=(lambda x: np.sign(x) * np.sqrt(np.abs(x)), lambda x: np.sign(x) * np.square(x)))
    panel.set_xlim(-0.002 * sizes[-1], 1.08 * sizes[-1])
    panel.set_xticks(sizes, [f"{size:g}" for size in sizes])
    panel.minorticks_off()
    panel.set_xlabel("Distance (1/255)" if norm == "linf" else "Distance")
    sns.despine(ax=panel)


FIGURES: dict[str, Callable[[Tables, str], Figure]] = {"robustness": _changes, "robustness_curve": _curves}
