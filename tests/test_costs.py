"""What jobs have to do: known answers by hand, and what must hold however work is divided."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import pytest

from helpers import architecture, random_network
from prunebench import experiments
from prunebench.config import Suite, parse
from prunebench.costs import IMAGES, Costs, Work, total
from prunebench.data import find_dataset
from prunebench.models import find_model
from prunebench.models.files import save_network
from prunebench.planned import PlannedJob, planned_jobs
from prunebench.surgery import Constraints, allowed

MACS = find_model("resnet20").macs
DENSE = architecture("resnet20")
WITHOUT = [MACS(DENSE), MACS(DENSE.without(["stage1.block1"])), MACS(DENSE.without(["stage1.block1", "stage2.block1"]))]
# A fifth of the digits is for testing, a tenth of the rest for validation.
VALIDATION = 1797 * 0.8 * 0.1
TRAINING = 1797 * 0.8 * 0.9


def suite(**changes: Any) -> Suite:
    content = {
        "suite": "small",
        "replicates": 1,
        "experiments": [{"dataset": "digits", "model": "resnet20"}],
        "schedules": {"one-shot": {"criteria": ["cka"]}, "iterative": {"criteria": ["cka"]}},
        "operating_points": [{"blocks": 1}, {"flops_reduction": 20}],
        "evaluations": ["accuracy"],
        "sample": {"images_per_class": 10},
        "dense_training": {"epochs": 5, "batch_size": 100},
        "fine_tuning": {"epochs_per_block": 3, "batch_size": 100},
        **changes,
    }
    return parse(content, "test")


def work(some: Suite, stage: str) -> Work:
    costs = Costs(some)
    return total(costs.of(job).work for job in planned_jobs(some) if job.stage == stage)


def trained(epochs: int, removed: int) -> float:
    return 3 * epochs * TRAINING * WITHOUT[removed] + VALIDATION * WITHOUT[removed]


def test_training_is_three_passes_over_the_training_images() -> None:
    found = work(suite(), "dense")
    assert found.macs == pytest.approx(trained(5, 0))
    # 13 batches of an epoch and one of validation, through nine blocks.
    assert found.launches == 3 * 5 * 13 * 9 + 9
    assert found.networks == 1 and found.comparisons == 0


def test_one_shot_trains_each_network_for_all_of_its_blocks() -> None:
    # A fifth of the multiply-accumulates are two blocks of this network.
    assert work(suite(), "one-shot").macs == pytest.approx(trained(3, 1) + trained(6, 2))
    # Points that the same blocks reach share a network.
    same = suite(operating_points=[{"blocks": 2}, {"flops_reduction": 20}])
    assert work(same, "one-shot").macs == pytest.approx(trained(6, 2))


def test_iterative_trains_and_scores_at_each_step() -> None:
    found = work(suite(), "iterative")
    # After the first step: five candidates are left of eight blocks, of the sweep's passes they cost seven sixteenths each.
    sweep = 100 * WITHOUT[1] * (1 + 5 * (1 - 1 / 8) / 2)
    assert found.macs == pytest.approx(trained(3, 1) + trained(3, 2) + sweep)
    assert found.comparisons == 100 * 5
    # A criterion that looks at no images has no sweep.
    first = suite(schedules={"iterative": {"criteria": ["first"]}})
    assert work(first, "iterative").macs == pytest.approx(trained(3, 1) + trained(3, 2))


def test_draws_and_filters_and_the_oracle_are_counted() -> None:
    drawn = suite(schedules={"one-shot": {"criteria": ["random"], "draws": 4}, "one-shot-filters": {"criteria": ["random"]}})
    assert work(drawn, "one-shot").macs == pytest.approx(4 * (trained(3, 1) + trained(6, 2)))
    # Fine-tuned for one epoch, with a fifth less of everything.
    assert work(drawn, "one-shot-filters").macs == pytest.approx(4 * 0.8 * (trained(1, 1) + trained(1, 2)))
    asked = work(suite(oracle={"epochs": 2}), "oracle")
    assert asked.macs == pytest.approx(6 * (trained(2, 1) + 2 * VALIDATION * WITHOUT[1]))


def test_attacks_cost_what_their_options_ask() -> None:
    def attacked(**options: Any) -> Work:
        return work(suite(evaluations=[{"evaluation": "pgd", "options": {"linf_eps_255": [8], **options}}]), "evaluate")

    once, twice = attacked(images=50), attacked(images=100)
    assert twice.macs == pytest.approx(2 * once.macs)
    # Steps and distances; the clean images and the search for gradients are not repeated.
    assert 1.8 < attacked(images=50, steps=40).macs / once.macs < 2
    assert attacked(images=50, linf_eps_255=[4, 8]).macs > once.macs
    # No more images than there are.
    assert attacked(images=10_000).macs == attacked(images=360).macs


@pytest.mark.parametrize("chains", [2, 3, 7])
def test_work_is_the_same_however_it_is_divided(chains: int) -> None:
    criteria = ["cka", "random", "first", "last", "taylor", "l1_norm", "consensus"]
    schedules = {"one-shot": {"criteria": criteria, "draws": 2}, "iterative": {"criteria": criteria, "draws": 2}}
    jobs = {"chains_per_job": chains, "chains_per_evaluation": chains}
    one, divided = suite(schedules=schedules), suite(schedules=schedules, jobs=jobs)
    assert len(planned_jobs(divided)) < len(planned_jobs(one))
    for stage in ("one-shot", "iterative", "evaluate"):
        assert vars(work(divided, stage)) == pytest.approx(vars(work(one, stage)))
    assert disk(divided) == pytest.approx(disk(one))


def disk(some: Suite) -> float:
    costs = Costs(some)
    return sum(costs.of(job).disk for job in planned_jobs(some))


@pytest.mark.parametrize(
    ("model", "shape", "options"), [("resnet20", (1, 8, 8), {}), ("resnet56", (3, 32, 32), {"keras_compatible": True})]
)
def test_weights_have_the_size_of_their_file(model: str, shape: Any, options: dict[str, Any], tmp_path: Path) -> None:
    whole = architecture(model, shape, **options)
    for wanted in (whole, whole.without(["stage3.block1"])):
        save_network(tmp_path, random_network(wanted), wanted)
        numbers = find_model(model).weights
        assert numbers is not None
        # A header names the tensors, and batch norms count their batches.
        assert 4 * numbers(wanted) == pytest.approx((tmp_path / "weights.safetensors").stat().st_size, rel=0.06)


def test_a_found_model_is_built_to_count_its_weights() -> None:
    found = Costs(suite(experiments=[{"dataset": "cifar10", "model": "resnet18"}], constraints={"minimum_blocks": 1}))
    [scale] = found.scales.values()
    # torchvision's 11.7 million less a classifier for 1,000 classes.
    assert scale.weights_bytes(0) == pytest.approx(4 * 11.18e6, rel=0.01)
    assert 0 < scale.weights_bytes(1) < scale.weights_bytes(0)


@pytest.mark.parametrize("removed", range(1, 7))
def test_distinct_architectures_are_counted_as_they_are(removed: int) -> None:
    [scale] = Costs(suite(constraints={"minimum_blocks": 1})).scales.values()
    constraints = Constraints(minimum_blocks=1)
    every = {
        scale.dense.without(some).identity
        for some in itertools.combinations(scale.removable, removed)
        if len(allowed(some, scale.dense, constraints)) == removed
    }
    assert scale.architectures(removed) == len(every)


def test_measuring_takes_as_long_as_its_options_say() -> None:
    asked = [
        {"evaluation": "latency", "options": {"seconds": 2.0, "batch_sizes": [1, 8]}},
        {"evaluation": "energy", "options": {"seconds": 10.0}},
    ]
    found = work(suite(evaluations=asked), "measure")
    # The dense network, three with one block less or as many as there are networks, two with two.
    assert found.networks == 1 + 2 + 2
    assert found.seconds == pytest.approx(5 * (2 * 2 * 2.2 + 10.5))
    assert found.idle == 50


def test_numbers_of_images_are_those_of_the_data() -> None:
    dataset = find_dataset("digits")
    assert len(dataset.read(Path(), "all").labels) == IMAGES["digits"][0]
    [scale] = Costs(suite(experiments=[{"dataset": "digits_shortcut", "model": "resnet20"}])).scales.values()
    assert math.isclose(scale.training + scale.validation + scale.test, 1797)


def test_images_of_a_dataset_of_ones_own_are_counted() -> None:
    own = suite(experiments=[{"dataset": str(Path(__file__).with_name("few_digits.py")), "model": "resnet20"}])
    [scale] = Costs(own).scales.values()
    images = len(scale.pair.dataset.read(Path(), "all").labels)
    assert scale.training + scale.validation + scale.test == pytest.approx(images) and 0 < images < 1797


def test_every_job_of_every_kind_costs_something(monkeypatch: pytest.MonkeyPatch) -> None:
    from prunebench.config import read
    from shared import REPOSITORY

    monkeypatch.chdir(REPOSITORY)
    for name in ("tests/suites/tiny.yaml", "config/config.yaml"):
        some = read(Path(name))
        costs = Costs(some)

        def worth(job: PlannedJob, costs: Costs = costs) -> float:
            return sum(vars(costs.of(job).work).values())

        assert all(worth(job) > 0 for job in planned_jobs(some) if job.stage != "rank")
        assert experiments.pairs(some).keys() == costs.scales.keys()
