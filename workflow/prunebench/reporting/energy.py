"""Energy and carbon of each stage, and after how many images pruning has paid for itself."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from prunebench.reporting.collect import DENSE, SCORING, TRAINING, Tables
from prunebench.reporting.cost import (
    LOAD_MARKS,
    METHOD_MARKS,
    NETWORK,
    by_replicate,
    design_columns,
    energy_cell,
    load_mark,
    measured_from,
    method_mark,
    over_replicates,
    without_taken_over,
)
from prunebench.reporting.display import ordered_criteria, ordered_schedules, select
from prunebench.reporting.drawing import cut_below, head, note
from prunebench.reporting.figures import looks_of
from prunebench.reporting.formats import Column, Origin, Table, number, significant
from prunebench.reporting.origins import load_from

JOULES_PER_KWH = 3.6e6
_INFERENCE = "energy.inference_net_energy_joules_per_image"
_EMISSIONS = "energy.inference_net_emissions_ug_per_image"
_STAGES = ("training.energy_kwh", "training.emissions_kg", "scoring.energy_kwh", "scoring.emissions_kg")
_BREAK_EVEN = ("break_even_images", "break_even_with_training_images")


def energies(tidy: Tables) -> pd.DataFrame:
    """What each stage of each design cost in each replicate, and from how many images on pruning pays; means over draws.

    Returns:
        The columns of ``by_replicate`` that the table needs, ``scorings`` (how often the network was scored on the way), scoring's energy
        and emissions that many times, ``dense_training_kwh``, ``inference_energy_reduction_percent`` and the two break-evens: infinite
        where the pruned network's inference does not cost less, ``nan`` where a stage's energy is not known.
    """
    frame = by_replicate(tidy.measured)
    frame = frame.reindex(columns=list(dict.fromkeys([*frame.columns, *_STAGES[:2], _INFERENCE, _EMISSIONS, "energy.beside"])))
    frame["scorings"] = _scorings(frame, tidy.scores)
    same = ["dataset", "model", "replicate"]
    for name in ("energy_kwh", "emissions_kg"):
        once = select(tidy.measured, SCORING, name).groupby([*same, "criterion"])["value"].mean().rename(f"{SCORING}.{name}")
        frame = frame.join(once, on=[*same, "criterion"])
        frame[f"{SCORING}.{name}"] *= frame["scorings"]
    frame = without_taken_over(frame, tidy.results)
    dense = frame[frame["schedule"] == DENSE].set_index(same)
    base = frame[same].join(dense[["training.energy_kwh", _INFERENCE, "energy.beside"]], on=same)
    pruned = frame["schedule"] != DENSE
    frame["dense_training_kwh"] = base["training.energy_kwh"]
    frame["saving_joules_per_image"] = (base[_INFERENCE] - frame[_INFERENCE]).where(pruned)
    frame["inference_energy_reduction_percent"] = (100 * frame["saving_joules_per_image"] / base[_INFERENCE]).where(pruned)
    frame["pruning_kwh"] = (frame["training.energy_kwh"] + frame["scoring.energy_kwh"]).where(pruned)
    for name, spent in zip(_BREAK_EVEN, (frame["pruning_kwh"], frame["pruning_kwh"] + frame["dense_training_kwh"]), strict=True):
        frame[name] = break_even(spent, frame["saving_joules_per_image"])
    # What is derived stands on two measurements of inference.
    frame["energy.beside"] = [
        next((word for word in ("yes", "not known") if word in pair), "no")
        for pair in zip(frame["energy.beside"], base["energy.beside"], strict=True)
    ]
    return frame


def break_even(kwh: pd.Series, joules_per_image: pd.Series) -> pd.Series:
    """Images after which the energy is saved; infinite where nothing is saved, ``nan`` where one of them is not known."""
    images = JOULES_PER_KWH * kwh / joules_per_image.where(joules_per_image > 0)
    return images.mask((joules_per_image <= 0) & kwh.notna(), math.inf)


def _scorings(frame: pd.DataFrame, scores: pd.DataFrame) -> pd.Series:
    """How often the network was scored on the way to each design: once, or before each step of an iterative chain."""
    steps = scores[scores["schedule"] != DENSE][["dataset", "model", "replicate", "schedule", "chain_criterion", "draw", "step"]]
    found = []
    for row in frame.itertuples():
        same = (steps["dataset"] == row.dataset) & (steps["model"] == row.model) & (steps["replicate"] == row.replicate)
        chain = steps[same & (steps["schedule"] == row.schedule) & (steps["chain_criterion"] == row.criterion)]
        chain = chain[chain["step"] < row.blocks_removed]
        found.append(chain.groupby("draw")["step"].nunique().mean() if len(chain) else 1.0)
    return pd.Series(found, index=frame.index, dtype=float)


def summarise(tidy: Tables) -> pd.DataFrame:
    """Means over replicates. Break-evens are those of the mean energies, with the lowest and highest replicate's (``_low``, ``_high``)."""
    frame = energies(tidy)
    if frame.empty:
        return pd.DataFrame(columns=[*NETWORK, "blocks_removed", "n"])
    keep = [*NETWORK, "replicate", "blocks_removed", *_STAGES, "scorings", "dense_training_kwh", "pruning_kwh"]
    keep += [name for name in frame.columns if name.startswith("energy.inference_") and "_measured" not in name]
    keep += ["saving_joules_per_image", "inference_energy_reduction_percent", "energy.beside"]
    keep += [name for name in ("energy.idle_power_watts", "energy.method", "training.method") if name in frame]
    summary = over_replicates(frame[keep])
    groups = frame.groupby(NETWORK)
    for name in _BREAK_EVEN:
        spent = summary["pruning_kwh"] + (summary["dense_training_kwh"] if "training" in name else 0.0)
        summary[name] = break_even(spent, summary["saving_joules_per_image"])
    for name in ("inference_energy_reduction_percent", *_BREAK_EVEN):
        for bound, values in (("low", groups[name].min()), ("high", groups[name].max())):
            summary = summary.join(values.rename(f"{name}_{bound}"), on=NETWORK)
    return summary


def _table(tidy: Tables) -> Table:
    data = summarise(tidy)
    scoring = (Origin("measured", SCORING, "energy_kwh", schedule=DENSE),)
    scored_carbon = (Origin("measured", SCORING, "emissions_kg", schedule=DENSE),)
    inference = measured_from(_INFERENCE) + measured_from(_INFERENCE, DENSE)
    spent = measured_from("training.energy_kwh") + scoring
    training = measured_from("training.energy_kwh", DENSE)
    columns = [
        *design_columns(),
        Column("Training (Wh)", _thousand("training.energy_kwh"), origins=measured_from("training.energy_kwh")),
        Column("its CO2e (g)", _thousand("training.emissions_kg"), origins=measured_from("training.emissions_kg")),
        Column("Scoring (Wh)", _thousand("scoring.energy_kwh"), origins=scoring),
        Column("its CO2e (g)", _thousand("scoring.emissions_kg"), origins=scored_carbon),
        Column("Inference (mJ/image)", lambda row: energy_cell(row, _INFERENCE, 1000), origins=measured_from(_INFERENCE)),
        Column("its CO2e (\u00b5g/image)", lambda row: energy_cell(row, _EMISSIONS), origins=measured_from(_EMISSIONS)),
        Column("Inference, reduction (%)", _reduction, origins=inference),
        Column("Break-even (thousand images)", _break_even(_BREAK_EVEN[0]), origins=spent + inference),
        Column(
            "Break-even with dense training (thousand images)",
            _break_even(_BREAK_EVEN[1]),
            origins=spent + training + inference,
        ),
        Column("n", lambda row: str(row["n"]), origins=(Origin("measured"),)),
    ]
    unshown = {
        "blocks_removed": (Origin("measured"),),
        "scorings": (Origin("scores"), Origin("scores", schedule=DENSE)),
        "dense_training_kwh": training,
        "pruning_kwh": spent,
        "saving_joules_per_image": inference,
        "inference_energy_reduction_percent*": inference,
        f"{_BREAK_EVEN[0]}*": spent + inference,
        f"{_BREAK_EVEN[1]}*": spent + training + inference,
        "energy.beside": load_from("energy") + load_from("energy", DENSE),
    }
    caption = (
        "Energy and carbon (CO2e) of each stage, means over n replicates. Training: of the dense network, or all fine-tuning of a pruned "
        "one. Scoring: of the dense network, an estimate by time; of an iterative chain as many times as it was scored on the way, "
        "though it got smaller. Inference: in large batches, without the power that the idle device draws where a counter tells it. "
        "Break-even: images to classify until the energy that pruning took (scoring and fine-tuning; in the last column the dense "
        "network's training too) is saved; never: the pruned network's inference does not cost less. In brackets: the lowest and the "
        f"highest replicate's. Reduction and break-even are estimated if any part is. {METHOD_MARKS} {LOAD_MARKS} PUE is taken as 1: what "
        "cools and feeds the machines is not in it."
    )
    return Table("energy", caption, data, columns, origins=unshown)


def _thousand(name: str) -> Callable[[Any], str]:
    """A column in kWh or kg, shown in Wh or g."""
    evaluation = name.partition(".")[0]

    def cell(row: Any) -> str:
        if math.isnan(row[name]):
            return significant(row[name])
        method = "estimated" if evaluation == SCORING else row.get(f"{evaluation}.method")
        return significant(1000 * row[name]) + method_mark(method)

    return cell


def _derived_mark(row: Any, *evaluations: str) -> str:
    """The mark of a number made from several: estimated if any of them is."""
    methods = [str(row.get(f"{evaluation}.method")) for evaluation in evaluations]
    found = "estimated" if any("estimated" in method for method in methods) else methods[0]
    return method_mark(found) + load_mark(row["energy.beside"])


def _reduction(row: Any) -> str:
    name = "inference_energy_reduction_percent"
    if math.isnan(row[name]):
        return number(row[name], 1)
    bounds = f" [{number(row[f'{name}_low'], 1)}, {number(row[f'{name}_high'], 1)}]" if row["n"] > 1 else ""
    return number(row[name], 1) + bounds + _derived_mark(row, "energy")


def _break_even(name: str) -> Callable[[Any], str]:
    def text(value: float) -> str:
        return "never" if math.isinf(value) else significant(value / 1000)

    def cell(row: Any) -> str:
        value, low, high = row[name], row[f"{name}_low"], row[f"{name}_high"]
        if math.isnan(value):
            return text(value)
        bounds = f" [{text(low)}, {text(high)}]" if row["n"] > 1 else ""
        # The energy of scoring is always a share by time.
        return text(value) + bounds + method_mark("estimated") + load_mark(row["energy.beside"])

    return cell


# --- the figure ------------------------------------------------------------------------------------------------------


def draw_energy(tidy: Tables, title: str) -> Figure:
    """Above, the reduction of inference energy against that of FLOPs by criterion; below, what each stage cost to get there."""
    data = energies(tidy)
    flops = select(tidy.results, "complexity", "flops_reduction_percent").groupby([*NETWORK, "replicate"])["value"].mean()
    data = data.join(flops.rename("flops"), on=[*NETWORK, "replicate"])
    pruned = data[(data["schedule"] != DENSE)].dropna(subset=["inference_energy_reduction_percent", "flops"])
    if pruned.empty:
        return note(title, "No pruned network has both an inference energy and a FLOPs reduction.")
    schedules = ordered_schedules(pruned["schedule"])
    criteria = ordered_criteria(pruned["criterion"])
    looks = looks_of(criteria)
    handles: list[Any] = [Line2D([], [], label=criterion, **_line(looks[criterion])) for criterion in criteria]
    handles.append(Line2D([], [], color="0.35", linestyle=(0, (4, 2)), linewidth=1.0, label="as FLOPs"))
    if pruned["replicate"].nunique() > 1:
        handles.append(Line2D([], [], color="none", label="bars: lowest to highest\nreplicate"))
    handles.append(Line2D([], [], color="none", label=f"Inference: {_methods(pruned, 'energy')}"))
    if (pruned["energy.beside"] != "no").any():
        handles.append(
            Line2D([], [], color="none", label="Some were measured beside\nother work, or it is not\nknown (table energy).")
        )
    # The legend of many criteria is higher than its panels would be.
    lines = sum(1 + handle.get_label().count("\n") for handle in handles)
    heights = [max(3.0, 0.15 * lines + 0.4), 2.6]
    figure = Figure(figsize=(max(6.2, 2.7 * len(schedules) + 1.9), sum(heights)), layout="constrained")
    halves: Any = figure.subfigures(2, 1, height_ratios=heights, hspace=0.04)
    above, below = halves
    panels = above.subplots(1, len(schedules), sharex=True, sharey=True, squeeze=False)[0]
    for panel, schedule in zip(panels, schedules, strict=True):
        _reduction_panel(panel, pruned[pruned["schedule"] == schedule], looks)
        panel.set_title(schedule)
        panel.set_xlabel("FLOPs reduction (%)")
    # By a fixed carbon intensity both fall by the same share.
    panels[0].set_ylabel("Reduction of inference\nenergy and carbon (%)")
    head(figure, title)
    above.legend(handles=handles, loc="outside right upper", frameon=False, handlelength=2.6, fontsize=7)
    _stage_panel(below, data, schedules)
    return figure


def _methods(data: pd.DataFrame, evaluation: str) -> str:
    """How the energy of an evaluation was found, in words."""
    found = data.get(f"{evaluation}.method", pd.Series(dtype=str)).dropna()
    return " and ".join(sorted(set(map(str, found)))) or "not said how"


def _line(look: Any) -> dict[str, Any]:
    return {**look.line(), "linewidth": 1.2 if look.prominent else 0.6, "markersize": 4.4}


def _reduction_panel(panel: Axes, rows: pd.DataFrame, looks: Any) -> None:
    right = 1.12 * float(rows["flops"].max())
    panel.plot([0, right], [0, right], color="0.35", linestyle=(0, (4, 2)), linewidth=1.0, zorder=1)
    panel.axhline(0, color="0.2", linewidth=0.9, zorder=1)
    criteria = ordered_criteria(rows["criterion"])
    # Criteria reach the same reductions: side by side they do not hide each other.
    reach = min(0.03, 0.006 * len(criteria)) * right
    for criterion, offset in zip(criteria, np.linspace(-reach, reach, len(criteria)), strict=True):
        groups = rows[rows["criterion"] == criterion].groupby("operating_point")
        x = groups["flops"].mean().sort_values()
        y = groups["inference_energy_reduction_percent"].agg(["mean", "min", "max"]).loc[x.index]
        # The mean of equal numbers may round to the other side of them.
        spread = np.maximum(0.0, np.array([y["mean"] - y["min"], y["max"] - y["mean"]]))
        look = looks[criterion]
        panel.errorbar(x + offset, y["mean"], yerr=spread, elinewidth=0.6, zorder=4 if look.prominent else 3, **_line(look))
    panel.set_xlim(0, right)
    cut_below(panel, rows.groupby(["criterion", "operating_point"])["inference_energy_reduction_percent"].mean().tolist(), -100.0)
    sns.despine(ax=panel)


def _stage_panel(below: Any, data: pd.DataFrame, schedules: list[str]) -> None:
    """Bars: training of the dense network, then scoring and fine-tuning for each operating point, means over criteria."""
    axes = below.subplots()
    bars: list[tuple[str, float, float]] = []
    training = data.loc[data["schedule"] == DENSE, "training.energy_kwh"].mean()
    if not math.isnan(training):
        bars.append(("dense\ntraining", 1000 * training, 0.0))
    borders = []
    for schedule in schedules:
        borders.append(len(bars))
        rows = data[data["schedule"] == schedule]
        points = rows.groupby("operating_point")
        for point in points["blocks_removed"].mean().sort_values(kind="stable").index:
            # A criterion counts as often as another, however many replicates or draws it has.
            mean = points.get_group(point).groupby("criterion")[["training.energy_kwh", "scoring.energy_kwh"]].mean().mean()
            tuned, scored = (1000 * float(np.nan_to_num(value)) for value in mean)
            bars.append((str(point), tuned, scored))
    names, tuning, scoring = zip(*bars, strict=True)
    places = np.arange(len(bars)) + np.searchsorted(borders, np.arange(len(bars)), side="right") * 0.6
    axes.bar(places, tuning, width=0.7, color="#0072B2")
    axes.bar(places, scoring, width=0.7, bottom=tuning, color="#E69F00", hatch="///", edgecolor="white", linewidth=0)
    axes.set_xticks(places, names)
    axes.set_ylabel("Energy (Wh)")
    axes.grid(axis="x", visible=False)
    axes.set_ylim(top=1.18 * max(t + s for t, s in zip(tuning, scoring, strict=True)) or 1.0)
    for start, end, schedule in zip(borders, [*borders[1:], len(bars)], schedules, strict=True):
        centre = (places[start] + places[end - 1]) / 2
        axes.text(centre, 0.98, schedule, transform=axes.get_xaxis_transform(), ha="center", va="top", fontsize=8)
    sns.despine(ax=axes, right=False)
    ratio = (data["training.emissions_kg"] / data["training.energy_kwh"]).dropna()
    if len(ratio) and ratio.min() > 0.999 * ratio.max():
        carbon = axes.secondary_yaxis("right", functions=(lambda wh: wh * ratio.mean(), lambda g: g / ratio.mean()))
        carbon.set_ylabel("Carbon (g CO2e)")
    handles = [
        Patch(facecolor="#0072B2", label="training, fine-tuning"),
        Patch(facecolor="#E69F00", hatch="///", label="scoring"),
    ]
    words = [f"Training: {_methods(data, TRAINING)};", "scoring: estimated by time.", "Means over criteria", "and replicates."]
    handles.append(Patch(facecolor="none", label="\n".join(words)))
    below.legend(handles=handles, loc="outside right upper", frameon=False, fontsize=7)


TABLES: dict[str, Callable[[Tables], Table]] = {"energy": _table}
FIGURES: dict[str, Callable[[Tables, str], Figure]] = {"energy": draw_energy}
