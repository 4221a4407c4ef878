"""How a suite's results were made, in words: from its config and the provenance of its results."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence

from prunebench.config import Experiment, OperatingPoint, Section, Suite, Training
from prunebench.experiments import SCHEDULES, criteria, follows


def paragraphs(suite: Suite, provenance: Sequence[Mapping[str, str]]) -> Iterator[str]:
    """Paragraphs of plain text: data and networks, training, criteria, evaluation, statistics, machines.

    Args:
        suite: The config.
        provenance: Rows of ``provenance.csv``.
    """
    yield _data(suite)
    yield _training(suite)
    yield _criteria(suite)
    yield from _differences(suite)
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
    if not any(_followed(suite, each) for each in suite.experiments):
        return text + "Nothing is fine-tuned: pruned networks were delivered from files and are evaluated as they are."
    return text + (
        f"Fine-tuning: {_count(suite.fine_tuning.epochs_per_block, 'epoch')} for each removed block, the same for every criterion, by "
        f"{_of(suite.fine_tuning)}."
    )


def _followed(suite: Suite, experiment: Experiment | None = None) -> dict[str, list[str]]:
    """Names of what decides which blocks go, by schedule, in an experiment or in any; rankings by rules of the user's too."""
    found = {schedule: list(criteria(suite, schedule, experiment)) for schedule in SCHEDULES}
    found["one-shot"] += [name for name in suite.external.rankings if follows(experiment, "one-shot", name)]
    return {schedule: names for schedule, names in found.items() if names}


def _differences(suite: Suite) -> Iterator[str]:
    """What single experiments set for themselves, as far as it is not what the suite says."""
    for each in suite.experiments:
        words: list[str] = []
        trained = each.dense == "train"
        for name, own in (("dense_training", each.dense_training if trained else None), ("fine_tuning", each.fine_tuning)):
            words += _settings(name.replace("_", " "), own, getattr(suite, name))
        words += _settings("images that criteria see", each.sample, suite.sample)
        if each.operating_points and each.operating_points != suite.operating_points:
            words.append(f"networks are evaluated when they have lost {_points(each.operating_points)}")
        followed = _followed(suite, each)
        if followed != _followed(suite):
            listed = "; ".join(f"{schedule} {_listed(names)}" for schedule, names in followed.items())
            words.append(f"followed are only {listed}" if followed else "no criterion is followed")
        if suite.oracle is not None and not each.oracle:
            words.append("the oracle is not asked")
        if words:
            yield f"{each.model} on {each.dataset} differs: {'. '.join(word[0].upper() + word[1:] for word in words)}."


def _settings(what: str, own: Section | None, usual: Section) -> Iterator[str]:
    """The keys of a section that an experiment sets in another way than the suite, with their values in the config's words."""
    values = {name: value for name, value in own.model_dump().items() if value != getattr(usual, name)} if own else {}
    if values:
        said = _listed(f"{name.replace('_', ' ')} {_value(value)}" for name, value in values.items())
        yield f"{what}: {said}"


def _points(points: Iterable[OperatingPoint]) -> str:
    return _listed(
        _count(point.blocks, "block") if point.blocks is not None else f"{point.flops_reduction:g} % of FLOPs" for point in points
    )


def _criteria(suite: Suite) -> str:
    followed = _followed(suite)
    words = []
    for schedule, names in followed.items():
        draws = {"one-shot": suite.schedules.one_shot.draws, "iterative": suite.schedules.iterative.draws}.get(schedule)
        drawn = f" ({_count(draws, 'draw')} of random ones)" if draws and "random" in names else ""
        words.append(f"{schedule}: {_listed(names)}{drawn}")
    text = f"Criteria, {'; '.join(words)}. " if words else ""
    if followed:
        text += f"They see {suite.sample.images_per_class} training images of each class, the same for all. "
    if suite.operating_points:
        text += f"Networks are evaluated when they have lost {_points(suite.operating_points)}. "
    if suite.external.rankings:
        text += f"Rankings by rules of one's own: {_listed(suite.external.rankings)}. "
    if suite.external.networks:
        text += f"Networks delivered by rules of one's own, evaluated as they are: {_listed(suite.external.networks)}. "
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
