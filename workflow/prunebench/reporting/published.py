"""Published and reproduced side by side: tables ``published`` and ``claims``, figure ``published``."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from prunebench import published
from prunebench.reporting.collect import DELIVERED, DENSE, Tables
from prunebench.reporting.comparison import accuracy_by_replicate, summarise_accuracy
from prunebench.reporting.display import ordered_criteria, ordered_schedules
from prunebench.reporting.drawing import legend_grid, note, text_inches
from prunebench.reporting.figures import criteria_panel, legend_of, looks_of
from prunebench.reporting.formats import NOTHING, Column, Origin, Table, mean_sd, number

FILTERS = "one-shot-filters"
SAME = 0.02
"""FLOPs reductions are the same if they differ by no more points: published ones are rounded to 0.01."""
NEAR = 5.0
"""A criterion followed here stands beside a published figure if it reached a FLOPs reduction no more points away."""
COLUMNS = [
    *("dataset", "model", "method", "kind", "published_flops_reduction_percent", "published_change_pp"),
    *("match", "schedule", "criterion", "operating_point", "flops_reduction_percent", "change_pp_mean", "change_pp_sd", "n"),
    *("note", "source"),
]
_WORDS = ("match", "schedule", "criterion", "operating_point")
CLAIM_COLUMNS = [
    *("dataset", "model", "method", "claim", "published_value"),
    *("value", "candidates", "schedule", "criterion", "operating_point", "evaluation", "quantity", "found_by", "n"),
    *("note", "source"),
]
# What is comparable with a claim here: tidy table, evaluation, quantity (patterns end in *), and whether the change is relative.
_COMPARABLE = {
    "energy_change_percent": ("measured", "energy", "inference_net_energy_joules_per_image", True),
    "carbon_change_percent": ("measured", "energy", "inference_net_emissions_ug_per_image", True),
    "robust_accuracy_change_pp": ("results", "*", "robust_accuracy_*_percent", False),
}


# --- tables ----------------------------------------------------------------------------------------------------------


def side_by_side(results: pd.DataFrame) -> pd.DataFrame:
    """Every published change of accuracy of the suite's datasets and models, with what was reproduced of it.

    A delivered network is the published one if its method's name begins with the published method's and the FLOPs reductions differ by
    ``SAME`` at most; a criterion followed here that is named as the method meets it at the nearest reduction, ``NEAR`` away at most, on
    each schedule.

    Returns:
        Columns ``COLUMNS``: one row for each match, and one with nothing behind the published figure where nothing matches.
    """
    summary = summarise_accuracy(results)
    summary = summary[summary["schedule"] != DENSE]
    rows: list[dict[str, Any]] = []
    for (dataset, model), networks in summary.groupby(["dataset", "model"], sort=False):
        for figure in published.figures(str(dataset), str(model)):
            row: dict[str, Any] = {"dataset": dataset, "model": model, "method": figure.method, "kind": figure.kind}
            row |= {"published_flops_reduction_percent": figure.flops_reduction_percent, "published_change_pp": figure.value}
            row |= {"note": figure.note, "source": figure.source, **dict.fromkeys(_WORDS, "")}
            found = list(_matches(figure, networks))
            rows += [{**row, "match": kind, **match} for kind, match in found] or [row]
    return pd.DataFrame(rows, columns=COLUMNS)


def _matches(figure: published.Figure, networks: pd.DataFrame) -> list[tuple[str, dict[str, Any]]]:
    away = (networks["flops_reduction_percent"] - figure.flops_reduction_percent).abs()
    wanted = ["schedule", "criterion", "operating_point", "flops_reduction_percent", "change_pp_mean", "change_pp_sd", "n"]
    is_by, delivered = _is_by(figure, networks), networks["schedule"] == DELIVERED
    same = networks.loc[is_by & delivered & (away <= SAME), wanted]
    # Of two that are as near, the first in the order of display.
    near = networks.assign(away=away)[is_by & ~delivered & (away <= NEAR)].sort_values("away", kind="stable")
    near = near.drop_duplicates("schedule").sort_values("schedule", key=lambda names: names.map(ordered_schedules(names).index))
    found = [("same network", row) for row in same.to_dict("records")]
    found += [("same criterion", row) for row in near[wanted].to_dict("records")]
    return [(kind, {str(key): value for key, value in row.items()}) for kind, row in found]


def _is_by(figure: published.Figure, frame: pd.DataFrame) -> pd.Series[bool]:
    """Which rows are of the method that published a figure: of a file of its own, or of the criterion of that name."""

    def of_it(schedule: str, name: str) -> bool:
        if schedule == DELIVERED:
            return figure.delivered_as(name)
        # A network that lost filters after its blocks is none of a method that removes whole layers.
        return name == figure.slug and not (schedule == FILTERS and figure.kind == "layer")

    found = [of_it(schedule, name) for schedule, name in zip(frame["schedule"], frame["criterion"], strict=True)]
    return pd.Series(found, index=frame.index, dtype=bool)


def _published(tidy: Tables) -> Table:
    accuracy = (
        Origin("results", "accuracy", "accuracy_percent"),
        Origin("results", "accuracy", "accuracy_percent", schedule=DENSE),
    )
    reduction = (Origin("results", "complexity", "flops_reduction_percent"),)
    data = side_by_side(tidy.results)
    notes = list(dict.fromkeys(text for text in data["note"] if text))

    def marked(row: Any) -> str:
        return f"{row.method} [{notes.index(row.note) + 1}]" if row.note else str(row.method)

    columns = [
        Column("Method", marked, right=False),
        Column("Removes", lambda row: f"{row.kind}s", right=False),
        Column(
            "Published: FLOPs \u2212%",
            lambda row: number(row.published_flops_reduction_percent, 2),
        ),
        Column("Published: \u0394 (pp)", lambda row: number(row.published_change_pp, 2, sign=True)),
        Column("Reproduced by", _who, right=False),
        Column(
            "Here: FLOPs \u2212%",
            lambda row: number(row.flops_reduction_percent, 2),
            origins=reduction,
        ),
        Column(
            "Here: \u0394 (pp)",
            lambda row: mean_sd(row.change_pp_mean, row.change_pp_sd),
            origins=accuracy,
        ),
        Column("n", lambda row: NOTHING if math.isnan(row.n) else f"{row.n:.0f}", origins=accuracy),
    ]
    caption = (
        "Published changes of test accuracy beside what was reproduced, in percentage points (pp) against the unpruned network. "
        f"Same network: a file of the method itself, its FLOPs reduction within {SAME} points. Same criterion: the criterion of that name, "
        f"followed here with the training of this suite, at the nearest FLOPs reduction, at most {NEAR:g} points away; it is another "
        "network, trained for another time; networks that lost filters too are not set beside methods that remove layers. Here: "
        "mean and standard deviation over n replicates. A dash: nothing here is comparable. "
        "Published figures of other methods are as the CKA paper's slides cite them; none has an interval. The source of each is in "
        "the CSV file."
    )
    caption += "".join(f" [{number}] {text[0].upper()}{text[1:]}." for number, text in enumerate(notes, start=1))
    return Table("published", caption, data, columns, group=("dataset", "model"), rule_after="method")


def _who(row: Any) -> str:
    if not row.match:
        return NOTHING
    what = f"{row.criterion} {row.operating_point}"
    return f"same network: {what}" if row.match == "same network" else f"same criterion: {what}, {row.schedule}"


def claimed(tidy: Tables) -> pd.DataFrame:
    """Published upper bounds ("up to") of energy, carbon and robustness beside the most favourable mean of the same method here.

    Means over replicates of the change against the dense network of the same replicate, after the mean over draws. An upper bound says
    what the best of several was, so the best is taken here too, and ``candidates`` says of how many.

    Returns:
        Columns ``CLAIM_COLUMNS``; ``found_by`` is ``measured`` or ``estimated``, or empty for what is computed.
    """
    rows = []
    for dataset, model in tidy.designs():
        if not published.figures(dataset, model):
            continue
        for claim in published.claims():
            row: dict[str, Any] = {"dataset": dataset, "model": model, "method": claim.method, "claim": claim.quantity}
            row |= {"published_value": claim.value, "note": claim.note, "source": claim.source, "candidates": 0}
            row |= dict.fromkeys(("schedule", "criterion", "operating_point", "evaluation", "quantity", "found_by"), "")
            rows.append(row | _most_favourable(claim, tidy.of(dataset, model)))
    return pd.DataFrame(rows, columns=CLAIM_COLUMNS)


def _most_favourable(claim: published.Figure, tidy: Tables) -> dict[str, Any]:
    name, evaluation, quantity, relative = _COMPARABLE[claim.quantity]
    frame: pd.DataFrame = getattr(tidy, name)
    start, _, end = quantity.partition("*")
    matches = frame["quantity"].str.startswith(start) & frame["quantity"].str.endswith(end)
    frame = frame[matches & ((frame["evaluation"] == evaluation) | (evaluation == "*"))]
    kept = ["evaluation", "quantity", "replicate"]
    dense = frame[frame["schedule"] == DENSE].set_index(kept)["value"]
    mine = frame[frame["schedule"] != DENSE]
    mine = mine[_is_by(claim, mine)]
    if mine.empty or dense.empty:
        return {}
    network = ["schedule", "criterion", "operating_point"]
    joined = mine.groupby([*network, *kept], as_index=False)["value"].mean().join(dense.rename("dense"), on=kept).dropna()
    if joined.empty:
        return {}
    joined["change"] = joined["value"] - joined["dense"]
    if relative:
        joined["change"] *= 100 / joined["dense"]
    means = joined.groupby([*network, "evaluation", "quantity"])["change"].agg(["mean", "count"])
    # Less energy is better, more accuracy under attack is.
    best: Any = means["mean"].idxmin() if relative else means["mean"].idxmax()
    found = dict(zip([*network, "evaluation", "quantity"], best, strict=True))
    methods = mine.loc[mine["quantity"] == found["quantity"], "method"] if "method" in mine else []
    return {
        **found,
        "value": float(means.loc[best, "mean"]),
        "n": int(means.loc[best, "count"]),
        "candidates": len(means),
        "found_by": " and ".join(sorted({str(method) for method in methods if method})),
    }


def _claims(tidy: Tables) -> Table:
    origins = tuple(
        Origin(name, "{evaluation}", "{quantity}", schedule=schedule)
        for name in ("results", "measured")
        for schedule in (None, DENSE)
    )
    marks = {"measured": " (m)", "estimated": " (e)"}

    def here(row: Any) -> str:
        return number(row["value"], 2, sign=True) + ("" if math.isnan(row["value"]) else marks.get(row.found_by, ""))

    def network(row: Any) -> str:
        return f"{row.criterion} {row.operating_point}, {row.schedule}" if row.criterion else NOTHING

    columns = [
        Column("Method", lambda row: row.method, right=False),
        Column("Change of", lambda row: published.QUANTITIES[row.claim], right=False),
        Column("Published, up to", lambda row: number(row.published_value, 2, sign=True)),
        Column("Most favourable here", here, origins=origins),
        Column("Of so many", lambda row: str(row.candidates) if row.candidates else NOTHING),
        Column("Network", network, right=False),
        Column("Quantity", lambda row: row.quantity or NOTHING, right=False),
        Column("n", lambda row: NOTHING if math.isnan(row.n) else f"{row.n:.0f}", origins=origins),
    ]
    caption = (
        "Upper bounds that the abstract of the Consensus paper claims (arXiv:2411.14345) beside the most favourable mean here, over the "
        "networks of the same method and the quantities that fit: the change against the dense network of the same replicate, mean over n "
        "replicates. It is the best of so many, so it flatters, as an upper bound does. Energy and carbon here are of inference, "
        "net: without the power that the idle device draws, where a counter tells it; (m) measured, (e) estimated from nominal "
        "power. A dash: nothing here is comparable."
    )
    return Table("claims", caption, claimed(tidy), columns, group=("dataset", "model"), rule_after=None)


# --- figure ----------------------------------------------------------------------------------------------------------

_GREY = "0.35"
_MARKERS = {"layer": "s", "filter": "o"}
# Where the number of a marker may stand: around it, in points.
_AROUND = [(5.5, 0), (-5.5, 0), (0, 6), (0, -6), (5, 5), (-5, 5), (5, -5), (-5, -5)]


def _figure(tables: Tables, title: str) -> Figure:
    """The criteria followed here and, as small hollow markers, what others published; a panel for each schedule."""
    networks = accuracy_by_replicate(tables.results)
    networks = networks[networks["schedule"] != DENSE].dropna(subset=["change_pp", "flops_reduction_percent"])
    (dataset, model), *_ = tables.designs()
    theirs = published.figures(dataset, model)
    schedules = ordered_schedules(networks["schedule"])
    if not theirs or not schedules:
        return note(title, "Nothing was published of this network, or nothing was pruned here.")
    criteria = ordered_criteria(networks["criterion"])
    looks = looks_of(criteria)
    methods = list(dict.fromkeys((figure.method, figure.kind) for figure in theirs))
    handles = legend_of(criteria, looks, spread=networks["replicate"].nunique() > 1)
    handles += [
        Line2D([], [], label=f"{number} {method}", **_marker(kind)) for number, (method, kind) in enumerate(methods, start=1)
    ]
    handles += [Line2D([], [], color="none", label="numbered: published; squares\nremove layers, circles filters")]
    columns, height = legend_grid(handles, text_inches())
    figure = Figure(figsize=(text_inches(), 3.1 + height), layout="constrained")
    panels = figure.subplots(1, len(schedules), sharey=True, sharex=True, squeeze=False)[0]
    for panel, schedule in zip(panels, schedules, strict=True):
        criteria_panel(panel, networks[networks["schedule"] == schedule], looks)
        ticks = range(0, 101, 20)
        panel.set_xticks(ticks, [str(tick) for tick in ticks])
        panel.set_xlim(0, max(85, 5 + networks["flops_reduction_percent"].max()))
        panel.set_title(schedule)
        panel.set_xlabel("FLOPs reduction (%)")
    low, high = panels[0].get_ylim()
    values = [figure.value for figure in theirs]
    panels[0].set_ylim(min(low, min(values) - 0.35), max(high, max(values) + 0.35))
    for panel in panels:
        _mark(panel, theirs, methods)
    panels[0].set_ylabel("Accuracy change against dense (pp)")
    figure.suptitle(f"{title}: here and published", fontsize=9)
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, handlelength=2.6, columnspacing=1.0)
    return figure


def _marker(kind: str) -> dict[str, Any]:
    look = {"color": _GREY, "marker": _MARKERS[kind], "markerfacecolor": "none"}
    return {**look, "linestyle": "", "markersize": 4.2, "markeredgewidth": 0.8}


def _mark(panel: Axes, theirs: tuple[published.Figure, ...], methods: list[tuple[str, str]]) -> None:
    """Hollow markers with the numbers of the legend, each number where it hides least."""
    width, height = panel.bbox.width / panel.figure.dpi * 72, panel.bbox.height / panel.figure.dpi * 72
    (left, right), (bottom, top) = panel.get_xlim(), panel.get_ylim()
    # Before the layout is made, panels are a little larger than they will be; that moves all points alike.
    places = [
        ((each.flops_reduction_percent - left) / (right - left) * width, (each.value - bottom) / (top - bottom) * height)
        for each in theirs
    ]
    taken = list(places)
    for figure, (x, y) in zip(theirs, places, strict=True):
        panel.plot(figure.flops_reduction_percent, figure.value, zorder=5, **_marker(figure.kind))
        dx, dy = max(_AROUND, key=lambda step: min(math.dist((x + step[0], y + step[1]), p) for p in taken if p != (x, y)))
        taken.append((x + dx, y + dy))
        panel.annotate(
            str(methods.index((figure.method, figure.kind)) + 1),
            (figure.flops_reduction_percent, figure.value),
            xytext=(dx, dy),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=7,
            color=_GREY,
            zorder=6,
            path_effects=[withStroke(linewidth=1.6, foreground="white")],
        )


FIGURES: dict[str, Callable[[Tables, str], Figure]] = {"published": _figure}
TABLES: dict[str, Callable[[Tables], Table]] = {"published": _published, "claims": _claims}
