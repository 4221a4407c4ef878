"""Calibration: known answers, networks that are too sure or as sure as they should be, and what chance does."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from prunebench.data import Dataset, ResidentImages, Split
from prunebench.errors import PrunebenchError
from prunebench.evaluation import Subject, Values, find_evaluation
from prunebench.evaluation.calibration import calibration_error, equal_count, equal_width

DATASET = Dataset("levels", (1, 1, 1), 2, 0, False, lambda *_: None, "")  # type: ignore[arg-type,return-value]


class Says(nn.Module):
    """Takes the pixel in [0, 1] for the probability of class 1."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        one = images.flatten().double()
        return torch.stack([(1 - one).log(), one.log()], dim=1)


def measure(levels: list[int], labels: list[int], bins: int = 15, network: nn.Module | None = None) -> Values:
    pixels = torch.tensor(levels, dtype=torch.uint8).reshape(-1, 1, 1, 1)
    split = Split(DATASET, ResidentImages(pixels, torch.tensor(labels, dtype=torch.int64)), torch.arange(len(levels)))
    return find_evaluation("calibration").measure(
        Subject(network or Says(), (1, 1, 1), 2, lambda: split, torch.device("cpu"), batch_size=3, options={"bins": bins})
    )


def test_known_answer() -> None:
    # 80 % sure of class 1 five times, right three times; 60 % sure of class 0 (102 of 255 say 1) five times, right five times.
    values = measure([204] * 5 + [102] * 5, [1, 1, 1, 0, 0] + [0] * 5, bins=5).values
    assert values["expected_calibration_error_percent"] == pytest.approx(100 * (0.5 * 0.2 + 0.5 * 0.4), abs=1e-4)
    assert values["mean_confidence_percent"] == pytest.approx(70)
    assert values["overconfidence_pp"] == pytest.approx(70 - 80)
    # Twice the square of what the true class lacks.
    assert values["brier_score"] == pytest.approx(2 * (3 * 0.04 + 2 * 0.64 + 5 * 0.16) / 10)
    assert (values["calibration_images"], values["calibration_bins"]) == (10, 5)


def test_bins_are_closed_above() -> None:
    assert equal_width(np.array([0.2, 0.2001, 0.5, 1.0, 1e-9]), 5).tolist() == [0, 1, 2, 4, 0]
    assert sorted(equal_count(np.array([0.3, 0.1, 0.2, 0.9, 0.8, 0.7, 0.5]), 3).tolist()) == [0, 0, 0, 1, 1, 2, 2]
    assert equal_count(np.array([0.9, 0.1, 0.5]), 3).tolist() == [2, 0, 1]


def test_a_calibrated_network_errs_by_chance_alone() -> None:
    generator = np.random.default_rng(0)
    confidence = generator.uniform(0.5, 1, 1000)
    bins = equal_width(confidence, 15)
    found = [calibration_error(confidence, (generator.random(1000) < confidence).astype(float), bins) for _ in range(200)]
    # The errors of networks that are as sure as they should be lie around what is expected of them, and are not zero.
    assert np.mean([error for error, _ in found]) == pytest.approx(found[0][1], rel=0.03)
    assert found[0][1] > 0.02


def test_the_error_lies_above_the_distance_of_the_means() -> None:
    generator = np.random.default_rng(1)
    confidence, right = generator.uniform(0.5, 1, 300), (generator.random(300) < 0.6).astype(float)
    distance = abs(confidence.mean() - right.mean())
    for bins in (1, 2, 15):
        assert calibration_error(confidence, right, equal_width(confidence, bins))[0] >= distance - 1e-12
    assert calibration_error(confidence, right, equal_width(confidence, 1))[0] == pytest.approx(distance)


def test_a_sure_network_that_is_right_is_calibrated() -> None:
    values = measure([254, 254, 1], [1, 1, 0]).values
    assert values["expected_calibration_error_percent"] == pytest.approx(100 / 255, abs=1e-3)
    assert values["brier_score"] < 1e-4


def test_a_network_that_diverged_has_no_calibration() -> None:
    class Diverged(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.full((len(images), 2), torch.nan)

    result = measure([1, 2], [0, 1], network=Diverged())
    assert set(result.values) == {"calibration_images", "calibration_bins"}
    assert "diverged" in result.labels["calibration"]


def test_no_images_are_refused() -> None:
    with pytest.raises(PrunebenchError, match="no images"):
        measure([], [])
