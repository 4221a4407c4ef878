"""Tidy tables, statistics, the paper's tables and figures, on a small made-up suite in the form of docs/data-contracts.md."""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from prunebench import artifacts, reporting
from prunebench.criteria.consensus import METRICS
from prunebench.errors import PrunebenchError
from prunebench.evaluation.energy import EVALUATION
from prunebench.reporting import collect, comparison, cost, drawing, figures, formats, tables
from prunebench.reporting.collect import NetworkFolder

BLOCKS = [f"stage{stage}.block{block}" for stage in (1, 2, 3) for block in range(5)]
CANDIDATES = [block for block in BLOCKS if not block.endswith("block0")]
PROVENANCE = {
    "config_sha256": "0" * 64,
    "seed": 1,
    "versions": {"torch": "2.13", "python": "3.11"},
    "hardware": {"cpu": "a, b"},
    "commit": "abc",
    "created": "2026-01-01T00:00:00+00:00",
}
DENSE_ACCURACY = 90.0
# Net energy and emissions of inference, by the names that the evaluation declares.
ENERGY = tuple(name for name in EVALUATION.quantities if name.startswith("inference_net_"))
EVERY_SUITE = reporting.shown(reporting.TABLES, ["latency", "energy"])


@dataclass
class Suite:
    """A made-up results folder."""

    root: Path
    networks: list[NetworkFolder]
    measured: list[Path]
    oracle: bool = False
    audited: Sequence[str] = ()

    def collect(self, out: Path) -> Path:
        places = [("tiny", "digits", "resnet32", replicate, method) for replicate in (0, 1) for method in self.audited]
        audits = [(key, self.root / f"digits/resnet32/replicate{key[3]}/delivered" / key[4]) for key in places]
        oracles = [network.folder for network in self.networks if network.is_dense] if self.oracle else []
        asked = collect.Asked(oracles=oracles, audits=audits, choices=True)
        collect.collect(dict.fromkeys(self.networks), self.measured, out, asked)
        return out


def change(criterion: str, schedule: str, replicate: int, draw: int, point: int) -> float:
    """The made-up change of accuracy in percentage points: known, and different for every network."""
    number = sum(map(ord, criterion + schedule)) % 17
    return 0.1 * number - 0.45 * point + 0.13 * replicate * (1 + number % 3) + 0.21 * draw


def write_network(folder: Path, removed: Sequence[str], accuracy: float, before: float | None) -> dict[str, Any]:
    left = [block for block in BLOCKS if block not in removed]
    architecture = {"model": "resnet32", "input_shape": [3, 32, 32], "classes": 10, "blocks": left, "options": {}}
    artifacts.write_json(folder / "architecture.json", {**architecture, "sha256": f"{folder.parent.name}/{folder.name}"})
    energy = {"energy_kwh": 0.125, "emissions_kg": 0.05, "duration_s": 12.5, "method": "estimated", "source": "TDP"}
    training = {"epochs": 3 * len(removed) or 20, "epochs_per_block": 3 if removed else None, "removed": list(removed)}
    rest = {"history": [], "validation_accuracy": 0.9, "energy": energy, "provenance": PROVENANCE}
    artifacts.write_json(folder / "training.json", {**training, **rest})
    values = {"accuracy_percent": accuracy, "accuracy_before_fine_tuning_percent": before, "test_images": 10000}
    evaluation = {"evaluation": "accuracy", "values": values, "labels": {}, "provenance": PROVENANCE}
    artifacts.write_json(folder / "evaluations" / "accuracy.json", evaluation)
    reduction = 100.0 * len(removed) / (len(BLOCKS) + 1)
    values = {"macs": 69_000_000 - 4_000_000 * len(removed), "flops_reduction_percent": reduction}
    evaluation = {"evaluation": "complexity", "values": values, "provenance": PROVENANCE}
    artifacts.write_json(folder / "evaluations" / "complexity.json", evaluation)
    return architecture


def scores(generator: random.Random, step: int, criterion: str, draw: int, gone: Sequence[str]) -> list[list[Any]]:
    scale = 10.0 ** (len(criterion) % 4)
    left = [block for block in CANDIDATES if block not in gone]
    removes = "highest" if criterion == "last" else "lowest"
    return [[step, criterion, draw, removes, b, scale * (CANDIDATES.index(b) + 8 * generator.random())] for b in left]


def write_oracle(folder: Path, generator: random.Random) -> None:
    """Losses without each candidate: they rise with the block's position, less so after fine-tuning."""
    losses = [
        [block, epochs, (1.0 - 0.5 * epochs) * (0.1 * place + generator.random()), 80.0 + place, 126]
        for place, block in enumerate(CANDIDATES)
        for epochs in (0, 1)
    ]
    columns = ["block", "fine_tuning_epochs", "cross_entropy_nats", "accuracy_percent", "images"]
    artifacts.write_csv(folder / "oracle.csv", columns, losses)
    energy = {"energy_kwh": 0.5, "emissions_kg": 0.2, "duration_s": 60.0, "method": "estimated", "source": "TDP"}
    artifacts.write_json(folder / "oracle.json", {"epochs": 1, "energy": energy, "provenance": PROVENANCE})


def write_audit(folder: Path, criteria: Sequence[str]) -> None:
    """Two transitions: one block goes, then two, one of them found with little confidence; kept ones are ever less alike."""
    gone = [CANDIDATES[:1], CANDIDATES[4:6]]
    rows, choices = [], []
    for step, (before, after) in enumerate((("dense", "first_file"), ("first_file", "second_file")), start=1):
        left = [block for block in BLOCKS if block not in (gone[0] if step == 2 else [])]
        for block in left:
            removed = block in gone[step - 1]
            unsure = block == CANDIDATES[5]
            index = [other for other in left if other[:6] == block[:6]].index(block)
            numbers = [0.04 if removed else 0.9 / step, 0.05 if unsure else 0.8]
            status = "removed" if removed else "kept"
            rows.append([step, before, after, block, index, status, *numbers, "uncertain" if unsure else "clear"])
        for number, criterion in enumerate(criteria):
            hits = number % (step + 1)
            choices.append([step, before, after, criterion, step, 12, " ".join(gone[step - 1]), hits, step**2 / 12])
    artifacts.write_csv(folder / "audit.csv", collect.AUDIT, rows)
    artifacts.write_csv(folder / "audit_choices.csv", collect.CHOICES, choices)


def build_suite(
    root: Path,
    criteria: Sequence[str] = ("cka", "consensus", "random"),
    models: Sequence[str] = ("resnet32",),
    replicates: int = 2,
    draws: int = 2,
    points: Sequence[int] = (2, 5),
    schedules: Sequence[str] = ("one-shot", "iterative"),
    oracle: bool = False,
    audited: Sequence[str] = (),
) -> Suite:
    """Write results/<suite>/ below ``root``."""
    generator = random.Random(7)
    suite_folder = root / "results" / "tiny"
    networks, measured = [], []
    columns = ["step", "criterion", "draw", "removes", "block", "score"]
    for model in models:
        architectures: dict[str, list[str]] = {}
        for replicate in range(replicates):
            parent = suite_folder / "digits" / model / f"replicate{replicate}"
            folder = parent / "dense"
            networks.append(folder)
            dense = DENSE_ACCURACY + 0.3 * replicate
            architecture = write_network(folder, [], dense, None)
            architectures[collect.architecture_id(architecture)] = architecture["blocks"]
            drawn = [(c, d) for c in criteria for d in range(draws if c == "random" else 1)]
            rows = [row for c, d in drawn for row in scores(generator, 0, c, d, [])]
            artifacts.write_csv(folder / "scores.csv", columns, rows)
            cost = {c: {"seconds": 2.5 + i, "forward_passes": 130, "backward_passes": 0} for i, c in enumerate(criteria)}
            artifacts.write_json(folder / "scoring.json", {"criteria": cost, "images": 1000, "provenance": PROVENANCE})
            if oracle:
                write_oracle(folder, generator)
            for method in audited:
                write_audit(parent / "delivered" / method, [name for name in criteria if name != "random"])
            for schedule in schedules:
                for criterion, draw in drawn:
                    chain = parent / schedule / criterion / f"draw{draw}"
                    order = sorted(CANDIDATES, key=lambda block: CANDIDATES.index(block) + 6 * generator.random())
                    order = {"first": CANDIDATES, "last": CANDIDATES[::-1]}.get(criterion, order)[: max(points)]
                    removals = [[i, block, 0.5 if i > 1 else None] for i, block in enumerate(order, start=1)]
                    artifacts.write_csv(chain / "removals.csv", ["step", "block", "score"], removals)
                    if schedule == "iterative" and criterion not in ("random", "first", "last"):
                        rows = [r for i in range(max(points)) for r in scores(generator, i, criterion, draw, order[:i])]
                        artifacts.write_csv(chain / "scores.csv", columns, rows)
                    for point in points:
                        accuracy = dense + change(criterion, schedule, replicate, draw, point)
                        folder = chain / f"blocks{point}"
                        architecture = write_network(folder, order[:point], accuracy, accuracy - 7 * point)
                        architectures[collect.architecture_id(architecture)] = architecture["blocks"]
                        networks.append(folder)
        for name, values, labels in (
            (
                "latency",
                {"latency_batch1_median_ms": 4.25, "latency_batch1_iqr_ms": 0.5, "latency_batch256_median_ms": 91.0},
                {},
            ),
            (
                "energy",
                dict(zip(ENERGY, (0.75, 0.1), strict=True)),
                {"energy_method": "measured"},
            ),
        ):
            path = suite_folder / "digits" / model / "measured" / f"{name}.json"
            entries = [
                {"architecture_id": identity, "blocks": blocks, "values": values, "labels": labels}
                for identity, blocks in sorted(architectures.items())
            ]
            artifacts.write_json(path, {"evaluation": name, "architectures": entries, "provenance": PROVENANCE})
            measured.append(path)
    return Suite(suite_folder, [NetworkFolder.from_path(folder) for folder in networks], measured, oracle, audited)


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    return build_suite(tmp_path_factory.mktemp("suite"))


@pytest.fixture(scope="module")
def tidy(suite: Suite) -> Path:
    return suite.collect(suite.root / "tables")


VOTES = ("consensus_median", *(f"consensus_without_{name}" for name in METRICS))
ALL = (*VOTES, *figures._METRICS, "cka", "consensus", "random", "first", "last", "my_own")


@pytest.fixture(scope="module")
def full_tidy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every criterion there is, an oracle, and an audit."""
    root = tmp_path_factory.mktemp("full")
    return build_suite(root, ALL, points=(2, 5, 8), oracle=True, audited=["theirs", "others"]).collect(root / "tables")


# --- collecting ------------------------------------------------------------------------------------------------------


def test_paths_say_the_experiment() -> None:
    network = NetworkFolder.from_path(Path("/x/results/s/cifar10/resnet56/replicate3/one-shot/cka/draw2/flops54_6"))
    assert network.keys == ("s", "cifar10", "resnet56", 3, "one-shot", "cka", 2, "flops54_6")
    dense = NetworkFolder.from_path(Path("s/cifar10/resnet56/replicate0/dense"))
    assert dense.keys == ("s", "cifar10", "resnet56", 0, "dense", "dense", 0, "dense")
    assert dense.is_dense and not network.is_dense


@pytest.mark.parametrize("path", ["s/d/m/replicate0", "s/d/m/replicatex/dense", "s/d/m/replicate0/one-shot/cka/draw0"])
def test_a_path_of_no_network_is_refused(path: str) -> None:
    with pytest.raises(PrunebenchError, match=re.escape(path)):
        NetworkFolder.from_path(Path(path))


def test_results_hold_every_number_under_the_columns_of_the_contract(tidy: Path) -> None:
    frame = pd.read_csv(tidy / "results.csv")
    contract = "suite dataset model replicate schedule criterion draw operating_point blocks_removed"
    assert list(frame.columns) == [*contract.split(), "evaluation", "quantity", "value", "source"]
    chosen = frame[
        (frame["replicate"] == 1)
        & (frame["schedule"] == "iterative")
        & (frame["criterion"] == "random")
        & (frame["draw"] == 1)
        & (frame["operating_point"] == "blocks5")
        & (frame["quantity"] == "accuracy_percent")
    ]
    assert chosen["value"].to_list() == [DENSE_ACCURACY + 0.3 + change("random", "iterative", 1, 1, 5)]
    assert chosen["blocks_removed"].to_list() == [5]
    folder = "digits/resnet32/replicate1/iterative/random/draw1/blocks5"
    assert chosen["source"].to_list() == [f"{folder}/evaluations/accuracy.json"]
    dense = frame[frame["schedule"] == "dense"]
    assert set(dense["blocks_removed"]) == {0} and set(dense["criterion"]) == {"dense"}
    epochs = frame[(frame["quantity"] == "epochs") & (frame["operating_point"] == "blocks5")]
    assert set(epochs["value"]) == {15}
    # 2 replicates of 1 dense network and of 2 schedules x 2 points x (2 criteria + 2 random draws)
    assert len(frame[frame["quantity"] == "macs"]) == 2 * (1 + 2 * 2 * 4)


def test_measured_values_reach_every_network_with_the_architecture(tidy: Path) -> None:
    frame = pd.read_csv(tidy / "measured.csv", keep_default_na=False)
    latency = frame[frame["quantity"] == "latency_batch1_median_ms"]
    assert len(latency) == 2 * (1 + 2 * 2 * 4)
    assert set(latency["method"]) == {""}
    methods = frame.groupby("quantity")["method"].unique().to_dict()
    assert methods["energy_kwh"] == ["estimated"]
    assert methods[ENERGY[1]] == ["measured"]
    scoring = frame[(frame["evaluation"] == "scoring") & (frame["criterion"] == "consensus")]
    assert set(scoring["quantity"]) == {"seconds", "forward_passes", "backward_passes", "images"}


def test_scores_and_removals_keep_their_chain(tidy: Path) -> None:
    scored = pd.read_csv(tidy / "scores.csv")
    assert set(scored["chain_criterion"]) == {"dense", "cka", "consensus"}
    assert set(scored.loc[scored["schedule"] == "iterative", "step"]) == set(range(5))
    removed = pd.read_csv(tidy / "removals.csv")
    steps = removed.groupby(["replicate", "schedule", "chain_criterion", "draw"])["step"].apply(list)
    assert len(steps) == 2 * 2 * 4 and all(step == [1, 2, 3, 4, 5] for step in steps)
    assert removed["score"].isna().sum() == len(steps)


@pytest.mark.parametrize("table", ["results", "measured", "scores", "removals"])
def test_parquet_and_csv_say_the_same(tidy: Path, table: str) -> None:
    parquet = pd.read_parquet(tidy / f"{table}.parquet").astype(object)
    frame = getattr(collect.read_tables(tidy), table).astype(object)
    assert len(frame) > 0
    pd.testing.assert_frame_equal(frame, parquet)


def test_provenance_has_a_row_for_each_file(tidy: Path) -> None:
    frame = pd.read_csv(tidy / "provenance.csv")
    sources = {path for table in ("results", "measured") for path in pd.read_csv(tidy / f"{table}.csv")["source"]}
    assert set(frame["source"]) == sources
    assert json.loads(frame["hardware"].iloc[0]) == PROVENANCE["hardware"]


def test_tables_do_not_depend_on_order_or_place(suite: Suite, tidy: Path, tmp_path: Path) -> None:
    elsewhere = build_suite(tmp_path / "another place")
    shuffled = Suite(elsewhere.root, elsewhere.networks[::-1], elsewhere.measured[::-1])
    random.Random(3).shuffle(shuffled.networks)
    again = shuffled.collect(tmp_path / "tables")
    tables.write_tables(tidy)
    tables.write_tables(again)
    names = sorted(path.name for path in tidy.iterdir())
    assert names == sorted(path.name for path in again.iterdir()) and len(names) == 18 + 3 * len(EVERY_SUITE)
    assert [name for name in names if (tidy / name).read_bytes() != (again / name).read_bytes()] == []


def test_a_folder_that_the_config_does_not_know_is_left_out(suite: Suite, tmp_path: Path) -> None:
    listed = [network for network in suite.networks if network.criterion != "cka"]
    collect.collect(dict.fromkeys(listed), [], tmp_path)
    assert "cka" not in set(pd.read_csv(tmp_path / "results.csv")["criterion"])
    assert set(pd.read_csv(tmp_path / "removals.csv")["chain_criterion"]) == {"consensus", "random"}


def test_a_delivered_network_needs_no_training(tmp_path: Path) -> None:
    made = build_suite(tmp_path, criteria=("random",), replicates=1, schedules=("one-shot",))
    folder = made.root / "digits/resnet32/replicate0/delivered/magic/draw0/delivered"
    write_network(folder, BLOCKS[1:4], 88.0, None)
    (folder / "training.json").unlink()
    out = Suite(made.root, [*made.networks, NetworkFolder.from_path(folder)], made.measured[:0]).collect(tmp_path / "t")
    frame = pd.read_csv(out / "results.csv")
    assert set(frame.loc[frame["schedule"] == "delivered", "blocks_removed"]) == {3}
    summary = comparison.summarise_accuracy(collect.read_tables(out).results)
    magic = summary[summary["criterion"] == "magic"].iloc[0]
    assert magic["change_pp_mean"] == pytest.approx(-2.0) and math.isnan(magic["epochs"])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("training.json", None),
        ("training.json", '{"schema": 1, "epochs": 3'),
        ("architecture.json", '{"schema": 1, "blocks": []}'),
        ("evaluations/accuracy.json", "[]"),
        ("evaluations/accuracy.json", '{"schema": 1, "values": {"accuracy_percent": "high"}}'),
        ("evaluations/accuracy.json", '{"schema": 1, "values": {"accuracy_percent": NaN}}'),
        ("../removals.csv", None),
        ("../removals.csv", "step,block,score\none,stage1.block1,\n"),
        ("../scores.csv", "step,criterion,draw,removes,block,score\n0,cka,0,lowest,stage1.block1,\n"),
    ],
)
def test_a_missing_or_corrupt_file_is_named(tmp_path: Path, name: str, content: str | None) -> None:
    made = build_suite(tmp_path, criteria=("cka",), replicates=1, points=(2,), schedules=("iterative",))
    path = next(network.folder for network in made.networks if not network.is_dense) / name
    path.unlink()
    if content is not None:
        path.write_text(content)
    with pytest.raises(PrunebenchError, match=re.escape(path.name)):
        made.collect(tmp_path / "tables")


def test_losses_of_the_oracle_and_their_cost_are_collected(full_tidy: Path) -> None:
    frame = pd.read_csv(full_tidy / "oracle.csv")
    assert len(frame) == 2 * 2 * len(CANDIDATES) and list(frame.columns) == list(collect.ORACLE_COLUMNS)
    assert frame["images"].unique().tolist() == [126]
    spent = pd.read_csv(full_tidy / "measured.csv", keep_default_na=False).query("evaluation == 'oracle'")
    methods = spent.groupby("quantity")["method"].unique().map(list).to_dict()
    assert methods == {"energy_kwh": ["estimated"], "emissions_kg": ["estimated"], "duration_s": [""]}
    # It is no cost of the dense network.
    read = collect.read_tables(full_tidy)
    assert not [column for column in cost.summarise_cost(read.measured, read.results) if "oracle" in column]


def test_an_oracle_that_the_config_does_not_know_is_left_out(tmp_path: Path) -> None:
    made = build_suite(tmp_path, oracle=True)
    made.oracle = False
    out = made.collect(tmp_path / "tables")
    assert collect.read_tables(out).oracle.empty
    assert not {path.stem for path in tables.write_tables(out)} & {"quality", "consensus_parts"}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("oracle.csv", None),
        ("oracle.json", "{}"),
        ("oracle.csv", "block,fine_tuning_epochs,cross_entropy_nats,accuracy_percent,images\nstage1.block1,0,,90.0,126\n"),
        ("oracle.csv", "block,fine_tuning_epochs,cross_entropy_nats,accuracy_percent,images\nstage1.block1,x,1.0,90.0,126\n"),
    ],
)
def test_a_broken_oracle_is_named(tmp_path: Path, name: str, content: str | None) -> None:
    made = build_suite(tmp_path, replicates=1, points=(2,), schedules=("one-shot",), oracle=True)
    path = made.root / "digits/resnet32/replicate0/dense" / name
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(PrunebenchError, match=re.escape(path.name)):
        made.collect(tmp_path / "tables")


def test_an_evaluation_that_was_asked_for_must_be_there(suite: Suite, tmp_path: Path) -> None:
    with pytest.raises(PrunebenchError, match=r"robustness\.json"):
        collect.collect({network: ["accuracy", "robustness"] for network in suite.networks}, [], tmp_path)


def test_measurements_of_other_architectures_are_refused(suite: Suite, tmp_path: Path) -> None:
    path = tmp_path / "tiny/digits/resnet32/measured/latency.json"
    artifacts.write_json(path, {"architectures": [{"architecture_id": "0" * 12, "values": {}, "labels": {}}]})
    with pytest.raises(PrunebenchError, match=r"latency\.json"):
        collect.collect(dict.fromkeys(suite.networks), [path], tmp_path / "tables")


# --- tables ----------------------------------------------------------------------------------------------------------


def test_accuracy_table_has_known_values(tidy: Path) -> None:
    summary = comparison.summarise_accuracy(collect.read_tables(tidy).results)
    assert summary["criterion"].to_list()[:4] == ["dense", "consensus", "cka", "random"]
    row = summary[(summary["criterion"] == "random") & (summary["operating_point"] == "blocks2")].iloc[0]
    changes = [np.mean([change("random", "one-shot", r, d, 2) for d in (0, 1)]) for r in (0, 1)]
    assert row["change_pp_mean"] == pytest.approx(np.mean(changes))
    assert row["change_pp_sd"] == pytest.approx(np.std(changes, ddof=1))
    assert row["change_before_fine_tuning_pp_mean"] == pytest.approx(np.mean(changes) - 14)
    assert (row["n"], row["blocks_removed"], row["epochs_per_block"], row["epochs"]) == (2, 2, 3, 6)
    assert row["flops_reduction_percent"] == pytest.approx(12.5)


def test_headline_picks_the_best_criterion_and_keeps_the_baselines_apart(tmp_path: Path) -> None:
    made = build_suite(tmp_path, ("cka", "consensus", "random", "first", "last"), points=(2,), schedules=("one-shot",))
    out = made.collect(tmp_path / "tables")
    tables.write_tables(out)
    row = pd.read_csv(out / "headline.csv").iloc[0]
    means = {c: np.mean([change(c, "one-shot", r, 0, 2) for r in (0, 1)]) for c in ("cka", "consensus", "first", "last")}
    best = max(("cka", "consensus"), key=lambda criterion: means[criterion])
    assert row["best_criterion"] == best and row["best_change_pp"] == pytest.approx(means[best])
    assert (row["first_change_pp"], row["last_change_pp"]) == pytest.approx((means["first"], means["last"]))
    verdicts = pd.read_csv(out / "versus_random.csv").set_index("criterion")["verdict"]
    assert row["verdict"] == verdicts[best] and row["sentence"].startswith(row["verdict"])


def test_cost_says_what_is_measured_and_what_is_estimated(tidy: Path) -> None:
    tables.write_tables(tidy)
    text = (tidy / "cost.md").read_text()
    assert "0.125 (e)" in text and "0.750 (m)" in text and "4.25 (0.500)" in text
    frame = pd.read_csv(tidy / "cost.csv")
    assert set(frame["training.method"]) == {"estimated"} and set(frame["energy.method"]) == {"measured"}
    scoring = pd.read_csv(tidy / "scoring_cost.csv").set_index("criterion")
    assert scoring.loc["cka", "seconds_mean"] == 2.5 and scoring.loc["consensus", "forward_passes"] == 130


def test_latex_is_escaped_and_whole(full_tidy: Path, tmp_path: Path) -> None:
    out = tmp_path
    tables.write_tables(full_tidy, out)
    for name in reporting.shown(reporting.TABLES, collect.read_tables(full_tidy).subjects()):
        text = (out / f"{name}.tex").read_text()
        body = [line for line in text.splitlines() if not line.startswith("%")]
        assert not re.search(r"(?<!\\)[_#&]", text.replace(" & ", "")) and (name in ("headline", "audit") or r"linear\_0" in text)
        assert text.isascii()
        assert text.count(r"\begin{table}") == text.count(r"\end{table}") > 0
        for environment in ("table", "tabular"):
            assert text.count(rf"\begin{{{environment}}}") == text.count(rf"\end{{{environment}}}")
        for rule in ("toprule", "bottomrule"):
            assert text.count(rf"\{rule}") == text.count(r"\begin{table}")
        columns = None
        for line in body:
            if match := re.match(r"\\begin\{tabular\}\{@\{\}([lr]+)@\{\}\}", line):
                columns = len(match[1])
            elif line.endswith(r"\\"):
                assert line.count(" & ") + 1 == columns


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("gaussian_stochastic_0", r"gaussian\_stochastic\_0"),
        ("\u22120.66", "$-0.66$"),
        ("+1.25 \u00b1 0.10", r"$+1.25 \pm 0.10$"),
        ("[\u22120.10, +0.50]", "$[-0.10, +0.50]$"),
        ("<0.001", "$<0.001$"),
        ("95 % & more", r"95 \% \& more"),
        ("a\\b~^{}$#", r"a\textbackslash{}b\textasciitilde{}\textasciicircum{}\{\}\$\#"),
        ("\u2013", "--"),
        ("resnet32", "resnet32"),
    ],
)
def test_latex_of_numbers_and_words(text: str, expected: str) -> None:
    assert formats.latex(text) == expected


def test_numbers_have_a_true_minus_and_no_negative_zero() -> None:
    assert formats.number(-0.001, 2, sign=True) == "+0.00"
    assert formats.number(-1.255, 1) == "\u22121.3"
    assert formats.significant(0.0012345) == "0.00123"
    assert formats.significant(1234.5) == "1234" or formats.significant(1234.5) == "1235"
    assert formats.significant(1.23e-7) == "1.23e\u22127" or formats.significant(1.23e-7) == "1.23e\u221207"
    assert formats.mean_sd(1.0, math.nan) == "+1.00"
    assert formats.p_text(0.0004) == "<0.001"


def test_a_suite_without_criteria_to_compare_still_gives_all_tables(tmp_path: Path) -> None:
    out = build_suite(tmp_path, criteria=("first",), replicates=1, points=(2,), schedules=("one-shot",)).collect(tmp_path / "t")
    written = tables.write_tables(out)
    assert len(written) == 3 * len(EVERY_SUITE) + 1 and all(path.stat().st_size > 0 for path in written)
    assert "No rows" in (out / "versus_random.md").read_text()
    assert pd.read_csv(out / "headline.csv")["verdict"].to_list() == ["undecided"]


def test_a_corrupt_tidy_table_is_named(suite: Suite, tmp_path: Path) -> None:
    out = suite.collect(tmp_path / "tables")
    path = out / "results.csv"
    path.write_text(path.read_text().replace(",90.0,", ",ninety,"))
    with pytest.raises(PrunebenchError, match=r"results\.csv"):
        tables.write_tables(out)


# --- figures ---------------------------------------------------------------------------------------------------------


def test_ranks_follow_the_direction_of_the_criterion() -> None:
    rows = [
        ("s", "d", "m", 0, "dense", "dense", 0, criterion, 0, removes, block, score)
        for criterion, removes, values in [
            ("cka", "lowest", (0.3, 0.1, 0.2)),
            ("last", "highest", (0, 1, 2)),
            ("mine", "lowest", (5, 5, 1)),
            ("ours", "highest", (5, 5, 1)),
        ]
        for block, score in zip(("b10", "b2", "b1"), values, strict=True)
    ]
    scores = pd.DataFrame(rows, columns=list(collect.SCORE_COLUMNS))
    ranks = figures.dense_ranks(scores).droplevel("replicate")
    assert list(ranks.columns) == ["b1", "b2", "b10"]
    assert ranks.loc["cka"].to_list() == [2, 1, 3]
    assert ranks.loc["last"].to_list() == [1, 2, 3]
    assert ranks.loc["mine"].to_list() == [1, 2.5, 2.5]
    assert ranks.loc["ours"].to_list() == [3, 1.5, 1.5]


def test_agreement_is_kendalls_tau_averaged_over_replicates() -> None:
    index = pd.MultiIndex.from_tuples([(0, "a"), (0, "b"), (1, "a"), (1, "b")], names=["replicate", "criterion"])
    ranks = pd.DataFrame([[1, 2, 3, 4], [1, 2, 4, 3], [1, 2, 3, 4], [4, 3, 2, 1]], index=index, dtype=float)
    tau = figures.rank_agreement(ranks)
    assert tau.loc["a", "a"] == 1
    assert tau.loc["a", "b"] == tau.loc["b", "a"] == pytest.approx(((6 - 2 * 1) / 6 - 1) / 2)


def test_agreement_with_a_criterion_that_ties_all_blocks_is_unknown() -> None:
    index = pd.MultiIndex.from_tuples([(0, "a"), (0, "b")], names=["replicate", "criterion"])
    tau = figures.rank_agreement(pd.DataFrame([[1.0, 2.0, 3.0], [2.0, 2.0, 2.0]], index=index))
    assert math.isnan(tau.loc["a", "b"]) and tau.loc["a", "a"] == 1


@pytest.fixture(scope="module")
def full(full_tidy: Path) -> collect.Tables:
    return collect.read_tables(full_tidy)


def test_an_audit_without_criteria_shows_its_blocks_alone(full: collect.Tables) -> None:
    figure = figures.make_figure("audit", replace(full, audit_choices=full.audit_choices.iloc[:0]), "digits", "resnet32")
    titles = [panel.get_title() for panel in figure.axes if panel.get_title()]
    assert titles == [f"digits, resnet32: {method}, replicate {r}" for method in ("others", "theirs") for r in (0, 1)]


def test_every_figure_is_written_twice_with_the_same_bytes(tidy: Path, tmp_path: Path) -> None:
    written = figures.write_figures(tidy, tmp_path / "a")
    names = {
        f"{name}_digits_resnet32.{suffix}"
        for name in reporting.shown(reporting.FIGURES, ["latency", "energy"])
        for suffix in ("pdf", "png")
    }
    assert {path.name for path in written} == names
    for path in written:
        assert path.stat().st_size > 5000
        assert path.read_bytes().startswith(b"%PDF" if path.suffix == ".pdf" else b"\x89PNG")
    again = figures.make_figure("removals", collect.read_tables(tidy), "digits", "resnet32")
    for path in drawing.save(again, tmp_path / "b" / "removals"):
        assert path.read_bytes() == (tmp_path / "a" / f"removals_digits_resnet32{path.suffix}").read_bytes()


def test_unknown_figures_and_models_are_refused(full: collect.Tables) -> None:
    with pytest.raises(PrunebenchError, match="agreement"):
        figures.make_figure("pie", full, "digits", "resnet32")
    with pytest.raises(PrunebenchError, match="resnet56"):
        figures.make_figure("accuracy", full, "digits", "resnet56")


def test_captions_render(tidy: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from docutils.core import publish_string
    from jinja2 import Environment, StrictUndefined

    folder = Path(collect.__file__).parents[2] / "report"
    captions = sorted(folder.glob("*.rst"))
    assert {path.stem for path in captions} >= {"workflow", *reporting.TABLES, *reporting.FIGURES}

    # The report is built where results/ is: its first page shows the headline.
    monkeypatch.chdir(tmp_path)
    tables.write_tables(tidy, tmp_path / "results/tiny/tables")
    snakemake = SimpleNamespace(config={"suite": "tiny", "replicates": 3})
    for path in captions:
        text = Environment(undefined=StrictUndefined).from_string(path.read_text()).render(snakemake=snakemake)
        settings = {"halt_level": 2, "report_level": 2}
        assert publish_string(text, writer="html", settings_overrides=settings)
