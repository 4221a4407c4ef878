"""Following a criterion through a network: choose blocks, remove them, fine-tune, keep the operating points.

A finished step lies in the work folder, so that a killed job goes on from it. Steps know what they were made from: a step of
another configuration, or a corrupt one, is made again.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from prunebench import progress
from prunebench.artifacts import fingerprint, read_csv, read_json, sha256_of, write_csv, write_json
from prunebench.config import OperatingPoint, Training
from prunebench.data import Dataset, Split
from prunebench.energy_meter import Energy, EnergyMeter
from prunebench.errors import PrunebenchError
from prunebench.evaluation.accuracy import classify
from prunebench.filters import narrow
from prunebench.models import Architecture
from prunebench.models.files import load_architecture, load_network, load_weights, save_network
from prunebench.provenance import provenance
from prunebench.surgery import flops_reduction, remove
from prunebench.training import Run, train

FILES = ("weights.safetensors", "training.json", "architecture.json")


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
    """A network on the way: the folder it lies in and what was removed to get there."""

    folder: Path
    removed: tuple[str, ...]

    @property
    def architecture(self) -> Architecture:
        """As its folder describes it."""
        return load_architecture(self.folder)


def remove_and_tune(workshop: Workshop, before: Step, blocks: Sequence[str], folder: Path, name: str) -> Step:
    """Remove ``blocks`` from a step's network and fine-tune it; reuse the step if it is finished already.

    Args:
        workshop: What all steps of the job share.
        before: The network to start from.
        blocks: Blocks that go now.
        folder: Work folder of the new step.
        name: For messages.
    """
    step = Step(folder, (*before.removed, *blocks))
    epochs = workshop.epochs_per_block * len(blocks)
    identity = fingerprint(
        [workshop.context, workshop.seed, len(workshop.training_split), step.removed, epochs]
        + [sha256_of(before.folder / file) for file in ("architecture.json", "weights.safetensors")]
    )
    if is_finished(step, identity):
        print(f"{name}: done before", flush=True)
        return step
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
    step = Step(folder, before.removed)
    identity = fingerprint(
        [workshop.context, workshop.seed, len(workshop.training_split), flops_reduction, epochs]
        + [sha256_of(before.folder / file) for file in ("architecture.json", "weights.safetensors")]
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


def is_finished(step: Step, identity: str) -> bool:
    """Whether a step's folder holds a whole network made from just this."""
    if not (step.folder / "training.json").is_file():
        return False
    try:
        load_network(step.folder)
        training = read_json(step.folder / "training.json", ["identity", "validation_accuracy"])
    except PrunebenchError as error:
        print(f"{error}: making this step again", flush=True)
        return False
    if training["identity"] != identity:
        return False
    progress.found(validation_accuracy=training["validation_accuracy"])
    return True


def publish(step: Step, folder: Path) -> None:
    """Put a finished step's files where the contract wants them: the same file where the system can, else a copy."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in FILES:
        source, temporary = step.folder / file, folder / f".{file}.{os.getpid()}"
        temporary.unlink(missing_ok=True)
        try:
            os.link(source, temporary)
        except OSError:
            temporary.write_bytes(source.read_bytes())
        temporary.replace(folder / file)
        # Renaming one link to a file over another does nothing and leaves both.
        temporary.unlink(missing_ok=True)


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


def read_ranking(path: Path, blocks: Sequence[str], others: Sequence[str] = ()) -> list[tuple[str, str]]:
    """Read ``ranking.csv``: (block, score) from the first to go to the last.

    Args:
        path: The file.
        blocks: The blocks that it has to rank.
        others: Blocks that it may rank too, since it need not know the constraints.

    Raises:
        PrunebenchError: a block is missing, unknown or there twice, or the ranks are not 1, 2, 3 ...
    """
    rows = read_csv(path, ["block", "rank"])
    named = [row["block"] for row in rows]
    missing = [block for block in blocks if block not in named]
    twice = [block for block in dict.fromkeys(named) if named.count(block) > 1]
    unknown = [block for block in dict.fromkeys(named) if block not in blocks and block not in others]
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
