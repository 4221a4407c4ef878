"""The paper's tables, from the tidy tables alone: each as CSV (numbers in full), Markdown and LaTeX (rounded)."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from prunebench import artifacts, reporting
from prunebench.reporting import maker, quality, shown, statistics
from prunebench.reporting.collect import ORACLE, SCORING, TRAINING, Tables, read_tables
from prunebench.reporting.comparison import accuracy_by_replicate, headline_html, summarise_accuracy
from prunebench.reporting.display import (
    criterion_order,
    natural,
    sort_for_display,
)
from prunebench.reporting.formats import (
    FORMATS,
    PLUS_MINUS,
    Column,
    Table,
    compact,
    mean_sd,
    number,
    significant,
    to_latex,
    to_markdown,
    write_csv,
)

_NETWORK = [*statistics.POINT, "criterion"]
__all__ = [
    "TABLES",
    "accuracy_by_replicate",
    "headline_html",
    "summarise_accuracy",
    "summarise_cost",
    "summarise_scoring",
    "write_tables",
]
_UNITS = {"kwh": "kWh", "wh": "Wh", "joules": "J", "kg": "kg", "g": "g", "mg": "mg", "ug": "\u00b5g"}


def write_tables(tables: Path, out: Path | None = None) -> list[Path]:
    """Write ``<name>.csv``, ``<name>.md`` and ``<name>.tex`` for every table of ``reporting.TABLES`` that the suite has something for.

    Args:
        tables: the folder of the tidy tables.
        out: where to write; the same folder by default.

    Returns:
        The files written.

    Raises:
        PrunebenchError: a tidy table is missing or corrupt.
    """
    tidy = read_tables(tables)
    made = {name: maker("TABLES", name, place)(tidy) for name, place in shown(reporting.TABLES, tidy.subjects()).items()}
    written = []
    for table in made.values():
        stem = (out or tables) / table.name
        write_csv(stem.with_suffix(".csv"), table.data)
        artifacts.write_text(stem.with_suffix(".md"), to_markdown(table))
        artifacts.write_text(stem.with_suffix(".tex"), to_latex(table))
        written += [stem.with_suffix(f".{suffix}") for suffix in FORMATS]
    landing = (out or tables) / "headline.html"
    artifacts.write_text(landing, headline_html(made["headline"].data))
    return [*written, landing]


def summarise_cost(measured: pd.DataFrame) -> pd.DataFrame:
    """Measured quantities, one column each (``<evaluation>.<quantity>``): mean over draws, then over replicates.

    A column ``<evaluation>.method`` says for each evaluation whether its values were measured or estimated.
    """
    rows = measured[~measured["evaluation"].isin([SCORING, ORACLE])].copy()
    if rows.empty:
        return pd.DataFrame(columns=[*_NETWORK, "blocks_removed", "n"])
    rows["column"] = rows["evaluation"] + "." + rows["quantity"]
    replicates = rows.groupby([*_NETWORK, "column", "replicate"], as_index=False)["value"].mean()
    wide = replicates.groupby([*_NETWORK, "column"])["value"].mean().unstack("column").sort_index(axis=1)
    with_method = rows[rows["method"] != ""]
    for evaluation in sorted(with_method["evaluation"].unique()):
        methods = with_method[with_method["evaluation"] == evaluation].groupby(_NETWORK)["method"]
        wide[f"{evaluation}.method"] = methods.agg(lambda found: " and ".join(sorted(set(found))))
    wide.insert(0, "blocks_removed", rows.groupby(_NETWORK)["blocks_removed"].mean())
    wide.insert(1, "n", rows.groupby(_NETWORK)["replicate"].nunique())
    return sort_for_display(wide.reset_index())


def _cost(measured: pd.DataFrame) -> Table:
    data = summarise_cost(measured)
    columns = [
        Column("Point", lambda row: row["operating_point"], right=False),
        Column("Criterion", lambda row: row["criterion"], right=False),
        Column("Blocks removed", lambda row: number(row["blocks_removed"], 0)),
        *_latency_columns(data.columns),
        *_energy_columns(data.columns),
    ]
    caption = (
        "Cost of the networks, mean over replicates. Latency: median time of a forward pass, and its spread. Training: "
        "training of the dense network, or all fine-tuning of a pruned one. Energy and the carbon emissions that "
        "follow from it are measured (m) by the hardware's counters or estimated (e) from nominal power, as marked. Times and "
        "energy hold for the hardware in provenance.csv alone."
    )
    return Table("cost", caption, data, columns)


def _latency_columns(names: Iterable[str]) -> Iterator[Column]:
    """A column for each batch size whose median was measured."""
    found = {}
    for name in names:
        if match := re.fullmatch(r"(.+\.latency_batch(\d+))_median_ms", name):
            found[int(match[2])] = match[1]
    for batch, stem in sorted(found.items()):
        spread = next((f"{stem}_{kind}_ms" for kind in ("iqr", "sd", "std", "mad") if f"{stem}_{kind}_ms" in names), None)
        quartiles = (f"{stem}_p25_ms", f"{stem}_p75_ms")

        def cell(row: Any, stem: str = stem, spread: str | None = spread, quartiles: tuple[str, str] = quartiles) -> str:
            text = significant(row[f"{stem}_median_ms"])
            if spread:
                return f"{text} ({significant(row[spread])})"
            if all(quartile in row.index for quartile in quartiles):
                return f"{text} ({' to '.join(significant(row[quartile]) for quartile in quartiles)})"
            return text

        note = f"median ({spread.removeprefix(stem)[1:-3].upper()})" if spread else "median"
        yield Column(f"Latency, batch {batch}: {note} (ms)", cell)


def _energy_columns(names: Iterable[str]) -> Iterator[Column]:
    """A column for each quantity of energy or emissions, with a mark that says how it was found."""
    for name in sorted(names, key=lambda name: (not name.startswith(TRAINING), "emissions" in name, name)):
        evaluation, _, quantity = name.partition(".")
        words = quantity.split("_")
        unit = next((word for word in words if word in _UNITS), None)
        # The table shows totals; what the processor, GPU and memory had in them is in the CSV file.
        if unit is None or not {"energy", "emissions"} & set(words) or {"cpu", "gpu", "ram"} & set(words):
            continue
        words.remove(unit)
        if evaluation == TRAINING:
            words.insert(0, TRAINING)
        header = " ".join("CO2e" if word == "emissions" else word for word in words)

        def cell(row: Any, name: str = name, method: str = f"{evaluation}.method") -> str:
            mark = {"measured": " (m)", "estimated": " (e)"}.get(row.get(method), " (?)")
            return significant(row[name]) + ("" if math.isnan(row[name]) else mark)

        yield Column(f"{header[0].upper()}{header[1:]} ({_UNITS[unit]})", cell)


def summarise_scoring(measured: pd.DataFrame) -> pd.DataFrame:
    """What scoring the dense network cost: mean over replicates, and the standard deviation of the seconds."""
    rows = measured[measured["evaluation"] == SCORING]
    keys = ["dataset", "model", "criterion"]
    wanted = ["n", "images", "forward_passes", "backward_passes", "seconds_mean", "seconds_sd"]
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


def _scoring_cost(measured: pd.DataFrame) -> Table:
    columns = [
        Column("Criterion", lambda row: row.criterion, right=False),
        Column("Images", lambda row: compact(row.images)),
        Column("Forward passes", lambda row: compact(row.forward_passes)),
        Column("Backward passes", lambda row: compact(row.backward_passes)),
        Column("Seconds", lambda row: mean_sd(row.seconds_mean, row.seconds_sd, sign=False)),
        Column("n", lambda row: str(row.n)),
    ]
    caption = (
        "Cost of scoring every block of the dense network once. Passes as recorded when scoring; seconds are measured, "
        f"mean {PLUS_MINUS} standard deviation over n replicates."
    )
    data = summarise_scoring(measured)
    return Table("scoring_cost", caption, data, columns, group=("dataset", "model"), rule_after=None)


def _quality(tidy: Tables) -> Table:
    first = f"relative_regret_first{quality.FIRST}"
    columns = [
        Column("Fine-tuning (epochs)", lambda row: str(row.fine_tuning_epochs)),
        Column("Criterion", lambda row: row.criterion, right=False),
        Column("Kendall's \u03c4", lambda row: _bounded(row, "tau")),
        Column("Regret (nats)", lambda row: _bounded(row, "regret_nats", digits=3)),
        Column("Relative regret", lambda row: _bounded(row, "relative_regret")),
        Column(f"Relative regret, first {quality.FIRST}", lambda row: _bounded(row, first)),
        Column("Forward passes", lambda row: compact(row.forward_passes)),
        Column("Backward passes", lambda row: compact(row.backward_passes)),
        Column("n", lambda row: str(row.n)),
    ]
    data = quality.quality(tidy)
    bounds = f"95 % percentile bootstrap intervals over {' or '.join(data['resampled'].unique())}"
    given = " of this one dense network: they say nothing of training it again" if (data["n"] == 1).any() else ""
    caption = (
        "Each criterion against the oracle: the validation loss (cross-entropy) after removing each candidate block of the dense "
        "network by itself, without fine-tuning (0 epochs) and after a short one. \u03c4: rank correlation (tau-b) of the "
        "scores with the losses; 1 is the oracle's order. Regret: loss without the block that the criterion removes first, "
        "minus the lowest loss; relative: 0 is the oracle's choice, 1 what a random choice has on average. First "
        f"{quality.FIRST}: mean over the first {quality.FIRST} choices, each removed by itself. Means over n replicates, with "
        f"{bounds}{given}. Random removal: expected values. The oracle looks at one block at a time and at a short "
        "fine-tuning: its best k blocks need not be the best set of k."
    )
    return Table("quality", caption, data, columns, group=("dataset", "model"), rule_after="fine_tuning_epochs")


def _bounded(row: Any, name: str, digits: int = 2, sign: bool = False) -> str:
    """A value and its interval, if it has one."""
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    if math.isnan(low):
        return number(row[name], digits, sign)
    return f"{number(row[name], digits, sign)} [{number(low, digits, sign)}, {number(high, digits, sign)}]"


def _count_in(name: str, row: Any) -> str:
    return compact(row[name])


def _change_in(name: str, row: Any) -> str:
    return _bounded(row, name, sign=True)


def _consensus_parts(tidy: Tables) -> Table:
    data = quality.consensus_parts(tidy)
    columns = [
        Column("Consensus", lambda row: row.consensus, right=False),
        Column("Metric left out", lambda row: row.metric, right=False),
        Column("\u03c4 of the metric with the consensus", lambda row: number(row.tau_with_consensus, 2)),
        Column("\u03c4 of the rest with the consensus", lambda row: number(row.tau_without, 2)),
    ]
    for name in data.columns:
        if match := re.fullmatch(r"changed_of_first_(\d+)", name):
            columns.append(Column(f"Changed of first {match[1]}", partial(_count_in, name)))
        elif match := re.fullmatch(r"(tau|relative_regret)_change_(\d+)", name):
            what = "\u03c4" if match[1] == "tau" else "relative regret"
            columns.append(Column(f"\u0394 {what}, {match[2]} epoch{'s' * (match[2] != '1')}", partial(_change_in, name)))
    columns.append(Column("n", lambda row: str(row.n)))
    caption = (
        "What each metric contributes to the consensus of eight: the consensus without it against the full one, by the dense "
        "network's scores; means over n replicates. \u03c4: Kendall's tau-b over the candidate blocks; the rest: the other seven. "
        "Changed of first k: how many of the first k blocks go out of them, for the numbers of blocks that the operating points "
        "remove, constraints aside."
    )
    if any("_change_" in name for name in data.columns):
        caption += (
            " \u0394: without the metric minus with it, against the oracle (see table quality) without fine-tuning (0 epochs) "
            "and after a short one, with 95 % percentile bootstrap intervals. A lower \u03c4 or a higher relative regret says that "
            "the metric helps."
        )
    return Table("consensus_parts", caption, data, columns, group=("dataset", "model"), rule_after="consensus")


TABLES: dict[str, Callable[[Tables], Table]] = {
    "cost": lambda tidy: _cost(tidy.measured),
    "scoring_cost": lambda tidy: _scoring_cost(tidy.measured),
    "quality": _quality,
    "consensus_parts": _consensus_parts,
}
