"""What each job is told, with types: ``prunebench.experiments`` makes these settings, the command line reads them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from pydantic import Field, ValidationError

from prunebench.artifacts import fingerprint
from prunebench.config import (
    Accounting,
    ConstraintsSection,
    Data,
    Dense,
    FineTuning,
    OperatingPoint,
    Sample,
    Section,
)
from prunebench.data import find_dataset
from prunebench.errors import PrunebenchError
from prunebench.models import find_model
from prunebench.seeds import derive

J = TypeVar("J", bound=Section)


class Job(Section):
    """What every job on a network is told."""

    version: str
    suite: str
    dataset: str
    model: str
    keras_compatible: bool
    replicate: int | None
    seed: int
    threads: int
    device: str
    data: Data
    files: dict[str, str] = Field(default_factory=dict)

    def seed_for(self, *purpose: str | int) -> int:
        """A seed that depends on the experiment and on what it is for, never on the criterion unless it is named."""
        names = find_dataset(self.dataset).name, find_model(self.model).name
        return derive(self.seed, *names, str(self.replicate), *purpose)

    @property
    def config_sha256(self) -> str:
        """Digest of these settings, for provenance."""
        return fingerprint(self.model_dump())


class DenseJob(Job):
    """Train a dense network, or take one over."""

    dense: str
    training: Dense
    energy: Accounting


class ScoreJob(Job):
    """Score a network; ``criteria`` maps references to numbers of draws."""

    criteria: dict[str, int]
    sample: Sample
    constraints: ConstraintsSection
    energy: Accounting


class OracleJob(Job):
    """Remove each block by itself; ``fine_tuning.epochs_per_block`` is the length of the short fine-tuning, 0 for none."""

    constraints: ConstraintsSection
    fine_tuning: FineTuning
    energy: Accounting


class DeliverJob(Job):
    """Take over networks from files; ``networks`` maps folders below the replicate's to where they come from."""

    networks: dict[str, str]


class AuditJob(Job):
    """Audit delivered networks; ``series`` maps methods to the names of their networks in order."""

    series: dict[str, list[str]]
    criteria: list[str]
    sample: Sample
    constraints: ConstraintsSection


class RankJob(Section):
    """Turn scores into rankings."""

    version: str
    criteria: dict[str, int]


class ChainJob(Job):
    """Follow one criterion to all operating points."""

    schedule: str
    criterion: str
    draws: int
    operating_points: list[OperatingPoint]
    constraints: ConstraintsSection
    fine_tuning: FineTuning
    energy: Accounting
    # Given to iterative chains alone, so that a change to one of these runs no one-shot chain again.
    blocks_per_step: int = 1
    sample: Sample = Field(default_factory=Sample)


class FiltersJob(Job):
    """Prune filters of the one-shot networks of a criterion."""

    criterion: str
    flops_reduction: float
    epochs: int
    fine_tuning: FineTuning
    energy: Accounting


class ChainsJob(Section):
    """Follow several chains, one after the other: what they are told in common, and each by the name of its folder."""

    common: dict[str, Any]
    chains: dict[str, dict[str, Any]] = Field(min_length=1)

    def each(self, kind: type[J]) -> dict[str, J]:
        """The jobs of the single chains, by name.

        Raises:
            PrunebenchError: one of them is not of this kind.
        """
        with _mistakes():
            return {name: kind.model_validate({**self.common, **own}) for name, own in self.chains.items()}


TrainingJob = DenseJob | ChainJob | FiltersJob | OracleJob
"""Jobs that train."""


class Chain(Section):
    """Networks of a chain: ``draw<0..draws-1>/<point>`` each."""

    draws: int
    points: list[str]


class Evaluated(Section):
    """An evaluation, its options, defaults included, and the sizes in bytes of the files below the data root that decide its values."""

    evaluation: str
    options: dict[str, Any]
    inputs: dict[str, int] = Field(default_factory=dict)


class EvaluateJob(Job):
    """Evaluate networks, or measure architectures; ``chains`` are their folders below the replicate's."""

    evaluations: list[Evaluated]
    chains: dict[str, Chain]
    with_dense: bool
    replicates: int = 1
    energy: Accounting = Field(default_factory=Accounting)

    def folders(self) -> list[str]:
        """Folders of the networks, below the replicate's: the dense one first, if it is among them."""
        chained = [
            f"{name}/draw{draw}/{point}"
            for name, chain in self.chains.items()
            for draw in range(chain.draws)
            for point in chain.points
        ]
        return ["dense", *chained] if self.with_dense else chained

    @property
    def share(self) -> str:
        """See ``share_of``."""
        return share_of(self.folders(), [item.evaluation for item in self.evaluations])


def share_of(folders: Iterable[str], evaluations: Iterable[str]) -> str:
    """Which part of a work folder is an evaluating job's: several share one, and none its networks and evaluations."""
    return fingerprint([sorted(folders), list(evaluations)])[:16]


def read_job(kind: type[J], text: str) -> J:
    """Settings from the JSON text of the command line.

    Raises:
        PrunebenchError: the text is not JSON or not of this kind.
    """
    with _mistakes():
        return kind.model_validate_json(text)


@contextmanager
def _mistakes() -> Iterator[None]:
    """Name the settings that are wrong in one line."""
    try:
        yield
    except ValidationError as error:
        details = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise PrunebenchError(f"--settings: {details}") from None
