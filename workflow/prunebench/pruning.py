"""Following a criterion through a network: choose blocks, remove them, fine-tune, keep the operating points.

A finished step lies in the work folder, so that a killed job goes on from it. Steps know what they were made from: a step of
another configuration, or a corrupt one, is made again. Weights that nothing needs any more are deleted, and made again when
something does.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from prunebench import progress
from prunebench.artifacts import fingerprint, read_csv, read_json, sha256_of, write_atomically, write_csv, write_json
from prunebench.config import OperatingPoint, Training
from prunebench.data import Dataset, Split
from prunebench.energy_meter import Energy, EnergyMeter
from prunebench.errors import CorruptFile, PrunebenchError
from prunebench.evaluation.accuracy import classify
from prunebench.filters import narrow
from prunebench.models import Architecture
from prunebench.models.files import load_architecture, load_network, load_weights, save_network
from prunebench.provenance import provenance
from prunebench.surgery import flops_reduction, remove
from prunebench.training import Run, train

WEIGHTS = "weights.safetensors"
FILES = (WEIGHTS, "training.json", "architecture.json")
OF_TRAINING = ("identity", "epochs", "removed", "validation_accuracy", "history", "energy")
"""What later steps and jobs read of a step's ``training.json``."""


@dataclass(frozen=True)
class Workshop:
    """What all steps of a job share.

    Attributes:
        context: Digest of all settings that a finished step depends on: under other settings it is made again.
    """

    dataset: Dataset
    training_split: Split
    validation_split: Split
    settings: Training
    epochs_per_block: int
    seed: int
    device: str
    meter: EnergyMeter
    config_sha256: str
    suite_seed: int
    context: str


@dataclass(frozen=True)
class Step:
    """A network on the way.

    Attributes:
        folder: Where it lies.
        removed: What was removed to get there.
        before: The step that it was made from, where one was.
        name: For messages.
    """

    folder: Path
    removed: tuple[str, ...]
    before: Step | None = None
    name: str = ""

    @property
    def architecture(self) -> Architecture:
        """As its folder describes it."""
        return load_architecture(self.folder)

    @property
    def has_weights(self) -> bool:
        """Whether its weights are there: those that nobody needed any more were deleted."""
        return (self.folder / WEIGHTS).is_file()


class WeightsGone(PrunebenchError):
    """A finished step's weights are needed after all, and were deleted; ``make_again`` makes them.

    Attributes:
        step: The step.
    """

    def __init__(self, step: Step) -> None:
        super().__init__(f"{step.name}: its weights were deleted when nothing needed them any more, and are needed again")
        self.step = step


def require_weights(step: Step) -> None:
    """Refuse to go on from a step whose weights were deleted.

    Raises:
        WeightsGone: they were.
    """
    if step.before is not None and not step.has_weights:
        raise WeightsGone(step)


def make_again(workshop: Workshop, step: Step) -> None:
    """Make a step's weights again, and before them those of the steps that lead there as far as they are gone: the same bytes."""
    if step.before is None or step.has_weights:
        return
    make_again(workshop, step.before)
    blocks = step.removed[len(step.before.removed) :]
    remove_and_tune(workshop, step.before, blocks, step.folder, step.name)


def drop_weights(steps: Iterable[Step]) -> None:
    """Delete the weights of finished steps that nothing needs any more; their small files stay and stand for them."""
    for step in steps:
        (step.folder / WEIGHTS).unlink(missing_ok=True)


def remove_and_tune(
    workshop: Workshop, before: Step, blocks: Sequence[str], folder: Path, name: str, with_weights: bool = True
) -> Step:
    """Remove ``blocks`` from a step's network and fine-tune it; reuse the step if it is finished already.

    Args:
        workshop: What all steps of the job share.
        before: The network to start from.
        blocks: Blocks that go now.
        folder: Work folder of the new step.
        name: For messages.
        with_weights: Whether a step whose weights were deleted is made again; else it counts as finished.

    Raises:
        WeightsGone: the step has to be made, and the weights before it were deleted.
    """
    step = Step(folder, (*before.removed, *blocks), before, name)
    epochs = workshop.epochs_per_block * len(blocks)
    identity = fingerprint(
        [workshop.context, workshop.seed, len(workshop.training_split), step.removed, epochs] + network_digests(before.folder)
    )
    if is_finished(step, identity, with_weights):
        print(f"{name}: done before", flush=True)
        return step
    require_weights(before)
    network, architecture = remove(load_weights(before.folder), before.architecture, blocks)
    finish(workshop, step, network, architecture, name, epochs, identity, before)
    return step


def narrow_and_tune(workshop: Workshop, before: Step, flops_reduction: float, epochs: int, folder: Path, name: str) -> Step:
    """Prune filters of a step's network and fine-tune it; reuse the step if it is finished already.

    Args:
        workshop: What all steps of the job share.
        before: The network to start from.
        flops_reduction: What is to go of its multiply-accumulates, in percent.
        epochs: Of fine-tuning.
        folder: Work folder of the new step.
        name: For messages.
    """
    step = Step(folder, before.removed, before, name)
    identity = fingerprint(
        [workshop.context, workshop.seed, len(workshop.training_split), flops_reduction, epochs] + network_digests(before.folder)
    )
    if is_finished(step, identity):
        print(f"{name}: done before", flush=True)
        return step
    network, architecture = narrow(load_network(before.folder), before.architecture, flops_reduction)
    finish(workshop, step, network, architecture, name, epochs, identity, before)
    return step


def finish(
    workshop: Workshop,
    step: Step,
    network: nn.Module,
    architecture: Architecture,
    name: str,
    epochs: int,
    identity: str,
    before: Step | None = None,
) -> None:
    """Train a network, then write it with its ``training.json`` to the step's folder.

    Epochs, history and energy are those of all fine-tuning since the dense network: the steps ``before`` are included.
    """
    step.folder.mkdir(parents=True, exist_ok=True)
    checkpoint = step.folder / "checkpoint.safetensors"
    earlier_epochs, earlier_history, earlier_energy = 0, [], Energy()
    if before and before.removed:
        path = before.folder / "training.json"
        earlier = read_json(path, ["epochs", "history", "energy"])
        earlier_epochs, earlier_history = earlier["epochs"], earlier["history"]
        earlier_energy = Energy.from_json(earlier["energy"], str(path))
    spent = Energy()
    workshop.meter.lap()

    def energy() -> Energy:
        nonlocal spent
        spent = spent + workshop.meter.lap()
        return spent

    run = Run(
        name,
        workshop.dataset,
        workshop.training_split,
        workshop.settings,
        epochs,
        workshop.seed,
        workshop.device,
        checkpoint,
        first_epoch=earlier_epochs,
        context=workshop.context,
    )
    trained = train(network, run, energy)
    total = energy() if trained.earlier_energy is None else trained.earlier_energy + energy()
    history = [{**row, "epoch": earlier_epochs + row["epoch"]} for row in trained.history]
    split = workshop.validation_split
    correct, _ = classify(network, split, torch.device(workshop.device), batch_size=500)
    validation_accuracy = 100.0 * correct / len(split)
    progress.found(validation_accuracy=validation_accuracy)
    # The old record goes first: with it, a kill between here and the end would pass the new files off as what it describes.
    (step.folder / "training.json").unlink(missing_ok=True)
    save_network(step.folder, network, architecture)
    content: dict[str, Any] = {
        "identity": identity,
        "epochs": earlier_epochs + epochs,
        "epochs_per_block": workshop.epochs_per_block,
        "removed": list(step.removed),
        "validation_accuracy": validation_accuracy,
        "history": earlier_history + history,
        "energy": (earlier_energy + total).to_json(),
        "provenance": provenance(workshop.config_sha256, workshop.suite_seed),
    }
    write_json(step.folder / "training.json", content)
    checkpoint.unlink(missing_ok=True)


def network_digests(folder: Path) -> list[str]:
    """Digests of a network's description and of its weights, which stand for the network, also where the weights were deleted."""
    described, weights = folder / "architecture.json", folder / WEIGHTS
    digest = sha256_of(weights) if weights.is_file() else str(read_json(described, ["sha256"])["sha256"])
    return [sha256_of(described), digest]


def is_finished(step: Step, identity: str, with_weights: bool = True) -> bool:
    """Whether a step's folder holds a whole network made from just this; its weights may have been deleted unless they are asked."""
    if not (step.folder / "training.json").is_file():
        return False
    try:
        if with_weights or step.has_weights:
            load_network(step.folder)
        elif step.before and step.architecture != step.before.architecture.without(step.removed):
            return False
        training = read_json(step.folder / "training.json", OF_TRAINING)
    except PrunebenchError as error:
        print(f"{error}: making this step again", flush=True)
        return False
    if training["identity"] != identity:
        return False
    progress.found(validation_accuracy=training["validation_accuracy"])
    return True


def publish(step: Step, folder: Path) -> None:
    """Put a finished step's files where the contract wants them: the same file where the system can, else a copy.

    Raises:
        WeightsGone: its weights were deleted.
    """
    require_weights(step)
    for file in FILES:
        write_atomically(folder / file, partial(_link_or_copy, step.folder / file))


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def count_for(point: OperatingPoint, order: Sequence[str], architecture: Architecture, dense: Architecture) -> int:
    """How many blocks of an order must go from an architecture until it is at an operating point.

    A target reduction takes the smallest number that reaches it, less 0.01 points; of a dense network at least one block.

    Raises:
        PrunebenchError: the whole order is not enough.
    """
    if point.blocks is not None:
        count = point.blocks - (len(dense.blocks) - len(architecture.blocks))
        if count > len(order):
            raise PrunebenchError(f"{point.name}: only {len(order)} more blocks can go")
        return count
    assert point.flops_reduction is not None
    for count in range(int(architecture.blocks == dense.blocks), len(order) + 1):
        if flops_reduction(architecture.without(order[:count]), dense) >= point.flops_reduction - 0.01:
            return count
    raise PrunebenchError(f"{point.name}: the blocks that can go do not reach it")


def read_ranking(path: Path, blocks: Sequence[str], others: Sequence[str] = (), ours: bool = False) -> list[tuple[str, str]]:
    """Read ``ranking.csv``: (block, score) from the first to go to the last.

    Args:
        path: The file.
        blocks: The blocks that it has to rank.
        others: Blocks that it may rank too, since it need not know the constraints.
        ours: Whether the stage ``rank`` wrote it, which leaves no block out; another one is the user's, and never set aside.

    Raises:
        CorruptFile: the file is ours, and is damaged or lacks blocks.
        PrunebenchError: it is damaged, a block is missing, unknown or there twice, or the ranks are not 1, 2, 3 ...
    """
    try:
        rows = read_csv(path, ["block", "rank"], ours)
    except CorruptFile as error:
        if ours:
            raise
        raise PrunebenchError(f"{error}; the rule that makes it, or you, have to write it anew") from None
    named = [row["block"] for row in rows]
    missing = [block for block in blocks if block not in named]
    twice = [block for block in dict.fromkeys(named) if named.count(block) > 1]
    unknown = [block for block in dict.fromkeys(named) if block not in blocks and block not in others]
    if ours and missing:
        raise CorruptFile(path, f"blocks are missing: {', '.join(missing)}")
    for wrong, what in ((missing, "missing"), (twice, "there more than once"), (unknown, "no block of this network")):
        if wrong:
            raise PrunebenchError(
                f"{path}: column block: {what}: {', '.join(wrong)}; each removable block has to be there exactly once: "
                f"{', '.join(blocks)}"
            )
    try:
        ordered = sorted(rows, key=lambda row: int(row["rank"]))
        numbers = [int(row["rank"]) for row in ordered]
    except ValueError as error:
        raise PrunebenchError(f"{path}: column rank: {error}") from None
    if numbers != list(range(1, len(rows) + 1)):
        raise PrunebenchError(f"{path}: the ranks are {numbers}, expected 1 to {len(rows)} once each")
    return [(row["block"], row.get("score") or "") for row in ordered]


def write_removals(path: Path, removals: Sequence[tuple[str, object]]) -> None:
    """Write ``removals.csv`` from (block, score) in order of removal."""
    write_csv(path, ["step", "block", "score"], [(step, *removal) for step, removal in enumerate(removals, start=1)])


def device_of(name: str) -> str:
    """The device that ``auto`` stands for, or the one that is named.

    Raises:
        PrunebenchError: the named device is not there.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise PrunebenchError(f"device: '{name}' is not available here; give `auto` or `cpu`")
    return name
