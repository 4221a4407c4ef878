"""What the jobs of a suite have to do, in natural units, from the config alone: no clock is read here (``prunebench.rates`` does).

Pruned networks count with the multiply-accumulates of the dense network less the mean of as many removable blocks. Nothing imports
torch, except for models whose blocks are found and for datasets of the user's own, whose images have to be counted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from prunebench import experiments
from prunebench.config import Data, Suite
from prunebench.criteria import Criterion, find_criterion
from prunebench.data import Dataset
from prunebench.experiments import Pair
from prunebench.models import Architecture, find_model
from prunebench.planned import PlannedJob
from prunebench.surgery import Constraints, candidates, stage_sizes

IMAGES = {
    "digits": (1_797, 0),
    "fashion_mnist": (60_000, 10_000),
    "cifar10": (50_000, 10_000),
    "cifar100": (50_000, 10_000),
    "imagenet": (1_281_167, 50_000),
}
"""Images of the official parts, for training and for testing, by ``Dataset.drawn_as``."""
DECODED = ("imagenet",)
"""Datasets whose images are decoded at each access."""
BACKWARD = 2
"""A backward pass through weights and activations costs about two forward passes; to the images alone, one."""
EVALUATION_BATCH = 500
TURNS = 2.2
"""Passes of a latency measurement: the network and the dense one in turns, and the profile of its layers."""
STANDING = 1 / 3
"""Share of the images that attacks have to work on to their end: those that fall drop out."""
AUTOATTACK_PASSES = 2 * 100 + 9 * 2 * 100 + 9 * 4 * 100 + 5000
"""Of an image that stands: APGD, targeted APGD and FAB with 100 steps (a step of FAB is about two), Square's queries."""
NATURAL_SHIFT_IMAGES = 4_000 + 2_000
JSON_BYTES = 4096
"""On disk: files of one or two kilobytes take a block of the file system."""


@dataclass(frozen=True)
class Work:
    """What a job does.

    Attributes:
        macs: Multiply-accumulates, those of backward passes included.
        launches: Passes of a batch through one block, forward or backward: what a GPU waits for where images are small.
        comparisons: Features of an image compared with those of the network as it is: images x candidates x metrics.
        networks: Networks that are loaded and written.
        decoded: Images that are decoded from files.
        seconds: Of measurements, which take as long as they are told to.
        idle: Seconds in which a measurement waits, where power can be counted: nothing is known of idle power elsewhere.
    """

    macs: float = 0.0
    launches: float = 0.0
    comparisons: float = 0.0
    networks: float = 0.0
    decoded: float = 0.0
    seconds: float = 0.0
    idle: float = 0.0

    def __add__(self, other: Work) -> Work:
        """Both, one after the other."""
        return Work(*(mine + others for mine, others in zip(vars(self).values(), vars(other).values(), strict=True)))

    def __mul__(self, times: float) -> Work:
        """The same several times."""
        return Work(*(times * mine for mine in vars(self).values()))


@dataclass(frozen=True)
class Cost:
    """What a job does, and the bytes that it leaves on the disk; what it links to the files of another job counts there."""

    work: Work
    disk: float = 0.0


def total(some: Iterable[Work]) -> Work:
    """All of some work."""
    return sum(some, Work())


@dataclass(frozen=True)
class Scale:
    """How large the images and networks of an experiment are.

    Attributes:
        pair: The experiment.
        suite: Its suite.
        training: Images in the training split.
        validation: Images in the validation split.
        test: Images in the test split.
    """

    pair: Pair
    suite: Suite
    training: float
    validation: float
    test: float

    @cached_property
    def dense(self) -> Architecture:
        """The dense network's architecture."""
        return self.pair.architecture

    @cached_property
    def removable(self) -> list[str]:
        """Blocks that are candidates in the dense network."""
        return candidates(self.dense, Constraints(**self.suite.constraints.model_dump()))

    @cached_property
    def _macs(self) -> tuple[float, float]:
        """Of the dense network, and of a removable block in the mean."""
        return self._with_mean_block(self.pair.model.macs)

    @cached_property
    def _bytes(self) -> tuple[float, float]:
        """The same of the file of weights."""
        return self._with_mean_block(lambda architecture: 4 * _weights(architecture))

    def _with_mean_block(self, count: Any) -> tuple[float, float]:
        whole = count(self.dense)
        return whole, (whole - count(self.dense.without(self.removable))) / max(1, len(self.removable))

    def macs(self, removed: float) -> float:
        """Multiply-accumulates for an image without so many blocks."""
        return self._macs[0] - removed * self._macs[1]

    def weights_bytes(self, removed: float) -> float:
        """Size of the weights without so many blocks."""
        return self._bytes[0] - removed * self._bytes[1]

    def blocks(self, removed: float) -> float:
        """How many are left."""
        return len(self.dense.blocks) - removed

    @cached_property
    def points(self) -> dict[str, int]:
        """How many blocks are removed at each operating point."""
        found = {}
        for point in experiments.points(self.suite, self.pair):
            wanted = math.inf if point.flops_reduction is None else (point.flops_reduction - 0.01) / 100 * self._macs[0]
            most = len(self.removable)
            found[point.name] = point.blocks or min(most, max(1, math.ceil(wanted / max(self._macs[1], 1e-9) - 1e-9)))
        return found

    def passes(self, images: float, removed: float = 0, batch: int = EVALUATION_BATCH) -> Work:
        """Forward passes of so many images through a network."""
        decoded = images if self.pair.dataset.name in DECODED else 0
        return Work(images * self.macs(removed), math.ceil(images / batch) * self.blocks(removed), decoded=decoded)

    def trained(self, epochs: float, removed: float, batch: int) -> Work:
        """A network trained for so many epochs, validated once, and written."""
        step = self.passes(self.training, removed, batch)
        epoch = Work((1 + BACKWARD) * step.macs, (1 + BACKWARD) * step.launches, decoded=step.decoded)
        return epoch * epochs + self.passes(self.validation, removed) + Work(networks=1)

    def scored(self, criteria: Iterable[Criterion], removed: float = 0) -> Work:
        """A network scored by some criteria on one sample: the sweep, gradients and comparisons."""
        parts = {part.name: part for criterion in criteria for part in _parts(criterion)}.values()
        sample = self.pair.experiment.sample or self.suite.sample
        images = sample.images_per_class * self.pair.dataset.classes
        left = max(0.0, len(self.removable) - removed)
        found = Work(networks=1)
        if any(set(part.needs) - {"gradients"} for part in parts):
            # What stands before a silenced block is not computed again: half of the network, in the mean.
            found += self.passes(images, removed, sample.batch_size) * (1 + left * (1 - 1 / self.blocks(removed)) / 2)
        for part in parts:
            if "gradients" in part.needs:
                found += self.passes(images, removed, sample.batch_size) * (1 + BACKWARD)
            if {"features", "labels", "values"} & set(part.needs):
                found += Work(comparisons=images * left)
        return found

    def architectures(self, removed: int) -> int:
        """How many there are without so many blocks: the blocks of a stage that keep the shape are alike."""
        block_of = {block.name: block.stage for block in self.pair.model.blocks()}
        least = self.suite.constraints.minimum_blocks
        ways = [1]
        for stage, size in stage_sizes(self.dense).items():
            most = min(sum(block_of[name] == stage for name in self.removable), size - least)
            ways = [sum(ways[max(0, k - most) : k + 1]) for k in range(len(ways) + max(0, most))]
        return ways[removed] if removed < len(ways) else 1


def _parts(criterion: Criterion) -> list[Criterion]:
    """A criterion and all that it combines."""
    return [criterion, *(part for name in criterion.combines for part in _parts(find_criterion(name)))]


@cache
def _weights_of_dense(model: str, shape: tuple[int, int, int], classes: int, blocks: tuple[str, ...], keras: bool) -> int:
    import torch

    options = {"keras_compatible": True} if keras else {}
    with torch.device("meta"):
        network = find_model(model).build(Architecture(model, shape, classes, blocks, options))
    return sum(tensor.numel() for tensor in network.state_dict().values())


def _weights(architecture: Architecture) -> int:
    """Numbers in the file of weights."""
    count = find_model(architecture.model).weights
    if count is not None:
        return count(architecture)
    keras = bool(architecture.options.get("keras_compatible"))
    return _weights_of_dense(architecture.model, architecture.input_shape, architecture.classes, architecture.blocks, keras)


def scale_of(suite: Suite, pair: Pair) -> Scale:
    """How large an experiment's images and networks are.

    Raises:
        PrunebenchError: a dataset of the user's own cannot be read, so that its images cannot be counted.
    """
    training, test = _images(pair.dataset, suite.data)
    if not pair.dataset.official_test:
        test = training * suite.data.test_fraction
        training -= test
    validation = training * suite.data.validation_fraction
    return Scale(pair, suite, training - validation, validation, test)


def _images(dataset: Dataset, data: Data) -> tuple[float, float]:
    """Images for training and for testing; all of them and none, where there is no official test part."""
    if dataset.drawn_as in IMAGES:
        return IMAGES[dataset.drawn_as]
    root = Path(data.root)
    if not dataset.official_test:
        return len(dataset.read(root, "all").labels), 0
    return len(dataset.read(root, "train").labels), len(dataset.read(root, "test").labels)


class Costs:
    """The cost of each job of a suite; the replicates of an experiment cost the same."""

    def __init__(self, suite: Suite, scales: Mapping[tuple[str, str], Scale] | None = None) -> None:
        """``scales`` are those of a suite that differs from this one only in how work is divided into jobs."""
        self.suite = suite
        self.scales = scales or {names: scale_of(suite, pair) for names, pair in experiments.pairs(suite).items()}
        self._known: dict[tuple[str, str | None, str | None], Cost] = {}

    def of(self, job: PlannedJob) -> Cost:
        """What a job does."""
        key = job.rule, job.dataset, job.model
        if key not in self._known:
            self._known[key] = self._of(job)
        return self._known[key]

    def _of(self, job: PlannedJob) -> Cost:
        if job.dataset is None or job.model is None:
            return self._on_suite(job.stage)
        scale = self.scales[job.dataset, job.model]
        match job.stage:
            case "dense":
                return self._dense(scale)
            case "score":
                every = [find_criterion(name) for name in experiments.scored(self.suite, scale.pair.experiment)]
                return Cost(scale.scored(every), 2 * JSON_BYTES)
            case "oracle":
                return self._oracle(scale)
            case "deliver":
                return Cost(Work(networks=len(job.outputs) / 2), len(job.outputs) / 2 * scale.weights_bytes(0))
            case "audit":
                return self._audit(scale)
            case "evaluate" | "measure":
                return self._evaluations(job, scale)
            case "rank":
                return Cost(Work(), JSON_BYTES * len(job.outputs))
        return self._chains(job, scale)

    def _dense(self, scale: Scale) -> Cost:
        training = scale.pair.experiment.dense_training or self.suite.dense_training
        epochs = training.epochs if scale.pair.experiment.dense == "train" else 0
        return Cost(scale.trained(epochs, 0, training.batch_size), scale.weights_bytes(0) + 2 * JSON_BYTES)

    def _fine_tuned(self, scale: Scale, epochs: float, removed: float) -> Work:
        training = scale.pair.experiment.fine_tuning or self.suite.fine_tuning
        return scale.trained(epochs, removed, training.batch_size)

    def _per_block(self, scale: Scale) -> int:
        return (scale.pair.experiment.fine_tuning or self.suite.fine_tuning).epochs_per_block

    def _oracle(self, scale: Scale) -> Cost:
        assert self.suite.oracle is not None, "there is such a job only where the config has the section"
        epochs, number = self.suite.oracle.epochs, len(scale.removable)
        each = scale.passes(scale.validation, 1) + Work(networks=1)
        if epochs:
            each += self._fine_tuned(scale, epochs, 1) + scale.passes(scale.validation, 1)
        return Cost(each * number, number * (scale.weights_bytes(1) + 2 * JSON_BYTES) if epochs else 2 * JSON_BYTES)

    def _audit(self, scale: Scale) -> Cost:
        networks = sum(len(points) for points in experiments.audited(self.suite, *self._names(scale)).values())
        every = [find_criterion(name) for name in self.suite.audit.criteria]
        return Cost((scale.scored(every) if every else Work(networks=1)) * networks, 2 * JSON_BYTES)

    def _names(self, scale: Scale) -> tuple[str, str]:
        return scale.pair.dataset.name, scale.pair.model.name

    def _chains(self, job: PlannedJob, scale: Scale) -> Cost:
        assert job.chains is not None, f"{job.stage} follows chains"
        work, disk = Work(), 0.0
        for criterion, (draws, _) in job.chains.chains.items():
            if job.stage == "one-shot":
                steps = self._one_shot(scale)
            else:
                steps = self._iterative(scale, criterion) if job.stage == "iterative" else self._filters(scale)
            work += total(step for step, _ in steps) * draws
            disk += sum(size + 3 * JSON_BYTES for _, size in steps) * draws
        return Cost(work, disk)

    def _one_shot(self, scale: Scale) -> list[tuple[Work, float]]:
        """Work and bytes of each network that one draw makes."""
        per_block = self._per_block(scale)
        # Points that are reached by the same blocks share one network.
        return [
            (self._fine_tuned(scale, per_block * removed, removed), scale.weights_bytes(removed))
            for removed in sorted(set(scale.points.values()))
        ]

    def _iterative(self, scale: Scale, criterion: str) -> list[tuple[Work, float]]:
        references = experiments.criteria(self.suite, "iterative")
        every = [references[criterion][1]] if criterion in references else []
        steps, removed = [], 0
        for point in sorted(set(scale.points.values())):
            while removed < point:
                count = min(self.suite.schedules.iterative.blocks_per_step, point - removed)
                scoring = scale.scored(every, removed) if removed else Work()
                removed += count
                tuning = self._fine_tuned(scale, self._per_block(scale) * count, removed)
                steps.append((scoring + tuning, scale.weights_bytes(removed)))
        return steps

    def _filters(self, scale: Scale) -> list[tuple[Work, float]]:
        section = self.suite.schedules.one_shot_filters
        left = 1 - section.flops_reduction / 100
        found = []
        for removed in scale.points.values():
            whole = self._fine_tuned(scale, section.epochs, removed)
            found.append((Work(**{**vars(whole), "macs": whole.macs * left}), scale.weights_bytes(removed) * left))
        return found

    def _evaluations(self, job: PlannedJob, scale: Scale) -> Cost:
        assert job.group is not None and job.batch is not None, f"{job.stage} has evaluations"
        folders = job.group.folders(job.batch)
        removed = [scale.points.get(folder.rpartition("/")[2], 0) for folder in folders]
        options = {
            evaluation.name: evaluation.options.model_validate(item.options).model_dump() if evaluation.options else {}
            for item, evaluation in zip(job.group.items, job.group.evaluations, strict=True)
        }
        if job.stage == "measure":
            distinct = self._distinct(scale, folders, job.group.replicates)
            one = total(measuring(name, own) for name, own in options.items()) + Work(networks=1)
            return Cost(one * distinct, len(options) * JSON_BYTES * distinct / 4)
        each = {
            count: total(evaluating(name, own, scale, count) for name, own in options.items()) + Work(networks=1)
            for count in set(removed)
        }
        # Each result is kept in the work folder too.
        return Cost(total(each[count] for count in removed), 2 * JSON_BYTES * len(folders) * len(options))

    def _distinct(self, scale: Scale, folders: list[str], replicates: int) -> int:
        """At most so many different architectures there are among the networks of all replicates."""
        networks: dict[tuple[str, int], int] = {}
        for folder in folders:
            schedule = folder.partition("/")[0]
            removed = scale.points.get(folder.rpartition("/")[2], 0)
            key = ("" if schedule in ("one-shot", "iterative") else schedule, removed)
            networks[key] = networks.get(key, 0) + replicates
        found = 0
        for (schedule, removed), number in networks.items():
            possible = number if schedule == "delivered" else scale.architectures(removed) if removed else 1
            found += min(number, possible)
        return found

    def _on_suite(self, stage: str) -> Cost:
        """Bringing everything together: a hundredth of a second for a network, and twenty for the figures of an experiment."""
        networks = sum(len(experiments.network_folders(self.suite, *names)) for names in self.scales) * self.suite.replicates
        seconds = 20.0 * len(self.scales) if stage == "figures" else 0.01 * networks
        return Cost(Work(seconds=seconds), 0 if stage == "figures" else networks * JSON_BYTES / 2)


def evaluating(name: str, options: Mapping[str, Any], scale: Scale, removed: float) -> Work:
    """One evaluation of one network, without blocks; one that is not known here counts as a pass over the test split."""
    images = min(options.get("images") or math.inf, scale.test)

    def passes(number: float) -> Work:
        return scale.passes(images, removed) * number

    threats = len(options.get("linf_eps_255", ())) + len(options.get("l2_eps", ()))
    match name:
        case "complexity":
            return Work(networks=1)
        case "fgsm":
            return passes(3 + threats)
        case "pgd":
            return passes(3 + 2 * options["steps"] * options["restarts"] * (threats + 1) * STANDING)
        case "autoattack":
            return passes(1 + AUTOATTACK_PASSES * threats * STANDING)
        case "shortcut":
            # The same without fine-tuning.
            return passes((2 + min(options["wrong_marks"], scale.pair.dataset.classes - 1)) * (2 if removed else 1))
        case "corruptions":
            return passes(1 + len(options["corruptions"] or range(19)) * len(options["severities"]))
        case "natural_shift":
            return passes(1) + scale.passes(NATURAL_SHIFT_IMAGES, removed)
    return passes(1)


def measuring(name: str, options: Mapping[str, Any]) -> Work:
    """One evaluation of one architecture, for as long as its options ask."""
    if name == "latency":
        return Work(seconds=len(options["batch_sizes"]) * options["seconds"] * TURNS)
    if name == "energy":
        return Work(seconds=options["seconds"] * 1.05, idle=options["idle_seconds"])
    return Work(seconds=options.get("seconds") or 0)
