"""Adversarial robustness: the table, the figures, and the results in RobustBench's words."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from prunebench import artifacts
from prunebench.reporting import statistics
from prunebench.reporting.collect import DENSE, Tables
from prunebench.reporting.display import ordered_criteria, ordered_schedules, sort_for_display
from prunebench.reporting.drawing import note
from prunebench.reporting.figures import criteria_panel, legend_of, looks_of
from prunebench.reporting.formats import PLUS_MINUS, Column, Origin, Table, compact, mean_sd, number

ATTACKS = {"fgsm": "FGSM", "pgd": "PGD", "autoattack": "AutoAttack"}
_NETWORK = [*statistics.POINT, "criterion"]
_KEYS = [*_NETWORK, "replicate", "draw"]
_ROBUST = re.compile(r"robust_accuracy_((linf|l2)_eps([\d.e+-]+?)(_255)?)_percent")
_NORMS = {"linf": "L\u221e", "l2": "L2"}


def distance(threat: str) -> tuple[str, float, str]:
    """Norm, size as in the config, and the words for it, of a distance's name: ``linf_eps8_255`` to ``linf``, 8, ``8/255``."""
    match = _ROBUST.fullmatch(f"robust_accuracy_{threat}_percent")
    assert match is not None, threat
    return match[2], float(match[3]), f"{match[3]}/255" if match[4] else f"{_NORMS['l2']} {match[3]}"


def by_network(results: pd.DataFrame) -> pd.DataFrame:
    """One row for each network, attack and distance.

    Returns:
        Columns of the network, ``replicate``, ``draw``, ``blocks_removed``, ``flops_reduction_percent``, ``attack``, ``threat``
        (``linf_eps8_255``), ``norm``, ``size``, ``robust`` (robust accuracy in %), ``clean`` (accuracy on the same images in %),
        ``images``, ``unreliable`` (1 if the evaluation says so or a weaker attack leaves less, else 0), ``change_pp`` (``robust`` minus that of the dense network of the same replicate),
        ``source``.
    """
    attacked = results[results["evaluation"].isin(list(ATTACKS))]
    rows = attacked[attacked["quantity"].str.fullmatch(_ROBUST.pattern)].copy()
    rows = rows.rename(columns={"value": "robust", "evaluation": "attack"})
    columns = [
        "flops_reduction_percent",
        "attack",
        "threat",
        "norm",
        "size",
        "robust",
        "clean",
        "images",
        "unreliable",
        "change_pp",
    ]
    if rows.empty:
        return pd.DataFrame(columns=[*_KEYS, "blocks_removed", *columns, "source"])
    rows["threat"] = [_ROBUST.fullmatch(quantity)[1] for quantity in rows["quantity"]]  # type: ignore[index]
    rows["norm"] = [distance(threat)[0] for threat in rows["threat"]]
    rows["size"] = [distance(threat)[1] for threat in rows["threat"]]
    keys = [*_KEYS, "attack"]
    wide = attacked.rename(columns={"evaluation": "attack"}).pivot(index=keys, columns="quantity", values="value")
    of_network = wide.reindex(columns=["clean_accuracy_percent", "images", "unreliable"])
    rows = rows.join(of_network.rename(columns={"clean_accuracy_percent": "clean"}), on=keys)
    # AutoAttack says for each distance whether it can be believed.
    each = [f"unreliable_{threat}" for threat in rows["threat"]]
    own = attacked.set_index([*_KEYS, "evaluation", "quantity"])["value"].rename_axis([*keys, "quantity"]).rename("own")
    rows["unreliable"] = rows.assign(quantity=each).join(own, on=[*keys, "quantity"])["own"].fillna(rows["unreliable"])
    rows["unreliable"] = rows["unreliable"].where(~_outdone(rows), 1.0)
    reduction = results[(results["evaluation"] == "complexity") & (results["quantity"] == "flops_reduction_percent")]
    rows = rows.join(reduction.set_index(_KEYS)["value"].rename("flops_reduction_percent"), on=_KEYS)
    same = ["dataset", "model", "replicate", "attack", "threat"]
    dense = rows[rows["schedule"] == DENSE].set_index(same)["robust"].rename("of_dense")
    rows["change_pp"] = rows["robust"] - rows.join(dense, on=same)["of_dense"]
    columns = [
        "flops_reduction_percent",
        "attack",
        "threat",
        "norm",
        "size",
        "robust",
        "clean",
        "images",
        "unreliable",
        "change_pp",
    ]
    return rows[[*_KEYS, "blocks_removed", *columns, "source"]].reset_index(drop=True)


def _outdone(rows: pd.DataFrame) -> pd.Series:
    """Whether a weaker attack on the same images of the same network leaves less: then the stronger one went astray."""
    same = [*_KEYS, "threat", "images"]
    robust = rows.pivot(index=same, columns="attack", values="robust").reindex(columns=list(ATTACKS))
    least = robust.cummin(axis=1).shift(axis=1)
    found = [least.loc[tuple(row[key] for key in same), row["attack"]] for row in rows.to_dict("records")]
    return pd.Series(rows["robust"].to_numpy() > pd.Series(found, dtype=float).to_numpy(), index=rows.index)


def ordered_threats(networks: pd.DataFrame) -> list[str]:
    """The distances by norm (L-infinity first) and size."""
    return sorted(set(networks["threat"]), key=lambda threat: (distance(threat)[0] != "linf", distance(threat)[1]))


# --- the table -------------------------------------------------------------------------------------------------------


def summarise(results: pd.DataFrame) -> pd.DataFrame:
    """One row for each operating point and criterion: mean over draws, then mean and sample standard deviation over replicates.

    Returns:
        Columns of the network, ``blocks_removed``, ``flops_reduction_percent``, and for each attack that was run ``<attack>_images``,
        ``<attack>_n``, ``<attack>_clean_mean``, ``<attack>_clean_sd``, and for each distance ``<attack>_<threat>_mean``, ``..._sd`` and
        ``..._unreliable`` (whether any of the networks is flagged).
    """
    networks = by_network(results)
    if networks.empty:
        return pd.DataFrame(columns=[*_NETWORK, "blocks_removed", "flops_reduction_percent"])
    summary = networks.groupby(_NETWORK)[["blocks_removed", "flops_reduction_percent"]].mean()
    for attack in (attack for attack in ATTACKS if attack in set(networks["attack"])):
        mine = networks[networks["attack"] == attack]
        replicates = mine.groupby([*_NETWORK, "threat", "replicate"], as_index=False)[["robust", "clean", "images"]].mean()
        first = replicates.drop_duplicates([*_NETWORK, "replicate"]).groupby(_NETWORK)
        summary[f"{attack}_images"] = first["images"].mean()
        summary[f"{attack}_n"] = first["replicate"].count()
        summary[f"{attack}_clean_mean"] = first["clean"].mean()
        summary[f"{attack}_clean_sd"] = first["clean"].std(ddof=1)
        for threat in ordered_threats(mine):
            groups = replicates[replicates["threat"] == threat].groupby(_NETWORK)["robust"]
            summary[f"{attack}_{threat}_mean"], summary[f"{attack}_{threat}_sd"] = groups.mean(), groups.std(ddof=1)
            flagged = mine[mine["threat"] == threat].groupby(_NETWORK)["unreliable"].max() > 0
            summary[f"{attack}_{threat}_unreliable"] = flagged.reindex(summary.index, fill_value=False)
    return sort_for_display(summary.reset_index())


def _table(tables: Tables) -> Table:
    data = summarise(tables.results)
    attacks = [attack for attack in ATTACKS if f"{attack}_n" in data]
    columns = [
        Column("Point", lambda row: row.operating_point, right=False),
        Column("Criterion", lambda row: row.criterion, right=False),
        Column(
            "FLOPs reduction (%)",
            lambda row: number(row.flops_reduction_percent, 2),
            origins=(Origin("results", "complexity", "flops_reduction_percent"),),
        ),
    ]
    for together in _same_images(data, attacks):
        names = ", ".join(ATTACKS[attack] for attack in together)
        clean = tuple(Origin("results", attack, "clean_accuracy_percent") for attack in together)
        columns.append(Column(f"No attack ({names}) (%)", partial(_clean, together), origins=clean))
        for attack in together:
            for threat in [
                str(name).removeprefix(f"{attack}_").removesuffix("_mean") for name in data if _is_mean(attack, str(name))
            ]:
                origins = (
                    Origin("results", attack, f"robust_accuracy_{threat}_percent"),
                    Origin("results", attack, f"unreliable_{threat}" if attack == "autoattack" else "unreliable"),
                )
                header = f"{ATTACKS[attack]} {distance(threat)[2]} (%)"
                columns.append(Column(header, partial(_robust, f"{attack}_{threat}"), origins=origins))
    counts = tuple(Origin("results", attack, "images") for attack in attacks)
    columns.append(Column("Images", partial(_counts, attacks, "images"), origins=counts))
    columns.append(Column("n", partial(_counts, attacks, "n"), origins=counts))
    order = " / ".join(ATTACKS[attack] for attack in attacks)
    caption = (
        "Robust accuracy: attacked test images that are classified correctly and stay so under the attack, in % of all attacked images; "
        "no attack: accuracy on the same images. Distances are of images in [0, 1], in L\u221e where nothing else is said. Mean "
        f"{PLUS_MINUS} standard deviation over n replicates; criteria that draw at random enter with the mean over their draws. "
        f"Images and n: one number, or those of {order} where they differ; then the attacks saw different images and cannot be "
        "compared with each other. A dash: not attacked. (u): for one of the networks there are signs that the attack overestimates "
        "robustness; a weaker attack that leaves less of the same images is one. No attack proves robustness."
    )
    return Table("robustness", caption, data, columns)


def _is_mean(attack: str, column: str) -> bool:
    return column.startswith(f"{attack}_l") and column.endswith("_mean")


def _same_images(data: pd.DataFrame, attacks: Sequence[str]) -> list[list[str]]:
    """Attacks that saw the same images of every network stand together, with one column for the accuracy without attack."""
    groups: list[list[str]] = []
    for attack in attacks:
        for group in groups:
            both = [f"{group[0]}_images", f"{attack}_images", f"{group[0]}_n", f"{attack}_n"]
            found = data[both].fillna(0)
            if (found[both[0]] == found[both[1]]).all() and (found[both[2]] == found[both[3]]).all():
                group.append(attack)
                break
        else:
            groups.append([attack])
    return groups


def _clean(attacks: Sequence[str], row: Any) -> str:
    return mean_sd(row[f"{attacks[0]}_clean_mean"], row[f"{attacks[0]}_clean_sd"], sign=False, digits=1)


def _robust(stem: str, row: Any) -> str:
    return mean_sd(row[f"{stem}_mean"], row[f"{stem}_sd"], sign=False, digits=1) + (" (u)" if row[f"{stem}_unreliable"] else "")


def _counts(attacks: Sequence[str], what: str, row: Any) -> str:
    """One count if it is that of all attacks, else one for each."""
    texts = [compact(row[f"{attack}_{what}"]) for attack in attacks]
    return texts[0] if len(set(texts)) == 1 else " / ".join(texts)


# --- the figures -----------------------------------------------------------------------------------------------------


def main_threat(networks: pd.DataFrame) -> str:
    """The distance at which the dense network keeps nearest to half of what it has without attack: there is most to gain and to lose.

    Without dense networks those that are there decide.
    """
    dense = networks[networks["schedule"] == DENSE]
    share = (dense if len(dense) else networks).groupby("threat")[["robust", "clean"]].mean()
    distances = (share["robust"] / share["clean"].clip(lower=1e-9) - 0.5).abs()
    return min(ordered_threats(networks), key=lambda threat: distances.get(threat, math.inf))


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
                panel.text(0.5, 0.5, "not attacked", ha="center", va="center", transform=panel.transAxes)
            else:
                criteria_panel(panel, here, looks)
        row[0].set_ylabel("Robust accuracy change\nagainst dense (pp)")
    figure.suptitle(title, fontsize=9.5)
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
    norms = [norm for norm in _NORMS if norm in set(chosen["norm"])]
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
            panel.set_title(f"{ATTACKS[attack]}, {_NORMS[norm]}, {images:.0f} images, n = {n}", fontsize=8)
            panel.tick_params(labelleft=True)
        row[0].set_ylabel("Robust accuracy (%)")
    panels[0, 0].set_ylim(bottom=0)
    where = f": {point[0]}, {point[1]}" if point[0] != DENSE else ""
    figure.suptitle(f"{title}{where}", fontsize=9.5)
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


# --- RobustBench's words ---------------------------------------------------------------------------------------------


def robustbench(results: pd.DataFrame) -> list[dict[str, Any]]:
    """AutoAttack's results with the fields of RobustBench's ``model_info`` files, one entry for each network and distance.

    ``dataset``, ``architecture``, ``eps``, ``clean_acc``, ``autoattack_acc``, ``unreliable`` and ``number_forward_passes`` are
    RobustBench's (numbers are texts there); the others say which network it is and on how many images it was attacked. A leaderboard
    entry needs the whole test set, and fields that no result file knows: ``name``, ``authors``, ``venue``, ``link``, ``additional_data``.
    """
    networks = by_network(results)
    entries = []
    for row in networks[networks["attack"] == "autoattack"].to_dict("records"):
        _, _, words = distance(row["threat"])
        entries.append(
            {
                "dataset": row["dataset"],
                "architecture": row["model"],
                "threat_model": "Linf" if row["norm"] == "linf" else "L2",
                "eps": words.split()[-1],
                "clean_acc": f"{row['clean']:.2f}",
                "autoattack_acc": f"{row['robust']:.2f}",
                "unreliable": bool(row["unreliable"]),
                "number_forward_passes": 1,
                "n_examples": int(row["images"]),
                **{key: row[key] for key in ("schedule", "criterion", "operating_point", "replicate", "draw", "source")},
            }
        )
    return entries


def write_robustbench(results: pd.DataFrame, out: Path) -> Path:
    """Write ``robustbench.json`` to a folder."""
    path = out / "robustbench.json"
    artifacts.write_json(path, {"models": robustbench(results)})
    return path


TABLES: dict[str, Callable[[Tables], Table]] = {"robustness": _table}
FIGURES: dict[str, Callable[[Tables, str], Figure]] = {"robustness": _changes, "robustness_curve": _curves}
