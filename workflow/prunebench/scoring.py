"""Scoring: one sweep over the silenced blocks of a network feeds every criterion.

Activations before block l do not change when block l is silenced, so each candidate costs only the network behind it. The dense
batch and the batches of all blocks silenced so far travel through the network together, in one forward pass over the blocks. They
do so in pieces of the size that the device works through fastest (``make bench`` measures it).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property

import numpy as np
import torch
from torch.nn import functional

from prunebench.criteria import Criterion, find_criterion
from prunebench.data import Split, to_unit
from prunebench.errors import PrunebenchError
from prunebench.metrics.statistics import FeatureStatistics
from prunebench.models.modules import BlockNetwork, Glue
from prunebench.scoring_progress import Finished, Progress

SWEEP_NEEDS = ("features", "labels", "values", "losses")

PIECE_BYTES = 2**20
"""Activations that go through a block at once on a CPU, for each thread: its cache also has to hold what the block makes of them."""


@torch.no_grad()
def silenced_features(network: BlockNetwork, images: torch.Tensor, candidates: Collection[str]) -> torch.Tensor:
    """Penultimate features of a network, dense and with each candidate silenced.

    Silencing a block puts the identity in its place: the same as setting its last batch norm to zero where a ReLU follows the
    addition (Pons et al. 2024, section 3), and the same as removing it.

    Args:
        network: In evaluation mode.
        images: (n, channels, height, width) in [0, 1].
        candidates: Names of blocks that keep the shape.

    Returns:
        (1 + len(candidates), n, d): the dense features, then the candidates in the order of the network.
    """
    dense, silenced = [network.stem(images)], list[torch.Tensor]()
    for name, block in network.named_blocks():
        limit = _images_at_once(dense[0])
        before, silenced = _pieces(dense, limit), _pieces(silenced, limit)
        dense, silenced = [block(piece) for piece in before], [block(piece) for piece in silenced]
        if name in candidates:
            silenced += before
    features = torch.cat([network.pool(piece) for piece in dense + silenced])
    return features.reshape(len(features) // len(images), len(images), -1)


@torch.no_grad()
def silenced_losses(network: BlockNetwork, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Summed cross-entropy in nats, (networks,) in float64, of features (networks, n, d) as ``silenced_features`` returns them."""
    logits = network.classify(features.flatten(0, 1)).double()
    losses = functional.cross_entropy(logits, labels.repeat(len(features)), reduction="none")
    return losses.reshape(len(features), -1).sum(1)


def wait_for(device: str) -> None:
    """Let a GPU finish what it was given, so that a clock that is read next counts it."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def _images_at_once(activations: torch.Tensor) -> int:
    """How many images with activations of this size should go through a block at once."""
    if activations.device.type != "cpu":
        return sys.maxsize
    return max(1, PIECE_BYTES * torch.get_num_threads() // max(1, activations[:1].nbytes))


def _pieces(batches: list[torch.Tensor], limit: int) -> list[torch.Tensor]:
    """The same images in the same order: too large a batch in equal parts, neighbours together where there is room."""
    groups: list[list[torch.Tensor]] = []
    for batch in batches:
        for part in batch.chunk(-(-len(batch) // limit)) if len(batch) > limit else (batch,):
            if groups and sum(map(len, groups[-1])) + len(part) <= limit:
                groups[-1].append(part)
            else:
                groups.append([part])
    return [torch.cat(group) if len(group) > 1 else group[0] for group in groups]


@contextmanager
def evaluating(network: torch.nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode for a while, then every module of it back into its own mode."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def counted_passes(network: BlockNetwork, images: int) -> Iterator[dict[str, float]]:
    """Count ``forward`` and ``backward`` passes of so many images over the blocks of a network; part of it is part of a pass."""
    counts = {"forward": 0.0, "backward": 0.0}
    blocks = [block for _, block in network.named_blocks() if not isinstance(block, Glue)]

    def count(direction: str, activations: torch.Tensor) -> None:
        counts[direction] += len(activations) / (images * len(blocks))

    def forward(block: torch.nn.Module, inputs: object, output: torch.Tensor) -> None:
        count("forward", output)
        if output.requires_grad:
            output.register_hook(lambda gradient: count("backward", gradient))  # type: ignore[no-untyped-call]

    hooks = [block.register_forward_hook(forward) for block in blocks]
    try:
        yield counts
    finally:
        for hook in hooks:
            hook.remove()


class Probe:
    """What a criterion sees: a network, its candidate blocks and one shared sample of training images.

    Attributes:
        network: In evaluation mode, on ``device``.
        blocks: Names of the candidates, in the order of the network: a score is due for each.
        sample: The images, a ``Split``.
        classes: Number of classes.
        random: Generator for criteria that draw; its seed says experiment, step and draw.
        sweep_seconds: What the shared sweep took, over all attempts.
    """

    def __init__(
        self,
        network: BlockNetwork,
        blocks: Sequence[str],
        sample: Split,
        classes: int,
        *,
        needs: Collection[str] = SWEEP_NEEDS,
        batch_size: int = 100,
        device: str = "cpu",
        seed: int = 0,
        progress: Progress | None = None,
    ) -> None:
        """Sweep and score only when asked; ``progress`` keeps what is done for an attempt after this one."""
        self.network = network
        # The sweep yields the candidates in the order of the network, so scores in any other would be given to the wrong blocks.
        self.blocks = tuple(name for name, _ in network.named_blocks() if name in blocks)
        if sorted(self.blocks) != sorted(blocks):
            raise PrunebenchError(f"blocks to score: {', '.join(blocks)}: not each a block of the network, once")
        self.sample = sample
        self.classes = classes
        self._seed = seed
        self.random = np.random.default_rng(seed)
        self.device = device
        self.batch_size = batch_size
        self._progress = progress
        self.sweep_seconds = progress.sweep_seconds if progress else 0.0
        self._needs = frozenset(needs) & frozenset(SWEEP_NEEDS)
        self._finished: dict[str, Finished] = {}
        self._drawn: set[str] = set()

    def batches(self) -> list[torch.Tensor]:
        """Positions of the sample's images, batch by batch.

        Raises:
            PrunebenchError: the sample has no images, so that nothing can be scored with it.
        """
        if not len(self.sample):
            raise PrunebenchError("the sample for scoring has no images: set sample.images_per_class")
        return list(torch.split(torch.arange(len(self.sample)), self.batch_size))

    def images(self, positions: torch.Tensor) -> torch.Tensor:
        """Images in [0, 1] on the device, (n, channels, height, width)."""
        return to_unit(self.sample.pixels(positions).to(self.device))

    @property
    def labels(self) -> torch.Tensor:
        """(n,) class numbers of the sample."""
        return self.sample.labels

    @property
    def statistics(self) -> FeatureStatistics:
        """Statistics of the features, dense and with each candidate silenced."""
        return self._swept[0]

    @property
    def losses(self) -> torch.Tensor:
        """Mean cross-entropy of the sample in nats, (1 + len(blocks),) in float64: of the network as it is, then without each block.

        Raises:
            PrunebenchError: no criterion of this probe declares that it needs ``losses``.
        """
        if "losses" not in self._needs:
            raise PrunebenchError("a criterion reads probe.losses; it has to declare needs=('losses',)")
        return self._swept[1]

    @cached_property
    def _swept(self) -> tuple[FeatureStatistics, torch.Tensor]:
        """All that is collected in one sweep over the sample."""
        batches = self.batches()
        statistics: FeatureStatistics | None = None
        losses = torch.zeros(1 + len(self.blocks), dtype=torch.float64, device=self.device)
        needs, done, seconds = self._needs - {"losses"}, 0, 0.0
        if self._progress and (kept := self._progress.sweep()):
            dimension = int(kept.statistics["counts"][1])
            statistics = FeatureStatistics(len(self.blocks), dimension, self.classes, needs, device=self.device)
            statistics.restore(kept.statistics, kept.values)
            losses, done, seconds = kept.losses.to(self.device), kept.batches, kept.seconds
            print(f"sweep: going on from batch {done} of {len(batches)}", flush=True)
        with evaluating(self.network):
            started = time.perf_counter()
            for number, positions in enumerate(batches[done:], start=done + 1):
                features = silenced_features(self.network, self.images(positions), self.blocks)
                labels = self.labels[positions].to(self.device)
                if statistics is None:
                    statistics = FeatureStatistics(len(self.blocks), features.shape[-1], self.classes, needs, device=self.device)
                statistics.update(features[0], features[1:], labels)
                if "losses" in self._needs:
                    losses += silenced_losses(self.network, features, labels)
                if self._progress and self._progress.due():
                    wait_for(self.device)
                    seconds += time.perf_counter() - started
                    self._progress.keep_sweep(number, seconds, losses, statistics)
                    started = time.perf_counter()
        assert statistics is not None
        wait_for(self.device)
        self.sweep_seconds = seconds + time.perf_counter() - started
        return statistics, losses / len(self.sample)

    def scores(self, criterion: str | Criterion) -> list[float]:
        """Scores of a criterion on this sample, computed once; one that draws, once after each ``reseed``."""
        return self.finished(criterion).scores

    def finished(self, criterion: str | Criterion) -> Finished:
        """Scores of a criterion and what they cost."""
        if isinstance(criterion, str):
            criterion = find_criterion(criterion)
        if criterion.name not in self._finished:
            # Before the criterion itself, so that each has its own cost.
            for part in criterion.combines:
                self.finished(part)
            key = f"{criterion.name} {self._seed}" if criterion.draws else criterion.name
            found = self._progress.finished(key) if self._progress else None
            if found is None:
                found = self._compute(criterion)
                if self._progress:
                    self._progress.finish(key, found, self.sweep_seconds)
            elif found.generator:
                self.random.bit_generator.state = found.generator
            self._finished[criterion.name] = found
            if criterion.draws:
                self._drawn.add(criterion.name)
        return self._finished[criterion.name]

    def _compute(self, criterion: Criterion) -> Finished:
        if set(criterion.needs) & self._needs:
            self._swept  # noqa: B018 (the sweep is timed by itself)
        with counted_passes(self.network, len(self.sample)) as passes:
            started = time.perf_counter()
            scores = checked_scores(criterion, self)
            wait_for(self.device)
            seconds = time.perf_counter() - started
        # The next criterion must not add its gradients to those of this one.
        self.network.zero_grad(set_to_none=True)
        state = dict(self.random.bit_generator.state) if criterion.draws else None
        return Finished(scores, seconds, passes["forward"], passes["backward"], state)

    def reseed(self, seed: int) -> None:
        """Begin another draw: forget the scores that were drawn and seed the generator."""
        self._seed = seed
        self.random = np.random.default_rng(seed)
        self._finished = {name: found for name, found in self._finished.items() if name not in self._drawn}
        self._drawn.clear()

    @property
    def sweep_passes(self) -> float:
        """Cost of the sweep in plain forward passes over the blocks: each candidate costs the blocks behind it."""
        names = [name for name, block in self.network.named_blocks() if not isinstance(block, Glue)]
        return 1.0 + sum(len(names) - 1 - names.index(block) for block in self.blocks) / len(names)


def checked_scores(criterion: Criterion, probe: Probe) -> list[float]:
    """A criterion's scores, one finite number for each block.

    Raises:
        PrunebenchError: the criterion returns no numbers, or another number of scores, or one that is not finite.
    """
    returned = criterion.score(probe)
    try:
        values = [float(value) for value in returned]
    except (TypeError, ValueError) as error:
        raise PrunebenchError(f"criterion {criterion.name}: one number for each block expected: {error}") from None
    if len(values) != len(probe.blocks):
        raise PrunebenchError(f"criterion {criterion.name}: {len(values)} scores for {len(probe.blocks)} blocks")
    bad = [block for block, value in zip(probe.blocks, values, strict=True) if not np.isfinite(value)]
    if bad:
        raise PrunebenchError(f"criterion {criterion.name}: the score of {', '.join(bad)} is not finite")
    return values


def needs_of(criteria: Collection[Criterion]) -> set[str]:
    """What the sweep has to collect for these criteria and those that they combine."""
    needs: set[str] = set()
    for criterion in criteria:
        needs |= set(criterion.needs) | needs_of([find_criterion(name) for name in criterion.combines])
    return needs
