"""The oracle, from a dense network to a loss for each block: what it writes, what it may read, and how it resumes."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers import TRAINING, OneKwh, architecture, chain_job, context, random_network
from prunebench import pruning, stages
from prunebench.artifacts import sha256_of
from prunebench.errors import PrunebenchError
from prunebench.evaluation.accuracy import classify
from prunebench.jobs import OracleJob
from prunebench.models.files import load_network, load_weights, save_network
from prunebench.oracle import oracle
from prunebench.scoring import needs_of
from prunebench.surgery import remove

BLOCKS = [f"stage{stage}.block{position}" for stage in (1, 2, 3) for position in (1, 2)]  # candidates of ResNet-20


def oracle_job(epochs: int = 1, **changes: Any) -> OracleJob:
    settings = {"constraints": {}, "fine_tuning": {**TRAINING, "epochs_per_block": epochs}, "energy": {}}
    return OracleJob.model_validate({**context(), **settings, **changes})


@pytest.fixture(autouse=True)
def quick_meter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "EnergyMeter", OneKwh)


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dense")
    save_network(folder, random_network(architecture()), architecture())
    return folder


def run(dense: Path, folder: Path, job: OracleJob) -> Path:
    oracle(job, dense, folder / "oracle.csv", folder / "oracle.json", folder / ".work")
    return folder / "oracle.csv"


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as handle:
        return list(csv.DictReader(handle))


@pytest.fixture
def kept_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the networks of the oracle, which go when their losses are written, for the test to look at."""
    monkeypatch.setattr("prunebench.oracle.drop_weights", list)


@pytest.mark.usefixtures("kept_weights")
def test_every_candidate_is_removed_by_itself(tmp_path: Path, dense: Path) -> None:
    table = rows(run(dense, tmp_path, oracle_job()))
    assert [(row["block"], row["fine_tuning_epochs"]) for row in table] == [(b, e) for b in BLOCKS for e in ("0", "1")]
    split = stages.load(oracle_job(), "validation")
    for row in table:
        if row["fine_tuning_epochs"] == "0":
            network, _ = remove(load_weights(dense), architecture(), [row["block"]])
        else:
            network = load_network(tmp_path / ".work" / row["block"])
            assert row["block"] not in [name for name, _ in network.named_blocks()]
        correct, loss = classify(network, split, torch.device("cpu"), 500)
        assert float(row["cross_entropy_nats"]) == loss
        assert float(row["accuracy_percent"]) == 100.0 * correct / len(split)
        assert int(row["images"]) == len(split)
    cost = json.loads((tmp_path / "oracle.json").read_text())
    # The meter of the tests charges 1 kWh a lap, and a fine-tuning is one lap.
    assert cost["epochs"] == 1 and cost["energy"]["energy_kwh"] == len(BLOCKS)
    assert set(cost["provenance"]) >= {"config_sha256", "seed", "versions", "hardware", "commit", "created"}


@pytest.mark.usefixtures("kept_weights")
def test_fine_tuning_is_that_of_a_chain_that_removes_the_same_block(tmp_path: Path, dense: Path) -> None:
    job = chain_job("one-shot", "first", {"blocks": 1})
    shop = stages.workshop(job, OneKwh())  # type: ignore[arg-type]
    step = pruning.remove_and_tune(shop, pruning.Step(dense, ()), [BLOCKS[2]], tmp_path / "chain", "chain")
    run(dense, tmp_path, oracle_job())
    mine = load_weights(tmp_path / ".work" / BLOCKS[2])
    assert all(torch.equal(mine[name], tensor) for name, tensor in load_weights(step.folder).items())


def test_without_fine_tuning_nothing_is_trained(tmp_path: Path, dense: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "train", None)
    table = rows(run(dense, tmp_path, oracle_job(epochs=0)))
    assert [row["block"] for row in table] == BLOCKS
    assert {row["fine_tuning_epochs"] for row in table} == {"0"}
    assert "energy" not in json.loads((tmp_path / "oracle.json").read_text())


def test_constraints_hold_blocks_back(tmp_path: Path, dense: Path) -> None:
    table = rows(run(dense, tmp_path, oracle_job(epochs=0, constraints={"minimum_blocks": 3})))
    assert table == []
    table = rows(run(dense, tmp_path, oracle_job(epochs=0, constraints={"keep_first_block": False})))
    assert [row["block"] for row in table] == ["stage1.block0", *BLOCKS]


def test_a_killed_oracle_trains_no_finished_block_again(tmp_path: Path, dense: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[str] = []
    real, save = pruning.train, pruning.save_network

    def train(network: Any, run: Any, energy: Any) -> Any:
        trained.append(run.name)
        return real(network, run, energy)

    def killed(folder: Path, *arguments: Any) -> None:
        if folder.name == BLOCKS[2]:
            raise InterruptedError
        save(folder, *arguments)

    monkeypatch.setattr(pruning, "train", train)
    whole = run(dense, tmp_path / "whole", oracle_job()).read_bytes()
    assert len(trained) == len(BLOCKS)
    trained.clear()
    with monkeypatch.context() as patch:
        patch.setattr(pruning, "save_network", killed)
        with pytest.raises(InterruptedError):
            run(dense, tmp_path / "killed", oracle_job())
    assert not (tmp_path / "killed" / "oracle.csv").exists()
    trained.clear()
    assert run(dense, tmp_path / "killed", oracle_job()).read_bytes() == whole
    assert trained == [f"oracle {block}" for block in BLOCKS[2:]]


def test_losses_are_kept_and_weights_are_not(tmp_path: Path, dense: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = run(dense, tmp_path, oracle_job())
    whole, cost = table.read_bytes(), json.loads((tmp_path / "oracle.json").read_text())
    assert not list((tmp_path / ".work").rglob("*.safetensors"))
    assert cost["losses_sha256"] == sha256_of(table)
    with monkeypatch.context() as patch:
        patch.setattr(pruning, "train", None)
        patch.setattr("prunebench.oracle.classify", None)
        assert run(dense, tmp_path, oracle_job()).read_bytes() == whole
    assert json.loads((tmp_path / "oracle.json").read_text())["energy"] == cost["energy"]
    # What is damaged is looked at again, with the network, which has to be made again for it.
    (tmp_path / ".work" / f"{BLOCKS[1]}.json").write_text("{")
    (tmp_path / ".work" / BLOCKS[3] / "training.json").write_text("{")
    trained: list[str] = []
    real = pruning.train
    monkeypatch.setattr(pruning, "train", lambda network, run, energy: (trained.append(run.name), real(network, run, energy))[1])
    assert run(dense, tmp_path, oracle_job()).read_bytes() == whole
    assert trained == [f"oracle {BLOCKS[1]}", f"oracle {BLOCKS[3]}"]


def test_losses_of_another_network_are_not_taken(tmp_path: Path, dense: Path) -> None:
    first = run(dense, tmp_path, oracle_job(epochs=0)).read_bytes()
    other = tmp_path / "other"
    save_network(other, random_network(architecture(), seed=1), architecture())
    assert run(other, tmp_path, oracle_job(epochs=0)).read_bytes() != first
    assert (
        run(other, tmp_path, oracle_job(epochs=0)).read_bytes()
        == run(other, tmp_path / "fresh", oracle_job(epochs=0)).read_bytes()
    )


def test_the_test_split_is_not_read(tmp_path: Path, dense: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = stages.load_splits
    read = []

    def load(dataset: Any, root: Path, split: str, **options: Any) -> Any:
        read.append(split)
        return real(dataset, root, split, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(stages, "load_splits", load)
    run(dense, tmp_path, oracle_job())
    assert set(read) == {"train", "validation"}


def test_a_loss_that_is_not_finite_is_named(tmp_path: Path) -> None:
    network = random_network(architecture())
    with torch.no_grad():
        network.classifier.bias.fill_(float("inf"))
    save_network(tmp_path / "broken", network, architecture())
    with pytest.raises(PrunebenchError, match=r"oracle: without stage1\.block1: the validation loss is"):
        run(tmp_path / "broken", tmp_path, oracle_job(epochs=0))


def test_parts_of_a_criterion_are_scored_once_and_behind_it() -> None:
    from prunebench.criteria import find_criterion
    from prunebench.criteria.consensus import METRICS

    named = [(find_criterion(name), range(1)) for name in ("consensus", "cka", "consensus_median")]
    every = [criterion.name for criterion, _ in stages.with_parts(named)]
    assert every == ["consensus", "cka", "consensus_median", *(metric for metric in METRICS if metric != "cka")]
    assert needs_of([criterion for criterion, _ in named]) == needs_of([c for c, _ in stages.with_parts(named)])
