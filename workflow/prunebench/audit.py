"""The audit: which blocks went between two networks, found by matching their weights.

Fine-tuning leaves most of a kernel's direction as it is, while kernels of different blocks are nearly orthogonal. So a block is found
again in the next network of a sequence by the cosine similarity of its kernels; what is found nowhere was removed. Filters have
to stay in their places: a block whose filters were permuted or trained anew is not found again.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from prunebench.errors import PrunebenchError
from prunebench.models import Architecture, find_model
from prunebench.models.modules import BlockNetwork, Glue
from prunebench.surgery import Constraints, candidates, dense_blocks, stage_sizes

if TYPE_CHECKING:
    from numpy.typing import NDArray

MARGIN = 0.12
"""A finding with less confidence is uncertain: matchings of networks that have nothing to do with each other reach that
(``docs/audit.md`` has the measurement)."""

DESCENT = 0.08
"""Mean similarity of the kept blocks below which a network shows no sign of descending from the one before it."""

# The columns of audit.csv and audit_choices.csv.
AUDIT = ("step", "from", "to", "block", "index", "status", "similarity", "confidence", "verdict")
CHOICES = ("step", "from", "to", "criterion", "removed", "candidates", "choice", "hits", "expected_hits")


@dataclass(frozen=True)
class Checkpoint:
    """A network of a sequence.

    Attributes:
        name: For tables and messages.
        architecture: Its blocks may have names of its own; their order counts.
        weights: Weights of its blocks; names begin with the names of the blocks (``block_weights``).
    """

    name: str
    architecture: Architecture
    weights: Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Finding:
    """What became of a block from one network to the next.

    Attributes:
        block: Its name in the dense network.
        own: Its name in the network before.
        index: Its place in its stage of the network before, from 0.
        removed: Whether it went.
        similarity: Mean cosine similarity of its kernels, -1 to 1, to those of the block that it became; of a removed one to the most
            similar block of its stage in the network after (nan if there is none to compare it with).
        confidence: What the summed similarity of its stage would lose if it were the other way round: kept in place of
            another one, or removed in place of another one. Infinite where there is no other way.
    """

    block: str
    own: str
    index: int
    removed: bool
    similarity: float
    confidence: float

    @property
    def verdict(self) -> str:
        """``clear``, or ``uncertain`` where the confidence is below ``MARGIN``."""
        return "clear" if self.confidence >= MARGIN else "uncertain"


@dataclass(frozen=True)
class Transition:
    """From one network of a sequence to the next: a finding for each block of the first, in their order."""

    before: str
    after: str
    findings: tuple[Finding, ...]

    @property
    def removed(self) -> list[str]:
        """The blocks that went, as the dense network calls them."""
        return [finding.block for finding in self.findings if finding.removed]


def audit(dense: Checkpoint, networks: Sequence[Checkpoint]) -> list[Transition]:
    """Follow the blocks of a dense network through a sequence of networks, each made from the one before by removing blocks.

    Raises:
        PrunebenchError: a network is of another model, has more blocks in a stage than the one before, or does not descend from it.
    """
    names = {block: block for block in dense.architecture.blocks}
    transitions = []
    for before, after in itertools.pairwise([dense, *networks]):
        findings = compare(before, after, names)
        kept = [finding.block for finding in findings if not finding.removed]
        names = dict(zip(after.architecture.blocks, kept, strict=True))
        transitions.append(Transition(before.name, after.name, tuple(findings)))
    return transitions


def compare(before: Checkpoint, after: Checkpoint, names: Mapping[str, str]) -> list[Finding]:
    """What became of each block of ``before``: within each stage, the matching in order that has the largest summed similarity.

    Args:
        before: A network.
        after: One made from it.
        names: Names of the blocks of ``before`` in the dense network.

    Raises:
        PrunebenchError: see ``audit``.
    """
    models = [find_model(checkpoint.architecture.model).name for checkpoint in (before, after)]
    if models[0] != models[1]:
        raise PrunebenchError(f"{after.name}: its model is {models[1]}, but that of {before.name} is {models[0]}")
    sizes = [stage_sizes(checkpoint.architecture) for checkpoint in (before, after)]
    if any(sizes[1][stage] > size for stage, size in sizes[0].items()):
        shown = [", ".join(map(str, size.values())) for size in sizes]
        raise PrunebenchError(
            f"{after.name}: {shown[1]} blocks in its stages, but {before.name} before it has {shown[0]}; an audit needs networks "
            "in the order in which they were made, none with more blocks than the one before"
        )
    findings: list[Finding] = []
    for stage in sizes[0]:
        own, successors = (_of_stage(checkpoint.architecture, stage) for checkpoint in (before, after))
        similarity = _similarities(before.weights, own, after.weights, successors)
        matched, confidence = match(similarity)
        if matched is None:
            raise PrunebenchError(
                f"{after.name}: kernels of stage {stage} have other shapes than in {before.name}; an audit follows whole blocks only"
            )
        for index, block in enumerate(own):
            place = matched.get(index)
            alike = similarity[index][np.isfinite(similarity[index])]
            found = similarity[index, place] if place is not None else alike.max() if alike.size else math.nan
            findings.append(Finding(names[block], block, index, place is None, float(found), float(confidence[index])))
    mean = float(np.mean([finding.similarity for finding in findings if not finding.removed]))
    if mean < DESCENT:
        raise PrunebenchError(
            f"{after.name}: no sign that it was made from {before.name}: mean similarity of matched blocks {mean:.2f}, "
            f"at least {DESCENT} expected"
        )
    return findings


def match(similarity: NDArray[np.float64]) -> tuple[dict[int, int] | None, NDArray[np.float64]]:
    """The matching of all columns to rows, in order, that has the largest sum; by dynamic programming.

    Args:
        similarity: (m, n), m at least n; minus infinity where row and column cannot be the same.

    Returns:
        Row to column of the matched rows (None if there is no such matching), and for each row what the best matching in which it is
        the other way round, matched or not, falls short of the best: infinite where there is none.
    """
    rows, columns = similarity.shape
    first, last = _best_sums(similarity), _best_sums(similarity[::-1, ::-1])[::-1, ::-1]
    best = first[rows, columns]
    if best == -math.inf:
        return None, np.full(rows, math.nan)
    matched: dict[int, int] = {}
    column = columns
    for row in range(rows, 0, -1):
        if column and first[row, column] > first[row - 1, column]:
            column -= 1
            matched[row - 1] = column
    other = np.array(
        [
            (first[row] + last[row + 1]).max()
            if row in matched
            else (first[row, :-1] + similarity[row] + last[row + 1, 1:]).max(initial=-math.inf)
            for row in range(rows)
        ]
    )
    return matched, best - other


def _best_sums(similarity: NDArray[np.float64]) -> NDArray[np.float64]:
    """(m + 1, n + 1): the largest sum of a matching of the first j columns to some of the first i rows, in order."""
    rows, columns = similarity.shape
    sums = np.full((rows + 1, columns + 1), -math.inf)
    sums[:, 0] = 0.0
    for row in range(rows):
        sums[row + 1, 1:] = np.maximum(sums[row, 1:], sums[row, :-1] + similarity[row])
    return sums


def _of_stage(architecture: Architecture, stage: int) -> list[str]:
    return [block.name for block in dense_blocks(architecture) if block.stage == stage and block.name in architecture.blocks]


def _similarities(
    before: Mapping[str, torch.Tensor], own: Sequence[str], after: Mapping[str, torch.Tensor], successors: Sequence[str]
) -> NDArray[np.float64]:
    """(m, n): mean cosine similarity over the kernels of two blocks; minus infinity where their kernels have other shapes."""
    ours, theirs = [_kernels(before, block) for block in own], [_kernels(after, block) for block in successors]
    table = np.full((len(own), len(successors)), -math.inf)
    for (row, mine), (column, other) in itertools.product(enumerate(ours), enumerate(theirs)):
        if {name: kernel.shape for name, kernel in mine.items()} == {name: kernel.shape for name, kernel in other.items()}:
            table[row, column] = np.mean([float((kernel * other[name]).sum()) for name, kernel in mine.items()])
    return table


def _kernels(weights: Mapping[str, torch.Tensor], block: str) -> dict[str, torch.Tensor]:
    """A block's kernels (of convolutions and dense layers) as unit vectors; one of zeros stays zero, like nothing."""
    kernels = {
        name.removeprefix(f"{block}."): tensor.double()
        for name, tensor in weights.items()
        if name.startswith(f"{block}.") and tensor.is_floating_point() and tensor.ndim >= 2
    }
    if not kernels:
        raise PrunebenchError(f"block {block} has no kernels by which it could be found again")
    return {name: kernel / kernel.norm().clamp(min=1e-30) for name, kernel in kernels.items()}


def block_weights(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The weights of a network's blocks, under the names of the blocks, whatever the network itself calls them.

    Raises:
        PrunebenchError: it is no network of blocks.
    """
    if not isinstance(network, BlockNetwork):
        raise PrunebenchError("an audit needs networks of blocks (prunebench.models.modules.BlockNetwork)")
    return {
        f"{block}.{name}": weight.detach()
        for block, module in network.named_blocks()
        if not isinstance(module, Glue)
        for name, weight in module.named_parameters()
    }


def audit_rows(transitions: Sequence[Transition]) -> list[tuple[Any, ...]]:
    """Rows of ``audit.csv``: each block of each network but the last, and what became of it. Empty: no number applies."""
    return [
        (
            *(step, transition.before, transition.after, finding.block, finding.index),
            "removed" if finding.removed else "kept",
            *(value if math.isfinite(value) else None for value in (finding.similarity, finding.confidence)),
            finding.verdict,
        )
        for step, transition in enumerate(transitions, start=1)
        for finding in transition.findings
    ]


def expected_hits(removed: Sequence[str], architecture: Architecture, constraints: Constraints) -> float:
    """How many of the ``removed`` blocks a random choice of as many, under the constraints, would have taken on average.

    A random order is worked through, blocks whose stage can shrink no further are passed over: so the next block is any of
    those that may still go, each as likely. All candidates of a stage are alike, hence the number taken from each stage decides.
    """
    stages = {block.name: block.stage for block in dense_blocks(architecture)}
    free: dict[int, int] = {}
    for block in candidates(architecture, constraints):
        free[stages[block]] = free.get(stages[block], 0) + 1
    sizes = stage_sizes(architecture)
    spare = {stage: min(number, sizes[stage] - constraints.minimum_blocks) for stage, number in free.items()}
    taken = {tuple(0 for _ in free): 1.0}  # numbers taken from the stages, and how likely they are
    for _ in removed:
        following: dict[tuple[int, ...], float] = {}
        for state, chance in taken.items():
            open_ = [
                number - gone if gone < spare[stage] else 0 for (stage, number), gone in zip(free.items(), state, strict=True)
            ]
            for place, left in enumerate(open_):
                if left:
                    after = (*state[:place], state[place] + 1, *state[place + 1 :])
                    following[after] = following.get(after, 0.0) + chance * left / sum(open_)
        taken = following or taken  # nothing more may go
    mean = {stage: sum(chance * state[place] for state, chance in taken.items()) for place, stage in enumerate(free)}
    movable = candidates(architecture, constraints)
    return sum(mean[stages[block]] / free[stages[block]] for block in removed if block in movable)
