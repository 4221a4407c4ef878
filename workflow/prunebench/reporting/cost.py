"""What networks and scoring cost: tables of measured quantities, with marks that say how far a number can be believed."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pandas as pd

from prunebench.load import CROWDED_CORES, CROWDED_GPU_PERCENT
from prunebench.reporting import origins
from prunebench.reporting.collect import DENSE, ORACLE, SCORING, TRAINING, Tables
from prunebench.reporting.display import criterion_order, natural, select, sort_for_display
from prunebench.reporting.formats import PLUS_MINUS, Column, Origin, Table, compact, mean_sd, number, significant
from prunebench.reporting.statistics import POINT

NETWORK = [*POINT, "criterion"]
_UNITS = {"kwh": "kWh", "wh": "Wh", "joules": "J", "kg": "kg", "g": "g", "mg": "mg", "ug": "\u00b5g"}
CROWDED, UNKNOWN = "\u2020", "\u2021"

METHOD_MARKS = (
    "(m): measured by counters of the hardware; (e): estimated from nominal power; (m, e): some of it the one, some the other."
)
LOAD_MARKS = (
    f"{CROWDED}: measured while other processes kept more than {CROWDED_CORES:g} cores busy, or on a GPU that was in use before: the "
    f"number may be noise. {UNKNOWN}: what else ran is not known."
)


def by_replicate(measured: pd.DataFrame) -> pd.DataFrame:
    """Measured quantities of networks: one row for each design and replicate, one column each (``<evaluation>.<quantity>``).

    Means over draws. ``<evaluation>.method`` says whether energy was measured or estimated, ``<evaluation>.beside`` whether there was
    other work on the machine meanwhile (``yes``, ``no``, ``not known``). Scoring and the oracle are no cost of a network.
    """
    rows = measured[~measured["evaluation"].isin([SCORING, ORACLE])].copy()
    keys = [*NETWORK, "replicate"]
    if rows.empty:
        return pd.DataFrame(columns=[*keys, "blocks_removed"])
    rows["column"] = rows["evaluation"] + "." + rows["quantity"]
    wide = rows.groupby([*keys, "column"])["value"].mean().unstack("column").sort_index(axis=1)
    with_method = rows[rows["method"] != ""]
    for evaluation in sorted(with_method["evaluation"].unique()):
        methods = with_method[with_method["evaluation"] == evaluation].groupby(keys)["method"]
        wide[f"{evaluation}.method"] = methods.agg(_joined)
    for evaluation in sorted(set(rows["evaluation"]) - {TRAINING}):
        wide[f"{evaluation}.beside"] = _beside_other_work(rows[rows["evaluation"] == evaluation], keys)
    wide.insert(0, "blocks_removed", rows.groupby(keys)["blocks_removed"].mean())
    return wide.reset_index()


def without_taken_over(frame: pd.DataFrame, results: pd.DataFrame) -> pd.DataFrame:
    """The rows of ``by_replicate``, with ``nan`` for the training of dense networks that were taken over.

    Such a network has no epochs here: what its training took is not known, whatever the job that took it over did.
    """
    same = ["dataset", "model", "replicate"]
    epochs = select(results, TRAINING, "epochs")
    taken = epochs[(epochs["value"] == 0) & (epochs["schedule"] == DENSE)].set_index(same).index
    of_taken = (frame["schedule"] == DENSE) & pd.MultiIndex.from_frame(frame[same]).isin(taken)
    numbers = [name for name in frame.columns if name.startswith(f"{TRAINING}.") and not name.endswith(".method")]
    frame = frame.copy()
    frame.loc[of_taken, numbers] = math.nan
    return frame


def _joined(words: pd.Series) -> str:
    return " and ".join(sorted({word for text in words for word in text.split(" and ")}))


def _beside_other_work(rows: pd.DataFrame, keys: list[str]) -> pd.Series:
    """Whether any of the networks was measured beside other work: by the load of the processor, which must be known, or the GPU's use."""
    every = rows.groupby(keys)["value"].size().index

    def highest(quantity: str) -> pd.Series:
        return rows[rows["quantity"] == quantity].groupby(keys)["value"].max().reindex(every).astype(float)

    load, gpu = highest("other_load_cores"), highest("gpu_use_before_percent")
    words = pd.Series("no", index=every).mask(load.isna(), "not known")
    return words.mask((load > CROWDED_CORES) | (gpu > CROWDED_GPU_PERCENT), "yes")


def summarise_cost(measured: pd.DataFrame, results: pd.DataFrame) -> pd.DataFrame:
    """The columns of ``by_replicate``, mean over replicates (after that over draws); see ``without_taken_over``."""
    replicates = by_replicate(measured)
    if replicates.empty:
        return pd.DataFrame(columns=[*NETWORK, "blocks_removed", "n"])
    return over_replicates(without_taken_over(replicates, results))


def over_replicates(replicates: pd.DataFrame) -> pd.DataFrame:
    """Means of numbers over replicates, what words say of any of them, and the number ``n`` of replicates; in order of display."""
    groups = replicates.groupby(NETWORK)
    words = [name for name in replicates.columns if name.endswith((".method", ".beside"))]
    numbers = [name for name in replicates.columns if name not in (*NETWORK, "replicate", *words)]
    summary = groups[numbers].mean()
    summary.insert(1, "n", groups["replicate"].nunique())
    for name in words:
        present = replicates[replicates[name].notna()].groupby(NETWORK)[name]
        summary[name] = present.agg(_joined if name.endswith(".method") else _worst)
    return sort_for_display(summary.reset_index())


def _worst(words: pd.Series) -> str:
    return next((word for word in ("yes", "not known", "no") if (words == word).any()), "not known")


def method_mark(method: Any) -> str:
    """`` (m)`` or `` (e)``, to stand behind a number; a question mark where the file does not say."""
    return {"measured": " (m)", "estimated": " (e)", "estimated and measured": " (m, e)"}.get(method, " (?)")


def load_mark(beside: Any) -> str:
    """A dagger behind a number that was measured beside other work, two where that is not known."""
    return {"yes": f" {CROWDED}", "no": ""}.get(beside, f" {UNKNOWN}")


def energy_cell(row: Any, name: str, factor: float = 1.0) -> str:
    """A column of ``by_replicate`` that holds energy or emissions, times a factor, with its marks."""
    if math.isnan(row[name]):
        return significant(row[name])
    evaluation = name.partition(".")[0]
    load = "" if evaluation == TRAINING else load_mark(row.get(f"{evaluation}.beside"))
    return significant(factor * row[name]) + method_mark(row.get(f"{evaluation}.method")) + load


def measured_from(name: str, schedule: str | None = None) -> tuple[Origin, ...]:
    """The origin of a column of ``by_replicate``; patterns will do."""
    evaluation, _, quantity = name.partition(".")
    return (Origin("measured", evaluation, quantity, schedule=schedule),)


def design_columns() -> list[Column]:
    """Operating point and criterion: what each row is."""
    return [
        Column("Point", lambda row: row["operating_point"], right=False),
        Column("Criterion", lambda row: row["criterion"], right=False),
    ]


def _cost(tidy: Tables) -> Table:
    data = summarise_cost(tidy.measured, tidy.results)
    columns = [
        *design_columns(),
        Column("Blocks removed", lambda row: number(row["blocks_removed"], 0), origins=(Origin("measured"),)),
        *_latency_columns(data.columns),
        *_energy_columns(data.columns),
    ]
    caption = (
        "Cost of the networks, mean over replicates. Latency: median time of a forward pass, and its spread. Training: "
        "training of the dense network, or all fine-tuning of a pruned one; a dash: the network was taken over. Net: without the "
        "power that the idle device draws, where a "
        f"counter tells it. {METHOD_MARKS} {LOAD_MARKS} Times and energy hold for the hardware in provenance.csv alone."
    )
    return Table("cost", caption, data, columns)


def batch_sizes(names: Iterable[str]) -> dict[int, str]:
    """Batch sizes whose median latency is among the columns, in order, with ``<evaluation>.latency_batch<n>``."""
    matches = [match for name in names if (match := re.fullmatch(r"(.+\.latency_batch(\d+))_median_ms", name))]
    return {int(match[2]): match[1] for match in sorted(matches, key=lambda match: int(match[2]))}


def _latency_columns(names: Iterable[str]) -> Iterator[Column]:
    """A column for each batch size whose median was measured."""
    names = list(names)
    for batch, stem in batch_sizes(names).items():
        spread = next((f"{stem}_{kind}_ms" for kind in ("iqr", "sd", "std", "mad") if f"{stem}_{kind}_ms" in names), None)

        def cell(row: Any, stem: str = stem, spread: str | None = spread) -> str:
            text = significant(row[f"{stem}_median_ms"])
            if math.isnan(row[f"{stem}_median_ms"]):
                return text
            text += f" ({significant(row[spread])})" if spread else ""
            return text + load_mark(row.get(f"{stem.partition('.')[0]}.beside"))

        note = f"median ({spread.removeprefix(stem)[1:-3].upper()})" if spread else "median"
        yield Column(f"Latency, batch {batch}: {note} (ms)", cell, origins=measured_from(f"{stem}_*"))


def _energy_columns(names: Iterable[str]) -> Iterator[Column]:
    """A column for each quantity of energy or emissions, with marks that say how it was found."""
    for name in sorted(names, key=lambda name: (not name.startswith(TRAINING), "emissions" in name, name)):
        evaluation, _, quantity = name.partition(".")
        words = quantity.split("_")
        unit = next((word for word in words if word in _UNITS), None)
        # The table shows what is the network's own; gross values and what parts had in them are in the CSV file.
        if unit is None or not {"energy", "emissions"} & set(words) or {"cpu", "gpu", "ram", "gross"} & set(words):
            continue
        words.remove(unit)
        if evaluation == TRAINING:
            words.insert(0, TRAINING)
        header = " ".join("CO2e" if word == "emissions" else word for word in words)

        def cell(row: Any, name: str = name) -> str:
            return energy_cell(row, name)

        yield Column(f"{header[0].upper()}{header[1:]} ({_UNITS[unit]})", cell, origins=measured_from(name))


# --- scoring ---------------------------------------------------------------------------------------------------------


def summarise_scoring(measured: pd.DataFrame) -> pd.DataFrame:
    """What scoring the dense network cost: mean over replicates, and the standard deviation of the seconds."""
    rows = measured[measured["evaluation"] == SCORING]
    keys = ["dataset", "model", "criterion"]
    wanted = ["n", "images", "forward_passes", "backward_passes", "seconds_mean", "seconds_sd", "energy_kwh", "emissions_kg"]
    if rows.empty:
        return pd.DataFrame(columns=[*keys, *wanted])
    groups = rows.groupby([*keys, "quantity"])["value"]
    wide = groups.mean().unstack("quantity").rename(columns={"seconds": "seconds_mean"})
    seconds = rows[rows["quantity"] == "seconds"].groupby(keys)["value"]
    wide["seconds_sd"] = seconds.std(ddof=1)
    wide["n"] = rows.groupby(keys)["replicate"].nunique()
    wide = wide.reindex(columns=wanted).reset_index()
    order = sorted(
        range(len(wide)),
        key=lambda i: (wide["dataset"][i], natural(wide["model"][i]), criterion_order(wide["criterion"][i])),
    )
    return wide.iloc[order].reset_index(drop=True)


def _scoring_cost(tidy: Tables) -> Table:
    def estimated(name: str, factor: float) -> Callable[[Any], str]:
        return lambda row: significant(factor * row[name]) + ("" if math.isnan(row[name]) else method_mark("estimated"))

    def origin(quantity: str) -> tuple[Origin, ...]:
        return measured_from(f"{SCORING}.{quantity}")

    data = summarise_scoring(tidy.measured)
    columns = [
        Column("Criterion", lambda row: row.criterion, right=False),
        Column("Images", lambda row: compact(row.images), origins=origin("images")),
        Column("Forward passes", lambda row: compact(row.forward_passes), origins=origin("forward_passes")),
        Column("Backward passes", lambda row: compact(row.backward_passes), origins=origin("backward_passes")),
        Column("Seconds", lambda row: mean_sd(row.seconds_mean, row.seconds_sd, sign=False), origins=origin("seconds")),
    ]
    if data["energy_kwh"].notna().any():
        columns += [
            Column("Energy (Wh)", estimated("energy_kwh", 1000), origins=origin("energy_kwh")),
            Column("CO2e (g)", estimated("emissions_kg", 1000), origins=origin("emissions_kg")),
        ]
    columns.append(Column("n", lambda row: str(row.n)))
    caption = (
        "Cost of scoring every block of the dense network once. Passes as recorded when scoring; seconds are measured, "
        f"mean {PLUS_MINUS} standard deviation over n replicates. Energy: the mean power of the job that scores all criteria, times a "
        "criterion's seconds, which makes it an estimate (e) whatever measured the job."
    )
    unshown = {
        "n": origins.scoring("seconds"),
        "energy_kwh*": origins.scoring("energy_kwh"),
        "emissions_kg*": origins.scoring("emissions_kg"),
    }
    return Table("scoring_cost", caption, data, columns, group=("dataset", "model"), rule_after=None, origins=unshown)


TABLES: dict[str, Callable[[Tables], Table]] = {"cost": _cost, "scoring_cost": _scoring_cost}
