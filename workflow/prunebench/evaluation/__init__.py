"""Evaluations: one aspect of a network each, in one file each.

A Python file that defines one object of ``Evaluation`` adds one (``docs/adding-a-method.md``). Definitions import no torch at module
level, since they are read whenever the workflow is parsed; ``measure`` imports it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from prunebench import plugins
from prunebench.config import Accounting, Section
from prunebench.errors import PrunebenchError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from prunebench.data import Dataset, Split


@dataclass(frozen=True)
class Subject:
    """What an evaluation is given.

    Attributes:
        network: The network, in evaluation mode and on ``device``: float images in [0, 1], shape (n, channels, height, width), to
            logits, shape (n, classes). Its normalisation is inside.
        dense: The unpruned network it was made from, or None. With ``per="architecture"`` one with the dense architecture, and None for
            the dense architecture itself.
        unfinetuned: The dense network's weights in the architecture of ``network``, as it was before any fine-tuning, or None.
        input_shape: (channels, height, width).
        classes: Number of classes.
        test: Loads the test split; called only by evaluations that need data.
        device: Where to compute.
        batch_size: Images in a forward pass, for evaluations whose values do not depend on it.
        options: This evaluation's options from the config, the defaults of its file filled in.
        accounting: How the suite turns energy into carbon, and what it assumes of the processor; with ``per="architecture"`` alone.
        dataset: Name of the dataset.
        data_root: Folder that holds the datasets.
        seed: For what is drawn at random: depends on suite, dataset, model, replicate and evaluation, not on the network.
        work: An empty folder, or what an attempt that was killed left there: for checkpoints of long work. It is of this network and
            evaluation alone, and goes when the result is written. None where nothing is kept.
        cache: A folder that all evaluations on this dataset share, for what is the same for every network; or None.
    """

    network: nn.Module
    input_shape: tuple[int, int, int]
    classes: int
    test: Callable[[], Split]
    device: torch.device
    dense: nn.Module | None = None
    unfinetuned: nn.Module | None = None
    batch_size: int = 500
    options: Mapping[str, Any] = field(default_factory=dict)
    accounting: Accounting = field(default_factory=Accounting)
    dataset: str = ""
    data_root: Path = Path("data")
    seed: int = 0
    work: Path | None = None
    cache: Path | None = None


@dataclass(frozen=True)
class Values:
    """What an evaluation returns.

    Attributes:
        values: Finite numbers; a key is a quantity with its unit at the end (``latency_batch1_median_ms``), unless it counts.
        labels: Words that qualify the values, such as ``{"energy_method": "estimated"}``.

    Raises:
        PrunebenchError: a value is not a finite number, or a label not a string.
    """

    values: Mapping[str, float]
    labels: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for quantity, value in self.values.items():
            if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
                raise PrunebenchError(f"evaluation: {quantity} is {value!r}, expected a finite number")
        for label, text in self.labels.items():
            if not isinstance(text, str):
                raise PrunebenchError(f"evaluation: the label {label} is {text!r}, expected a string")


@dataclass(frozen=True)
class Evaluation:
    """A plugin.

    Attributes:
        name: As in configs, paths and tables.
        measure: Takes a ``Subject`` and returns ``Values``.
        per: ``network``: the values depend on the weights or are computed, and are reproducible. ``architecture``: they are measured
            on the machine, once for each distinct architecture, by a job that runs alone.
        needs_data: Whether it reads the test split.
        weights_matter: False if the values follow from the architecture alone, so that a job need not repeat them for its equals.
        options: What the config may set under ``options``: a class of typed fields, each with a default and a docstring.
        unsuited: Says why a dataset does not suit the evaluation, or None; by default all do. A suite is refused by it before a job starts.
        inputs: Names the files and folders whose presence decides the values, beside the dataset's own: takes the options, the dataset
            and the data root. A job runs again when one of them comes, goes or changes its size. By default there are none.
        quantities: What each quantity means, by name; ``<n>`` in a name stands for a number.
        source: Paper, library or definition.
    """

    name: str
    measure: Callable[[Subject], Values]
    per: Literal["network", "architecture"] = "network"
    needs_data: bool = False
    weights_matter: bool = True
    options: type[Section] | None = None
    unsuited: Callable[[Dataset], str | None] | None = None
    inputs: Callable[[Mapping[str, Any], Dataset, Path], Iterable[Path]] | None = None
    quantities: Mapping[str, str] = field(default_factory=dict)
    source: str = field(default="", kw_only=True)


def find_evaluation(reference: str) -> Evaluation:
    """The evaluation that a name or the path of a Python file stands for."""
    return plugins.find(Evaluation, "evaluation", reference)


@contextmanager
def threads(number: int | None) -> Iterator[int]:
    """Let torch use so many CPU threads for a while; None stands for every core that the process may use."""
    import torch

    if number is None:
        number = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield number
    finally:
        torch.set_num_threads(before)


def logits_of(
    network: nn.Module, split: Split, device: torch.device, batch_size: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Logits (n, classes) and classes (n,) of the images of a split, batch by batch, on the device and without gradients.

    Raises:
        PrunebenchError: the split is empty.
    """
    import torch

    from prunebench.data import to_unit

    if len(split) == 0:
        raise PrunebenchError("the test split holds no images")
    network = network.to(device).eval()
    for index in torch.split(torch.arange(len(split)), batch_size):
        with torch.inference_mode():
            logits = network(to_unit(split.pixels(index).to(device)))
        yield logits, split.labels[index].to(device)


def random_images(subject: Subject, number: int) -> torch.Tensor:
    """The same uniform images in [0, 1] for every network: float, shape (number, channels, height, width), on the device.

    Time and energy of a forward pass do not depend on what an image shows.
    """
    import torch

    generator = torch.Generator().manual_seed(0)
    return torch.rand(number, *subject.input_shape, generator=generator).to(subject.device)


def device_name(device: torch.device) -> str:
    """The processor's or the GPU's name."""
    import torch

    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    if device.type == "cpu":
        from prunebench.provenance import cpu_model

        return cpu_model()
    return device.type
