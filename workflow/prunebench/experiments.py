"""From a suite to its experiments: which chains there are, which networks, and what is evaluated of them.

Nothing here imports torch, so that a workflow is planned in a second.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from prunebench.config import EvaluationItem, Experiment, OperatingPoint, Suite
from prunebench.criteria import Criterion, find_criterion
from prunebench.criteria.consensus import OF_EIGHT
from prunebench.data import Dataset, find_dataset
from prunebench.evaluation import Evaluation, find_evaluation
from prunebench.models import Architecture, Model, find_model
from prunebench.published import any_published
from prunebench.reporting import ENOUGH, without_table

SCHEDULES = ("one-shot", "iterative", "one-shot-filters")
# Those whose criteria decide which block goes; the others take over what these made.
SCORING_SCHEDULES = ("one-shot", "iterative")
KERAS = (".h5", ".hdf5")

T = TypeVar("T")


@dataclass(frozen=True)
class Pair:
    """A dataset and a model of the suite, with what the experiment sets for itself."""

    experiment: Experiment
    dataset: Dataset
    model: Model

    @property
    def architecture(self) -> Architecture:
        """Of the dense network."""
        options = {"keras_compatible": True} if self.experiment.keras_compatible else {}
        return self.model.dense(self.experiment.model, self.dataset.input_shape, self.dataset.classes, **options)


def pairs(suite: Suite) -> dict[tuple[str, str], Pair]:
    """The suite's experiments by (dataset, model)."""
    found = {}
    for experiment in suite.experiments:
        pair = Pair(experiment, find_dataset(experiment.dataset), find_model(experiment.model))
        found[pair.dataset.name, pair.model.name] = pair
    return found


def follows(experiment: Experiment | None, schedule: str, criterion: str) -> bool:
    """Whether an experiment follows a criterion (or a ranking or method of the user's) of the suite on a schedule."""
    if experiment is None:
        return True
    return (experiment.criteria is None or criterion in experiment.criteria) and (
        experiment.schedules is None or schedule in experiment.schedules
    )


def criteria(suite: Suite, schedule: str, experiment: Experiment | None = None) -> dict[str, tuple[str, Criterion]]:
    """Criteria followed on a schedule, by an experiment or by any: name to (reference in the config, criterion)."""
    section = getattr(suite.schedules, schedule.replace("-", "_"))
    found = {(criterion := find_criterion(reference)).name: (reference, criterion) for reference in section.criteria}
    return {name: entry for name, entry in found.items() if follows(experiment, schedule, name)}


def asks_oracle(suite: Suite, experiment: Experiment | None = None) -> bool:
    """Whether the oracle is asked, in an experiment or in any."""
    return suite.oracle is not None and any(each.oracle for each in ([experiment] if experiment else suite.experiments))


def scored(suite: Suite, experiment: Experiment | None = None) -> dict[str, int]:
    """References of all criteria that score the dense network, of an experiment or of any, with the number of their draws."""
    repeats: dict[str, int] = {}
    for schedule in SCORING_SCHEDULES:
        for name, (reference, _) in criteria(suite, schedule, experiment).items():
            repeats[reference] = max(repeats.get(reference, 0), draws(suite, schedule, name))
    for reference in suite.oracle.criteria if suite.oracle and asks_oracle(suite, experiment) else []:
        repeats.setdefault(reference, suite.schedules.one_shot.draws if find_criterion(reference).draws else 1)
    return dict(sorted(repeats.items()))


def subjects(suite: Suite, *some: tuple[str, str]) -> set[str]:
    """What tables and figures there can be, of some experiments (dataset, model) or of all: see ``prunebench.reporting.Place``."""
    every = pairs(suite)
    chosen = some or tuple(every)
    experiments = [every[pair].experiment for pair in chosen]
    audits = any(audited(suite, *pair) for pair in chosen)
    datasets = {dataset for dataset, _ in chosen}
    made = [item for item in suite.evaluations if item.datasets is None or datasets & set(item.datasets)]
    evaluations = [find_evaluation(item.evaluation) for item in made]
    scores = {find_criterion(reference).name for experiment in experiments for reference in scored(suite, experiment)}
    found: dict[str, object] = {
        "oracle": any(asks_oracle(suite, experiment) for experiment in experiments),
        "consensus": scores & set(OF_EIGHT),
        "audit": audits,
        "audit_choices": audits and suite.audit.criteria,
        "published": any_published(chosen),
        "ranks": suite.replicates >= ENOUGH,
        "further": without_table(evaluation.name for evaluation in evaluations if evaluation.per == "network"),
    }
    return {name for name, there in found.items() if there} | {evaluation.name for evaluation in evaluations}


def draws(suite: Suite, schedule: str, criterion: str) -> int:
    """How often a criterion is repeated within a replicate."""
    if schedule not in SCHEDULES or criterion not in criteria(suite, schedule):
        return 1
    section = suite.schedules.iterative if schedule == "iterative" else suite.schedules.one_shot
    return section.draws if criteria(suite, schedule)[criterion][1].draws else 1


def points(suite: Suite, pair: Pair) -> list[OperatingPoint]:
    """Operating points of an experiment."""
    return pair.experiment.operating_points or suite.operating_points or []


def follows_chains(suite: Suite) -> bool:
    """Whether anything is followed to operating points: not where all networks are delivered from files."""
    external = suite.external.rankings or suite.external.networks
    return bool(suite.schedules.one_shot.criteria or suite.schedules.iterative.criteria or external)


def needs_scores(suite: Suite) -> bool:
    """Whether dense networks are scored: a chain starts from scores, rules of one's own find the candidates in them."""
    return bool(scored(suite)) or follows_chains(suite)


def delivered_folders(suite: Suite, dataset: str, model: str, replicate: int | str) -> dict[str, str]:
    """Folders of the networks that are delivered from files, below ``replicate<r>/``, with the files they come from."""
    return {
        f"delivered/{series.method}/draw0/{point}": series.network.replace("{point}", point).replace(
            "{replicate}", str(replicate)
        )
        for series in pairs(suite)[dataset, model].experiment.delivered
        for point in series.points
    }


def audited(suite: Suite, dataset: str, model: str) -> dict[str, list[str]]:
    """Methods whose delivered networks are audited, with the names of the networks in order."""
    experiment = pairs(suite)[dataset, model].experiment
    return {series.method: series.points for series in experiment.delivered if series.audit}


def chains(suite: Suite, dataset: str, model: str) -> dict[str, tuple[int, list[str]]]:
    """Chains of an experiment, as their folders below the replicate's: numbers of draws, and names of the operating points."""
    pair = pairs(suite)[dataset, model]
    names = [point.name for point in points(suite, pair)]
    found = {
        f"{schedule}/{name}": (draws(suite, schedule, name), names)
        for schedule in SCHEDULES
        for name in criteria(suite, schedule, pair.experiment)
    }
    external = [("one-shot", name) for name in suite.external.rankings]
    external += [("delivered", name) for name in suite.external.networks]
    found |= {f"{schedule}/{name}": (1, names) for schedule, name in external if follows(pair.experiment, schedule, name)}
    return found | {f"delivered/{series.method}": (1, series.points) for series in pair.experiment.delivered}


@dataclass(frozen=True)
class ChainBatch:
    """Chains on one schedule that one job follows, one after the other.

    Attributes:
        schedule: Theirs.
        chains: Criterion (or ranking of the user's) to number of draws and names of the operating points.
        number: Of the batch, from 0.
    """

    schedule: str
    chains: Mapping[str, tuple[int, list[str]]]
    number: int

    @property
    def name(self) -> str:
        """In the names of rules and logs: the criterion, where it is one."""
        return next(iter(self.chains)) if len(self.chains) == 1 else f"batch{self.number}"

    def folders(self) -> list[str]:
        """Of the networks, below ``<schedule>/``."""
        return folders_of(self.chains)[1:]


def chain_batches(suite: Suite, dataset: str, model: str, schedule: str) -> list[ChainBatch]:
    """The jobs that follow the chains of an experiment on a schedule, ``jobs.chains_per_job`` each."""
    # Sorted, so that the order of names in a config divides no work anew.
    every = sorted(chains(suite, dataset, model).items())
    some = {name.removeprefix(f"{schedule}/"): chain for name, chain in every if name.startswith(f"{schedule}/")}
    return [
        ChainBatch(schedule, batch, number) for number, batch in enumerate(_batches(some, suite.jobs.chains_per_job)) if batch
    ]


def _batches(some: Mapping[str, T], size: int) -> list[dict[str, T]]:
    """A mapping in pieces of so many items; one empty piece of an empty mapping."""
    return [dict(list(some.items())[start : start + size]) for start in range(0, max(1, len(some)), size)]


def network_folders(suite: Suite, dataset: str, model: str) -> list[str]:
    """Folders of all networks of a replicate, below ``replicate<r>/``, the dense one first."""
    return folders_of(chains(suite, dataset, model))


def folders_of(some: Mapping[str, tuple[int, list[str]]]) -> list[str]:
    """The dense network's folder and those of the networks of some chains, below ``replicate<r>/``."""
    every = [
        f"{chain}/draw{draw}/{point}" for chain, (repeats, names) in some.items() for draw in range(repeats) for point in names
    ]
    return ["dense", *every]


@dataclass(frozen=True)
class EvaluationGroup:
    """Evaluations that are made by the same jobs: of the same kind, with the same limits.

    Attributes:
        items: As in the config.
        evaluations: What they name.
        replicates: The first so many are evaluated.
        batches: Chains by job; the first job has the dense network too.
    """

    items: tuple[EvaluationItem, ...]
    evaluations: tuple[Evaluation, ...]
    replicates: int
    batches: tuple[dict[str, tuple[int, list[str]]], ...]

    @property
    def names(self) -> list[str]:
        """As in file names."""
        return [evaluation.name for evaluation in self.evaluations]

    def folders(self, batch: int) -> list[str]:
        """Folders of the networks that a job evaluates."""
        return folders_of(self.batches[batch])[0 if batch == 0 else 1 :]

    def place(self, batch: int) -> str:
        """A name for what one of its jobs keeps beside results, such as logs."""
        chains = "_".join(chain.replace("/", "-") for chain in self.batches[batch]) or "dense"
        return f"{self.names[0]}/{chains if len(chains) < 100 else f'batch{batch}'}"


def evaluation_groups(suite: Suite, dataset: str, model: str, per: str) -> list[EvaluationGroup]:
    """What is evaluated of an experiment: for each ``network``, or once for each distinct ``architecture``."""
    together: dict[tuple[Any, ...], list[EvaluationItem]] = {}
    for item in suite.evaluations:
        if find_evaluation(item.evaluation).per == per and (item.datasets is None or dataset in item.datasets):
            together.setdefault(item.limits, []).append(item)
    groups = []
    for items in together.values():
        # Sorted, so that the order of names in a config divides no work anew.
        some = dict(sorted(_limited(items[0], chains(suite, dataset, model)).items()))
        # What is measured is measured by one job, which has the machine for itself.
        batches = _batches(some, suite.jobs.chains_per_evaluation if per == "network" else max(1, len(some)))
        found = tuple(find_evaluation(item.evaluation) for item in items)
        replicates = min(items[0].replicates or suite.replicates, suite.replicates)
        groups.append(EvaluationGroup(tuple(items), found, replicates, tuple(batches)))
    return groups


def _limited(item: EvaluationItem, every: Mapping[str, tuple[int, list[str]]]) -> dict[str, tuple[int, list[str]]]:
    """The chains, draws and points that the limits of an evaluation leave."""
    found = {}
    for chain, (repeats, names) in every.items():
        schedule, criterion = chain.split("/")
        left = [name for name in names if item.operating_points is None or name in item.operating_points]
        if (
            left
            and (item.schedules is None or schedule in item.schedules)
            and (item.criteria is None or criterion in item.criteria)
        ):
            found[chain] = (min(repeats, item.draws or repeats), left)
    return found


def evaluated(suite: Suite, dataset: str, model: str, replicate: int) -> dict[str, list[str]]:
    """Names of the evaluations of each network of a replicate, by its folder below the replicate's; for each network alone."""
    found: dict[str, list[str]] = {folder: [] for folder in network_folders(suite, dataset, model)}
    for group in evaluation_groups(suite, dataset, model, "network"):
        for batch in range(len(group.batches) if replicate < group.replicates else 0):
            for folder in group.folders(batch):
                found[folder] += group.names
    return found


def measured(suite: Suite, dataset: str, model: str) -> list[str]:
    """Names of the evaluations that are made once for each distinct architecture."""
    return [name for group in evaluation_groups(suite, dataset, model, "architecture") for name in group.names]


def network_paths(source: str) -> list[Path]:
    """The files of a network that comes from outside: weights and architecture."""
    path = Path(source)
    if path.suffix in KERAS:
        return [path, path.with_suffix(".json")]
    return [path / "weights.safetensors", path / "architecture.json"]
