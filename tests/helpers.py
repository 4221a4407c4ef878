"""Builders of tiny data, networks and jobs, so that a test of a whole stage takes about a second."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from prunebench import __version__
from prunebench.data import Dataset, ResidentImages, Split
from prunebench.energy_meter import Energy
from prunebench.jobs import ChainJob, DenseJob, EvaluateJob, FiltersJob, ScoreJob
from prunebench.models import Architecture, find_model
from prunebench.models.files import build


def architecture(model: str = "resnet20", input_shape: tuple[int, int, int] = (1, 8, 8), **options: Any) -> Architecture:
    return find_model(model).dense(model, input_shape, 10, **options)


def random_network(wanted: Architecture, seed: int = 0) -> Any:
    """A network in evaluation mode with random weights, batch-norm parameters and statistics: none at its initial value."""
    torch.manual_seed(seed)
    network = build(wanted)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0.0, 0.3)
            nn.init.normal_(module.running_mean, 0.0, 0.3)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 2.0)  # type: ignore[arg-type]
        elif isinstance(module, nn.Conv2d) and module.bias is not None:
            nn.init.normal_(module.bias, 0.0, 0.1)
    return network.eval()


def images(number: int, input_shape: tuple[int, int, int] = (1, 8, 8), seed: int = 0) -> torch.Tensor:
    return torch.rand(number, *input_shape, generator=torch.Generator().manual_seed(seed))


def random_split(number: int = 40, input_shape: tuple[int, int, int] = (1, 8, 8), classes: int = 10, seed: int = 0) -> Split:
    """Random bytes; the classes take turns."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(256, (number, *input_shape), generator=generator, dtype=torch.uint8)
    content = ResidentImages(pixels, torch.arange(number) % classes)
    dataset = Dataset("noise", input_shape, classes, 1, True, lambda folder, part, download: content, "")
    return Split(dataset, content, torch.arange(number))


class OneKwh:
    """Stands in for the energy meter: every lap costs 1 kWh."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.laps = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def lap(self) -> Energy:
        self.laps += 1
        return Energy(energy_kwh=1.0, duration_s=1.0, method="estimated", source="test")


DATASET = str(Path(__file__).with_name("few_digits.py"))
DATA = {"validation_fraction": 0.3, "test_fraction": 0.4}
SAMPLE = {"images_per_class": 5, "batch_size": 50}
TRAINING = {"batch_size": 64, "augment": False}


def context(**changes: Any) -> dict[str, Any]:
    return {
        "version": __version__,
        "suite": "test",
        "dataset": DATASET,
        "model": "resnet20",
        "keras_compatible": False,
        "replicate": 0,
        "seed": 7,
        "threads": 1,
        "device": "cpu",
        "data": DATA,
        **changes,
    }


def dense_job(**changes: Any) -> DenseJob:
    settings = {"dense": "train", "training": {**TRAINING, "epochs": 1}, "energy": {}}
    return DenseJob.model_validate({**context(), **settings, **changes})


def score_job(criteria: dict[str, int], **changes: Any) -> ScoreJob:
    settings = {"criteria": criteria, "sample": SAMPLE, "constraints": {}, "energy": {}}
    return ScoreJob.model_validate({**context(), **settings, **changes})


def chain_job(schedule: str, criterion: str, *points: dict[str, Any], **changes: Any) -> ChainJob:
    settings = {
        "schedule": schedule,
        "criterion": criterion,
        "draws": 1,
        "blocks_per_step": 1,
        "operating_points": list(points),
        "constraints": {},
        "fine_tuning": {**TRAINING, "epochs_per_block": 1},
        "sample": SAMPLE,
        "energy": {},
    }
    return ChainJob.model_validate({**context(), **settings, **changes})


def filters_job(**changes: Any) -> FiltersJob:
    settings = {"criterion": "last", "flops_reduction": 30.0, "epochs": 1, "fine_tuning": TRAINING, "energy": {}}
    return FiltersJob.model_validate({**context(), **settings, **changes})


def evaluate_job(*evaluations: str, options: dict[str, Any] | None = None, **changes: Any) -> EvaluateJob:
    """For the dense network alone, unless ``chains`` is among the changes; the options go to each evaluation."""
    asked = [{"evaluation": evaluation, "options": options or {}} for evaluation in evaluations]
    settings = {"evaluations": asked, "chains": {}, "with_dense": True, "replicates": 1, "energy": {}}
    return EvaluateJob.model_validate({**context(), **settings, **changes})


def weights_bytes(folder: Path) -> bytes:
    return (folder / "weights.safetensors").read_bytes()
