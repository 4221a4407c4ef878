"""How a suite's results were made, in words: from its config and the provenance of its results."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence

from prunebench.config import Suite, Training


def paragraphs(suite: Suite, provenance: Sequence[Mapping[str, str]]) -> Iterator[str]:
    """Paragraphs of plain text: data and networks, training, criteria, evaluation, statistics, machines.

    Args:
        suite: The config.
        provenance: Rows of ``provenance.csv``.
    """
    yield _data(suite)
    yield _training(suite)
    yield _criteria(suite)
    yield _evaluations(suite)
    yield (
        "Criteria are compared in pairs within a replicate, since all of them start from its dense network; a criterion that draws "
        "at random enters with the mean over its draws. p values are adjusted by Holm's method over the criteria of one operating point. "
        "Where replicates start from one imported network they share it, and intervals say nothing of training it again."
    )
    yield from _machines(provenance)


def _data(suite: Suite) -> str:
    designs = _listed(f"{each.model} on {each.dataset}" for each in suite.experiments)
    text = f"Networks and data: {designs}; {_count(suite.replicates, 'replicate')}, seed {suite.seed}. "
    imported = [f"{each.model} ({each.dense})" for each in suite.experiments if each.dense != "train"]
    if imported:
        text += f"Taken over from files, not trained here: {_listed(imported)}. "
    return text + (
        f"{100 * suite.data.validation_fraction:g} % of each class of the training images are kept for validation; no decision reads "
        f"the test images. Where a dataset has no test split of its own, {100 * suite.data.test_fraction:g} % of its images are used. "
        f"Normalisation is {suite.data.normalisation}."
    )


def _of(training: Training) -> str:
    return (
        f"stochastic gradient descent with Nesterov momentum {training.momentum:g}, learning rate {training.learning_rate:g} "
        f"({training.schedule}), batches of {training.batch_size}, weight decay {training.weight_decay:g}, "
        f"{'with' if training.augment else 'without'} augmentation"
    )


def _training(suite: Suite) -> str:
    trained = any(each.dense == "train" for each in suite.experiments)
    text = f"Dense networks: {suite.dense_training.epochs} epochs of {_of(suite.dense_training)}. " if trained else ""
    if not _followed(suite):
        return text + "Nothing is fine-tuned: pruned networks were delivered from files and are evaluated as they are."
    return text + (
        f"Fine-tuning: {_count(suite.fine_tuning.epochs_per_block, 'epoch')} for each removed block, the same for every criterion, by "
        f"{_of(suite.fine_tuning)}."
    )


def _followed(suite: Suite) -> dict[str, list[str]]:
    every = suite.schedules
    found = {"one-shot": every.one_shot.criteria, "iterative": every.iterative.criteria}
    found["one-shot-filters"] = every.one_shot_filters.criteria
    return {schedule: criteria for schedule, criteria in found.items() if criteria}


def _criteria(suite: Suite) -> str:
    followed = _followed(suite)
    words = []
    for schedule, criteria in followed.items():
        draws = {"one-shot": suite.schedules.one_shot.draws, "iterative": suite.schedules.iterative.draws}.get(schedule)
        drawn = f" ({_count(draws, 'draw')} of random ones)" if draws and "random" in criteria else ""
        words.append(f"{schedule}: {_listed(criteria)}{drawn}")
    text = f"Criteria, {'; '.join(words)}. " if words else ""
    if followed:
        text += f"They see {suite.sample.images_per_class} training images of each class, the same for all. "
    if suite.operating_points:
        points = [
            _count(point.blocks, "block") if point.blocks is not None else f"{point.flops_reduction:g} % of FLOPs"
            for point in suite.operating_points
        ]
        text += f"Networks are evaluated when they have lost {_listed(points)}. "
    for each in suite.experiments:
        for series in each.delivered:
            text += f"Delivered from files: {series.method} ({_count(len(series.points), 'network')} of {each.model}). "
    if suite.oracle is not None:
        text += (
            "Criteria are held to an oracle: each block is removed by itself and the validation loss read, without fine-tuning"
            + (f" and after {_count(suite.oracle.epochs, 'epoch')}" if suite.oracle.epochs else "")
            + ". "
        )
    first = "the first block of every stage and " if suite.constraints.keep_first_block else ""
    return f"{text}Pruning leaves {first}at least {_count(suite.constraints.minimum_blocks, 'block')} in each stage."


def _evaluations(suite: Suite) -> str:
    words = []
    for item in suite.evaluations:
        limits = {
            "datasets": item.datasets,
            "schedules": item.schedules,
            "criteria": item.criteria,
            "operating points": item.operating_points,
        }
        said = [f"{name.replace('_', ' ')} {_value(value)}" for name, value in item.options.items()]
        said += [f"{name} {_listed(names)} only" for name, names in limits.items() if names]
        said += [
            f"the first {_count(number, name)}"
            for name, number in (("replicate", item.replicates), ("draw", item.draws))
            if number
        ]
        words.append(item.evaluation + (f" ({'; '.join(said)})" if said else ""))
    where = f"Device: {suite.device}; {_count(suite.threads, 'thread')} a job."
    return f"Evaluations: {_listed(words)}. What is not named has its default. {where}"


def _machines(provenance: Sequence[Mapping[str, str]]) -> Iterator[str]:
    commits = sorted({row["commit"] for row in provenance if row["commit"]})
    yield f"Code: commit {_listed(commits) or 'unknown'}; {len({row['config_sha256'] for row in provenance})} configurations of jobs."
    for what, describe in (("hardware", _hardware), ("versions", _versions)):
        found = sorted({row[what] for row in provenance if row[what]})
        for text in found:
            number = sum(row[what] == text for row in provenance)
            share = f" ({number} of {len(provenance)} results)" if len(found) > 1 else ""
            yield f"{what.capitalize()}{share}: {describe(json.loads(text))}."


def _hardware(content: Mapping[str, object]) -> str:
    gpus = content.get("gpus")
    names = _listed(map(str, gpus)) if isinstance(gpus, list) and gpus else "no GPU"
    size = f"{content.get('logical_cores')} logical cores, {content.get('memory_gib')} GiB"
    return f"{content.get('cpu')}, {size}, {names}; {content.get('platform')}"


def _versions(content: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {version}" for name, version in sorted(content.items()))


def _value(value: object) -> str:
    return _listed(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def _listed(words: Iterable[str]) -> str:
    *most, last = [*words] or [""]
    return f"{', '.join(most)} and {last}" if most else last
