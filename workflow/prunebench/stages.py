"""The stages of the benchmark, each from files to files (``docs/data-contracts.md``), each one job of the workflow."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from prunebench import plugins, progress
from prunebench.artifacts import fingerprint, read_csv, read_json, read_kept, sha256_of, write_csv, write_json
from prunebench.config import Training
from prunebench.consistency import check_vouched
from prunebench.criteria import Criterion, find_criterion, order_of_removal, with_combined
from prunebench.data import Dataset, Split, SplitName, find_dataset, load_splits, normalisation, sample
from prunebench.energy_meter import Energy, EnergyMeter
from prunebench.errors import CorruptFile, PrunebenchError
from prunebench.experiments import network_paths
from prunebench.jobs import AuditJob, ChainJob, DenseJob, FiltersJob, Job, ScoreJob, TrainingJob
from prunebench.models import find_model
from prunebench.models.files import build, load_architecture, load_network
from prunebench.models.keras_files import mean_image
from prunebench.models.modules import BlockNetwork
from prunebench.provenance import provenance
from prunebench.pruning import (
    Step,
    WeightsGone,
    Workshop,
    count_for,
    device_of,
    drop_weights,
    finish,
    is_finished,
    make_again,
    narrow_and_tune,
    network_digests,
    publish,
    read_ranking,
    remove_and_tune,
    require_weights,
    write_removals,
)
from prunebench.scoring import SWEEP_NEEDS, Probe, needs_of
from prunebench.scoring_progress import Progress
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
    job: ScoreJob | ChainJob | AuditJob,
    network: torch.nn.Module,
    blocks: Sequence[str],
    needs: set[str],
    training_split: Split,
    progress: Progress | None = None,
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
        progress=progress,
    )


def scoring_identity(
    job: ScoreJob | ChainJob | AuditJob, network: Path, blocks: Sequence[str], references: Sequence[str], *others: object
) -> str:
    """What the scores of a network's blocks depend on, as a digest: what was kept under another one is not used.

    The criteria count for what they need, and for their code and that of what they combine where it is the user's.
    """
    settings = job.model_dump(include={"version", "dataset", "model", "threads", "data", "sample"})
    needs = needs_of([find_criterion(reference) for reference in references])
    return fingerprint(
        [settings, device_of(job.device), job.seed_for("sample"), list(blocks), sorted(needs), *others]
        + [*network_digests(network), *plugin_digests(job.dataset, job.model, *with_combined(references))]
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

    def cost_of(criterion: Criterion) -> list[float]:
        """Seconds, forward and backward passes, without the sweep."""
        own = probe.finished(criterion)
        parts = [cost_of(find_criterion(name)) for name in criterion.combines]
        return [sum(values) for values in zip([own.seconds, own.forward, own.backward], *parts, strict=True)]

    every = with_parts(criteria)
    for number, (criterion, draws) in enumerate(every, start=1):
        progress.at("criterion", number, len(every), criterion.name)
        for draw in draws:
            probe.reseed(job.seed_for("draw", criterion.name, draw, step))
            rows += [
                (step, criterion.name, draw, criterion.removes, block, score)
                for block, score in zip(probe.blocks, probe.scores(criterion), strict=True)
            ]
        seconds, forward, backward = cost_of(criterion)
        sweeps = bool(needs_of([criterion]) & set(SWEEP_NEEDS))
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


def score(job: ScoreJob, network: Path, out: Path, cost: Path, work: Path | None = None) -> None:
    """Score every removable block of a dense network with every criterion, on one shared sample.

    Args:
        job: What to do.
        network: Folder of the network.
        out: ``scores.csv``.
        cost: ``scoring.json``.
        work: Folder for what is done, so that a killed job goes on from there; None keeps nothing.
    """
    architecture = load_architecture(network)
    criteria = [(find_criterion(reference), range(draws)) for reference, draws in job.criteria.items()]
    blocks = candidates(architecture, Constraints(**job.constraints.model_dump()))
    needs = needs_of([criterion for criterion, _ in criteria])
    loaded, split = load_network(network), load(job, "train")
    with meter(job) as counted:
        counted.lap()
        spent = Energy()

        def energy() -> Energy:
            nonlocal spent
            spent = spent + counted.lap()
            return spent

        identity = scoring_identity(job, network, blocks, list(job.criteria), job.energy.model_dump())
        checkpoint = Progress(work / "scoring", identity, energy) if work else None
        probe = make_probe(job, loaded, blocks, needs, split, checkpoint)
        rows, costs = score_all(probe, criteria, job, step=0)
        total = checkpoint.earlier + energy() if checkpoint else energy()
    for each in costs.values():
        # Criteria share the sweep, and most take less time than a meter resolves: each is charged the job's mean power.
        share = each["seconds"] / total.duration_s
        each |= {"energy_kwh": total.energy_kwh * share, "emissions_kg": total.emissions_kg * share}
    write_csv(out, SCORES, rows)
    content = {"criteria": costs, "energy": total.to_json(), "images": len(probe.sample), "scores_sha256": sha256_of(out)}
    write_json(cost, {**content, "provenance": provenance(job.config_sha256, job.seed)})
    if checkpoint:
        checkpoint.clear()


def one_shot(job: ChainJob, dense_folder: Path, rankings: Sequence[Path], out: Path, work: Path) -> None:
    """Remove blocks by a ranking of the dense network and fine-tune once, for each operating point by itself."""
    constraints = Constraints(**job.constraints.model_dump())
    start = Step(dense_folder, ())
    architecture = start.architecture
    removable = candidates(architecture, constraints)
    ours = job.criterion.endswith(".py") or job.criterion in plugins.builtin(Criterion, "criteria")
    with meter(job) as counted:
        shop = workshop(job, counted)
        for draw, ranking in enumerate(rankings):
            ranked = read_ranking(ranking, removable, architecture.blocks, ours)
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
    """Remove a few blocks, fine-tune, score again, until every operating point is reached.

    When all that a draw has to write is written, the weights of steps that are no operating point go, and so do steps of other
    configurations. A chain that runs again needs them only where it is to write something else.
    """
    criterion = find_criterion(job.criterion)
    blocks = candidates(load_architecture(dense_folder), Constraints(**job.constraints.model_dump()))
    first = [dense_scores(scores, criterion.name, draw, blocks) for draw in range(job.draws)]
    with meter(job) as counted:
        shop = workshop(job, counted)
        for draw, values in enumerate(first):
            folder = work / f"draw{draw}"
            while True:
                try:
                    steps, points = follow(job, shop, draw, dense_folder, values, out / folder.name, folder)
                    break
                except WeightsGone as gone:
                    print(gone, flush=True)
                    make_again(shop, gone.step)
            drop_weights(step for step in steps if step not in points)
            used = {step.folder for step in steps}
            for stale in [path for path in folder.glob("step*") if path not in used]:
                shutil.rmtree(stale)
    for stale in [path for path in work.glob("draw*") if path.name not in {f"draw{draw}" for draw in range(job.draws)}]:
        shutil.rmtree(stale)


def dense_scores(path: Path, criterion: str, draw: int, blocks: Sequence[str]) -> list[float]:
    """Scores of the dense network's candidate blocks by one draw of a criterion, from ``scores.csv``.

    Raises:
        CorruptFile: a block has none, or one that is no number.
    """
    rows = read_csv(path, ["criterion", "draw", "block", "score"])
    check_vouched(path)
    table = {row["block"]: row["score"] for row in rows if (row["criterion"], row["draw"]) == (criterion, str(draw))}
    try:
        return [float(table[block]) for block in blocks]
    except (KeyError, ValueError) as error:
        raise CorruptFile(path, f"no score of {criterion}, draw {draw}: {error}") from None


def follow(
    job: ChainJob,
    shop: Workshop,
    draw: int,
    dense_folder: Path,
    first: Sequence[float],
    out: Path,
    folder: Path,
) -> tuple[list[Step], list[Step]]:
    """Follow one draw of an iterative chain to all its operating points, and write what it has to.

    Args:
        job: What to do.
        shop: What all steps of the job share.
        draw: Its number.
        dense_folder: The network to start from.
        first: Scores of its candidate blocks.
        out: Folder of the draw's results.
        folder: Work folder of the draw.

    Returns:
        All steps, and those that are operating points.

    Raises:
        WeightsGone: deleted weights of a step are needed.
    """
    constraints = Constraints(**job.constraints.model_dump())
    criterion = find_criterion(job.criterion)
    step = Step(dense_folder, ())
    dense_architecture = step.architecture
    waiting = list(job.operating_points)
    steps, points = list[Step](), list[Step]()
    removals: list[tuple[str, object]] = []
    rows: list[tuple[Any, ...]] = []
    ahead = 1
    progress.at("draw", draw + 1, job.draws)
    while waiting:
        progress.at("step", len(steps) + 1, len(steps) + ahead)
        architecture = step.architecture
        blocks = candidates(architecture, constraints)
        split = shop.training_split
        values = scores_of_step(job, step, blocks, criterion, draw, split) if step.removed else list(first)
        key = (len(step.removed), criterion.name, draw, criterion.removes)
        rows += [(*key, block, value) for block, value in zip(blocks, values, strict=True)]
        order = allowed(order_of_removal(blocks, values, criterion.removes), architecture, constraints)
        missing = [count_for(point, order, architecture, dense_architecture) for point in waiting]
        ahead = steps_to(missing, job.blocks_per_step)
        progress.at("step", len(steps) + 1, len(steps) + ahead, waiting[missing.index(min(missing))].name)
        # A step stops short at an operating point, so that no point is passed by.
        count = min(job.blocks_per_step, *missing)
        total = len(step.removed) + count
        name = f"{job.schedule} {criterion.name} draw {draw} step {total}"
        step = remove_and_tune(shop, step, order[:count], folder / f"step{total}", name, with_weights=False)
        steps.append(step)
        ahead -= 1
        removals += [(block, values[blocks.index(block)]) for block in order[:count]]
        for point, needed in zip(list(waiting), missing, strict=True):
            if needed == count:
                publish(step, out / point.name)
                points.append(step)
                waiting.remove(point)
    write_removals(out / "removals.csv", removals)
    write_csv(out / "scores.csv", SCORES, rows)
    return steps, points


def steps_to(counts: Sequence[int], blocks_per_step: int) -> int:
    """How many steps remove so many blocks, with a stop at each of the counts."""
    gaps = [after - before for before, after in pairwise([0, *sorted(set(counts))])]
    return sum(math.ceil(gap / blocks_per_step) for gap in gaps)


def scores_of_step(
    job: ChainJob, step: Step, blocks: Sequence[str], criterion: Criterion, draw: int, training_split: Split
) -> list[float]:
    """Scores of a pruned network, kept beside it so that a resumed chain does not score it again."""
    path = step.folder / "scores.json"
    identity = scoring_identity(job, step.folder, blocks, [job.criterion], draw)
    kept = read_kept(path, identity, "scores", "scoring this step again")
    if kept is not None:
        return [float(value) for value in kept["scores"]]
    require_weights(step)
    progress.at("criterion", 1, 1, criterion.name)
    checkpoint = Progress(step.folder / "scoring", identity)
    probe = make_probe(job, load_network(step.folder), blocks, needs_of([criterion]), training_split, checkpoint)
    probe.reseed(job.seed_for("draw", criterion.name, draw, len(step.removed)))
    values = probe.scores(criterion)
    write_json(path, {"identity": identity, "scores": values})
    checkpoint.clear()
    return values
