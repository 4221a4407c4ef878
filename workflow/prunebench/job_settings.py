"""What each job is told, as plain values: Snakemake runs a job again when they change (``prunebench.jobs`` gives them types)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from prunebench import __version__
from prunebench.artifacts import sha256_of
from prunebench.config import EvaluationItem, Suite
from prunebench.criteria import with_combined
from prunebench.data import find_dataset
from prunebench.evaluation import Evaluation
from prunebench.experiments import (
    ChainBatch,
    EvaluationGroup,
    audited,
    criteria,
    delivered_folders,
    draws,
    network_paths,
    pairs,
    points,
    scored,
)


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
        "energy": suite.energy.model_dump(),
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
        **files(experiment.dataset, experiment.model, *with_combined(suite.audit.criteria)),
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
        **files(experiment.dataset, experiment.model, *with_combined(repeats)),
        "criteria": repeats,
        "sample": (experiment.sample or suite.sample).model_dump(),
        "constraints": suite.constraints.model_dump(),
        "energy": suite.energy.model_dump(),
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
        "energy": suite.energy.model_dump(),
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
        **files(pair.experiment.dataset, pair.experiment.model, *with_combined([reference])),
        **(own if schedule == "iterative" else {}),
        "schedule": schedule,
        "criterion": reference,
        "draws": draws(suite, schedule, criterion),
        "operating_points": [point.model_dump() for point in points(suite, pair)],
        "constraints": suite.constraints.model_dump(),
        "fine_tuning": (pair.experiment.fine_tuning or suite.fine_tuning).model_dump(),
        "energy": suite.energy.model_dump(),
    }


def chains_job(suite: Suite, dataset: str, model: str, replicate: int | str, batch: ChainBatch) -> dict[str, Any]:
    """Settings of a job that follows several chains of a schedule: what they have in common, and what is of each."""
    if batch.schedule == "one-shot-filters":
        each = {name: filters_job(suite, dataset, model, replicate, name) for name in batch.chains}
    else:
        each = {name: chain_job(suite, dataset, model, replicate, batch.schedule, name) for name in batch.chains}
    first = next(iter(each.values()))
    # Said once, since a command line has its limits.
    common = {key: value for key, value in first.items() if all(other.get(key) == value for other in each.values())}
    own = {name: {key: value for key, value in job.items() if key not in common} for name, job in each.items()}
    return {"common": common, "chains": own}


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
        "energy": suite.energy.model_dump(),
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
            _evaluated(suite, experiment.dataset, item, evaluation)
            for item, evaluation in zip(group.items, group.evaluations, strict=True)
        ],
        "chains": {chain: {"draws": repeats, "points": names} for chain, (repeats, names) in group.batches[batch].items()},
        "with_dense": batch == 0,
        # What is computed of the test images does not depend on these.
        **({"replicates": group.replicates, "energy": suite.energy.model_dump()} if replicate is None else {}),
    }


def _evaluated(suite: Suite, dataset: str, item: EvaluationItem, evaluation: Evaluation) -> dict[str, Any]:
    """An evaluation, its options with their defaults, and the files that it finds of those that decide its values."""
    options = evaluation.options.model_validate(item.options).model_dump() if evaluation.options else {}
    told = {"evaluation": item.evaluation, "options": options}
    if evaluation.inputs is None:
        return told
    return {**told, "inputs": _sizes(evaluation.inputs(options, find_dataset(dataset), Path(suite.data.root)))}


def _sizes(paths: Iterable[Path]) -> dict[str, int]:
    """Sizes in bytes of the files that are there, 0 of folders. Digests would take minutes, and times differ between copies."""
    return {str(path): path.stat().st_size if path.is_file() else 0 for path in sorted(set(paths)) if path.exists()}
