"""The figure ``differences``: how far each criterion is from random removal, with its interval, at every operating point."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from prunebench.reporting import figures, statistics
from prunebench.reporting.collect import Tables
from prunebench.reporting.display import ordered_criteria, ordered_schedules
from prunebench.reporting.drawing import note


def _differences(tables: Tables, title: str) -> Figure:
    """A forest plot: a row for each criterion, a column of panels for each operating point, a row of panels for each schedule."""
    data = statistics.compare(tables.results, "random")
    if data.empty:
        return note(title, "Nothing to compare: no criterion shares a replicate with random removal.")
    schedules = ordered_schedules(data["schedule"])
    criteria = {schedule: ordered_criteria(data.loc[data["schedule"] == schedule, "criterion"]) for schedule in schedules}
    points = list(dict.fromkeys(data.sort_values("blocks_removed", kind="stable")["operating_point"]))
    heights = [0.19 * len(criteria[schedule]) + 0.55 for schedule in schedules]
    figure = Figure(figsize=(max(5.0, 2.0 * len(points) + 1.7), sum(heights) + 0.95), layout="constrained")
    panels = figure.subplots(len(schedules), len(points), sharex=True, squeeze=False, height_ratios=heights)
    reach = _reach(data)
    margin = 0.03 * (reach[1] - reach[0])
    for i, schedule in enumerate(schedules):
        for j, point in enumerate(points):
            panel = panels[i, j]
            rows = data[(data["schedule"] == schedule) & (data["operating_point"] == point)]
            _panel(panel, rows, criteria[schedule], reach, named=j == 0)
            panel.set_title(f"{schedule}, {point}" if len(schedules) > 1 else point, fontsize=8)
    panels[0, 0].set_xlim(reach[0] - margin, reach[1] + margin)
    for panel in panels[-1]:
        panel.set_xlabel("Difference to random (pp)")
    given = ", conditional on a shared dense network" if tables.conditional(*tables.designs()[0]) else ""
    figure.suptitle(f"{title}: test accuracy against random removal\npaired 95 % t intervals, not adjusted{given}", fontsize=9)
    figure.legend(handles=_legend(data), loc="outside lower center", ncols=3, frameon=False)
    return figure


def _reach(data: pd.DataFrame) -> tuple[float, float]:
    """Where the axis ends: zero and all means are seen, and nine in ten ends of intervals; few replicates give a few endless ones."""
    means = data["mean_difference"]
    low, high = (data[name].dropna() for name in ("ci_low", "ci_high"))
    lowest = min(float(means.min()), float(np.quantile(low, 0.1)) if len(low) else 0.0, 0.0)
    highest = max(float(means.max()), float(np.quantile(high, 0.9)) if len(high) else 0.0, 0.0)
    room = max(0.08 * (highest - lowest), 0.05)
    return lowest - room, highest + room


def _panel(panel: Axes, rows: pd.DataFrame, criteria: list[str], reach: tuple[float, float], named: bool) -> None:
    looks = figures.looks_of(criteria)
    panel.axvline(0, color="0.2", linewidth=0.9, zorder=1)
    for _, row in rows.iterrows():
        y, look = criteria.index(str(row.criterion)), looks[str(row.criterion)]
        decided = row.verdict != "undecided"
        line = look.line() | {"linestyle": "", "markersize": 5.0}
        if not decided:
            line |= {"markerfacecolor": "white", "markeredgecolor": look.colour, "markeredgewidth": 0.9}
        if not math.isnan(row.ci_low):
            low, high = max(row.ci_low, reach[0]), min(row.ci_high, reach[1])
            panel.plot([low, high], [y, y], color=look.colour, linewidth=1.8 if decided else 0.9, zorder=2)
            # An arrow where an interval goes on beyond the axis.
            for end, beyond, marker in ((low, row.ci_low < reach[0], "<"), (high, row.ci_high > reach[1], ">")):
                panel.plot([end], [y], marker=marker if beyond else "|", color=look.colour, markersize=4, zorder=2)
        panel.plot([row.mean_difference], [y], zorder=3, **line)
    panel.set_yticks(range(len(criteria)), criteria if named else [])
    panel.set_ylim(len(criteria) - 0.4, -0.6)
    panel.tick_params(axis="y", length=0)
    panel.spines[["top", "right", "left"]].set_visible(False)


def _legend(data: pd.DataFrame) -> list[Line2D]:
    def dot(face: str, width: float, label: str) -> Line2D:
        return Line2D([], [], color="0.3", marker="o", markersize=5, linewidth=width, markerfacecolor=face, label=label)

    handles = [dot("white", 0.9, "undecided")]
    if (data["verdict"] != "undecided").any():
        handles.insert(0, dot("0.3", 1.8, "better or worse (adjusted p < 0.05)"))
    reach = _reach(data)
    if (data["ci_low"] < reach[0]).any() or (data["ci_high"] > reach[1]).any():
        handles.append(Line2D([], [], color="0.3", marker=">", markersize=4, linewidth=1, label="goes on beyond the axis"))
    return handles


FIGURES: dict[str, Callable[[Tables, str], Figure]] = {"differences": _differences}
