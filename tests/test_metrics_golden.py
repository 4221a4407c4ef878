"""The eight metrics on real features against the published implementations' values."""

from __future__ import annotations

import json
from itertools import combinations

import numpy as np
import pytest
import torch

from prunebench.metrics import METRICS
from prunebench.metrics.statistics import FeatureStatistics
from shared import shared_data

TOLERANCE = {name: 1e-3 if name.startswith("gaussian") else 1e-4 for name in METRICS}


@pytest.mark.shared
@pytest.mark.parametrize("name", METRICS)
def test_scores_and_order_are_the_published_ones(name: str) -> None:
    golden = np.array(json.loads(shared_data("golden", "resnet56_scores.json").read_text())["scores"][name])
    with np.load(shared_data("golden", "resnet56_features.npz")) as features:
        dense, silenced, labels = (torch.from_numpy(features[key]) for key in ("dense", "silenced", "labels"))
    stats = FeatureStatistics(len(silenced), dense.shape[1], 10, {METRICS[name].need})
    for rows in torch.arange(len(labels)).split(300):
        stats.update(dense[rows], silenced[:, rows], labels[rows])

    scores = METRICS[name](stats).numpy()

    np.testing.assert_allclose(scores, golden, rtol=TOLERANCE[name])
    for first, second in combinations(range(len(golden)), 2):
        if abs(golden[first] - golden[second]) > 2 * TOLERANCE[name] * max(golden[first], golden[second]):
            assert (scores[first] < scores[second]) == (golden[first] < golden[second]), (first, second)
