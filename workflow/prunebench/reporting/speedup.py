"""The MACs fell: is it faster, and why not? Latency against FLOPs reduction at each batch size."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from prunebench.reporting.collect import DENSE, Tables
from prunebench.reporting.cost import (
    LOAD_MARKS,
    NETWORK,
    batch_sizes,
    by_replicate,
    design_columns,
    load_mark,
    measured_from,
    over_replicates,
)
from prunebench.reporting.display import select
from prunebench.reporting.drawing import column_inches, cut_below, legend_grid, note
from prunebench.reporting.formats import NOTHING, Column, Origin, Table, number, significant
from prunebench.reporting.origins import load_from

TIMES = "\u00d7"
_FLOPS = (Origin("results", "complexity", "flops_reduction_percent"),)
_MACS = (Origin("results", "complexity", "macs"),)
_ACTIVATIONS = "latency.activations_bytes_per_image"
# What is counted of a network, and how the reduction of it is named.
COUNTED = {"product_layers": "layers", "activations_bytes_per_image": "activations"}


def speedups(tidy: Tables) -> pd.DataFrame:
    """Latency of each design in each replicate, against the dense network of the same replicate.

    Returns:
        The columns of ``by_replicate``, ``flops_reduction_percent``, ``macs``, ``<counted>_reduction_percent``, and for each batch size
        ``speedup_batch<n>`` (median of the dense network, timed in turns with this one where it was, over this one's),
        ``_low`` and ``_high`` (quartiles: the dense network's lower one over this
        one's upper one, and the other way round), ``gmacs_per_s_batch<n>``, ``macs_per_byte_batch<n>``.
    """
    frame = by_replicate(tidy.measured)
    sizes = batch_sizes(frame.columns)
    for quantity in ("flops_reduction_percent", "macs"):
        values = select(tidy.results, "complexity", quantity).groupby([*NETWORK, "replicate"])["value"].mean()
        frame = frame.join(values.rename(quantity), on=[*NETWORK, "replicate"])
    frame.loc[frame["schedule"] == DENSE, "flops_reduction_percent"] = 0.0
    frame["ideal_speedup"] = 1 / (1 - frame["flops_reduction_percent"] / 100)
    same = ["dataset", "model", "replicate"]
    dense = frame[frame["schedule"] == DENSE].set_index(same)
    base = frame[same].join(dense.drop(columns=NETWORK[2:]), on=same)
    for quantity, name in COUNTED.items():
        if (column := f"latency.{quantity}") in frame:
            frame[f"{name}_reduction_percent"] = 100 * (1 - frame[column] / base[column])
    for size, stem in sizes.items():
        median, low, high = (f"{stem}_{kind}_ms" for kind in ("median", "p25", "p75"))
        for kind in (median, low, high):
            # The dense network was timed in turns with each other one, where the evaluation does so.
            if (beside := kind.replace("latency.", "latency.dense_")) in frame:
                base[kind] = frame[beside].fillna(base[kind])
        frame[f"speedup_batch{size}"] = base[median] / frame[median]
        if low in frame and high in frame:
            frame[f"speedup_batch{size}_low"] = base[low] / frame[high]
            frame[f"speedup_batch{size}_high"] = base[high] / frame[low]
        frame[f"gmacs_per_s_batch{size}"] = frame["macs"] * size / frame[median] / 1e6
        if "latency.weights_bytes" in frame:
            moved = frame["latency.weights_bytes"] + size * frame["latency.activations_bytes_per_image"]
            frame[f"macs_per_byte_batch{size}"] = frame["macs"] * size / moved
    # A speed-up stands on two measurements.
    if "latency.beside" in frame:
        frame["latency.beside"] = [
            next((word for word in ("yes", "not known") if word in pair), "no")
            for pair in zip(frame["latency.beside"], base["latency.beside"], strict=True)
        ]
    return frame


def _summary(tidy: Tables) -> pd.DataFrame:
    frame = speedups(tidy)
    return over_replicates(frame) if len(frame) else pd.DataFrame(columns=[*NETWORK, "blocks_removed", "n"])


def _sizes(data: pd.DataFrame) -> list[int]:
    return list(batch_sizes(data.columns))


def _table(name: str, tidy: Tables, columns: Callable[[pd.DataFrame], Iterable[Column]], caption: str) -> Table:
    data = _summary(tidy)
    keep = [column for column in data.columns if "." not in column or column.startswith("latency.")]
    shown = [*design_columns(), *columns(data), Column("n", lambda row: str(row["n"]), origins=(Origin("measured"),))]
    caption = f"{caption} Means over n replicates. {LOAD_MARKS}"
    return Table(name, caption, data[keep], shown, origins=_origins(data))


def _origins(data: pd.DataFrame) -> dict[str, tuple[Origin, ...]]:
    """What all columns of the CSV file were made from: each of the two tables shows a part of them."""
    found: dict[str, tuple[Origin, ...]] = {"blocks_removed": (Origin("measured"),), "macs": _MACS}
    found |= {"flops_reduction_percent": _FLOPS, "ideal_speedup": _FLOPS}
    for quantity, name in COUNTED.items():
        found[f"{name}_reduction_percent"] = _of_both(f"latency.{quantity}")
    for size, stem in batch_sizes(data.columns).items():
        median = measured_from(f"{stem}_median_ms")
        found[f"speedup_batch{size}"] = _of_both(f"{stem}_median_ms")
        found[f"speedup_batch{size}_*"] = _of_both(f"{stem}_p[27]5_ms")
        found[f"gmacs_per_s_batch{size}"] = _MACS + median
        found[f"macs_per_byte_batch{size}"] = _MACS + measured_from("latency.weights_bytes") + measured_from(_ACTIVATIONS)
    return {**found, "latency.beside": load_from("latency") + load_from("latency", DENSE)}


def _of_both(name: str) -> tuple[Origin, ...]:
    """A quantity of the network and of the dense one, which may have been timed in turns with it."""
    beside = measured_from(name.replace("latency.latency", "latency.dense_latency"))
    return measured_from(name) + (beside if "latency.latency" in name else ()) + measured_from(name, DENSE)


def _speedup_columns(data: pd.DataFrame) -> Iterable[Column]:
    yield Column("FLOPs reduction (%)", lambda row: number(row["flops_reduction_percent"], 2), origins=_FLOPS)
    for quantity, name in COUNTED.items():
        if (column := f"{name}_reduction_percent") in data:
            yield Column(f"{name.capitalize()} reduction (%)", _plain(column, 1), origins=_of_both(f"latency.{quantity}"))
    yield Column("Ideal speed-up", lambda row: _times(row["ideal_speedup"]), origins=_FLOPS)
    for size in _sizes(data):
        origins = _of_both(f"latency.latency_batch{size}_*")
        yield Column(f"Speed-up, batch {size}", _speedup_cell(size), origins=origins)


def _bottleneck_columns(data: pd.DataFrame) -> Iterable[Column]:
    if "latency.product_layers" in data:
        yield Column("Layers", _plain("latency.product_layers", 0), origins=measured_from("latency.product_layers"))
    for size in _sizes(data):
        stem = f"latency.latency_batch{size}"
        origins = measured_from(f"{stem}_median_ms")
        if (column := f"macs_per_byte_batch{size}") in data:
            moved = measured_from("latency.*_bytes*")
            yield Column(f"MACs per byte, batch {size}", _plain(column, 1), origins=_MACS + moved)
        yield Column(f"GMAC/s, batch {size}", _marked(f"gmacs_per_s_batch{size}"), origins=_MACS + origins)
        if (column := f"{stem}_in_products_percent") in data:
            yield Column(f"Time in products, batch {size} (%)", _marked(column), origins=measured_from(column))


def _plain(name: str, digits: int) -> Callable[[Any], str]:
    return lambda row: number(row[name], digits)


def _marked(name: str) -> Callable[[Any], str]:
    def cell(row: Any) -> str:
        return significant(row[name]) + ("" if math.isnan(row[name]) else load_mark(row.get("latency.beside")))

    return cell


def _times(value: float) -> str:
    return NOTHING if math.isnan(value) else f"{number(value, 2)}{TIMES}"


def _speedup_cell(size: int) -> Callable[[Any], str]:
    name = f"speedup_batch{size}"

    def cell(row: Any) -> str:
        if row["schedule"] == DENSE or math.isnan(row[name]):
            return _times(row[name])
        low, high = row.get(f"{name}_low", math.nan), row.get(f"{name}_high", math.nan)
        spread = "" if math.isnan(low) or math.isnan(high) else f" [{number(low, 2)}, {number(high, 2)}]"
        return _times(row[name]) + spread + load_mark(row.get("latency.beside"))

    return cell


_SPEEDUP = (
    "Time of a forward pass of the dense network over that of the pruned one, timed in turns, "
    "by batch size, beside what it would be if time were in "
    "proportion to multiply-accumulates (ideal). In brackets: with each network's lower and upper quartile of times in the place of its "
    "median, the least and the most favourable way round; where they hold 1, the network is not shown to be faster. Layers: "
    "convolutions, dense layers and attention, one after the other. Activations: bytes that layers read and write."
)
_BOTTLENECK = (
    "Why fewer multiply-accumulates (MACs) are not always less time. GMAC/s: products per second that were reached; where pruning "
    "lowers it, what went was faster than what stayed. MACs per byte: work for each byte of weights and activations moved; with few "
    "of them memory sets the pace. Time in products: share of the time in convolutions, dense layers and attention; the rest is "
    "normalisation, activations, additions, and the call of each layer, which does not shrink with the batch."
)


# --- the figure ------------------------------------------------------------------------------------------------------

_BATCH_LOOKS = [("#D55E00", "s"), ("#E69F00", "D"), ("#0072B2", "o"), ("#009E73", "^"), ("#CC79A7", "v"), ("0.35", "P")]


def draw_speedup(tidy: Tables, title: str) -> Figure:
    """Reduction of latency against that of FLOPs: a point for each design, a line for each batch size, and the ideal diagonal."""
    data = _summary(tidy)
    sizes = _sizes(data)
    pruned = data[data["schedule"] != DENSE]
    if not sizes or pruned.empty or pruned["flops_reduction_percent"].isna().all():
        return note(title, "No pruned network has both a latency and a FLOPs reduction.")
    figure = Figure(layout="constrained")
    axes = figure.subplots()
    right = 1.05 * float(pruned["flops_reduction_percent"].max())
    axes.axhline(0, color="0.2", linewidth=0.9, zorder=1)
    axes.plot([0, right], [0, right], color="0.35", linestyle=(0, (4, 2)), linewidth=1.2, zorder=2)
    handles: list[Any] = [
        Line2D([], [], color="0.35", linestyle=(0, (4, 2)), linewidth=1.2, label="ideal: time falls as FLOPs do")
    ]
    crowded = pruned.get("latency.beside", pd.Series("not known", index=pruned.index)) != "no"
    # Sizes stand side by side, or their points would hide each other.
    shift = 0.006 * right * (np.arange(len(sizes)) - (len(sizes) - 1) / 2)
    for size, (colour, marker), offset in zip(sizes, _BATCH_LOOKS * len(sizes), shift, strict=False):
        x, y = pruned["flops_reduction_percent"], 100 * (1 - 1 / pruned[f"speedup_batch{size}"])
        for rows, face in ((~crowded, colour), (crowded, "none")):
            axes.scatter(
                x[rows] + offset, y[rows], s=13, marker=marker, facecolor=face, edgecolor=colour, linewidth=0.6, alpha=0.65
            )
        # By what was reached: filters are pruned too under the same name of an operating point.
        middle = pd.DataFrame({"x": x, "y": y}).dropna().groupby(x.round()).median()
        axes.plot(middle["x"] + offset, middle["y"], color=colour, linewidth=1.4, zorder=4)
        handles.append(Line2D([], [], color=colour, marker=marker, markersize=4.5, linewidth=1.4, label=f"batch {size}"))
    if crowded.any():
        words = "measured beside other work,\nor not known whether"
        handles.append(Line2D([], [], color="0.3", marker="o", markerfacecolor="none", linewidth=0, markersize=4.5, label=words))
    handles.append(
        Line2D([], [], color="none", label="points: schedules and criteria,\nmean over replicates;\nlines: their medians")
    )
    axes.set_xlim(0, right)
    axes.set_xlabel("FLOPs reduction (%)")
    axes.set_ylabel("Latency reduction (%)")
    axes.set_title(title)
    reductions = [100 * (1 - 1 / pruned[f"speedup_batch{size}"]) for size in sizes]
    cut_below(axes, pd.concat(reductions).dropna().tolist(), -100.0)
    _speedup_axis(axes)
    sns.despine(ax=axes)
    # It stands in one column: the legend goes below.
    columns, below = legend_grid(handles, column_inches())
    figure.set_size_inches(column_inches(), 2.7 + below)
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, columnspacing=1.0, frameon=False, fontsize=7)
    return figure


def _speedup_axis(axes: Any) -> None:
    """The same as a factor, on the right: 50 % less time is twice as fast."""
    axes.set_ylim(top=min(axes.get_ylim()[1], 99.0))
    low, high = axes.get_ylim()
    factors = [f for f in (0.25, 0.5, 0.67, 0.8, 1, 1.25, 1.5, 2, 2.5, 3, 4, 5, 10) if low <= 100 * (1 - 1 / f) <= high]
    # Factors whose places lie too near to each other would run into each other.
    kept: list[float] = []
    for factor in sorted(factors, key=lambda f: (f != 1, abs(f - 1))):
        if all(abs(1 / factor - 1 / other) * 100 > 0.06 * (high - low) for other in kept):
            kept.append(factor)
    other = axes.secondary_yaxis("right")
    other.set_yticks([100 * (1 - 1 / factor) for factor in kept], [f"{factor:g}{TIMES}" for factor in kept])
    other.set_ylabel("Speed-up")


TABLES: dict[str, Callable[[Tables], Table]] = {
    "speedup": lambda tidy: _table("speedup", tidy, _speedup_columns, _SPEEDUP),
    "bottleneck": lambda tidy: _table("bottleneck", tidy, _bottleneck_columns, _BOTTLENECK),
}
FIGURES: dict[str, Callable[[Tables, str], Figure]] = {"speedup": draw_speedup}
