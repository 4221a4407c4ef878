"""The stages that look at finished networks: ``evaluate`` on the test split, ``measure`` on the machine."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from tqdm import tqdm

from prunebench import progress
from prunebench.artifacts import fingerprint, read_json, sha256_of, write_json, write_text
from prunebench.data import find_dataset
from prunebench.errors import PrunebenchError
from prunebench.evaluation import Evaluation, Subject, device_name, find_evaluation
from prunebench.jobs import Evaluated, EvaluateJob
from prunebench.models import Architecture
from prunebench.models.files import load_architecture, load_network, load_weights
from prunebench.provenance import provenance
from prunebench.pruning import device_of
from prunebench.stages import load, plugin_digests
from prunebench.surgery import can_be_silenced, remove


def is_delivered(folder: Path) -> bool:
    """Whether a network's folder, .../<schedule>/<criterion>/draw<d>/<point>, is one of a network from outside."""
    return folder.parts[-4:-3] == ("delivered",)


def evaluate(job: EvaluateJob, replicate: Path, work: Path, cache: Path) -> None:
    """Evaluate networks of one replicate: one JSON for each network and evaluation, in the network's folder.

    Args:
        job: What to evaluate.
        replicate: Folder of the replicate; the dense network is in ``dense/``.
        work: Folder for results that are finished: a job that is started again takes them from there.
        cache: Folder for what is the same for all networks on the dataset.
    """
    dense_folder = replicate / "dense"
    device = torch.device(device_of(job.device))
    dense_network = load_network(dense_folder).to(device)
    dense_weights, dense_architecture = load_weights(dense_folder), load_architecture(dense_folder)
    test = _once(lambda: load(job, "test"))
    known: dict[tuple[str, str], dict[str, Any]] = {}
    bar = tqdm(total=len(job.folders()) * len(job.evaluations), desc="evaluate", unit="evaluation")
    for number, folder in enumerate(job.folders(), start=1):
        progress.at("network", number, len(job.folders()), folder)
        place = replicate / folder
        architecture = load_architecture(place)
        # A network whose results are all there is not loaded.
        network = _once(partial(_network, place, device))
        unfinetuned = _once(partial(_unfinetuned, place, architecture, dense_weights, dense_architecture, device))
        for position, item in enumerate(job.evaluations, start=1):
            evaluation = find_evaluation(item.evaluation)
            progress.at("evaluation", position, len(job.evaluations), evaluation.name)
            bar.set_postfix_str(f"{evaluation.name} of {folder}")
            identity = _identity(job, item, evaluation, place, dense_folder, device)
            kept = work / folder / f"{evaluation.name}.json"
            content = _finished(kept, identity)
            key = (evaluation.name, fingerprint(architecture.to_json()))
            if content is None and not evaluation.weights_matter:
                content = known.get(key)
            if content is None:
                subject = Subject(
                    network=network(),
                    batch_size=100 if device.type == "cpu" else 500,
                    dense=dense_network,
                    unfinetuned=unfinetuned(),
                    test=test,
                    work=_checkpoints(work / folder / evaluation.name, identity),
                    cache=cache,
                    **_of_job(job, item, evaluation, device),
                )
                content = _run(evaluation, subject, job)
            known[key] = content
            write_json(kept, {"identity": identity, **content})
            write_json(place / "evaluations" / f"{evaluation.name}.json", content)
            bar.update()
    bar.close()


def _network(place: Path, device: torch.device) -> torch.nn.Module:
    # On a CPU convolutions of channels that lie together, in batches that fit its cache, take half the time.
    return load_network(place).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def measure(job: EvaluateJob, experiment: Path, out: Path, work: Path) -> None:
    """Measure latency, energy and the like, once for each distinct architecture among the networks of all replicates.

    Args:
        job: What to measure.
        experiment: Folder of the experiment.
        out: Folder of the results, one JSON for each evaluation.
        work: Folder for results that are finished: a job that is started again on the same machine takes them from there. They go
            when all is written, so that who deletes a result and runs again measures again.
    """
    device = torch.device(device_of(job.device))
    test = _once(lambda: load(job, "test"))
    distinct: dict[str, Path] = {}
    for number in range(job.replicates):
        for folder in job.folders():
            place = experiment / f"replicate{number}" / folder
            distinct.setdefault(load_architecture(place).identity, place)
    # All dense networks of an experiment have one architecture.
    reference = experiment / "replicate0" / "dense"
    dense = load_architecture(reference).identity
    dense_network = load_network(reference).to(device)
    for position, item in enumerate(job.evaluations, start=1):
        evaluation = find_evaluation(item.evaluation)
        progress.at("evaluation", position, len(job.evaluations), evaluation.name)
        rows = []
        bar = tqdm(sorted(distinct.items()), desc=evaluation.name, unit="architecture")
        for number, (architecture, place) in enumerate(bar, start=1):
            progress.at("architecture", number, len(distinct), architecture)
            identity = _identity(job, item, evaluation, place, reference, device)
            kept = work / evaluation.name / f"{architecture}.json"
            content = _finished(kept, identity)
            if content is None:
                subject = Subject(
                    network=load_network(place).to(device),
                    dense=None if architecture == dense else dense_network,
                    test=test,
                    work=_checkpoints(work / evaluation.name / architecture, identity),
                    **_of_job(job, item, evaluation, device),
                )
                content = _run(evaluation, subject, job)
                write_json(kept, {"identity": identity, **content})
            found = {key: content[key] for key in ("values", "labels", "provenance")}
            rows.append({"architecture_id": architecture, "blocks": list(load_architecture(place).blocks), **found})
        content = {"evaluation": evaluation.name, "architectures": rows, "provenance": provenance(job.config_sha256, job.seed)}
        write_json(out / f"{evaluation.name}.json", content)
    # Not before the last is written: outputs of a job that fails are deleted, all of them.
    for item in job.evaluations:
        shutil.rmtree(work / find_evaluation(item.evaluation).name, ignore_errors=True)


T = TypeVar("T")


def _once(make: Callable[[], T]) -> Callable[[], T]:
    """A function that makes something the first time that it is asked."""
    return cache(make)


def _of_job(job: EvaluateJob, item: Evaluated, evaluation: Evaluation, device: torch.device) -> dict[str, Any]:
    """What a subject has from its job, whatever the network."""
    dataset = find_dataset(job.dataset)
    return {
        "input_shape": dataset.input_shape,
        "classes": dataset.classes,
        "device": device,
        "options": item.options,
        "accounting": job.energy,
        "dataset": dataset.name,
        "data_root": Path(job.data.root),
        "seed": job.seed_for("evaluation", evaluation.name),
    }


def _identity(job: EvaluateJob, item: Evaluated, evaluation: Evaluation, place: Path, dense: Path, device: torch.device) -> str:
    """What the result of an evaluation depends on: a finished one with another identity is made again."""
    context = job.model_dump(exclude={"evaluations", "chains", "with_dense", "replicates", "files"})
    if evaluation.per == "network":
        found = [sha256_of(folder / name) for folder in (place, dense) for name in ("architecture.json", "weights.safetensors")]
    else:
        # What follows from the architecture is measured of any network that has it; on another machine it is another number.
        found = [load_architecture(folder).identity for folder in (place, dense)] + [device_name(device), platform.node()]
    return fingerprint([context, item.model_dump(), found, plugin_digests(item.evaluation, job.dataset, job.model)])


def _checkpoints(folder: Path, identity: str) -> Path:
    """The folder for checkpoints, rid of those of another identity, which a job that was killed may have left."""
    owner = _owner(folder)
    if folder.exists() and not (owner.is_file() and owner.read_text(encoding="utf-8") == identity):
        shutil.rmtree(folder)
    write_text(owner, identity)
    return folder


def _owner(folder: Path) -> Path:
    """The file beside a folder of checkpoints that says what they belong to."""
    return folder.with_name(f"{folder.name}.identity")


def _finished(path: Path, identity: str) -> dict[str, Any] | None:
    """A result that an earlier attempt finished."""
    if not path.is_file():
        return None
    try:
        content = read_json(path, ["identity", "evaluation", "values", "labels", "provenance"])
    except PrunebenchError as error:
        print(f"{error}: evaluating again", flush=True)
        return None
    if content.pop("identity") != identity:
        return None
    return {key: value for key, value in content.items() if key != "schema"}


def _run(evaluation: Evaluation, subject: Subject, job: EvaluateJob) -> dict[str, Any]:
    """The result of an evaluation, as in its JSON. Its checkpoints go."""
    found = evaluation.measure(subject)
    if subject.work is not None:
        if subject.work.is_dir():
            shutil.rmtree(subject.work)
        _owner(subject.work).unlink(missing_ok=True)
    return {
        "evaluation": evaluation.name,
        "values": dict(found.values),
        "labels": dict(found.labels),
        "provenance": provenance(job.config_sha256, job.seed),
    }


def _unfinetuned(
    place: Path,
    architecture: Architecture,
    dense_weights: Mapping[str, torch.Tensor],
    dense: Architecture,
    device: torch.device,
) -> torch.nn.Module | None:
    """The dense network's weights in a pruned network's architecture, if blocks are all that it lost."""
    removed = [block for block in dense.blocks if block not in architecture.blocks]
    # A network that came from outside may have lost more than whole blocks, so that the dense weights do not fit it.
    if is_delivered(place) or not removed or architecture != dense.without(removed) or not can_be_silenced(dense, removed):
        return None
    return remove(dense_weights, dense, removed)[0].to(device)
