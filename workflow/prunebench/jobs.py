"""What each job is told, with types: ``prunebench.experiments`` makes these settings, the command line reads them."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import Field, ValidationError

from prunebench.artifacts import fingerprint
from prunebench.config import (
    ConstraintsSection,
    Data,
    Dense,
    EnergySection,
    FineTuning,
    Latency,
    OperatingPoint,
    Sample,
    Section,
)
from prunebench.data import find_dataset
from prunebench.errors import PrunebenchError
from prunebench.models import find_model
from prunebench.seeds import derive


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
    energy: EnergySection


class ScoreJob(Job):
    """Score a network; ``criteria`` maps references to numbers of draws."""

    criteria: dict[str, int]
    sample: Sample
    constraints: ConstraintsSection


class OracleJob(Job):
    """Remove each block by itself; ``fine_tuning.epochs_per_block`` is the length of the short fine-tuning, 0 for none."""

    constraints: ConstraintsSection
    fine_tuning: FineTuning
    energy: EnergySection


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
    energy: EnergySection
    # Given to iterative chains alone, so that a change to one of these runs no one-shot chain again.
    blocks_per_step: int = 1
    sample: Sample = Field(default_factory=Sample)


class FiltersJob(Job):
    """Prune filters of the one-shot networks of a criterion."""

    criterion: str
    flops_reduction: float
    epochs: int
    fine_tuning: FineTuning
    energy: EnergySection


TrainingJob = DenseJob | ChainJob | FiltersJob | OracleJob
"""Jobs that train."""


class Options(Section):
    """Options of the evaluations that have some."""

    latency: Latency | None = None
    energy: EnergySection | None = None

    def for_evaluation(self, name: str) -> dict[str, Any]:
        """The options of one evaluation; none if it has none."""
        section = getattr(self, name, None)
        return {} if section is None else dict(section.model_dump())


class EvaluateJob(Job):
    """Evaluate networks, or measure architectures."""

    evaluations: list[str]
    options: Options


J = TypeVar("J", bound=Section)


def read_job(kind: type[J], text: str) -> J:
    """Settings from the JSON text of the command line.

    Raises:
        PrunebenchError: the text is not JSON or not of this kind.
    """
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        details = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise PrunebenchError(f"--settings: {details}") from None
