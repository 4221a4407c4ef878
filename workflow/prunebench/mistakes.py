"""What types alone cannot see in a config: names that do not exist, points out of reach, files that are not there."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from prunebench import plugins
from prunebench.config import EvaluationItem, Experiment, Suite, refused_options
from prunebench.criteria import Criterion, find_criterion
from prunebench.data import Dataset, find_dataset
from prunebench.errors import PrunebenchError
from prunebench.evaluation import Evaluation, find_evaluation
from prunebench.experiments import SCHEDULES, Pair, chains, follows_chains, network_paths, pairs, points
from prunebench.models import find_model
from prunebench.surgery import Constraints, allowed, candidates, flops_reduction

# How operating points are called (``OperatingPoint.name``).
POINT = re.compile(r"blocks\d+|flops\d+(_\d+)?")


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
        if "one-shot-filters" in (experiment.schedules or []) and "one-shot" not in (experiment.schedules or []):
            found.append(f"{key}.schedules: one-shot-filters takes the networks of one-shot; name that too")
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
