"""AutoAttack, the standard version, by the package pyautoattack: attack by attack and batch by batch, so that it can be resumed.

Croce and Hein 2020, https://arxiv.org/abs/2003.01690. The package holds the original code (github.com/fra31/auto-attack). Its own
state file does not tell which batches of an attack are done, so a resumed run would attack other batches than an uninterrupted one;
here every batch of every attack is kept. What comes out is what one call of the package's ``run_standard_evaluation`` gives.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyautoattack
import torch
from pyautoattack import checks
from tqdm import tqdm

from prunebench.artifacts import fingerprint, read_json, write_json
from prunebench.attacks import Target, Threat, described
from prunebench.checkpoints import digest
from prunebench.errors import PrunebenchError
from prunebench.seeds import derive

ATTACKS = ("apgd-ce", "apgd-t", "fab-t", "square")
IMPLEMENTATION = f"pyautoattack {pyautoattack.__version__}"
# The package's own checks of defences that mislead it, by a word in its warnings (flags_doc.md of auto-attack).
_WARNINGS = {
    "randomized": "the network is random",
    "probability distribution": "the outputs are probabilities, not logits",
    "zero gradient": "zero gradients",
    "dynamic": "the network computes gradients when it classifies",
}
SQUARE = "Square lowers what the attacks with gradients leave"
_LOGGER = logging.getLogger("auto-attack")
# Above this share of all images Square is said to lower robust accuracy: the package's threshold.
_SQUARE_SHARE = 0.002


@dataclass(frozen=True)
class Outcome:
    """What AutoAttack leaves at one distance.

    Attributes:
        after: Which images stand after each attack, bool on the CPU, shape (n,), in the order of ``ATTACKS``.
        reasons: Why the outcome may overestimate robustness; empty where nothing speaks for it.
    """

    after: dict[str, torch.Tensor]
    reasons: list[str]

    @property
    def stands(self) -> torch.Tensor:
        """Which images stand all attacks."""
        return self.after[ATTACKS[-1]]


def autoattack(target: Target, threat: Threat, *, seed: int, classes: int, kept: Path | None = None) -> Outcome:
    """Run the four attacks one after the other, each on the images that the ones before have left.

    Args:
        target: Network and images; the random numbers of an attack go by its batches.
        threat: The distance.
        seed: What is drawn by: the same for every attack and batch, as in the package.
        classes: Number of classes, 4 or more; below 10 the targeted attacks have fewer targets than 9.
        kept: File for what is finished; a run that was killed goes on from there.

    Raises:
        PrunebenchError: an attack leaves the distance or [0, 1], or there are too few classes.
    """
    if classes < 4:
        raise PrunebenchError(
            f"autoattack: the targeted DLR loss needs 4 classes, not {classes}; take the evaluation pgd in its place"
        )
    identity = fingerprint([IMPLEMENTATION, threat.name, seed, target.batch_size, classes, _digest(target)])
    done = _kept(kept, identity)
    stands, after, warnings = target.correct.clone(), {}, set[str]()
    for attack in ATTACKS:
        left = stands.clone()
        batches = torch.split(left.nonzero().flatten(), target.batch_size) if left.any() else ()
        for number, positions in enumerate(tqdm(batches, desc=f"{attack} {described([threat])}", unit="batch", leave=False)):
            key = f"{attack}/{number}"
            if key not in done:
                standing, found = _attack(target, positions, threat, attack, seed, classes)
                done[key] = {"stands": standing.int().tolist(), "warnings": sorted(found)}
                if kept is not None:
                    write_json(kept, {"identity": identity, "done": done})
            stands[positions] = torch.tensor(done[key]["stands"], dtype=torch.bool)
            warnings |= set(done[key]["warnings"])
        after[attack] = stands.clone()
    lowered = int((after["fab-t"] & ~after["square"]).sum())
    reasons = sorted(warnings) + ([SQUARE] if lowered > _SQUARE_SHARE * len(target.split) else [])
    return Outcome(after, reasons)


def _attack(
    target: Target, positions: torch.Tensor, threat: Threat, attack: str, seed: int, classes: int
) -> tuple[torch.Tensor, set[str]]:
    """Which images of a batch stand one attack (bool, shape (m,)), and what the package warns of."""
    images, labels = target.load(positions)
    with _alone(target.device), _heard() as warnings:
        library = pyautoattack.AutoAttack(
            target.network,
            norm=threat.norm,
            eps=threat.eps,
            seed=derive(seed, threat.name),
            version="standard",
            device=target.device,
        )
        library.attacks_to_run = [attack]
        targets = min(9, classes - 1)
        library.apgd_targeted.n_target_classes = library.fab.n_target_classes = targets
        moved, found = library.run_standard_evaluation(images, labels, batch_size=len(images))
    _refuse_beyond(moved, images, threat, attack)
    return (found == labels).cpu(), {reason for word, reason in _WARNINGS.items() if any(word in text for text in warnings)}


@contextlib.contextmanager
def _alone(device: torch.device) -> Iterator[None]:
    """Keep what the package changes to itself: torch's random state, the tracer of debuggers, its count of gradients."""
    tracer = sys.gettrace()
    strict, warn_only = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    checks.funcs.update(dict.fromkeys(checks.funcs, 0))
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        if device.type == "cuda":
            # FAB's sums on a GPU have no deterministic form.
            torch.use_deterministic_algorithms(strict, warn_only=True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(strict, warn_only=warn_only)
            sys.settrace(tracer)


@contextlib.contextmanager
def _heard() -> Iterator[list[str]]:
    """The warnings of the package while it runs."""
    texts: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            texts.append(record.getMessage())

    listener, propagate = Listener(logging.WARNING), _LOGGER.propagate
    _LOGGER.addHandler(listener)
    _LOGGER.propagate = False
    try:
        yield texts
    finally:
        _LOGGER.removeHandler(listener)
        _LOGGER.propagate = propagate


def _refuse_beyond(moved: torch.Tensor, images: torch.Tensor, threat: Threat, attack: str) -> None:
    change = (moved - images).flatten(1)
    length = change.abs().amax(dim=1) if threat.norm == "Linf" else change.norm(dim=1)
    furthest, lowest, highest = float(length.max()), float(moved.min()), float(moved.max())
    # Sums of float32 are a little off.
    if not (furthest <= threat.eps * (1 + 1e-4) + 1e-6 and lowest >= 0 and highest <= 1):
        raise PrunebenchError(
            f"autoattack: {attack} moved an image by {furthest:g}, values from {lowest:g} to {highest:g}; "
            f"allowed are {threat.eps:g} and 0 to 1"
        )


def _digest(target: Target) -> str:
    """What the attack is on: weights and images, for a file that was left by another one."""
    chosen = [target.split.indices.tolist(), target.correct.int().tolist()]
    return fingerprint([digest(target.network.state_dict()), *chosen])


def _kept(path: Path | None, identity: str) -> dict[str, Any]:
    """Batches that an earlier attempt finished; none if the file is of another attack or broken."""
    if path is None or not path.is_file():
        return {}
    try:
        content = read_json(path, ["identity", "done"])
    except PrunebenchError as error:
        print(f"{error}: attacking from the start", flush=True)
        return {}
    return dict(content["done"]) if content["identity"] == identity else {}
