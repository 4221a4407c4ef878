"""What follows from a suite: its networks, its jobs' settings, and which of them a change of the config touches."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from prunebench import experiments, job_settings
from prunebench.artifacts import read_csv, write_csv
from prunebench.config import Suite, parse
from prunebench.errors import PrunebenchError
from prunebench.jobs import ChainJob, ChainsJob, DenseJob, EvaluateJob, OracleJob, RankJob, ScoreJob, read_job
from prunebench.ranking import rank
from prunebench.surgery import flops_reduction
from shared import REPOSITORY

BASE: dict[str, Any] = {
    "suite": "small",
    "replicates": 2,
    "experiments": [{"dataset": "digits", "model": "resnet20"}],
    "schedules": {
        "one-shot": {"criteria": ["cka", "random"], "draws": 2},
        "iterative": {"criteria": ["random", "first"], "draws": 1},
    },
    "operating_points": [{"blocks": 1}, {"flops_reduction": 20.5}],
    "oracle": {"epochs": 2, "criteria": ["taylor", "cka"]},
    "external": {"rankings": ["mine"], "networks": ["theirs"]},
    "jobs": {"chains_per_evaluation": 100},
}


def suite(**changes: Any) -> Suite:
    """The small suite; ``sample__batch_size=5`` changes a key of a section, ``oracle=None`` leaves one out."""
    content = copy.deepcopy(BASE)
    for path, value in changes.items():
        *above, last = path.split("__")
        node = content
        for part in above:
            node = node.setdefault(part.replace("one_shot", "one-shot"), {})
        node[last] = value
        if value is None:
            del node[last]
    return parse(content, "test")


def test_the_networks_of_a_replicate() -> None:
    assert list(experiments.network_folders(suite(), "digits", "resnet20")) == [
        "dense",
        *("one-shot/cka/draw0/blocks1", "one-shot/cka/draw0/flops20_5"),
        *("one-shot/random/draw0/blocks1", "one-shot/random/draw0/flops20_5"),
        *("one-shot/random/draw1/blocks1", "one-shot/random/draw1/flops20_5"),
        *("iterative/random/draw0/blocks1", "iterative/random/draw0/flops20_5"),
        *("iterative/first/draw0/blocks1", "iterative/first/draw0/flops20_5"),
        *("one-shot/mine/draw0/blocks1", "one-shot/mine/draw0/flops20_5"),
        *("delivered/theirs/draw0/blocks1", "delivered/theirs/draw0/flops20_5"),
    ]


@pytest.mark.parametrize(
    ("schedule", "criterion", "expected"),
    [
        ("one-shot", "random", 2),
        ("iterative", "random", 1),
        ("one-shot", "cka", 1),
        ("iterative", "cka", 1),
        ("one-shot", "mine", 1),
        ("delivered", "theirs", 1),
    ],
)
def test_draws(schedule: str, criterion: str, expected: int) -> None:
    assert experiments.draws(suite(), schedule, criterion) == expected


def test_an_experiment_may_have_points_of_its_own() -> None:
    own = suite(
        experiments=[*BASE["experiments"], {"dataset": "digits", "model": "resnet32", "operating_points": [{"blocks": 4}]}]
    )
    names = {pair: [point.name for point in experiments.points(own, found)] for pair, found in experiments.pairs(own).items()}
    assert names == {("digits", "resnet20"): ["blocks1", "flops20_5"], ("digits", "resnet32"): ["blocks4"]}


@pytest.mark.parametrize(
    ("depth", "dense", "block"),
    # Millions with shortcuts that hold no weights, as often quoted; the two projections add 16 * 32 * 16**2 and 32 * 64 * 8**2.
    [(20, 40.55, 4.719), (32, 68.86, 4.719), (44, 97.17, 4.719), (56, 125.49, 4.719), (110, 252.89, 4.719)],
)
def test_products_of_the_cifar_resnets(depth: int, dense: float, block: float) -> None:
    [pair] = experiments.pairs(suite(experiments=[{"dataset": "cifar10", "model": f"resnet{depth}"}])).values()
    products = pair.model.macs(pair.architecture)
    assert products / 1e6 == pytest.approx(dense + 2 * 0.131072, abs=0.01)
    for name in ("stage1.block1", "stage2.block1", "stage3.block2"):
        reduction = flops_reduction(pair.architecture.without([name]), pair.architecture)
        assert reduction == pytest.approx(100 * block / (products / 1e6), rel=1e-3)


def evaluation_job(s: Any, replicate: int | None, per: str) -> dict[str, Any]:
    """The first job of the first group of evaluations."""
    group = experiments.evaluation_groups(s, "digits", "resnet20", per)[0]
    return job_settings.evaluate_job(s, "digits", "resnet20", replicate, group)


JOBS = {
    "dense": lambda s: job_settings.dense_job(s, "digits", "resnet20", 1),
    "score": lambda s: job_settings.score_job(s, "digits", "resnet20", 1),
    "rank": lambda s: job_settings.rank_job(s, "digits", "resnet20"),
    "one-shot": lambda s: job_settings.chain_job(s, "digits", "resnet20", 1, "one-shot", "random"),
    "mine": lambda s: job_settings.chain_job(s, "digits", "resnet20", 1, "one-shot", "mine"),
    "iterative": lambda s: job_settings.chain_job(s, "digits", "resnet20", 1, "iterative", "random"),
    "oracle": lambda s: job_settings.oracle_job(s, "digits", "resnet20", 1),
    "evaluate": lambda s: evaluation_job(s, 1, "network"),
    "measure": lambda s: evaluation_job(s, None, "architecture"),
}
CHAINS = {"one-shot", "mine", "iterative"}
TUNED = CHAINS | {"oracle"}
# Those that are told which networks there are.
LOOKING = {"evaluate", "measure"}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"sample__batch_size": 5}, {"score", "iterative"}),
        ({"sample__images_per_class": 5}, {"score", "iterative"}),
        ({"constraints__minimum_blocks": 1}, {"score"} | TUNED),
        ({"dense_training__epochs": 5}, {"dense"}),
        ({"fine_tuning__learning_rate": 0.5}, TUNED),
        ({"fine_tuning__epochs_per_block": 3}, CHAINS),
        ({"oracle__epochs": 1}, {"oracle"}),
        ({"oracle__criteria": ["taylor", "l1_norm"]}, {"score"}),
        ({"oracle__criteria": ["taylor"]}, set()),
        ({"operating_points": [{"blocks": 1}]}, CHAINS | LOOKING),
        ({"schedules__iterative__draws": 2}, {"iterative"} | LOOKING),
        ({"schedules__iterative__blocks_per_step": 2}, {"iterative"}),
        ({"schedules__one_shot__draws": 1}, {"score", "rank", "one-shot"} | LOOKING),
        ({"schedules__one_shot__criteria": ["cka", "random", "last"]}, {"score", "rank"} | LOOKING),
        ({"schedules__one_shot__criteria": ["random", "cka"]}, set()),
        (
            {"evaluations": ["accuracy", "complexity", {"evaluation": "latency", "options": {"seconds": 5}}, "energy"]},
            {"measure"},
        ),
        ({"evaluations": ["accuracy", {"evaluation": "complexity", "draws": 1}, "latency", "energy"]}, {"evaluate"}),
        ({"energy__country_iso_code": "FRA"}, {"dense", "score", "measure"} | TUNED),
        ({"jobs__chains_per_evaluation": 2}, {"evaluate"}),
        ({"evaluations": ["accuracy", "latency", "energy"]}, {"evaluate"}),
        ({"evaluations": ["accuracy", "complexity", "energy"]}, {"measure"}),
        ({"replicates": 5}, {"measure"}),
        ({"external": {}}, LOOKING),
        ({"seed": 1}, set(JOBS) - {"rank"}),
        ({"device": "cpu"}, set(JOBS) - {"rank"}),
    ],
    ids=str,
)
def test_a_change_reaches_only_the_jobs_that_it_concerns(changes: dict[str, Any], expected: set[str]) -> None:
    before, after = suite(), suite(**changes)
    # As in Snakemake: a job runs again when the text of its settings changes.
    assert {name for name, job in JOBS.items() if json.dumps(job(before)) != json.dumps(job(after))} == expected


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *(("dense", DenseJob), ("score", ScoreJob), ("rank", RankJob), ("evaluate", EvaluateJob), ("measure", EvaluateJob)),
        ("oracle", OracleJob),
        *((name, ChainJob) for name in sorted(CHAINS)),
    ],
)
def test_settings_survive_the_command_line(name: str, kind: Any) -> None:
    job = read_job(kind, json.dumps(JOBS[name](suite(sample__batch_size=7))))
    for key, value in JOBS[name](suite(sample__batch_size=7)).items():
        there = getattr(job, key)
        if isinstance(value, dict) and key not in ("criteria", "chains"):
            assert {inner: getattr(there, inner) for inner in value} == value
        elif isinstance(value, int | str | None):
            assert there == value


def test_criteria_of_the_oracle_are_scored_and_not_followed() -> None:
    assert experiments.scored(suite()) == {"cka": 1, "first": 1, "random": 2, "taylor": 1}
    drawn = suite(schedules__one_shot__criteria=["cka"], schedules__iterative__criteria=["first"], oracle__criteria=["random"])
    assert experiments.scored(drawn)["random"] == 2
    assert not [folder for folder in experiments.network_folders(suite(), "digits", "resnet20") if "taylor" in folder]
    job = job_settings.oracle_job(suite(), "digits", "resnet20", 0)
    assert job["fine_tuning"]["epochs_per_block"] == 2


def test_a_suite_shows_what_it_has() -> None:
    evaluated = {"accuracy", "complexity", "latency", "energy"}
    assert experiments.subjects(suite()) == {"oracle"} | evaluated
    assert experiments.subjects(suite(oracle=None, evaluations=["accuracy"])) == {"accuracy"}
    assert experiments.subjects(suite(oracle=None, schedules__iterative__criteria=["consensus"])) == {"consensus"} | evaluated
    assert experiments.subjects(suite(oracle__criteria=["consensus_median"])) == {"oracle", "consensus"} | evaluated
    assert experiments.subjects(suite(oracle__criteria=["consensus_without_cka"])) == {"oracle"} | evaluated


def test_replicates_and_purposes_have_seeds_of_their_own_and_criteria_share_them() -> None:
    def job(replicate: int, criterion: str) -> ChainJob:
        settings = job_settings.chain_job(suite(), "digits", "resnet20", replicate, "one-shot", criterion)
        return read_job(ChainJob, json.dumps(settings))

    seeds = {job(replicate, "cka").seed_for(purpose) for replicate in range(5) for purpose in ("sample", "fine-tuning")}
    assert len(seeds) == 10
    assert job(0, "cka").seed_for("sample") == job(0, "random").seed_for("sample")


def test_a_taken_over_network_has_its_replicate_in_its_path(tmp_path: Path) -> None:
    for replicate in (0, 1):
        folder = tmp_path / f"net{replicate}"
        folder.mkdir()
        for file in ("architecture.json", "weights.safetensors"):
            (folder / file).touch()
    taken = suite(experiments=[{**BASE["experiments"][0], "dense": f"{tmp_path}/net{{replicate}}"}])
    assert JOBS["dense"](taken)["dense"] == f"{tmp_path}/net1"


def scores(path: Path, values: list[tuple[str, int, str, str]]) -> Path:
    write_csv(path, ["step", "criterion", "draw", "block", "score"], [(0, *row) for row in values])
    return path


def test_rankings(tmp_path: Path) -> None:
    blocks = ["stage1.block1", "stage1.block2", "stage2.block1", "stage3.block1"]
    rows = [("cka", 0, block, score) for block, score in zip(blocks, ["0.5", "1e-3", "0.5", "-2"], strict=True)]
    rows += [("last", 0, block, str(float(place))) for place, block in enumerate(blocks)]
    path = scores(tmp_path / "scores.csv", rows)
    rank(RankJob(version="", criteria={"cka": 1, "last": 1}), path, tmp_path)
    cka = read_csv(tmp_path / "cka" / "draw0" / "ranking.csv", ["block", "rank", "score"])
    # Lowest first; the earlier of two equal ones first; scores as they were written.
    assert [(row["block"], row["rank"], row["score"]) for row in cka] == [
        *(("stage3.block1", "1", "-2"), ("stage1.block2", "2", "1e-3")),
        *(("stage1.block1", "3", "0.5"), ("stage2.block1", "4", "0.5")),
    ]
    last = read_csv(tmp_path / "last" / "draw0" / "ranking.csv", ["block"])
    assert [row["block"] for row in last] == blocks[::-1]


@pytest.mark.parametrize(
    ("rows", "criteria", "words"),
    [
        ([("cka", 0, "a", "nan"), ("cka", 0, "b", "1")], {"cka": 1}, "cka, draw 0, a: the score is 'nan'"),
        ([("cka", 0, "a", "much"), ("cka", 0, "b", "1")], {"cka": 1}, "cka, draw 0, a: the score is 'much'"),
        ([("cka", 0, "a", "1"), ("cka", 0, "a", "2")], {"cka": 1}, "a block is there twice"),
        ([("random", 0, "a", "1")], {"random": 2}, "no scores of random, draw 1"),
        ([("cka", 0, "a", "1")], {"last": 1}, "no scores of last, draw 0"),
    ],
)
def test_scores_that_make_no_ranking(tmp_path: Path, rows: list[Any], criteria: dict[str, int], words: str) -> None:
    with pytest.raises(PrunebenchError, match=words):
        rank(RankJob(version="", criteria=criteria), scores(tmp_path / "scores.csv", rows), tmp_path)


def test_the_demo_has_as_many_networks_as_it_says() -> None:
    import yaml

    demo = parse(yaml.safe_load((REPOSITORY / "config" / "config.yaml").read_text(encoding="utf-8")), "demo")
    (dataset, model), (planted, _) = experiments.pairs(demo)
    folders = experiments.network_folders(demo, dataset, model)
    one_shot = len(demo.schedules.one_shot.criteria) - 1 + demo.schedules.one_shot.draws
    iterative = len(demo.schedules.iterative.criteria) - 1 + demo.schedules.iterative.draws
    assert len(folders) == len(set(folders)) == 1 + (one_shot + iterative) * len(demo.operating_points)
    # The shortcut's experiment follows fewer: consensus, cka, first and the draws of random, one-shot.
    expected = 1 + (3 + demo.schedules.one_shot.draws) * len(demo.operating_points)
    assert planted == f"{dataset}_shortcut" and len(experiments.network_folders(demo, planted, model)) == expected


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_chains_are_divided_into_jobs_and_each_is_told_the_same(size: int) -> None:
    s = suite(jobs__chains_per_job=size, schedules__one_shot__criteria=["cka", "random", "first", "last"])
    batches = experiments.chain_batches(s, "digits", "resnet20", "one-shot")
    followed = [name for batch in batches for name in batch.chains]
    assert followed == ["cka", "first", "last", "mine", "random"]
    assert all(len(batch.chains) <= size for batch in batches) and len(batches) == -(-5 // size)
    assert len({batch.name for batch in batches}) == len(batches)
    for batch in batches:
        told = read_job(ChainsJob, json.dumps(job_settings.chains_job(s, "digits", "resnet20", 1, batch)))
        jobs = told.each(ChainJob)
        assert list(jobs) == list(batch.chains)
        for name, job in jobs.items():
            alone = job_settings.chain_job(s, "digits", "resnet20", 1, "one-shot", name)
            # Also its digest: what a network's provenance says does not depend on the other chains of the job.
            assert job == ChainJob.model_validate(alone) and job.config_sha256 == ChainJob.model_validate(alone).config_sha256


def test_a_batch_knows_the_networks_of_its_chains() -> None:
    s = suite(jobs__chains_per_job=2)
    [batch] = experiments.chain_batches(s, "digits", "resnet20", "iterative")
    points = ["blocks1", "flops20_5"]
    assert batch.folders() == [f"{name}/draw0/{point}" for name in ("first", "random") for point in points]
    assert experiments.chain_batches(s, "digits", "resnet20", "one-shot-filters") == []
