"""Adversarial robustness: the numbers, the table, and the results in RobustBench's words."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from prunebench import artifacts
from prunebench.reporting import statistics
from prunebench.reporting.collect import DENSE, Tables
from prunebench.reporting.comparison import conditional
from prunebench.reporting.display import sort_for_display
from prunebench.reporting.formats import PLUS_MINUS, Column, Origin, Table, compact, difference, fewer, mean_sd, number

ATTACKS = {"fgsm": "FGSM", "pgd": "PGD", "autoattack": "AutoAttack"}
_NETWORK = [*statistics.POINT, "criterion"]
_KEYS = [*_NETWORK, "replicate", "draw"]
_FOUND = ("flops_reduction_percent", "attack", "threat", "norm", "size", "robust", "clean", "images", "unreliable", "change_pp")
AGAINST = (DENSE, "random")
_TESTED = {"mean_difference": "pp", "ci_low": "low", "ci_high": "high", "n": "n", "p_holm": "p_holm", "verdict": "verdict"}
_ROBUST = re.compile(r"robust_accuracy_((linf|l2)_eps([\d.e+-]+?)(_255)?)_percent")
NORMS = {"linf": "L\u221e", "l2": "L2"}


def distance(threat: str) -> tuple[str, float, str]:
    """Norm, size as in the config, and the words for it, of a distance's name: ``linf_eps8_255`` to ``linf``, 8, ``8/255``."""
    match = _ROBUST.fullmatch(f"robust_accuracy_{threat}_percent")
    assert match is not None, threat
    return match[2], float(match[3]), f"{match[3]}/255" if match[4] else f"{NORMS['l2']} {match[3]}"


def by_network(results: pd.DataFrame) -> pd.DataFrame:
    """One row for each network, attack and distance.

    Returns:
        Columns of the network, ``replicate``, ``draw``, ``blocks_removed``, ``flops_reduction_percent``, ``attack``, ``threat``
        (``linf_eps8_255``), ``norm``, ``size``, ``robust`` (robust accuracy in %), ``clean`` (accuracy on the same images in %),
        ``images``, ``unreliable`` (1 if the evaluation says so or a weaker attack leaves less, else 0), ``change_pp``
        (``robust`` minus that of the dense network of the same replicate), ``source``.
    """
    attacked = results[results["evaluation"].isin(list(ATTACKS))]
    rows = attacked[attacked["quantity"].str.fullmatch(_ROBUST.pattern)].copy()
    rows = rows.rename(columns={"value": "robust", "evaluation": "attack"})
    if rows.empty:
        return pd.DataFrame(columns=[*_KEYS, "blocks_removed", *_FOUND, "source"])
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
    return rows[[*_KEYS, "blocks_removed", *_FOUND, "source"]].reset_index(drop=True)


def _outdone(rows: pd.DataFrame) -> pd.Series:
    """Whether a weaker attack on the same images of the same network leaves less: then the stronger one went astray."""
    same = [*_KEYS, "threat", "images"]
    robust = rows.pivot(index=same, columns="attack", values="robust").reindex(columns=list(ATTACKS))
    least = (
        robust.cummin(axis=1).ffill(axis=1).shift(axis=1).reset_index().melt(id_vars=same, value_name="least", var_name="attack")
    )
    found = rows[[*same, "attack"]].merge(least, on=[*same, "attack"], how="left")["least"]
    return pd.Series(rows["robust"].to_numpy() > found.to_numpy(dtype=float), index=rows.index)


def ordered_threats(networks: pd.DataFrame) -> list[str]:
    """The distances by norm (L-infinity first) and size."""
    return sorted(set(networks["threat"]), key=lambda threat: (distance(threat)[0] != "linf", distance(threat)[1]))


def main_threat(networks: pd.DataFrame) -> str:
    """The distance at which the dense network keeps nearest to half of what it has without attack: there is most to gain and to lose.

    Without dense networks those that are there decide.
    """
    dense = networks[networks["schedule"] == DENSE]
    share = (dense if len(dense) else networks).groupby("threat")[["robust", "clean"]].mean()
    distances = (share["robust"] / share["clean"].clip(lower=1e-9) - 0.5).abs()
    return min(ordered_threats(networks), key=lambda threat: distances.get(threat, math.inf))


# --- the table -------------------------------------------------------------------------------------------------------


def summarise(results: pd.DataFrame) -> pd.DataFrame:
    """One row for each operating point and criterion: mean over draws, then mean and sample standard deviation over replicates.

    Returns:
        Columns of the network, ``blocks_removed``, ``flops_reduction_percent``, and for each attack that was run ``<attack>_images``,
        ``<attack>_n``, ``<attack>_clean_mean``, ``<attack>_clean_sd``, and for each distance ``<attack>_<threat>_mean``, ``..._sd`` and
        ``..._unreliable`` (whether any of the networks is flagged); ``<attack>_main``, the distance of ``main_threat`` for this dataset
        and model, and of the robust accuracy there for ``against`` = ``dense`` and ``random`` the columns of ``_versus``.
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
        summary = summary.join(_versus(results, attack, mine))
    return sort_for_display(summary.reset_index())


def _versus(results: pd.DataFrame, attack: str, networks: pd.DataFrame) -> pd.DataFrame:
    """Paired differences of robust accuracy to the dense network and to random removal, each dataset and model at its main distance.

    Returns:
        By network: ``<attack>_main``, and for each ``against``, with the stem ``<attack>_against_<against>``: ``<stem>_pp``, the mean
        paired difference, ``<stem>_low`` and ``<stem>_high`` of its 95 % t interval (not adjusted), ``<stem>_n`` pairs,
        ``<stem>_p_holm``, adjusted over the criteria of one operating point, and ``<stem>_verdict``; missing where there is no pair.
    """
    found = []
    for (dataset, model), here in networks.groupby(["dataset", "model"]):
        threat = main_threat(here)
        mine = results[(results["dataset"] == dataset) & (results["model"] == model)]
        table = here[_NETWORK].drop_duplicates().set_index(_NETWORK).assign(**{f"{attack}_main": threat})
        for against in AGAINST:
            stem = f"{attack}_against_{against}"
            tests = statistics.compare(mine, against, attack, f"robust_accuracy_{threat}_percent").set_index(_NETWORK)
            table = table.join(tests[list(_TESTED)].rename(columns={name: f"{stem}_{short}" for name, short in _TESTED.items()}))
        found.append(table)
    return pd.concat(found)


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
    columns += [_difference(data, attack, against) for attack in attacks for against in AGAINST]
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
        "robustness; a weaker attack that leaves less of the same images is one. No attack proves robustness. Against dense and "
        "against random: mean paired difference of "
        "robust accuracy in the same replicate, in percentage points (pp), its 95 % t interval (not adjusted), and the verdict of "
        "the paired "
        "t test after Holm's adjustment; a family is the criteria of one point under one attack against one baseline, so that it does "
        "not reach over points, attacks or the two baselines. Each attack is compared at one distance, its main one, at which the dense "
        f"network keeps nearest to half of its accuracy{_main_distances(data, attacks)}; (n = ...): fewer pairs than n. The tests say "
        "nothing of another choice of images, and a difference is worth no more than an accuracy that is marked (u)."
    )
    return Table("robustness", caption + conditional(tables), data, columns)


def _mains(data: pd.DataFrame, attack: str) -> list[str]:
    """The main distances of an attack, one for each dataset and model, those that differ."""
    return list(data[f"{attack}_main"].dropna().unique())


def _main_distances(data: pd.DataFrame, attacks: Sequence[str]) -> str:
    """What to add to the caption where datasets and models have other main distances, so that no head can name them."""
    several = [attack for attack in attacks if len(_mains(data, attack)) > 1]
    if not several:
        return ""
    found = []
    for (dataset, model), rows in data.groupby(["dataset", "model"], sort=False):
        main = [f"{ATTACKS[attack]} {distance(threat)[2]}" for attack in several for threat in _mains(rows, attack)]
        found.append(f"{dataset}, {model}: {', '.join(main)}")
    return f" ({'; '.join(found)})"


def _difference(data: pd.DataFrame, attack: str, against: str) -> Column:
    """The paired difference at the main distance, its interval and the verdict."""
    stem = f"{attack}_against_{against}"
    mains = _mains(data, attack)
    where = f"{ATTACKS[attack]} {distance(mains[0])[2]}" if len(mains) == 1 else ATTACKS[attack]
    quantity = f"robust_accuracy_{{{attack}_main}}_percent"

    def cell(row: Any) -> str:
        text = difference(row[f"{stem}_pp"], row[f"{stem}_low"], row[f"{stem}_high"], row[f"{stem}_verdict"])
        return text if math.isnan(row[f"{stem}_n"]) else text + fewer(row[f"{stem}_n"], row[f"{attack}_n"])

    # A verdict is adjusted over all criteria of the point, among them the baseline that it was compared with.
    family = Origin("results", attack, quantity, criterion="*")
    dense = (Origin("results", attack, quantity, schedule=DENSE),) if against == DENSE else ()
    baseline = () if against == DENSE else (Origin("results", attack, quantity, criterion=against),)
    return Column(f"{where} against {against} (pp)", cell, origins=(family, *dense, *baseline))


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
