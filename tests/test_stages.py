"""The stages from files to files on a tiny suite: what they write, what they may read, and how they resume."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers import (
    DATA,
    SAMPLE,
    TRAINING,
    OneKwh,
    architecture,
    chain_job,
    dense_job,
    evaluate_job,
    filters_job,
    images,
    random_network,
    score_job,
    weights_bytes,
)
from prunebench import evaluating, pruning, scoring, scoring_progress, stages
from prunebench.config import OperatingPoint
from prunebench.data import load_splits
from prunebench.errors import CorruptFile, PrunebenchError
from prunebench.jobs import ChainJob, RankJob
from prunebench.models.files import load_architecture, load_network, save_network
from prunebench.pruning import count_for, read_ranking
from prunebench.ranking import rank
from prunebench.surgery import flops_reduction

BLOCKS = [f"stage{stage}.block{position}" for stage in (1, 2, 3) for position in (1, 2)]  # candidates of ResNet-20
CRITERIA = {"cka": 1, "random": 3, "last": 1}
NETWORK = {"architecture.json", "weights.safetensors", "training.json"}


@pytest.fixture(autouse=True)
def quick_meter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "EnergyMeter", OneKwh)


class Trainings:
    """Counts calls of ``train`` by the names of their runs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.runs: list[Any] = []
        real = pruning.train

        def train(network: Any, run: Any, energy: Any) -> Any:
            self.runs.append(run)
            return real(network, run, energy)

        monkeypatch.setattr(pruning, "train", train)

    @property
    def number(self) -> int:
        """Trainings since the last look."""
        number = len(self.runs)
        self.runs.clear()
        return number


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> Trainings:
    return Trainings(monkeypatch)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A replicate with a dense network, its scores and rankings: made once, not to be changed."""
    folder = tmp_path_factory.mktemp("replicate0")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "EnergyMeter", OneKwh)
        stages.dense(dense_job(), folder / "dense", folder / ".work")
    stages.score(score_job(CRITERIA), folder / "dense", folder / "dense" / "scores.csv", folder / "dense" / "scoring.json")
    rank(RankJob(version="1", criteria=CRITERIA), folder / "dense" / "scores.csv", folder / "one-shot")
    return folder


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as handle:
        return list(csv.DictReader(handle))


def content(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text()))


def one_shot(made: Path, folder: Path, job: ChainJob, draws: int = 1) -> Path:
    rankings = [made / "one-shot" / job.criterion / f"draw{draw}" / "ranking.csv" for draw in range(draws)]
    stages.one_shot(job, made / "dense", rankings, folder / "out", folder / ".work")
    return folder / "out"


def iterative(made: Path, folder: Path, job: ChainJob) -> Path:
    stages.iterative(job, made / "dense", made / "dense" / "scores.csv", folder / "out", folder / ".work")
    return folder / "out"


def check_network(folder: Path, removed: list[str], epochs: int) -> None:
    """The pair of files and ``training.json`` say the same."""
    assert {path.name for path in folder.iterdir()} >= NETWORK
    described = load_architecture(folder)
    assert described.blocks == tuple(block for block in architecture().blocks if block not in removed)
    load_network(folder)
    training = content(folder / "training.json")
    assert training["removed"] == removed
    assert training["epochs"] == len(training["history"]) == epochs
    assert [row["epoch"] for row in training["history"]] == list(range(1, epochs + 1))
    assert 0 <= training["validation_accuracy"] <= 100
    assert set(training["energy"]) >= {"energy_kwh", "emissions_kg", "duration_s", "method", "source"}
    assert set(training["provenance"]) >= {"config_sha256", "seed", "versions", "hardware", "commit", "created"}


def test_dense(made: Path) -> None:
    check_network(made / "dense", [], 1)
    assert not list(made.rglob("checkpoint*"))


def test_scores(made: Path) -> None:
    table = rows(made / "dense" / "scores.csv")
    assert list(table[0]) == ["step", "criterion", "draw", "removes", "block", "score"]
    assert {row["step"] for row in table} == {"0"}
    for name, draws in CRITERIA.items():
        for draw in range(draws):
            mine = [row for row in table if (row["criterion"], row["draw"]) == (name, str(draw))]
            assert [row["block"] for row in mine] == BLOCKS
    assert len(table) == 5 * len(BLOCKS)
    draws_of_random = {
        tuple(row["score"] for row in table if (row["criterion"], row["draw"]) == ("random", str(draw))) for draw in range(3)
    }
    assert len(draws_of_random) == 3


def test_cost_of_scoring(made: Path) -> None:
    cost = content(made / "dense" / "scoring.json")
    assert cost["images"] == 50
    assert set(cost["criteria"]) == set(CRITERIA)
    # 9 blocks; behind the candidates lie 7, 6, 4, 3, 1 and 0.
    assert cost["criteria"]["cka"]["forward_passes"] == pytest.approx(1 + 21 / 9)
    assert cost["criteria"]["random"]["forward_passes"] == 0
    assert all(entry["seconds"] > 0 and entry["backward_passes"] == 0 for entry in cost["criteria"].values())
    # The meter counted the whole job; a criterion is charged the job's mean power for its time.
    whole = cost["energy"]
    for entry in cost["criteria"].values():
        assert entry["energy_kwh"] == pytest.approx(whole["energy_kwh"] / whole["duration_s"] * entry["seconds"])
        assert entry["emissions_kg"] == pytest.approx(whole["emissions_kg"] / whole["duration_s"] * entry["seconds"])
    # Below 50 ms the meter may have seen nothing yet.
    assert 0 <= cost["criteria"]["cka"]["energy_kwh"] <= whole["energy_kwh"]


def test_a_combined_criterion_costs_what_its_parts_cost(tmp_path: Path, made: Path) -> None:
    metrics = ["cka", "linear_1", "wasserstein"]
    plugin = tmp_path / "both.py"
    plugin.write_text(
        "from prunebench.criteria import Criterion\n"
        f"def score(probe): return [sum(scores) for scores in zip(*map(probe.scores, {metrics}))]\n"
        f"BOTH = Criterion('both', score, combines={metrics})\n"
    )
    for order in ([*metrics, str(plugin)], [str(plugin), *metrics]):
        stages.score(score_job(dict.fromkeys(order, 1)), made / "dense", tmp_path / "scores.csv", tmp_path / "scoring.json")
        costs = content(tmp_path / "scoring.json")["criteria"]
        sweep = min(costs[name]["seconds"] for name in metrics)
        parts = sum(costs[name]["seconds"] - sweep for name in metrics)
        assert costs["both"]["seconds"] >= sweep + parts * 0.999
        assert costs["both"]["forward_passes"] == costs["cka"]["forward_passes"]


def test_passes_of_a_criterion_of_ones_own_are_counted(tmp_path: Path, made: Path) -> None:
    """It sends the sample through the network in three batches, goes back once for each, and leaves its gradients lying about."""
    plugin = tmp_path / "gradients.py"
    plugin.write_text(
        "from prunebench.criteria import Criterion\n"
        "def score(probe):\n"
        "    assert all(parameter.grad is None for parameter in probe.network.parameters())\n"
        "    for positions in probe.batches():\n"
        "        probe.network(probe.images(positions)).square().sum().backward()\n"
        "    return [float(probe.network.get_submodule(name).bn2.weight.grad.abs().sum()) for name in probe.blocks]\n"
        "ONE = Criterion('one', score, needs=('gradients',))\n"
    )
    other = tmp_path / "other.py"
    other.write_text(plugin.read_text().replace("ONE", "OTHER").replace("'one'", "'other'"))
    job = score_job({str(plugin): 1, "cka": 1, str(other): 1}, sample={**SAMPLE, "batch_size": 20})
    stages.score(job, made / "dense", tmp_path / "scores.csv", tmp_path / "scoring.json")
    costs = content(tmp_path / "scoring.json")["criteria"]
    for name in ("one", "other"):
        assert (costs[name]["forward_passes"], costs[name]["backward_passes"]) == pytest.approx((1.0, 1.0))
    assert costs["cka"]["backward_passes"] == 0
    table = rows(tmp_path / "scores.csv")
    assert [row["score"] for row in table[:6]] == [row["score"] for row in table[-6:]]


def test_rankings(made: Path) -> None:
    table = rows(made / "dense" / "scores.csv")
    for name, draws in CRITERIA.items():
        for draw in range(draws):
            ranking = rows(made / "one-shot" / name / f"draw{draw}" / "ranking.csv")
            assert [row["rank"] for row in ranking] == [str(place) for place in range(1, 7)]
            assert sorted(row["block"] for row in ranking) == BLOCKS
            scores = {r["block"]: r["score"] for r in table if (r["criterion"], r["draw"]) == (name, str(draw))}
            assert {row["block"]: row["score"] for row in ranking} == scores
            values = [float(row["score"]) for row in ranking]
            assert values == sorted(values, reverse=name == "last")


def test_one_shot(tmp_path: Path, made: Path, trainings: Trainings) -> None:
    tuning = {**TRAINING, "epochs_per_block": 2}
    out = one_shot(made, tmp_path, chain_job("one-shot", "last", {"blocks": 3}, {"blocks": 1}, fine_tuning=tuning))
    removals = rows(out / "draw0" / "removals.csv")
    # A stage keeps two blocks, so the last block of each stage goes.
    assert [(row["step"], row["block"]) for row in removals] == [
        ("1", "stage3.block2"),
        ("2", "stage2.block2"),
        ("3", "stage1.block2"),
    ]
    assert [float(row["score"]) for row in removals] == [5.0, 3.0, 1.0]
    check_network(out / "draw0" / "blocks1", ["stage3.block2"], 2)
    check_network(out / "draw0" / "blocks3", ["stage3.block2", "stage2.block2", "stage1.block2"], 6)
    assert trainings.number == 2


def test_filters_go_after_blocks(tmp_path: Path, made: Path, trainings: Trainings) -> None:
    chain = one_shot(made, tmp_path / "one-shot", chain_job("one-shot", "last", {"blocks": 1}, {"blocks": 2}))
    networks = [chain / "draw0" / point for point in ("blocks1", "blocks2")]
    before = [weights_bytes(network) for network in networks]
    assert trainings.number == 2

    def filters(**changes: Any) -> list[Path]:
        stages.filters(filters_job(**changes), networks, tmp_path / "out", tmp_path / "work")
        return [tmp_path / "out" / "draw0" / network.name for network in networks]

    made_first = [weights_bytes(network) for network in filters()]
    assert trainings.number == 2
    for source, network in zip(networks, filters(), strict=True):
        training, earlier = content(network / "training.json"), content(source / "training.json")
        assert training["removed"] == earlier["removed"]
        # All fine-tuning since the dense network: that of the blocks, then that of the filters.
        assert training["epochs"] == len(training["history"]) == earlier["epochs"] + 1
        assert training["history"][:-1] == earlier["history"]
        assert 30 <= flops_reduction(load_architecture(network), load_architecture(source)) < 35
        with torch.no_grad():
            assert load_network(network)(images(2)).shape == (2, 10)
    assert trainings.number == 0  # the second time everything was there
    assert [weights_bytes(network) for network in filters(flops_reduction=50.0)] != made_first
    assert trainings.number == 2
    assert [weights_bytes(network) for network in networks] == before


def test_iterative(tmp_path: Path, made: Path, trainings: Trainings) -> None:
    tuning = {**TRAINING, "epochs_per_block": 2}
    job = chain_job("iterative", "cka", {"blocks": 1}, {"blocks": 3}, fine_tuning=tuning)
    out = iterative(made, tmp_path, job) / "draw0"
    removed = [row["block"] for row in rows(out / "removals.csv")]
    check_network(out / "blocks1", removed[:1], 2)
    check_network(out / "blocks3", removed, 6)
    assert trainings.number == 3
    # Every step was decided by the scores beside it, the first by those of the dense network.
    table = rows(out / "scores.csv")
    assert [row["step"] for row in table] == ["0"] * 6 + ["1"] * 4 + ["2"] * 2
    for step, block in enumerate(removed):
        scores = {row["block"]: float(row["score"]) for row in table if row["step"] == str(step)}
        assert min(scores, key=lambda name: scores[name]) == block
        assert float(rows(out / "removals.csv")[step]["score"]) == scores[block]
    dense = {r["block"]: r["score"] for r in rows(made / "dense" / "scores.csv") if r["criterion"] == "cka"}
    assert {row["block"]: row["score"] for row in table[:6]} == dense


def test_energy_is_that_of_all_fine_tuning(tmp_path: Path, made: Path) -> None:
    """Each training costs one lap, that is 1 kWh: three of an iterative network, one of a one-shot network."""
    points = ({"blocks": 1}, {"blocks": 3})
    steps = iterative(made, tmp_path / "a", chain_job("iterative", "last", *points)) / "draw0"
    once = one_shot(made, tmp_path / "b", chain_job("one-shot", "last", *points)) / "draw0"
    found = {
        folder: content(folder / "training.json")["energy"]["energy_kwh"]
        for folder in (steps / "blocks1", steps / "blocks3", once / "blocks1", once / "blocks3")
    }
    assert list(found.values()) == [1.0, 3.0, 1.0, 1.0]


def test_the_first_step_is_the_same_on_both_schedules(tmp_path: Path, made: Path) -> None:
    """The same block, orders of images and epochs: the same network to the last bit."""
    steps = iterative(made, tmp_path / "a", chain_job("iterative", "last", {"blocks": 1}))
    once = one_shot(made, tmp_path / "b", chain_job("one-shot", "last", {"blocks": 1}))
    assert weights_bytes(steps / "draw0" / "blocks1") == weights_bytes(once / "draw0" / "blocks1")


def test_draws_are_chains_of_their_own(tmp_path: Path, made: Path) -> None:
    no_tuning = {**TRAINING, "epochs_per_block": 0}
    job = chain_job("iterative", "random", {"blocks": 2}, draws=3, fine_tuning=no_tuning)
    out = iterative(made, tmp_path / "a", job)
    assert sorted(path.name for path in out.iterdir()) == ["draw0", "draw1", "draw2"]
    table = rows(made / "dense" / "scores.csv")
    for draw in range(3):
        first = rows(out / f"draw{draw}" / "removals.csv")[0]
        scores = {r["block"]: float(r["score"]) for r in table if (r["criterion"], r["draw"]) == ("random", str(draw))}
        assert first["block"] == min(scores, key=lambda name: scores[name])
    later = [tuple(r["score"] for r in rows(out / f"draw{draw}" / "scores.csv") if r["step"] == "1") for draw in range(3)]
    assert len(set(later)) > 1
    job = chain_job("one-shot", "random", {"blocks": 1}, draws=2, fine_tuning=no_tuning)
    out = one_shot(made, tmp_path / "b", job, draws=2)
    assert [path.name for path in sorted(out.iterdir())] == ["draw0", "draw1"]


@pytest.mark.parametrize(("draws", "criterion"), [(4, "random"), (1, "wasserstein")])
def test_missing_scores_are_named(tmp_path: Path, made: Path, draws: int, criterion: str) -> None:
    no_tuning = {**TRAINING, "epochs_per_block": 0}
    with pytest.raises(PrunebenchError, match=rf"scores\.csv: .*{criterion}, draw {draws - 1}"):
        iterative(made, tmp_path, chain_job("iterative", criterion, {"blocks": 1}, draws=draws, fine_tuning=no_tuning))


# Operating points


def test_blocks_per_step_stop_short_at_operating_points(tmp_path: Path, trainings: Trainings) -> None:
    """ResNet-32, at most nine blocks, three at a time, points at 2, 5 and 8: steps of 2, 3 and 3 blocks."""
    resnet32 = architecture("resnet32")
    save_network(tmp_path / "dense", random_network(resnet32), resnet32)
    stages.score(
        score_job({"first": 1}, model="resnet32"), tmp_path / "dense", tmp_path / "dense" / "scores.csv", tmp_path / "cost.json"
    )
    job = chain_job(
        "iterative",
        "first",
        {"blocks": 8},
        {"blocks": 2},
        {"blocks": 5},
        model="resnet32",
        blocks_per_step=3,
        fine_tuning={**TRAINING, "epochs_per_block": 0},
    )
    out = iterative(tmp_path, tmp_path, job) / "draw0"
    sizes = {point: len(load_architecture(out / point).blocks) for point in ("blocks2", "blocks5", "blocks8")}
    assert sizes == {"blocks2": 13, "blocks5": 10, "blocks8": 7}
    assert trainings.number == 3
    assert {row["step"] for row in rows(out / "scores.csv")} == {"0", "2", "5"}
    expected = [f"stage{stage}.block{position}" for stage in (1, 2, 3) for position in (1, 2, 3)]
    assert [row["block"] for row in rows(out / "removals.csv")] == expected[:8]


@pytest.mark.parametrize("schedule", ["one-shot", "iterative"])
def test_points_at_the_same_number_of_blocks(tmp_path: Path, made: Path, trainings: Trainings, schedule: str) -> None:
    dense = architecture()
    two = flops_reduction(dense.without(BLOCKS[1:3]), dense)
    # 11.4 % a block: 15 % and 20 % take two blocks as well.
    points = [{"flops_reduction": 20.0}, {"blocks": 2}, {"flops_reduction": 15.0}]
    assert two / 2 < 15.0 < 20.0 < two
    job = chain_job(schedule, "last", *points, blocks_per_step=2)
    out = (one_shot if schedule == "one-shot" else iterative)(made, tmp_path, job) / "draw0"
    folders = [out / "flops20", out / "blocks2", out / "flops15"]
    for folder in folders:
        check_network(folder, ["stage3.block2", "stage2.block2"], 2)
    assert len({weights_bytes(folder) for folder in folders}) == 1
    assert trainings.number == 1
    assert len(rows(out / "removals.csv")) == 2


def test_a_target_reduction_takes_the_fewest_blocks_that_reach_it() -> None:
    dense = architecture("resnet56", (3, 32, 32))
    order = [block for block in dense.blocks if not block.endswith("block0")]

    def count(percent: float) -> int:
        return count_for(OperatingPoint(flops_reduction=percent), order, dense, dense)

    published = {37.52: 10, 56.29: 15, 60.04: 16, 75.05: 20, 78.80: 21}
    assert {percent: count(percent) for percent in published} == published
    assert [count(percent) for percent in (37.53, 37.54, 33.79, 33.78)] == [10, 11, 10, 9]
    assert count(0.001) == 1
    for point in (OperatingPoint(flops_reduction=95.0), OperatingPoint(blocks=25)):
        with pytest.raises(PrunebenchError, match=point.name):
            count_for(point, order, dense, dense)


def test_a_tiny_target_removes_one_block(tmp_path: Path, made: Path) -> None:
    job = chain_job("iterative", "last", {"flops_reduction": 0.001}, {"blocks": 2})
    out = iterative(made, tmp_path, job) / "draw0"
    check_network(out / "flops0_001", ["stage3.block2"], 1)
    check_network(out / "blocks2", ["stage3.block2", "stage2.block2"], 2)
    assert [row["step"] for row in rows(out / "scores.csv")] == ["0"] * 6 + ["1"] * 4


# Rankings of others


def ranking(path: Path, blocks: list[str], ranks: list[Any] | None = None, columns: str = "block,rank") -> Path:
    lines = [f"{block},{place}" for block, place in zip(blocks, ranks or range(1, len(blocks) + 1), strict=True)]
    path.write_text("\n".join([columns, *lines]) + "\n")
    return path


def test_a_ranking_of_ones_own_needs_no_scores_and_no_knowledge_of_constraints(tmp_path: Path, made: Path) -> None:
    everything = [*reversed(architecture().blocks)]
    path = ranking(tmp_path / "ranking.csv", everything)
    job = chain_job("one-shot", "my_own", {"blocks": 2}, fine_tuning={**TRAINING, "epochs_per_block": 0})
    stages.one_shot(job, made / "dense", [path], tmp_path / "out", tmp_path / ".work")
    assert [tuple(row.values()) for row in rows(tmp_path / "out" / "draw0" / "removals.csv")] == [
        ("1", "stage3.block2", ""),
        ("2", "stage2.block2", ""),
    ]
    assert [block for block, _ in read_ranking(ranking(path, BLOCKS, [6, 5, 4, 3, 2, 1]), BLOCKS)] == BLOCKS[::-1]


def test_only_a_ranking_of_the_users_own_may_lack_its_last_lines_end(tmp_path: Path, made: Path) -> None:
    path = ranking(tmp_path / "ranking.csv", BLOCKS)
    path.write_text(path.read_text().rstrip("\n"))
    assert [block for block, _ in read_ranking(path, BLOCKS)] == BLOCKS
    with pytest.raises(CorruptFile):
        read_ranking(path, BLOCKS, ours=True)
    # What is damaged is named, and is no file to set aside: the user's rule may make the same again.
    for damage in (b"", b"block,rank\n\0", b"block,rank\nstage1.block1\n"):
        path.write_bytes(damage)
        with pytest.raises(PrunebenchError, match=rf"^{path}: corrupt, .*; the rule that makes it") as error:
            stages.one_shot(chain_job("one-shot", "my_own", {"blocks": 1}), made / "dense", [path], tmp_path, tmp_path)
        assert not isinstance(error.value, CorruptFile)


@pytest.mark.parametrize("key", ["epochs", "removed", "history", "energy", "validation_accuracy", "identity"])
def test_a_step_whose_record_lacks_what_others_read_is_made_again(
    tmp_path: Path, made: Path, key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    job = chain_job("iterative", "last", {"blocks": 2}, fine_tuning={**TRAINING, "epochs_per_block": 1})
    iterative(made, tmp_path, job)
    path = tmp_path / ".work/draw0/step1/training.json"
    whole = content(path)
    path.write_text(json.dumps({name: value for name, value in whole.items() if name != key}))
    shutil.rmtree(tmp_path / ".work/draw0/step2")
    iterative(made, tmp_path, job)
    assert f"{path}: lacks {key} (see docs/data-contracts.md): making this step again" in capsys.readouterr().out
    assert content(path)[key] == whole[key]


def test_scores_kept_by_other_code_of_a_part_are_not_used(tmp_path: Path, made: Path) -> None:
    """A file combines a file that combines a file: any edit makes other scores."""
    names = ["outer", "middle", "inner"]
    paths = [str(tmp_path / f"{name}.py") for name in names]
    for name, path, parts in zip(names, paths, [(paths[1],), (paths[2], "cka"), ()], strict=True):
        Path(path).write_text(
            "from prunebench.criteria import Criterion\n"
            f"ONE = Criterion('{name}', lambda probe: range(len(probe.blocks)), combines={parts})\n"
        )
    job = score_job({paths[0]: 1})

    def identity() -> str:
        return stages.scoring_identity(job, made / "dense", BLOCKS, [paths[0]])

    seen = {identity()}
    for path in paths:
        with open(path, "a") as file:
            file.write("# edited\n")
        seen.add(identity())
    assert len(seen) == 4


@pytest.mark.parametrize(
    ("blocks", "ranks", "columns", "word"),
    [
        (BLOCKS[:-1], None, "block,rank", "stage3.block2"),
        ([*BLOCKS, "stage3.block7"], None, "block,rank", "stage3.block7"),
        ([*BLOCKS, "stage1.block1"], None, "block,rank", "stage1.block1"),
        (BLOCKS, [1, 2, 3, 4, 5, 5], "block,rank", "ranks"),
        (BLOCKS, [0, 1, 2, 3, 4, 5], "block,rank", "ranks"),
        (BLOCKS, [1, 2, 3, 4, 5, 7], "block,rank", "ranks"),
        (BLOCKS, ["1", "2", "3", "4", "5", "six"], "block,rank", "six"),
        (BLOCKS, ["1", "2", "3", "4", "5", ""], "block,rank", "rank"),
        (BLOCKS, None, "block,place", "rank"),
        ([], None, "block,rank", "stage1.block1"),
    ],
)
def test_wrong_rankings_are_refused(tmp_path: Path, made: Path, blocks: Any, ranks: Any, columns: str, word: str) -> None:
    path = ranking(tmp_path / "ranking.csv", blocks, ranks, columns)
    with pytest.raises(PrunebenchError) as error:
        stages.one_shot(chain_job("one-shot", "my_own", {"blocks": 1}), made / "dense", [path], tmp_path, tmp_path)
    assert str(error.value).startswith(f"{path}")
    assert word in str(error.value)


# What a stage may read


@pytest.fixture
def no_test_split(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(dataset: Any, root: Path, split: str, **options: Any) -> Any:
        assert split != "test", "the test split was read"
        return load_splits(dataset, root, split, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(stages, "load_splits", load)


@pytest.mark.usefixtures("no_test_split")
def test_no_decision_reads_the_test_split(tmp_path: Path) -> None:
    stages.dense(dense_job(), tmp_path / "dense", tmp_path / ".work")
    stages.score(score_job(CRITERIA), tmp_path / "dense", tmp_path / "dense" / "scores.csv", tmp_path / "cost.json")
    rank(RankJob(version="1", criteria=CRITERIA), tmp_path / "dense" / "scores.csv", tmp_path / "one-shot")
    one_shot(tmp_path, tmp_path / "a", chain_job("one-shot", "cka", {"blocks": 1}))
    iterative(tmp_path, tmp_path / "b", chain_job("iterative", "cka", {"blocks": 2}))
    # But an evaluation does.
    with pytest.raises(AssertionError, match="test split"):
        evaluate(tmp_path, "accuracy")
    evaluate(tmp_path, "complexity")


def test_splits_are_the_same_in_every_replicate_and_the_sample_is_of_the_training_split(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = (stages.load(dense_job(replicate=replicate), "train") for replicate in (0, 1))
    assert one.indices.tolist() == other.indices.tolist()
    network = random_network(architecture())
    samples = []
    for replicate in (0, 0, 1):
        job = score_job({"cka": 1}, replicate=replicate)
        samples.append(set(stages.make_probe(job, network, BLOCKS, set(), one).sample.indices.tolist()))
    assert samples[0] == samples[1] != samples[2]
    assert samples[0] | samples[2] <= set(one.indices.tolist())
    assert len(samples[0]) == 50


# Evaluations


def evaluate(replicate: Path, *evaluations: str, **chains: list[str]) -> None:
    """Evaluate a replicate's dense network and those of chains: schedule to points, all of the criterion ``x``."""
    named = {f"{schedule.replace('_', '-')}/x": {"draws": 1, "points": points} for schedule, points in chains.items()}
    evaluating.evaluate(
        evaluate_job(*evaluations, chains=named), replicate, replicate / ".work" / "evaluate", replicate / "cache"
    )


def test_evaluate_and_measure(tmp_path: Path, made: Path) -> None:
    replicate = tmp_path / "replicate0"
    shutil.copytree(made / "dense", replicate / "dense")
    out = replicate / "one-shot" / "x" / "draw0"
    shutil.copytree(one_shot(made, tmp_path, chain_job("one-shot", "last", {"blocks": 1}, {"blocks": 2})) / "draw0", out)
    folders = [replicate / "dense", out / "blocks1", out / "blocks2"]
    evaluate(replicate, "accuracy", "complexity", one_shot=["blocks1", "blocks2"])
    dense = architecture()
    for folder in folders:
        accuracy = content(folder / "evaluations" / "accuracy.json")
        assert accuracy["evaluation"] == "accuracy"
        assert 0 <= accuracy["values"]["accuracy_percent"] <= 100
        assert ("accuracy_before_fine_tuning_percent" in accuracy["values"]) == (folder != folders[0])
        complexity = content(folder / "evaluations" / "complexity.json")
        reduction = flops_reduction(load_architecture(folder), dense)
        assert complexity["values"]["flops_reduction_percent"] == pytest.approx(reduction)
        assert set(complexity["provenance"]) >= {"config_sha256", "seed", "versions"}

    # Each distinct architecture once, also where two networks have it.
    shutil.copytree(out / "blocks1", out / "again")
    chains = {"one-shot/x": {"draws": 1, "points": ["blocks1", "blocks2", "again"]}}
    job = evaluate_job("complexity", replicate=None, chains=chains)
    evaluating.measure(job, tmp_path, tmp_path / "measured", tmp_path / ".work")
    measured = content(tmp_path / "measured" / "complexity.json")
    assert measured["evaluation"] == "complexity"
    by_identity = {row["architecture_id"]: row for row in measured["architectures"]}
    assert len(measured["architectures"]) == len(by_identity) == 3
    for folder in folders:
        described = load_architecture(folder)
        row = by_identity[described.identity]
        assert row["blocks"] == list(described.blocks)
        assert row["values"]["macs"] == content(folder / "evaluations" / "complexity.json")["values"]["macs"]


def test_accuracy_before_fine_tuning_is_that_of_the_dense_weights(tmp_path: Path, made: Path) -> None:
    no_tuning = {**TRAINING, "epochs_per_block": 0}
    shutil.copytree(made / "dense", tmp_path / "dense")
    job = chain_job("one-shot", "last", {"blocks": 2}, fine_tuning=no_tuning)
    out = tmp_path / "one-shot" / "x" / "draw0" / "blocks2"
    shutil.copytree(one_shot(made, tmp_path, job) / "draw0" / "blocks2", out)
    evaluate(tmp_path, "accuracy", one_shot=["blocks2"])
    values = content(out / "evaluations" / "accuracy.json")["values"]
    assert values["accuracy_percent"] == values["accuracy_before_fine_tuning_percent"]


@pytest.mark.parametrize(
    "changes",
    [
        {"removed": ["stage2.block0"]},
        {"removed": ["stage1.block1"], "hidden_channels": {"stage1.block2": 5}},
        {"removed": [], "hidden_channels": {"stage1.block2": 5}},
    ],
)
def test_a_delivered_network_need_not_be_made_of_dense_blocks(tmp_path: Path, made: Path, changes: dict[str, Any]) -> None:
    removed = changes.pop("removed")
    delivered = architecture(**changes).without(removed)
    shutil.copytree(made / "dense", tmp_path / "dense")
    folder = tmp_path / "delivered" / "x" / "draw0" / "given"
    save_network(folder, random_network(delivered), delivered)
    evaluate(tmp_path, "accuracy", "complexity", delivered=["given"])
    values = content(folder / "evaluations" / "accuracy.json")["values"]
    assert "accuracy_before_fine_tuning_percent" not in values


def test_only_the_schedule_says_what_was_delivered(tmp_path: Path, made: Path) -> None:
    described = architecture().without(["stage1.block1"])
    for suite, schedule in (("delivered", "one-shot"), ("suite", "delivered")):
        replicate = tmp_path / suite / "digits" / "resnet20" / "replicate0"
        folder = replicate / schedule / "x" / "draw0" / "blocks1"
        shutil.copytree(made / "dense", replicate / "dense")
        save_network(folder, random_network(described), described)
        evaluate(replicate, "accuracy", **{schedule.replace("-", "_"): ["blocks1"]})
        values = content(folder / "evaluations" / "accuracy.json")["values"]
        assert ("accuracy_before_fine_tuning_percent" in values) == (schedule == "one-shot")


# Resuming


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def without_training(found: dict[str, bytes]) -> dict[str, bytes]:
    """All files but ``training.json``, which holds time and energy."""
    return {name: kept for name, kept in found.items() if not name.endswith("training.json")}


@pytest.fixture(params=["one-shot", "iterative"])
def chain(request: pytest.FixtureRequest, made: Path) -> Callable[..., Path]:
    def make(folder: Path, **changes: Any) -> Path:
        points = changes.pop("points", [{"blocks": 1}, {"blocks": 2}])
        job = chain_job(request.param, "cka", *points, **changes)
        return (one_shot if request.param == "one-shot" else iterative)(made, folder, job)

    return make


def test_deleted_outputs_come_back_without_training(tmp_path: Path, trainings: Trainings, chain: Callable[..., Path]) -> None:
    out = chain(tmp_path)
    before = files(out)
    assert trainings.number == 2
    shutil.rmtree(out)
    chain(tmp_path)
    assert files(out) == before
    assert trainings.number == 0


def test_everything_deleted_gives_the_same_bytes(tmp_path: Path, chain: Callable[..., Path]) -> None:
    first, second = files(chain(tmp_path / "a")), files(chain(tmp_path / "b"))
    assert set(first) == set(second)
    assert without_training(first) == without_training(second)


def test_a_chain_killed_within_a_step_goes_on_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trainings: Trainings, chain: Callable[..., Path]
) -> None:
    expected = files(chain(tmp_path / "whole"))
    assert trainings.number == 2
    with monkeypatch.context() as patch:
        patch.setattr(pruning, "save_network", fail_at("step2", pruning.save_network))
        with pytest.raises(InterruptedError):
            chain(tmp_path / "killed")
    assert trainings.number == 2
    found = files(chain(tmp_path / "killed"))
    assert trainings.number == 1
    assert without_training(found) == without_training(expected)


def fail_at(word: str, real: Callable[..., None]) -> Callable[..., None]:
    def save(folder: Path, *arguments: Any) -> None:
        if word in folder.name:
            raise InterruptedError
        real(folder, *arguments)

    return save


@pytest.mark.parametrize("file", ["weights.safetensors", "architecture.json", "training.json"])
@pytest.mark.parametrize("damage", ["truncate", "delete", "replace"])
def test_a_corrupt_step_is_made_again(
    tmp_path: Path,
    trainings: Trainings,
    capsys: pytest.CaptureFixture[str],
    chain: Callable[..., Path],
    file: str,
    damage: str,
) -> None:
    out = chain(tmp_path)
    before = files(out)
    step = tmp_path / ".work" / "draw0" / "step2"
    path = step / file
    kept = path.read_bytes()
    path.unlink()  # or the published file would be damaged with it
    if damage == "truncate":
        path.write_bytes(kept[: len(kept) // 2])
    elif damage == "replace":
        path.write_text('{"schema": 1}')
    assert trainings.number == 2
    shutil.rmtree(out)
    capsys.readouterr()
    chain(tmp_path)
    assert trainings.number == 1
    if damage != "delete":
        assert str(path) in capsys.readouterr().out
    assert without_training(files(out)) == without_training(before)


def test_a_step_whose_description_was_edited_is_made_again(
    tmp_path: Path, trainings: Trainings, chain: Callable[..., Path]
) -> None:
    before = files(chain(tmp_path))
    assert trainings.number == 2
    path = tmp_path / ".work" / "draw0" / "step2" / "architecture.json"
    edited = content(path)
    edited["blocks"].remove("stage1.block1")
    # In place, so that the published file, which is the same, is edited too.
    path.write_text(json.dumps(edited))
    after = files(chain(tmp_path))
    assert trainings.number == 1
    assert without_training(after) == without_training(before)


@pytest.mark.parametrize(
    "changes",
    [
        {"fine_tuning": {**TRAINING, "epochs_per_block": 2}},
        {"fine_tuning": {**TRAINING, "epochs_per_block": 1, "learning_rate": 0.02}},
        {"seed": 8},
        {"threads": 2},
        {"version": "another"},
        {"energy": {"country_iso_code": "FRA"}},
        {"data": {"validation_fraction": 0.2, "test_fraction": 0.4}},
    ],
)
def test_a_changed_setting_makes_the_steps_again(
    tmp_path: Path, trainings: Trainings, chain: Callable[..., Path], changes: dict[str, Any]
) -> None:
    chain(tmp_path, points=[{"blocks": 1}])
    assert trainings.number == 1
    out = chain(tmp_path, points=[{"blocks": 1}], **changes)
    assert trainings.number == 1
    assert files(out).keys() == files(chain(tmp_path / "fresh", points=[{"blocks": 1}], **changes)).keys()
    assert weights_bytes(out / "draw0" / "blocks1") == weights_bytes(tmp_path / "fresh" / "out" / "draw0" / "blocks1")


def test_another_operating_point_keeps_the_steps_that_are_done(
    tmp_path: Path, trainings: Trainings, chain: Callable[..., Path]
) -> None:
    chain(tmp_path, points=[{"blocks": 2}, {"blocks": 1}])
    assert trainings.number == 2
    chain(tmp_path, points=[{"blocks": 1}, {"blocks": 2}, {"blocks": 3}], suite="another")
    assert trainings.number == 1


def test_a_chain_keeps_the_weights_of_its_operating_points_alone(
    tmp_path: Path, made: Path, trainings: Trainings, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuning = {**TRAINING, "epochs_per_block": 2}

    def run(folder: Path, *points: int, **changes: Any) -> dict[str, bytes]:
        settings = {"fine_tuning": tuning, **changes}
        return files(iterative(made, folder, chain_job("iterative", "cka", *({"blocks": n} for n in points), **settings)))

    def kept() -> list[str]:
        return sorted(path.parent.name for path in (tmp_path / ".work").rglob("*.safetensors"))

    before = run(tmp_path, 2, 3)
    assert trainings.number == 3
    assert kept() == ["step2", "step3"]
    # Running again replays its decisions: nothing is trained or scored, and the outputs come back.
    shutil.rmtree(tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(stages, "make_probe", None)
        assert run(tmp_path, 2, 3) == before
    assert trainings.number == 0
    # An operating point more is made again with the same bytes, and what follows it stays.
    after = run(tmp_path, 1, 2, 3)
    assert trainings.number == 1
    assert {name: after[name] for name in before} == before
    assert without_training(after) == without_training(run(tmp_path / "fresh", 1, 2, 3))
    assert trainings.number == 3
    assert kept() == ["step1", "step2", "step3"]
    # Fewer free the weights again; so does a step that is lost, once everything has been made again.
    run(tmp_path, 3)
    assert kept() == ["step3"]
    shutil.rmtree(tmp_path / ".work" / "draw0" / "step3")
    run(tmp_path, 3)
    assert trainings.number == 3
    assert kept() == ["step3"]


def test_a_step_is_not_taken_for_finished_when_its_description_without_weights_was_edited(
    tmp_path: Path, made: Path, trainings: Trainings
) -> None:
    job = chain_job("iterative", "last", {"blocks": 2})
    before = files(iterative(made, tmp_path, job))
    assert trainings.number == 2
    path = tmp_path / ".work" / "draw0" / "step1" / "architecture.json"
    edited = content(path)
    edited["blocks"].remove("stage1.block1")
    path.write_text(json.dumps(edited))
    assert files(iterative(made, tmp_path, job)) == before
    assert trainings.number == 1


def test_what_other_configurations_left_goes(tmp_path: Path, made: Path) -> None:
    no_tuning = {**TRAINING, "epochs_per_block": 0}
    iterative(made, tmp_path, chain_job("iterative", "random", {"blocks": 3}, draws=2, fine_tuning=no_tuning))
    steps = {f"{path.parent.name}/{path.name}" for path in (tmp_path / ".work").glob("draw*/step*")}
    assert steps == {f"draw{draw}/step{step}" for draw in (0, 1) for step in (1, 2, 3)}
    iterative(made, tmp_path, chain_job("iterative", "random", {"blocks": 2}, blocks_per_step=2, fine_tuning=no_tuning))
    assert [str(path.relative_to(tmp_path / ".work")) for path in (tmp_path / ".work").rglob("step*")] == ["draw0/step2"]


def test_a_published_file_that_is_damaged_in_place_damages_no_successor(
    tmp_path: Path, trainings: Trainings, chain: Callable[..., Path]
) -> None:
    """Outputs are links to the files in the work folder, so that damage is in both."""
    out = chain(tmp_path)
    before = files(out)
    assert trainings.number == 2
    path = out / "draw0" / "blocks2" / "weights.safetensors"
    assert path.stat().st_ino == (tmp_path / ".work/draw0/step2/weights.safetensors").stat().st_ino
    with path.open("r+b") as handle:
        handle.truncate(100)
    # As the command line does when somebody reads the file.
    path.rename(path.with_name("weights.safetensors.corrupt"))
    after = files(chain(tmp_path))
    assert trainings.number == 1
    del after["draw0/blocks2/weights.safetensors.corrupt"]
    assert without_training(after) == without_training(before)


def test_scoring_a_step_goes_on_where_it_was_killed(tmp_path: Path, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = chain_job("iterative", "cka", {"blocks": 2}, sample={**SAMPLE, "batch_size": 10})
    expected = files(iterative(made, tmp_path / "whole", job))
    monkeypatch.setattr(scoring_progress, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(scoring_progress, "SHARE", 1e9)
    real, batches = scoring.silenced_features, list[int]()

    def sweep(*arguments: Any) -> Any:
        batches.append(1)
        if len(batches) == 4:
            raise InterruptedError
        return real(*arguments)

    monkeypatch.setattr(scoring, "silenced_features", sweep)
    with pytest.raises(InterruptedError):
        iterative(made, tmp_path / "killed", job)
    assert without_training(files(iterative(made, tmp_path / "killed", job))) == without_training(expected)
    assert len(batches) == 4 + 2
    assert not list((tmp_path / "killed").rglob("scoring"))


def test_scores_of_a_step_are_kept_but_not_trusted(
    tmp_path: Path, made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job = chain_job("iterative", "cka", {"blocks": 2})
    before = files(iterative(made, tmp_path, job))
    kept = tmp_path / ".work" / "draw0" / "step1" / "scores.json"
    probes: list[int] = []
    real = stages.make_probe
    monkeypatch.setattr(stages, "make_probe", lambda *arguments: (probes.append(1), real(*arguments))[1])
    assert files(iterative(made, tmp_path, job)) == before
    assert not probes
    kept.write_text("{")
    assert files(iterative(made, tmp_path, job)) == before
    assert len(probes) == 1
    assert str(kept) in capsys.readouterr().out
    iterative(made, tmp_path, chain_job("iterative", "cka", {"blocks": 2}, sample={**SAMPLE, "images_per_class": 4}))
    assert len(probes) == 2


def test_an_edited_criterion_scores_again(tmp_path: Path, made: Path) -> None:
    """A person works on a criterion of their own: what the old file scored is not used for the new one."""
    shutil.copytree(made / "dense", tmp_path / "dense")
    (tmp_path / "dense" / "scoring.json").unlink()  # it vouches for other scores
    plugin = tmp_path / "mine.py"
    removed = []
    for sign in ("", "-"):
        plugin.write_text(
            "from prunebench.criteria import Criterion\n"
            f"MINE = Criterion('mine', lambda probe: [{sign}float(i) for i in range(len(probe.blocks))])\n"
        )
        scores = [f"0,mine,0,{block},{place}" for place, block in enumerate(BLOCKS)]
        (tmp_path / "dense" / "scores.csv").write_text("\n".join(["step,criterion,draw,block,score", *scores]) + "\n")
        forget_plugins()
        out = iterative(tmp_path, tmp_path, chain_job("iterative", str(plugin), {"blocks": 2}))
        removed.append([row["block"] for row in rows(out / "draw0" / "removals.csv")])
    assert removed == [["stage1.block1", "stage2.block1"], ["stage1.block1", "stage3.block2"]]


def forget_plugins() -> None:
    """As in a new process."""
    import sys

    for name in [name for name in sys.modules if name.startswith("prunebench_plugin_")]:
        del sys.modules[name]


def test_outputs_on_another_file_system_are_copies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chain: Callable[..., Path]
) -> None:
    def refuse(*paths: Any) -> None:
        raise OSError(18, "Invalid cross-device link")

    linked = files(chain(tmp_path / "a"))
    monkeypatch.setattr(os, "link", refuse)
    out = chain(tmp_path / "b")
    copied = files(out)
    assert set(copied) == set(linked)  # no temporary file is left
    assert weights_bytes(out / "draw0" / "blocks2") == linked["draw0/blocks2/weights.safetensors"]


# Dense networks


def test_a_finished_dense_network_is_not_trained_again(tmp_path: Path, trainings: Trainings) -> None:
    stages.dense(dense_job(), tmp_path / "dense", tmp_path / ".work")
    before = files(tmp_path / "dense")
    shutil.rmtree(tmp_path / "dense")
    stages.dense(dense_job(), tmp_path / "dense", tmp_path / ".work")
    assert files(tmp_path / "dense") == before
    assert trainings.number == 1
    for changes in ({"replicate": 1}, {"keras_compatible": True}, {"data": {**DATA, "normalisation": "per-pixel"}}):
        stages.dense(dense_job(**changes), tmp_path / "dense", tmp_path / ".work")
        assert trainings.number == 1
        assert files(tmp_path / "dense") != before


def test_replicates_differ_and_the_same_replicate_is_the_same(tmp_path: Path, made: Path) -> None:
    stages.dense(dense_job(), tmp_path / "again", tmp_path / ".work0")
    stages.dense(dense_job(replicate=1), tmp_path / "other", tmp_path / ".work1")
    assert weights_bytes(tmp_path / "again") == weights_bytes(made / "dense") != weights_bytes(tmp_path / "other")


def test_a_trained_network_is_taken_over(tmp_path: Path, made: Path) -> None:
    for number in (0, 1):
        given = tmp_path / "given"
        save_network(given, random_network(architecture(), seed=number), architecture())
        stages.dense(dense_job(dense=str(given)), tmp_path / "dense", tmp_path / ".work")
        check_network(tmp_path / "dense", [], 0)
        # Also when the network in the folder has been replaced since.
        assert weights_bytes(tmp_path / "dense") == weights_bytes(given)


@pytest.mark.parametrize(
    ("given", "word"),
    [
        (architecture("resnet20", (3, 8, 8)), "images"),
        (architecture("resnet32"), "resnet32"),
        (architecture().without(["stage1.block1"]), "blocks"),
        (None, "no such file"),
    ],
)
def test_a_network_that_does_not_suit_is_refused(tmp_path: Path, given: Any, word: str) -> None:
    if given is not None:
        save_network(tmp_path / "given", random_network(given), given)
    with pytest.raises(PrunebenchError, match=rf"{tmp_path / 'given'}.*{word}"):
        stages.dense(dense_job(dense=str(tmp_path / "given")), tmp_path / "dense", tmp_path / ".work")
    assert not (tmp_path / "dense").exists()


def test_an_unavailable_device_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(PrunebenchError, match="'cuda' is not available"):
        stages.dense(dense_job(device="cuda"), tmp_path / "dense", tmp_path / ".work")
