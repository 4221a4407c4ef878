"""The stages of the benchmark, each from files to files (``docs/data-contracts.md``), each one job of the workflow."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from prunebench import progress
from prunebench.artifacts import fingerprint, read_csv, read_json, sha256_of, write_csv, write_json
from prunebench.config import Training
from prunebench.criteria import Criterion, find_criterion, order_of_removal
from prunebench.data import Dataset, Split, SplitName, find_dataset, load_splits, normalisation, sample
from prunebench.energy_meter import EnergyMeter
from prunebench.errors import PrunebenchError
from prunebench.experiments import network_paths
from prunebench.jobs import AuditJob, ChainJob, DenseJob, FiltersJob, Job, ScoreJob, TrainingJob
from prunebench.models import find_model
from prunebench.models.files import build, load_architecture, load_network
from prunebench.models.keras_files import mean_image
from prunebench.models.modules import BlockNetwork
from prunebench.provenance import provenance
from prunebench.pruning import (
    Step,
    Workshop,
    count_for,
    device_of,
    finish,
    is_finished,
    narrow_and_tune,
    publish,
    read_ranking,
    remove_and_tune,
    write_removals,
)
from prunebench.scoring import SWEEP_NEEDS, Probe, counted_passes, needs_of, wait_for
from prunebench.surgery import Constraints, allowed, candidates
from prunebench.takeover import take_over

SCORES = ("step", "criterion", "draw", "removes", "block", "score")


def load(job: Job, split: SplitName, validation_fraction: float | None = None) -> Split:
    """A split of the job's dataset; another ``validation_fraction`` than the job's cuts the training images differently."""
    data = job.data
    return load_splits(
        find_dataset(job.dataset),
        Path(data.root),
        split,
        validation_fraction=data.validation_fraction if validation_fraction is None else validation_fraction,
        test_fraction=data.test_fraction,
        seed=job.seed,
        download=data.download,
    )


def keras_mean(job: Job) -> torch.Tensor:
    """Mean image of all official training images, or what is left where a test part was cut: what the papers' networks subtract."""
    return mean_image(load(job, "train", validation_fraction=0.0))


def workshop(job: TrainingJob, meter: EnergyMeter) -> Workshop:
    """What all trainings of a job share. The test split is not among it."""
    settings: Training
    if not isinstance(job, DenseJob):
        purpose, settings, epochs_per_block = "fine-tuning", job.fine_tuning, job.fine_tuning.epochs_per_block
        # What says which blocks go is left out: another operating point, say, leaves the steps that are finished as they are.
        relevant = {"version", "dataset", "model", "threads", "device", "data", "fine_tuning", "energy"}
    else:
        purpose, settings, epochs_per_block = "dense", job.training, 0
        relevant = set(DenseJob.model_fields)
    return Workshop(
        dataset=find_dataset(job.dataset),
        training_split=load(job, "train"),
        validation_split=load(job, "validation"),
        settings=settings,
        epochs_per_block=epochs_per_block,
        seed=job.seed_for(purpose),
        device=device_of(job.device),
        meter=meter,
        config_sha256=job.config_sha256,
        suite_seed=job.seed,
        context=fingerprint([job.model_dump(include=relevant), plugin_digests(job.dataset, job.model)]),
    )


def plugin_digests(*references: str) -> list[str]:
    """Digests of the user's own files among the references: when one is edited, what was made with it is made again."""
    return [sha256_of(Path(reference)) for reference in references if reference.endswith(".py")]


def meter(job: TrainingJob | ScoreJob) -> EnergyMeter:
    """The energy meter that a job's config asks for."""
    energy = job.energy
    return EnergyMeter(
        energy.country_iso_code, energy.carbon_intensity_g_per_kwh, energy.cpu_power_watts, device=device_of(job.device)
    )


def dense(job: DenseJob, out: Path, work: Path) -> None:
    """Train a dense network from scratch, or take one over from files."""
    dataset = find_dataset(job.dataset)
    options = {"keras_compatible": True} if job.keras_compatible else {}
    architecture = find_model(job.model).dense(job.model, dataset.input_shape, dataset.classes, **options)
    with meter(job) as counted:
        shop = workshop(job, counted)
        source = [sha256_of(path) for path in network_paths(job.dense) if path.is_file()]
        identity = fingerprint([shop.context, source])
        step = Step(work / "dense", ())
        if not is_finished(step, identity):
            if job.dense == "train":
                torch.manual_seed(job.seed_for("initial weights"))
                network = build(architecture)
                mean, std = normalisation(shop.training_split, job.data.normalisation)
                network.load_state_dict({**network.state_dict(), "normalise.mean": mean, "normalise.std": std})
                epochs = job.training.epochs
            else:
                folder = Path(job.dense)
                network, found = take_over(folder, dataset.name, architecture, lambda: keras_mean(job))
                if found.blocks != architecture.blocks:
                    raise PrunebenchError(f"{folder}: its blocks are not those of a dense {job.model}")
                architecture, epochs = found, 0
            finish(shop, step, network, architecture, "dense", epochs, identity)
    publish(step, out)


def make_probe(
    job: ScoreJob | ChainJob | AuditJob, network: torch.nn.Module, blocks: Sequence[str], needs: set[str], training_split: Split
) -> Probe:
    """A probe of a network on the sample that all criteria of a replicate share."""
    if not isinstance(network, BlockNetwork):
        raise PrunebenchError(f"model {job.model}: scoring needs a network of blocks (prunebench.models.modules.BlockNetwork)")
    dataset: Dataset = find_dataset(job.dataset)
    device = device_of(job.device)
    return Probe(
        network.to(device, memory_format=torch.channels_last),  # type: ignore[call-overload]
        blocks,
        sample(training_split, job.sample.images_per_class, job.seed_for("sample")),
        dataset.classes,
        needs=needs,
        batch_size=job.sample.batch_size,
        device=device,
    )


def score_all(
    probe: Probe, criteria: Sequence[tuple[Criterion, Sequence[int]]], job: ScoreJob | ChainJob, step: int
) -> tuple[list[tuple[Any, ...]], dict[str, dict[str, float]]]:
    """Rows of ``scores.csv`` and what each criterion cost, for criteria with the numbers of their draws.

    What a criterion combines has rows too, so that its vote can be told from the others; parts that draw have none of their own,
    since they are drawn again for each criterion that asks. The cost of a criterion is what it would be by itself: the shared
    sweep and the criteria that it combines included. A pass is one of the whole sample over all blocks.
    """
    rows: list[tuple[Any, ...]] = []
    costs: dict[str, dict[str, float]] = {}

    spent: dict[str, list[float]] = {}

    def cost_of(criterion: Criterion) -> list[float]:
        """Seconds, forward and backward passes, without the sweep."""
        if criterion.name not in spent or criterion.draws:
            parts = [cost_of(find_criterion(name)) for name in criterion.combines]
            started = time.perf_counter()
            with counted_passes(probe.network, len(probe.sample)) as passes:
                probe.scores(criterion)
                wait_for(probe.device)
            own = [time.perf_counter() - started, passes["forward"], passes["backward"]]
            spent[criterion.name] = [sum(values) for values in zip(own, *parts, strict=True)]
        return spent[criterion.name]

    for criterion, draws in with_parts(criteria):
        sweeps = bool(needs_of([criterion]) & set(SWEEP_NEEDS))
        if sweeps:
            probe.statistics  # noqa: B018 (the sweep is timed by itself)
        for draw in draws:
            probe.reseed(job.seed_for("draw", criterion.name, draw, step))
            seconds, forward, backward = cost_of(criterion)
            rows += [
                (step, criterion.name, draw, criterion.removes, block, score)
                for block, score in zip(probe.blocks, probe.scores(criterion), strict=True)
            ]
        costs[criterion.name] = {
            "seconds": seconds + (probe.sweep_seconds if sweeps else 0.0),
            "forward_passes": forward + (probe.sweep_passes if sweeps else 0.0),
            "backward_passes": backward,
        }
    return rows, costs


def with_parts(criteria: Sequence[tuple[Criterion, Sequence[int]]]) -> list[tuple[Criterion, Sequence[int]]]:
    """The criteria and, behind them, those they combine that are not among them: each once, without those that draw."""
    every = list(criteria)
    for criterion, _ in every:  # the list grows: parts may have parts
        for part in map(find_criterion, criterion.combines):
            if not part.draws and all(part.name != known.name for known, _ in every):
                every.append((part, range(1)))
    return every


def score(job: ScoreJob, network: Path, out: Path, cost: Path) -> None:
    """Score every removable block of a dense network with every criterion, on one shared sample."""
    architecture = load_architecture(network)
    criteria = [(find_criterion(reference), range(draws)) for reference, draws in job.criteria.items()]
    blocks = candidates(architecture, Constraints(**job.constraints.model_dump()))
    needs = needs_of([criterion for criterion, _ in criteria])
    probe = make_probe(job, load_network(network), blocks, needs, load(job, "train"))
    with meter(job) as counted:
        counted.lap()
        rows, costs = score_all(probe, criteria, job, step=0)
        energy = counted.lap()
    for spent in costs.values():
        # Criteria share the sweep, and most take less time than a meter resolves: each is charged the job's mean power.
        share = spent["seconds"] / energy.duration_s
        spent |= {"energy_kwh": energy.energy_kwh * share, "emissions_kg": energy.emissions_kg * share}
    write_csv(out, SCORES, rows)
    content = {"criteria": costs, "energy": energy.to_json(), "images": len(probe.sample)}
    write_json(cost, {**content, "provenance": provenance(job.config_sha256, job.seed)})


def one_shot(job: ChainJob, dense_folder: Path, rankings: Sequence[Path], out: Path, work: Path) -> None:
    """Remove blocks by a ranking of the dense network and fine-tune once, for each operating point by itself."""
    constraints = Constraints(**job.constraints.model_dump())
    start = Step(dense_folder, ())
    architecture = start.architecture
    removable = candidates(architecture, constraints)
    with meter(job) as counted:
        shop = workshop(job, counted)
        for draw, ranking in enumerate(rankings):
            ranked = read_ranking(ranking, removable, architecture.blocks)
            scores = dict(ranked)
            order = allowed([block for block, _ in ranked], architecture, constraints)
            longest = 0
            progress.at("draw", draw + 1, len(rankings))
            for number, point in enumerate(job.operating_points, start=1):
                progress.at("step", number, len(job.operating_points), point.name)
                count = count_for(point, order, architecture, architecture)
                name = f"{job.schedule} {job.criterion} draw {draw} step {count}"
                # Points that are reached by the same blocks share one network.
                step = remove_and_tune(shop, start, order[:count], work / f"draw{draw}" / f"step{count}", name)
                publish(step, out / f"draw{draw}" / point.name)
                longest = max(longest, count)
            write_removals(out / f"draw{draw}" / "removals.csv", [(block, scores[block]) for block in order[:longest]])


def filters(job: FiltersJob, networks: Sequence[Path], out: Path, work: Path) -> None:
    """Prune filters of finished one-shot networks, ``.../draw<d>/<point>`` each, and fine-tune them again."""
    with meter(job) as counted:
        shop = workshop(job, counted)
        for number, folder in enumerate(networks, start=1):
            place = Path(folder.parent.name, folder.name)
            progress.at("network", number, len(networks), str(place))
            removed = read_json(folder / "training.json", ["removed"])["removed"]
            name = f"one-shot-filters {job.criterion} {place}"
            step = narrow_and_tune(shop, Step(folder, tuple(removed)), job.flops_reduction, job.epochs, work / place, name)
            publish(step, out / place)


def iterative(job: ChainJob, dense_folder: Path, scores: Path, out: Path, work: Path) -> None:
    """Remove a few blocks, fine-tune, score again, until every operating point is reached."""
    constraints = Constraints(**job.constraints.model_dump())
    criterion = find_criterion(job.criterion)
    dense_scores = [
        row for row in read_csv(scores, ["criterion", "draw", "block", "score"]) if row["criterion"] == criterion.name
    ]
    with meter(job) as counted:
        shop = workshop(job, counted)
        for draw in range(job.draws):
            folder = work / f"draw{draw}"
            step = Step(dense_folder, ())
            dense_architecture = step.architecture
            waiting = list(job.operating_points)
            removals: list[tuple[str, object]] = []
            rows: list[tuple[Any, ...]] = []
            finished, steps = 0, 1
            progress.at("draw", draw + 1, job.draws)
            while waiting:
                progress.at("step", finished + 1, steps)
                architecture = step.architecture
                blocks = candidates(architecture, constraints)
                if not step.removed:
                    table = {row["block"]: row["score"] for row in dense_scores if row["draw"] == str(draw)}
                    try:
                        values = [float(table[block]) for block in blocks]
                    except (KeyError, ValueError) as error:
                        raise PrunebenchError(
                            f"{scores}: no score of {criterion.name}, draw {draw}: {error}; delete the file and run again"
                        ) from None
                else:
                    values = scores_of_step(job, step, blocks, criterion, draw, shop.training_split)
                key = (len(step.removed), criterion.name, draw, criterion.removes)
                rows += [(*key, block, value) for block, value in zip(blocks, values, strict=True)]
                order = allowed(order_of_removal(blocks, values, criterion.removes), architecture, constraints)
                missing = [count_for(point, order, architecture, dense_architecture) for point in waiting]
                steps = finished + steps_to(missing, job.blocks_per_step)
                progress.at("step", finished + 1, steps, waiting[missing.index(min(missing))].name)
                # A step stops short at an operating point, so that no point is passed by.
                count = min(job.blocks_per_step, *missing)
                total = len(step.removed) + count
                name = f"{job.schedule} {criterion.name} draw {draw} step {total}"
                step = remove_and_tune(shop, step, order[:count], folder / f"step{total}", name)
                finished += 1
                removals += [(block, values[blocks.index(block)]) for block in order[:count]]
                for point, needed in zip(list(waiting), missing, strict=True):
                    if needed == count:
                        publish(step, out / f"draw{draw}" / point.name)
                        waiting.remove(point)
            write_removals(out / f"draw{draw}" / "removals.csv", removals)
            write_csv(out / f"draw{draw}" / "scores.csv", SCORES, rows)


def steps_to(counts: Sequence[int], blocks_per_step: int) -> int:
    """How many steps remove so many blocks, with a stop at each of the counts."""
    gaps = [after - before for before, after in pairwise([0, *sorted(set(counts))])]
    return sum(math.ceil(gap / blocks_per_step) for gap in gaps)


def scores_of_step(
    job: ChainJob, step: Step, blocks: Sequence[str], criterion: Criterion, draw: int, training_split: Split
) -> list[float]:
    """Scores of a pruned network, kept beside it so that a resumed chain does not score it again."""
    path = step.folder / "scores.json"
    identity = fingerprint(
        [job.sample.model_dump(), blocks, criterion.name, draw, job.seed_for("sample"), job.version]
        + [sha256_of(step.folder / "weights.safetensors"), *plugin_digests(job.criterion, job.dataset, job.model)]
    )
    if path.is_file():
        try:
            content = read_json(path, ["identity", "scores"])
            if content["identity"] == identity:
                return [float(value) for value in content["scores"]]
        except PrunebenchError as error:
            print(f"{error}: scoring this step again", flush=True)
    progress.at("criterion", 1, 1, criterion.name)
    probe = make_probe(job, load_network(step.folder), blocks, needs_of([criterion]), training_split)
    probe.reseed(job.seed_for("draw", criterion.name, draw, len(step.removed)))
    values = probe.scores(criterion)
    write_json(path, {"identity": identity, "scores": values})
    return values
