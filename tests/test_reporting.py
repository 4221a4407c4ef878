"""Tidy tables, statistics, the paper's tables and figures, on a small made-up suite in the form of docs/data-contracts.md."""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from prunebench import artifacts
from prunebench.errors import PrunebenchError
from prunebench.reporting import collect, figures, statistics, tables
from prunebench.reporting.collect import NetworkFolder

BLOCKS = [f"stage{stage}.block{block}" for stage in (1, 2, 3) for block in range(5)]
CANDIDATES = [block for block in BLOCKS if not block.endswith("block0")]
PROVENANCE = {
    "config_sha256": "0" * 64,
    "seed": 1,
    "versions": {"torch": "2.13", "python": "3.11"},
    "hardware": {"cpu": "a, b"},
    "commit": "abc",
    "created": "2026-01-01T00:00:00+00:00",
}
DENSE_ACCURACY = 90.0


@dataclass
class Suite:
    """A made-up results folder."""

    root: Path
    networks: list[NetworkFolder]
    measured: list[Path]

    def collect(self, out: Path) -> Path:
        collect.collect(self.networks, self.measured, out)
        return out


def change(criterion: str, schedule: str, replicate: int, draw: int, point: int) -> float:
    """The made-up change of accuracy in percentage points: known, and different for every network."""
    number = sum(map(ord, criterion + schedule)) % 17
    return 0.1 * number - 0.45 * point + 0.13 * replicate * (1 + number % 3) + 0.21 * draw


def write_network(folder: Path, removed: Sequence[str], accuracy: float, before: float | None) -> dict[str, Any]:
    left = [block for block in BLOCKS if block not in removed]
    architecture = {"model": "resnet32", "input_shape": [3, 32, 32], "classes": 10, "blocks": left, "options": {}}
    artifacts.write_json(folder / "architecture.json", {**architecture, "sha256": folder.as_posix()})
    energy = {"energy_kwh": 0.125, "emissions_kg": 0.05, "duration_s": 12.5, "method": "estimated", "source": "TDP"}
    training = {"epochs": 3 * len(removed) or 20, "epochs_per_block": 3 if removed else None, "removed": list(removed)}
    rest = {"history": [], "validation_accuracy": 0.9, "energy": energy, "provenance": PROVENANCE}
    artifacts.write_json(folder / "training.json", {**training, **rest})
    values = {"accuracy_percent": accuracy, "accuracy_before_fine_tuning_percent": before, "test_images": 10000}
    evaluation = {"evaluation": "accuracy", "values": values, "labels": {}, "provenance": PROVENANCE}
    artifacts.write_json(folder / "evaluations" / "accuracy.json", evaluation)
    reduction = 100.0 * len(removed) / (len(BLOCKS) + 1)
    values = {"macs": 69_000_000 - 4_000_000 * len(removed), "flops_reduction_percent": reduction}
    evaluation = {"evaluation": "complexity", "values": values, "provenance": PROVENANCE}
    artifacts.write_json(folder / "evaluations" / "complexity.json", evaluation)
    return architecture


def scores(generator: random.Random, step: int, criterion: str, draw: int, gone: Sequence[str]) -> list[list[Any]]:
    scale = 10.0 ** (len(criterion) % 4)
    left = [block for block in CANDIDATES if block not in gone]
    return [
        [step, criterion, draw, block, scale * (CANDIDATES.index(block) + 8 * generator.random())] for block in left
    ]


def build_suite(
    root: Path,
    criteria: Sequence[str] = ("cka", "consensus", "random"),
    models: Sequence[str] = ("resnet32",),
    replicates: int = 2,
    draws: int = 2,
    points: Sequence[int] = (2, 5),
    schedules: Sequence[str] = ("one-shot", "iterative"),
) -> Suite:
    """Write results/<suite>/ below ``root``."""
    generator = random.Random(7)
    suite_folder = root / "results" / "tiny"
    networks, measured = [], []
    columns = ["step", "criterion", "draw", "block", "score"]
    for model in models:
        architectures: dict[str, list[str]] = {}
        for replicate in range(replicates):
            parent = suite_folder / "digits" / model / f"replicate{replicate}"
            folder = parent / "dense"
            networks.append(folder)
            dense = DENSE_ACCURACY + 0.3 * replicate
            architecture = write_network(folder, [], dense, None)
            architectures[collect.architecture_id(architecture)] = architecture["blocks"]
            drawn = [(c, d) for c in criteria for d in range(draws if c == "random" else 1)]
            rows = [row for c, d in drawn for row in scores(generator, 0, c, d, [])]
            artifacts.write_csv(folder / "scores.csv", columns, rows)
            cost = {c: {"seconds": 2.5 + i, "forward_passes": 130, "backward_passes": 0} for i, c in enumerate(criteria)}
            artifacts.write_json(
                folder / "scoring.json", {"criteria": cost, "images": 1000, "provenance": PROVENANCE}
            )
            for schedule in schedules:
                for criterion, draw in drawn:
                    chain = parent / schedule / criterion / f"draw{draw}"
                    order = sorted(CANDIDATES, key=lambda block: CANDIDATES.index(block) + 6 * generator.random())
                    order = {"first": CANDIDATES, "last": CANDIDATES[::-1]}.get(criterion, order)[: max(points)]
                    removals = [[i, block, 0.5 if i > 1 else None] for i, block in enumerate(order, start=1)]
                    artifacts.write_csv(chain / "removals.csv", ["step", "block", "score"], removals)
                    if schedule == "iterative" and criterion not in ("random", "first", "last"):
                        rows = [r for i in range(max(points)) for r in scores(generator, i, criterion, draw, order[:i])]
                        artifacts.write_csv(chain / "scores.csv", columns, rows)
                    for point in points:
                        accuracy = dense + change(criterion, schedule, replicate, draw, point)
                        folder = chain / f"blocks{point}"
                        architecture = write_network(folder, order[:point], accuracy, accuracy - 7 * point)
                        architectures[collect.architecture_id(architecture)] = architecture["blocks"]
                        networks.append(folder)
        for name, values, labels in (
            ("latency", {"latency_batch1_median_ms": 4.25, "latency_batch1_iqr_ms": 0.5, "latency_batch256_median_ms": 91.0}, {}),
            ("energy", {"inference_energy_joules_per_image": 0.75, "inference_emissions_ug_per_image": 0.1}, {"energy_method": "measured"}),
        ):
            path = suite_folder / "digits" / model / "measured" / f"{name}.json"
            entries = [
                {"architecture_id": identity, "blocks": blocks, "values": values, "labels": labels}
                for identity, blocks in sorted(architectures.items())
            ]
            artifacts.write_json(path, {"evaluation": name, "architectures": entries, "provenance": PROVENANCE})
            measured.append(path)
    return Suite(suite_folder, [NetworkFolder.from_path(folder) for folder in networks], measured)
