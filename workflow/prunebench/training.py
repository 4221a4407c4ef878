"""The training loop: dense networks and fine-tuning alike. It reads from top to bottom."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional
from tqdm import tqdm

from prunebench import checkpoints, progress
from prunebench.artifacts import fingerprint
from prunebench.checkpoints import CHECKPOINT_SECONDS, digest
from prunebench.config import Training
from prunebench.data import Dataset, Split, to_unit
from prunebench.data.augment import augment
from prunebench.energy_meter import Energy
from prunebench.errors import PrunebenchError
from prunebench.models.modules import BlockNetwork, matrices
from prunebench.seeds import derive


@dataclass(frozen=True)
class Run:
    """One training run.

    Attributes:
        name: For messages: ``dense``, ``one-shot cka blocks3``.
        dataset: Says which augmentation suits it.
        split: The training split.
        settings: Learning rate, schedule and so on.
        epochs: Passes over the split; 0 returns the network as it is.
        seed: Says, with the number of the epoch, the order of images and their augmentation.
        first_epoch: Epochs already spent on the network, so that all schedules see the same orders of images.
        context: What else the result depends on: a checkpoint of another context is not resumed.
        device: ``cpu``, ``cuda`` ...
        checkpoint: File to resume from; removed by ``finish``.
    """

    name: str
    dataset: Dataset
    split: Split
    settings: Training
    epochs: int
    seed: int
    device: str
    checkpoint: Path
    first_epoch: int = 0
    context: str = ""


@dataclass(frozen=True)
class Trained:
    """What came out: history by epoch and the energy of earlier, killed attempts."""

    history: list[dict[str, float]]
    earlier_energy: Energy | None


def train(network: nn.Module, run: Run, energy: Callable[[], Energy]) -> Trained:
    """Train in place; the last epoch's weights are kept. A killed run goes on from its last checkpoint.

    Args:
        network: Moved to the run's device; left in evaluation mode.
        run: What to do.
        energy: Energy spent on this run so far in this process, stored with checkpoints.

    Raises:
        PrunebenchError: the loss is not finite.
    """
    settings = run.settings
    network.to(run.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = settings.batch_norm_momentum
    optimizer = make_optimizer(network, settings)
    identity = fingerprint(
        [run.name, run.context, settings.model_dump(), run.epochs, run.seed, run.first_epoch, len(run.split)]
        + [digest(network.state_dict())]
    )
    history, earlier = restore(run.checkpoint, identity, network, optimizer)
    saved = time.monotonic()
    bar = tqdm(range(len(history), run.epochs), desc=run.name, initial=len(history), total=run.epochs, unit="epoch")
    for epoch in bar:
        progress.at("epoch", epoch + 1, run.epochs)
        network.train()
        generator = torch.Generator().manual_seed(derive(run.seed, "epoch", run.first_epoch + epoch))
        # Dropout draws from torch's own generator: with this, a resumed training draws what an uninterrupted one does.
        torch.manual_seed(derive(run.seed, "dropout", run.first_epoch + epoch))
        order = torch.randperm(len(run.split), generator=generator)
        loss_sum = torch.zeros((), device=run.device)
        correct = torch.zeros((), device=run.device)
        rate = 0.0
        steps = batches(order, settings.batch_size)
        for step, positions in enumerate(steps):
            rate = learning_rate(settings, (epoch + step / len(steps)) / run.epochs)
            for group in optimizer.param_groups:
                group["lr"] = rate
            pixels = run.split.pixels(positions)
            if settings.augment:
                dataset = run.dataset
                pixels = augment(pixels, crop_padding=dataset.crop_padding, flip=dataset.flip, generator=generator)
            images = to_unit(pixels.to(run.device)).contiguous(memory_format=torch.channels_last)
            labels = run.split.labels[positions].to(run.device)
            logits = network(images)
            loss = functional.cross_entropy(logits, labels)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            loss_sum += loss.detach() * len(positions)
            correct += (logits.argmax(1) == labels).sum()
        loss_mean = loss_sum.item() / len(run.split)
        if not math.isfinite(loss_mean):
            raise PrunebenchError(
                f"{run.name}: the loss is {loss_mean} in epoch {epoch + 1} of {run.epochs}"
                f" at learning rate {rate:g}; lower learning_rate in the config"
            )
        accuracy = 100.0 * correct.item() / len(run.split)
        history.append({"epoch": epoch + 1, "learning_rate": rate, "train_loss": loss_mean, "train_accuracy": accuracy})
        progress.found(train_accuracy=accuracy)
        bar.set_postfix(loss=f"{loss_mean:.3f}", accuracy=f"{accuracy:.1f}")
        if time.monotonic() - saved >= CHECKPOINT_SECONDS and epoch + 1 < run.epochs:
            spent = energy() if earlier is None else earlier + energy()
            write_checkpoint(run.checkpoint, identity, network, optimizer, history, spent)
            saved = time.monotonic()
    network.eval()
    return Trained(history, earlier)


def batches(order: torch.Tensor, batch_size: int) -> list[torch.Tensor]:
    """An epoch's batches; a last image by itself joins the batch before it, as batch norm has no variance of one image."""
    parts = list(torch.split(order, batch_size))
    if len(parts) > 1 and len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


def learning_rate(settings: Training, progress: float) -> float:
    """The rate when a part ``progress`` of the training, in [0, 1), is done."""
    if settings.schedule == "cosine":
        return settings.learning_rate * 0.5 * (1.0 + math.cos(math.pi * progress))
    return settings.learning_rate * (1.0 if progress < 0.5 else 0.1 if progress < 0.75 else 0.01)


def make_optimizer(network: nn.Module, settings: Training) -> torch.optim.SGD:
    """SGD with Nesterov momentum; weight decay on convolution kernels only, as in the papers.

    Where blocks have dense layers, as in transformers, the matrices of these take the kernels' part and decay too; the classifier's
    does not.
    """
    kernels = [module.weight for module in network.modules() if isinstance(module, nn.Conv2d)]
    if isinstance(network, BlockNetwork):
        kernels += [matrix for _, block in network.named_blocks() for matrix in matrices(block)]
    decaying = {id(kernel): kernel for kernel in kernels}
    others = [parameter for parameter in network.parameters() if id(parameter) not in decaying]
    return torch.optim.SGD(
        [{"params": list(decaying.values()), "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=settings.learning_rate,
        momentum=settings.momentum,
        nesterov=settings.momentum > 0,
    )


def write_checkpoint(
    path: Path,
    identity: str,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    history: list[dict[str, float]],
    energy: Energy,
) -> None:
    """Write a checkpoint of weights, momentum, history and energy."""
    tensors = {f"network.{name}": tensor.cpu().contiguous() for name, tensor in network.state_dict().items()}
    for name, parameter in network.named_parameters():
        momentum = optimizer.state[parameter].get("momentum_buffer")
        if momentum is not None:
            tensors[f"momentum.{name}"] = momentum.cpu().contiguous()
    checkpoints.save(path, identity, tensors, {"history": json.dumps(history), "energy": json.dumps(energy.to_json())})


def restore(
    path: Path, identity: str, network: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[list[dict[str, float]], Energy | None]:
    """Load a checkpoint of this very run, if there is one."""
    found = checkpoints.load(path, identity, "training")
    if found is None:
        return [], None
    tensors, texts = found
    network.load_state_dict({name[8:]: value for name, value in tensors.items() if name.startswith("network.")})
    for name, parameter in network.named_parameters():
        if f"momentum.{name}" in tensors:
            # In the parameter's memory format: in another one sums could be rounded in another way.
            momentum = torch.empty_like(parameter, requires_grad=False).copy_(tensors[f"momentum.{name}"])
            optimizer.state[parameter]["momentum_buffer"] = momentum
    return json.loads(texts["history"]), Energy.from_json(json.loads(texts["energy"]))
