"""What a scoring has done so far, kept in a folder, so that a job that was killed goes on from it."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from prunebench import checkpoints
from prunebench.artifacts import read_json, write_json
from prunebench.checkpoints import CHECKPOINT_SECONDS
from prunebench.energy_meter import Energy
from prunebench.errors import PrunebenchError
from prunebench.metrics.statistics import FeatureStatistics

SHARE = 0.02
"""Of the time, keeping progress may take so much: what is large is kept more seldom than every 10 s."""


@dataclass(frozen=True)
class Finished:
    """A criterion's scores and what they cost.

    Attributes:
        scores: One for each block.
        seconds: Without the shared sweep, and without what it combines; so are the passes.
        forward: Forward passes of the sample.
        backward: Backward passes.
        generator: State of the generator behind a criterion that drew.
    """

    scores: list[float]
    seconds: float
    forward: float
    backward: float
    generator: dict[str, Any] | None = None


@dataclass(frozen=True)
class Sweep:
    """A sweep over the sample that was interrupted.

    Attributes:
        batches: How many are done.
        seconds: What they took.
        losses: As the probe sums them up, on the CPU.
        statistics: State of the statistics without their values.
        values: Values of single features, in pieces.
    """

    batches: int
    seconds: float
    losses: torch.Tensor
    statistics: dict[str, torch.Tensor]
    values: list[torch.Tensor]


class Progress:
    """Finished criteria and the state of the sweep, in files of a folder of their own.

    Attributes:
        earlier: Energy of earlier attempts, up to what they kept.
        sweep_seconds: What the sweep took that finished criteria have used.
    """

    def __init__(self, folder: Path, identity: str, energy: Callable[[], Energy] = Energy) -> None:
        """Read what an earlier attempt has left.

        Args:
            folder: For nothing else.
            identity: Digest of all that scores depend on: what was kept under another one is named and not used.
            energy: Energy of this attempt so far.
        """
        self.earlier = Energy()
        self.sweep_seconds = 0.0
        self._folder, self._identity, self._energy = folder, identity, energy
        self._finished: dict[str, Finished] = {}
        self._pieces: list[str] = []
        self._saved, self._took = time.monotonic(), 0.0
        self._read()

    def _read(self) -> None:
        path = self._folder / "finished.json"
        if not path.is_file():
            return
        try:
            content = read_json(path, ["identity", "finished", "sweep_seconds", "energy"])
            if content["identity"] != self._identity:
                print(f"{path}: of another configuration; scoring from the start", flush=True)
                return
            self._finished = {name: Finished(**entry) for name, entry in content["finished"].items()}
            self.sweep_seconds = float(content["sweep_seconds"])
            self.earlier = Energy.from_json(content["energy"], str(path))
        except (PrunebenchError, TypeError, ValueError, AttributeError) as error:
            print(f"{error}: scoring from the start", flush=True)

    def finished(self, name: str) -> Finished | None:
        """A criterion that an earlier attempt finished."""
        return self._finished.get(name)

    def finish(self, name: str, entry: Finished, sweep_seconds: float) -> None:
        """Keep a criterion's scores, when it is time to."""
        self._finished[name], self.sweep_seconds = entry, sweep_seconds
        if self.due():
            self._save(self._write_finished)

    def due(self) -> bool:
        """Whether it is time to keep something."""
        return time.monotonic() - self._saved >= max(CHECKPOINT_SECONDS, self._took / SHARE)

    def sweep(self) -> Sweep | None:
        """Where an earlier attempt's sweep stopped."""
        found = checkpoints.load(self._folder / "sweep.safetensors", self._identity, "sweep")
        if found is None:
            return None
        tensors, texts = found
        names = json.loads(texts["pieces"])
        pieces = [checkpoints.load(self._folder / name, f"{self._identity} {name}", "sweep") for name in names]
        values = [piece[0]["values"] for piece in pieces if piece is not None]
        if len(values) < len(names):
            return None
        self._pieces = names
        earlier = Energy.from_json(json.loads(texts["energy"]))
        if earlier.duration_s > self.earlier.duration_s:
            self.earlier = earlier
        losses = tensors.pop("losses")
        return Sweep(int(texts["batches"]), float(texts["seconds"]), losses, tensors, values)

    def keep_sweep(self, batches: int, seconds: float, losses: torch.Tensor, statistics: FeatureStatistics) -> None:
        """Keep the state of the sweep: after so many batches, which took so long."""
        self._save(lambda: self._write_sweep(batches, seconds, losses, statistics))

    def clear(self) -> None:
        """Delete all that was kept: the scores are where they belong."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _save(self, write: Callable[[], None]) -> None:
        started = time.monotonic()
        write()
        self._saved = time.monotonic()
        self._took = self._saved - started

    def _write_finished(self) -> None:
        content = {
            "identity": self._identity,
            "finished": {name: asdict(entry) for name, entry in self._finished.items()},
            "sweep_seconds": self.sweep_seconds,
            "energy": (self.earlier + self._energy()).to_json(),
        }
        write_json(self._folder / "finished.json", content)

    def _write_sweep(self, batches: int, seconds: float, losses: torch.Tensor, statistics: FeatureStatistics) -> None:
        # Values grow with the sample: only those of the batches since the last time are written.
        values = statistics.values_from(len(self._pieces))
        if values is not None:
            name = f"values{batches}.safetensors"
            checkpoints.save(self._folder / name, f"{self._identity} {name}", {"values": values.cpu().contiguous()}, {})
            self._pieces.append(name)
        energy = json.dumps((self.earlier + self._energy()).to_json())
        texts = {"batches": str(batches), "seconds": repr(seconds), "pieces": json.dumps(self._pieces), "energy": energy}
        checkpoints.save(
            self._folder / "sweep.safetensors", self._identity, {**statistics.state(), "losses": losses.cpu()}, texts
        )
