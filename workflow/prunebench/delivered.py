"""The stages of networks that are delivered from files: taking them over, and auditing them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from tqdm import tqdm

from prunebench import progress
from prunebench.artifacts import read_kept, write_csv, write_json
from prunebench.audit import AUDIT, CHOICES, Checkpoint, Transition, audit_rows, block_weights, expected_hits
from prunebench.audit import audit as follow
from prunebench.criteria import find_criterion, order_of_removal
from prunebench.data import Split, find_dataset
from prunebench.errors import PrunebenchError
from prunebench.jobs import AuditJob, DeliverJob
from prunebench.models import find_model
from prunebench.models.files import load_architecture, load_network, save_network
from prunebench.scoring import needs_of
from prunebench.scoring_progress import Progress
from prunebench.stages import keras_mean, load, make_probe, scoring_identity
from prunebench.surgery import Constraints, allowed, candidates
from prunebench.takeover import take_over


def deliver(job: DeliverJob, replicate: Path) -> None:
    """Take over networks from files, each to its folder below the replicate's. What is known of their training stays behind.

    Raises:
        PrunebenchError: a file is damaged, or a network does not fit the experiment.
    """
    dataset = find_dataset(job.dataset)
    dense = find_model(job.model).dense(job.model, dataset.input_shape, dataset.classes)
    mean = cache(lambda: keras_mean(job))
    for folder, source in tqdm(job.networks.items(), desc="deliver", unit="network"):
        network, architecture = take_over(Path(source), dataset.name, dense, mean)
        # A record that a rule of one's own left here is of another network.
        (replicate / folder / "training.json").unlink(missing_ok=True)
        save_network(replicate / folder, network, architecture)


def audit(job: AuditJob, replicate: Path, work: Path) -> None:
    """Write ``audit.csv`` for each series of delivered networks and, where criteria are asked, ``audit_choices.csv``.

    Raises:
        PrunebenchError: the networks of a series are no sequence in which each was made from the one before.
    """
    training = cache(lambda: load(job, "train"))
    dense = replicate / "dense"
    for number, (method, points) in enumerate(job.series.items(), start=1):
        progress.at("chain", number, len(job.series), method)
        folder = replicate / "delivered" / method
        places = [dense, *(folder / "draw0" / point for point in points)]
        first, *others = [
            Checkpoint(name, load_architecture(place), block_weights(load_network(place)))
            for name, place in zip(["dense", *points], places, strict=True)
        ]
        try:
            transitions = follow(first, others)
        except PrunebenchError as error:
            raise PrunebenchError(f"delivered method {method}: {error}; set `audit: false` if it is no such sequence") from None
        write_csv(folder / "audit.csv", AUDIT, audit_rows(transitions))
        if job.criteria:
            rows = []
            for step, (transition, place) in enumerate(zip(transitions, places, strict=False), start=1):
                progress.at("network", step, len(transitions), transition.before)
                rows += choices(job, step, transition, place, first, training, work)
            write_csv(folder / "audit_choices.csv", CHOICES, rows)


def choices(
    job: AuditJob, step: int, transition: Transition, place: Path, dense: Checkpoint, training: Any, work: Path
) -> list[tuple[Any, ...]]:
    """Rows of ``audit_choices.csv``: what each criterion would have removed from a network in place of what went.

    As many blocks, all by the scores of that network, under the constraints of the suite. Blocks have the dense network's names.
    """
    gone = transition.removed
    if not gone:
        return []
    constraints = Constraints(**job.constraints.model_dump())
    left = [finding.block for finding in transition.findings]
    architecture = dense.architecture.without([block for block in dense.architecture.blocks if block not in left])
    removable = candidates(architecture, constraints)
    own = {finding.block: finding.own for finding in transition.findings}
    scores = scores_of(job, place, [own[block] for block in removable], training, work) if removable else {}
    expected = expected_hits(gone, architecture, constraints)
    rows = []
    for reference in job.criteria:
        criterion = find_criterion(reference)
        order = order_of_removal(removable, scores.get(criterion.name, []), criterion.removes)
        chosen = allowed(order, architecture, constraints)[: len(gone)]
        hits = len(set(chosen) & set(gone))
        rows.append(
            (
                *(step, transition.before, transition.after, criterion.name, len(gone), len(removable)),
                *(" ".join(chosen), hits, expected),
            )
        )
    return rows


def scores_of(job: AuditJob, place: Path, blocks: Sequence[str], training: Any, work: Path) -> Mapping[str, Sequence[float]]:
    """Scores of a network's blocks by every criterion of the audit, from one sweep; kept, so that a killed job goes on from here."""
    identity = scoring_identity(job, place, blocks, job.criteria, job.criteria)
    path = work / f"{identity[:16]}.json"
    kept = read_kept(path, identity, "scores", f"scoring {place} again")
    if kept is not None:
        found: dict[str, list[float]] = kept["scores"]
        return found
    print(f"scoring {place}", flush=True)
    criteria = [find_criterion(reference) for reference in job.criteria]
    split: Split = training()
    checkpoint = Progress(work / identity[:16], identity)
    probe = make_probe(job, load_network(place), blocks, needs_of(criteria), split, checkpoint)
    scores = {criterion.name: probe.scores(criterion) for criterion in criteria}
    write_json(path, {"identity": identity, "scores": scores})
    checkpoint.clear()
    return scores
