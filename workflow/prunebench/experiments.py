"""From a suite to its experiments: which chains there are, what each job is told, and what in a config cannot work.

Nothing here imports torch, so that a workflow is planned in a second.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunebench import __version__, plugins
from prunebench.artifacts import sha256_of
from prunebench.config import EvaluationItem, Experiment, OperatingPoint, Suite, refused_options
from prunebench.criteria import Criterion, find_criterion
from prunebench.criteria.consensus import OF_EIGHT
from prunebench.data import Dataset, find_dataset
from prunebench.errors import PrunebenchError
from prunebench.evaluation import Evaluation, find_evaluation
from prunebench.models import Architecture, Model, find_model
from prunebench.published import any_published
from prunebench.reporting import ENOUGH, without_table
from prunebench.surgery import Constraints, allowed, candidates, flops_reduction

SCHEDULES = ("one-shot", "iterative", "one-shot-filters")
# Those whose criteria decide which block goes; the others take over what these made.
SCORING_SCHEDULES = ("one-shot", "iterative")
KERAS = (".h5", ".hdf5")
# How operating points are called (``OperatingPoint.name``).
POINT = re.compile(r"blocks\d+|flops\d+(_\d+)?")


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


def subjects(suite: Suite) -> set[str]:
    """What tables and figures there can be beside those of every suite: see ``prunebench.reporting.Place``."""
    votes = {find_criterion(reference).name for reference in scored(suite)} & set(OF_EIGHT)
    audits = any(audited(suite, *pair) for pair in pairs(suite))
    found = {"oracle": asks_oracle(suite), "consensus": votes, "audit": audits}
    found["audit_choices"] = audits and suite.audit.criteria
    found["published"] = any_published(pairs(suite))
    evaluations = [find_evaluation(item.evaluation) for item in suite.evaluations]
    evaluated = {evaluation.name for evaluation in evaluations}
    found["ranks"] = suite.replicates >= ENOUGH
    found["further"] = without_table(evaluation.name for evaluation in evaluations if evaluation.per == "network")
    return {name for name, there in found.items() if there} | evaluated


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
        size = suite.jobs.chains_per_evaluation if per == "network" else max(1, len(some))
        batches = [dict(list(some.items())[start : start + size]) for start in range(0, max(1, len(some)), size)]
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


def context(suite: Suite, dataset: str, model: str, replicate: int | str | None = None) -> dict[str, Any]:
    """What every job on a network is told. Only what a job is told can make it run again."""
    experiment = pairs(suite)[dataset, model].experiment
    return {
        "version": __version__,
        "suite": suite.suite,
        "dataset": experiment.dataset,
        "model": experiment.model,
        "keras_compatible": experiment.keras_compatible,
        "replicate": None if replicate is None else int(replicate),
        "seed": suite.seed,
        "threads": suite.threads,
        "device": suite.device,
        "data": suite.data.model_dump(),
    }


def files(*references: str) -> dict[str, dict[str, str]]:
    """Digests of the Python files among some references, so that a job runs again when the file of a plugin changes."""
    return {"files": {reference: sha256_of(Path(reference)) for reference in references if reference.endswith(".py")}}


def network_paths(source: str) -> list[Path]:
    """The files of a network that comes from outside: weights and architecture."""
    path = Path(source)
    if path.suffix in KERAS:
        return [path, path.with_suffix(".json")]
    return [path / "weights.safetensors", path / "architecture.json"]


def metering(suite: Suite) -> dict[str, Any]:
    """How energy is accounted."""
    return suite.energy.model_dump()


def dense_job(suite: Suite, dataset: str, model: str, replicate: int | str) -> dict[str, Any]:
    """Settings of the job that trains or takes over a dense network."""
    experiment = pairs(suite)[dataset, model].experiment
    source = experiment.dense.replace("{replicate}", str(replicate))
    # Another network in the same place makes the job run again.
    given = {} if source == "train" else {path.name: sha256_of(path) for path in sorted(network_paths(source))}
    return {
        **context(suite, dataset, model, replicate),
        "files": {**files(experiment.dataset, experiment.model)["files"], **given},
        "dense": source,
        "training": (experiment.dense_training or suite.dense_training).model_dump(),
        "energy": metering(suite),
    }


def deliver_job(suite: Suite, dataset: str, model: str, replicate: int | str) -> dict[str, Any]:
    """Settings of the job that takes over all networks of an experiment that are delivered from files."""
    experiment = pairs(suite)[dataset, model].experiment
    networks = delivered_folders(suite, dataset, model, replicate)
    # Other files in the same places make the job run again.
    given = {str(path): sha256_of(path) for source in networks.values() for path in network_paths(source)}
    return {
        **context(suite, dataset, model, replicate),
        "files": {**files(experiment.dataset, experiment.model)["files"], **given},
        "networks": networks,
    }


def audit_job(suite: Suite, dataset: str, model: str, replicate: int | str) -> dict[str, Any]:
    """Settings of the job that audits the delivered networks."""
    experiment = pairs(suite)[dataset, model].experiment
    return {
        **context(suite, dataset, model, replicate),
        **files(experiment.dataset, experiment.model, *suite.audit.criteria),
        "series": audited(suite, dataset, model),
        "criteria": suite.audit.criteria,
        "sample": (experiment.sample or suite.sample).model_dump(),
        "constraints": suite.constraints.model_dump(),
    }


def score_job(suite: Suite, dataset: str, model: str, replicate: int | str) -> dict[str, Any]:
    """Settings of the job that scores a dense network with every criterion of the suite."""
    experiment = pairs(suite)[dataset, model].experiment
    repeats = scored(suite, experiment)
    return {
        **context(suite, dataset, model, replicate),
        **files(experiment.dataset, experiment.model, *repeats),
        "criteria": repeats,
        "sample": (experiment.sample or suite.sample).model_dump(),
        "constraints": suite.constraints.model_dump(),
        "energy": metering(suite),
    }


def oracle_job(suite: Suite, dataset: str, model: str, replicate: int | str) -> dict[str, Any]:
    """Settings of the job that removes each block of a dense network by itself. No criterion has a part in it."""
    experiment = pairs(suite)[dataset, model].experiment
    fine_tuning = (experiment.fine_tuning or suite.fine_tuning).model_dump()
    assert suite.oracle is not None, "the workflow has the rule only where the config has the section"
    return {
        **context(suite, dataset, model, replicate),
        **files(experiment.dataset, experiment.model),
        "constraints": suite.constraints.model_dump(),
        "fine_tuning": {**fine_tuning, "epochs_per_block": suite.oracle.epochs},
        "energy": metering(suite),
    }


def rank_job(suite: Suite, dataset: str, model: str) -> dict[str, Any]:
    """Settings of the job that turns the dense network's scores into rankings."""
    followed = criteria(suite, "one-shot", pairs(suite)[dataset, model].experiment)
    return {
        "version": __version__,
        "criteria": {reference: draws(suite, "one-shot", name) for name, (reference, _) in sorted(followed.items())},
    }


def chain_job(suite: Suite, dataset: str, model: str, replicate: int | str, schedule: str, criterion: str) -> dict[str, Any]:
    """Settings of the job that follows one criterion to all operating points."""
    pair = pairs(suite)[dataset, model]
    reference = criteria(suite, schedule)[criterion][0] if criterion in criteria(suite, schedule) else criterion
    sample = pair.experiment.sample or suite.sample
    own = {"blocks_per_step": suite.schedules.iterative.blocks_per_step, "sample": sample.model_dump()}
    return {
        **context(suite, dataset, model, replicate),
        **files(pair.experiment.dataset, pair.experiment.model, reference),
        **(own if schedule == "iterative" else {}),
        "schedule": schedule,
        "criterion": reference,
        "draws": draws(suite, schedule, criterion),
        "operating_points": [point.model_dump() for point in points(suite, pair)],
        "constraints": suite.constraints.model_dump(),
        "fine_tuning": (pair.experiment.fine_tuning or suite.fine_tuning).model_dump(),
        "energy": metering(suite),
    }


def filters_job(suite: Suite, dataset: str, model: str, replicate: int | str, criterion: str) -> dict[str, Any]:
    """Settings of the job that prunes filters of a criterion's one-shot networks."""
    experiment = pairs(suite)[dataset, model].experiment
    section = suite.schedules.one_shot_filters
    return {
        **context(suite, dataset, model, replicate),
        **files(experiment.dataset, experiment.model),
        "criterion": criterion,
        "flops_reduction": section.flops_reduction,
        "epochs": section.epochs,
        "fine_tuning": (experiment.fine_tuning or suite.fine_tuning).model_dump(),
        "energy": metering(suite),
    }


def evaluate_job(
    suite: Suite, dataset: str, model: str, replicate: int | str | None, group: EvaluationGroup, batch: int = 0
) -> dict[str, Any]:
    """Settings of a job that evaluates networks of a replicate, or that measures the architectures of all (``replicate`` None)."""
    experiment = pairs(suite)[dataset, model].experiment
    return {
        **context(suite, dataset, model, replicate),
        **files(experiment.dataset, experiment.model, *(item.evaluation for item in group.items)),
        "evaluations": [
            {"evaluation": item.evaluation, "options": _filled_in(item, evaluation)}
            for item, evaluation in zip(group.items, group.evaluations, strict=True)
        ],
        "chains": {chain: {"draws": repeats, "points": names} for chain, (repeats, names) in group.batches[batch].items()},
        "with_dense": batch == 0,
        "replicates": group.replicates if replicate is None else 1,
        "energy": metering(suite),
    }


def _filled_in(item: EvaluationItem, evaluation: Evaluation) -> dict[str, Any]:
    """An evaluation's options with their defaults."""
    return evaluation.options.model_validate(item.options).model_dump() if evaluation.options else {}


def mistakes(suite: Suite) -> list[str]:
    """What types alone cannot see in a config: one line each, beginning with the key."""
    found: list[str] = []

    def look(key: str, find: Any, reference: str) -> Any:
        try:
            return find(reference)
        except PrunebenchError as error:
            found.append(f"{key}: {error}")
            return None

    named: dict[str, str] = {}
    lists = {"schedules.one-shot": suite.schedules.one_shot.criteria, "schedules.iterative": suite.schedules.iterative.criteria}
    for place, references in {**lists, "oracle": suite.oracle.criteria if suite.oracle else []}.items():
        seen: set[str] = set()
        for index, reference in enumerate(references):
            key = f"{place}.criteria[{index}]"
            criterion = look(key, find_criterion, reference)
            if criterion:
                if criterion.name in seen or named.setdefault(criterion.name, reference) != reference:
                    found.append(f"{key}: '{reference}' is a second criterion named '{criterion.name}'; give one path")
                seen.add(criterion.name)
                for other in criterion.combines:
                    look(f"{key}: combines", find_criterion, other)
    seen = set()
    for index, reference in enumerate(suite.audit.criteria):
        key = f"audit.criteria[{index}]"
        criterion = look(key, find_criterion, reference)
        if criterion and criterion.draws:
            found.append(f"{key}: '{reference}' draws at random; what random choice would hit is in the audit anyway")
        if criterion and (criterion.name in seen or named.setdefault(criterion.name, reference) != reference):
            found.append(f"{key}: '{reference}' is a second criterion named '{criterion.name}'; give one path")
        if criterion:
            seen.add(criterion.name)
    measures: set[str] = set()
    for index, item in enumerate(suite.evaluations):
        evaluation = look(f"evaluations[{index}]", find_evaluation, item.evaluation)
        if evaluation and evaluation.name in measures:
            found.append(
                f"evaluations[{index}]: '{item.evaluation}' is a second evaluation named '{evaluation.name}'; name each once"
            )
        if evaluation:
            measures.add(evaluation.name)
            found += _unusable(suite, item, evaluation, f"evaluations[{index}]")
    for index, reference in enumerate(suite.schedules.one_shot_filters.criteria):
        if reference not in suite.schedules.one_shot.criteria:
            found.append(
                f"schedules.one-shot-filters.criteria[{index}]: '{reference}' is not among schedules.one-shot.criteria, "
                "whose networks are taken; add it there"
            )
        if reference in suite.schedules.one_shot_filters.criteria[:index]:
            found.append(f"schedules.one-shot-filters.criteria[{index}]: '{reference}' is there twice; name each once")
    external: set[str] = set()
    for kind, names in (("rankings", suite.external.rankings), ("networks", suite.external.networks)):
        for index, name in enumerate(names):
            key = f"external.{kind}[{index}]"
            if name in plugins.builtin(Criterion, "criteria"):
                found.append(f"{key}: '{name}' is the name of a built-in criterion; choose another")
            elif name in named:
                found.append(f"{key}: '{name}' is the name of a criterion of this suite, {named[name]}; choose another")
            elif name in external:
                found.append(f"{key}: '{name}' is named twice under external; choose another")
            external.add(name)
    for index, rules in enumerate(suite.external.rules):
        if not Path(rules).is_file():
            found.append(f"external.rules[{index}]: '{rules}': no such file (paths are relative to the working directory)")
    if suite.audit.criteria and not any(series.audit for experiment in suite.experiments for series in experiment.delivered):
        found.append("audit.criteria: no experiment has delivered networks to audit; leave the section out")
    if not follows_chains(suite) and not any(experiment.delivered for experiment in suite.experiments):
        found.append(
            "schedules: no criterion is named in schedules.one-shot.criteria or schedules.iterative.criteria, "
            "and no experiment has delivered networks"
        )

    if follows_chains(suite) and not all(
        suite.operating_points or experiment.operating_points for experiment in suite.experiments
    ):
        found.append("operating_points: this key is required (accepted: a list of at least one item)")

    known: set[tuple[str, str]] = set()
    for index, experiment in enumerate(suite.experiments):
        key = f"experiments[{index}]"
        dataset = look(f"{key}.dataset", find_dataset, experiment.dataset)
        model = look(f"{key}.model", find_model, experiment.model)
        if not dataset or not model:
            continue
        if (dataset.name, model.name) in known:
            found.append(f"{key}: '{dataset.name}' with '{model.name}' is there twice")
        known.add((dataset.name, model.name))
        limits = {
            "criteria": {*named, *external, *plugins.builtin(Criterion, "criteria")},
            "schedules": {*SCHEDULES, "delivered"},
        }
        for limit, followed in limits.items():
            for number, name in enumerate(getattr(experiment, limit) or []):
                if name not in followed:
                    found.append(f"{key}.{limit}[{number}]: {_not_among(name, followed)}")
        if suite.schedules.one_shot_filters.criteria and not model.narrows:
            found.append(
                f"{key}.model: the blocks of '{experiment.model}' cannot be made narrower; leave out schedules.one-shot-filters"
            )
        if experiment.dense != "train":
            missing = _missing(experiment.dense, suite.replicates)
            if missing:
                found.append(f"{key}.dense: '{experiment.dense}': {missing}: no such file; give `train`, a folder or an .h5 file")
        found += [f"{key}.delivered{reason}" for reason in _undeliverable(suite, experiment, {*named, *external})]
        try:
            found += [f"{where}: {reason}" for where, reason in _unreachable(suite, Pair(experiment, dataset, model), index)]
        except PrunebenchError as error:
            found.append(f"{key}.model: '{experiment.model}': {error}")
        except Exception as error:  # a plugin's own mistake, of whatever kind, found before a job meets it
            found.append(f"{key}.model: '{experiment.model}': its blocks or macs raise {type(error).__name__}: {error}")
    return found


def _unusable(suite: Suite, item: EvaluationItem, evaluation: Evaluation, key: str) -> Iterator[str]:
    """What is wrong with the options and limits of an evaluation."""
    if evaluation.options:
        yield from refused_options(evaluation.options, item.options, f"{key}.options")
    elif item.options:
        yield f"{key}.options: '{evaluation.name}' has no options; leave them out"
    try:
        known = {pair: chains(suite, *pair) for pair in pairs(suite)}
    except PrunebenchError:  # named elsewhere
        return
    split = [chain.split("/") for each in known.values() for chain in each]
    # What the suite could have is accepted too, so that a criterion can be taken out of its list alone.
    accepted = {
        "datasets": {dataset for dataset, _ in known} | set(plugins.builtin(Dataset, "data")),
        "schedules": {*SCHEDULES, "delivered"},
        "criteria": {criterion for _, criterion in split} | set(plugins.builtin(Criterion, "criteria")),
        "operating_points": {name for each in known.values() for _, names in each.values() for name in names},
    }
    for limit, names in accepted.items():
        for index, name in enumerate(getattr(item, limit) or []):
            if name not in names and not (limit == "operating_points" and POINT.fullmatch(name)):
                yield f"{key}.{limit}[{index}]: {_not_among(name, names)}"
    for dataset, _ in known:
        reason = evaluation.unsuited and evaluation.unsuited(find_dataset(_reference(suite, dataset)))
        if reason and (item.datasets is None or dataset in item.datasets):
            yield f"{key}: '{evaluation.name}' does not suit '{dataset}': {reason}; name the datasets that it is for under `datasets`"


def _not_among(name: str, names: Collection[str]) -> str:
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return f"'{name}' is not known in this suite; {hint}accepted: {', '.join(sorted(names))}"


def _reference(suite: Suite, dataset: str) -> str:
    """How the config refers to a dataset."""
    return next(each.dataset for each in suite.experiments if find_dataset(each.dataset).name == dataset)


def _missing(source: str, replicates: int) -> Path | None:
    """The first file that is missing of a network that is taken over, for each replicate if they differ."""
    for replicate in range(replicates if "{replicate}" in source else 1):
        for path in sorted(network_paths(source.replace("{replicate}", str(replicate)))):
            if not path.is_file():
                return path
    return None


def _undeliverable(suite: Suite, experiment: Experiment, taken: set[str]) -> Iterator[str]:
    """What is wrong with the networks that an experiment takes from files: each begins with the place below its key."""
    methods: set[str] = set()
    for index, series in enumerate(experiment.delivered):
        if series.method in taken or series.method in methods or series.method in plugins.builtin(Criterion, "criteria"):
            yield f"[{index}].method: '{series.method}' is the name of a criterion or of another method; choose another"
        methods.add(series.method)
        for number, point in enumerate(series.points):
            if point in series.points[:number]:
                yield f"[{index}].points[{number}]: {point} is there twice; name each network once"
        if suite.replicates > 1 and "{replicate}" not in series.network:
            yield (
                f"[{index}].network: '{series.network}' is the same network in all {suite.replicates} replicates; write {{replicate}} "
                "where they differ, or set replicates: 1"
            )
        if len(series.points) > 1 and "{point}" not in series.network:
            yield f"[{index}].network: '{series.network}' is one network for several points; write {{point}} where they differ"
            continue
        for point in series.points:
            missing = _missing(series.network.replace("{point}", point), suite.replicates)
            if missing:
                yield f"[{index}].network: '{series.network}': {missing}: no such file; give a folder or an .h5 file"
                break


def _unreachable(suite: Suite, pair: Pair, index: int) -> Iterator[tuple[str, str]]:
    """Operating points that the model and the constraints do not allow, or that are there twice."""
    constraints = Constraints(**suite.constraints.model_dump())
    dense = pair.architecture
    removable = allowed(dense.blocks, dense, constraints)
    reach = flops_reduction(dense.without(removable), dense) if removable else 0.0
    own = pair.experiment.operating_points is not None
    seen: set[str] = set()
    for number, point in enumerate(points(suite, pair)):
        where = f"experiments[{index}].operating_points[{number}]" if own else f"operating_points[{number}]"
        if point.blocks is not None and point.blocks > len(removable):
            yield (
                f"{where}.blocks",
                (
                    f"{point.blocks} is more than {pair.model.name} can lose: at most {len(removable)} of its "
                    f"{len(candidates(dense, constraints))} candidate blocks (a FLOPs reduction of {reach:.2f} %)"
                ),
            )
        if point.flops_reduction is not None and reach < point.flops_reduction - 0.01:
            yield (
                f"{where}.flops_reduction",
                (
                    f"{point.flops_reduction:g} % is out of reach for {pair.model.name}: "
                    f"at most {reach:.2f} %, with {len(removable)} blocks removed"
                ),
            )
        if point.name in seen:
            yield where, f"{point.name} is there twice; name each point once"
        seen.add(point.name)
