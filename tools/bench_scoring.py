"""What scoring costs, against one plain forward pass of the same network over the same images: ``make bench``.

Prints a Markdown table. Both are timed in one process with the same threads, in turns, and each time is the fastest of the
repeats, so that other work on the machine disturbs them as little as may be. Memory is taken in a run of its own.
"""

from __future__ import annotations

import argparse
import gc
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from prunebench.artifacts import fingerprint, write_json
from prunebench.config import Sample
from prunebench.criteria import find_criterion
from prunebench.data import Dataset, ResidentImages, Split, find_dataset, load_splits, sample, to_unit
from prunebench.errors import PrunebenchError
from prunebench.metrics import METRICS
from prunebench.models import Architecture, find_model
from prunebench.models.files import build, load_architecture, load_network
from prunebench.models.modules import BlockNetwork
from prunebench.provenance import provenance
from prunebench.pruning import device_of
from prunebench.scoring import Probe, needs_of, wait_for
from prunebench.surgery import Constraints, candidates

BATCH_SIZES = (64, 128, 250, 500, 1000)
LOOKING = ("l1_norm", "bn_scale", "taylor", "block_influence", "loss_increase")
FIVE = [name for name in METRICS if not name.startswith("gaussian")]
GROUPS = {name: [name] for name in METRICS} | {"five": FIVE, "eight": list(METRICS)} | {name: [name] for name in LOOKING}


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", nargs="?", type=Path, help="folder of a saved network (default: one with random weights)")
    parser.add_argument("--model", default="resnet56", help="the model with random weights (default: resnet56)")
    parser.add_argument("--images", type=int, default=1000, help="number of images (default: 1000)")
    parser.add_argument("--dataset", help="take training images of this dataset (default: images of random pixels)")
    parser.add_argument("--root", type=Path, default=Path("data"), help="where the dataset lies (default: data)")
    parser.add_argument("--batch-size", type=int, default=Sample().batch_size, help="images in a batch of the sweep")
    only = parser.add_argument("--only", nargs="+", choices=GROUPS, default=list(GROUPS), metavar="WHAT")
    only.help = f"what to time, of {', '.join(GROUPS)} (default: all)"
    parser.add_argument("--repeats", type=int, default=3, help="the fastest of so many runs counts (default: 3)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:<number> (default: cpu)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="default: all cores")
    parser.add_argument("--out", type=Path, help="write the numbers to this JSON file too")
    chosen = parser.parse_args(argv)
    for name in ("images", "batch_size", "repeats", "threads"):
        if getattr(chosen, name) < 1:
            raise PrunebenchError(f"--{name.replace('_', '-')}: has to be at least 1")
    return chosen


def random_images(number: int, shape: tuple[int, int, int], classes: int) -> Split:
    """Random pixels; the classes take turns."""
    pixels = torch.randint(256, (number, *shape), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    content = ResidentImages(pixels, torch.arange(number) % classes)
    dataset = Dataset("random_pixels", shape, classes, 0, False, lambda folder, part, download: content, "")
    return Split(dataset, content, torch.arange(number))


def images_of(chosen: argparse.Namespace, architecture: Architecture) -> Split:
    """As many training images of a dataset, the same of each class, or images of random pixels."""
    if chosen.dataset is None:
        return random_images(chosen.images, architecture.input_shape, architecture.classes)
    dataset = find_dataset(chosen.dataset)
    if (dataset.input_shape, dataset.classes) != (architecture.input_shape, architecture.classes):
        raise PrunebenchError(
            f"--dataset {dataset.name}: has images of {dataset.input_shape} and {dataset.classes} classes, "
            f"but the network takes {architecture.input_shape} and {architecture.classes}"
        )
    train = load_splits(dataset, chosen.root, "train", validation_fraction=0)
    return sample(train, max(1, chosen.images // dataset.classes), seed=0)


@torch.no_grad()
def randomised(model: str) -> tuple[BlockNetwork, Architecture]:
    """A network with random weights, whose batch norms know the statistics of random pixels."""
    architecture = find_model(model).dense(model, (3, 32, 32), 10)
    torch.manual_seed(0)
    network = build(architecture)
    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # the plain mean over batches
    network.train()
    split = random_images(200, architecture.input_shape, 10)
    network(to_unit(split.pixels(torch.arange(len(split)))))
    return blocks_of(network.eval(), model), architecture


def blocks_of(network: torch.nn.Module, model: str) -> BlockNetwork:
    """The network, if it is one of blocks."""
    if not isinstance(network, BlockNetwork):
        raise PrunebenchError(f"model {model}: scoring needs a network of blocks (prunebench.models.modules.BlockNetwork)")
    # As the stage that scores has it.
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def plain_pass(network: BlockNetwork, split: Split, batch_size: int, device: str) -> None:
    """One forward pass over all images."""
    with torch.no_grad():
        for positions in torch.split(torch.arange(len(split)), batch_size):
            network(to_unit(split.pixels(positions).to(device)))


def score(network: BlockNetwork, blocks: Sequence[str], split: Split, names: Sequence[str], batch_size: int, device: str) -> None:
    """Score all candidates with some criteria, from nothing but the network and the images."""
    criteria = [find_criterion(name) for name in names]
    probe = Probe(network, blocks, split, split.dataset.classes, needs=needs_of(criteria), batch_size=batch_size, device=device)
    for criterion in criteria:
        probe.scores(criterion)


def fastest(tasks: dict[str, Callable[[], None]], repeats: int, device: str) -> dict[str, float]:
    """Seconds of the fastest of the repeats of each task; the tasks take turns."""
    seconds = dict.fromkeys(tasks, math.inf)
    with tqdm(total=repeats * len(tasks), disable=None, file=sys.stderr) as bar:
        for _ in range(repeats):
            for name, task in tasks.items():
                bar.set_description(name)
                started = time.perf_counter()
                task()
                wait_for(device)
                seconds[name] = min(seconds[name], time.perf_counter() - started)
                bar.update()
    return seconds


def peak_memory(task: Callable[[], None]) -> float | None:
    """MiB that a task adds to the memory of this process at its peak; None where the system is not Linux."""
    status, clear = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not clear.exists():
        return None

    def now(field: str) -> float:
        return float(status.read_text().split(f"{field}:")[1].split()[0]) / 1024

    gc.collect()
    clear.write_text("5")  # the peak is now what is in use
    before = now("VmRSS")
    task()
    return now("VmHWM") - before


def measure(chosen: argparse.Namespace) -> dict[str, Any]:
    """All numbers, as in the JSON file."""
    torch.set_num_threads(chosen.threads)
    device = device_of(chosen.device)
    if chosen.network is None:
        network, architecture = randomised(chosen.model)
        what = f"{chosen.model} with random weights"
    else:
        architecture = load_architecture(chosen.network)
        network = blocks_of(load_network(chosen.network), architecture.model)
        what = f"{architecture.model} from a file"
    network.to(device)
    split = images_of(chosen, architecture)
    blocks = candidates(architecture, Constraints())
    load = os.getloadavg()[0]

    groups = {name: GROUPS[name] for name in GROUPS if name in chosen.only}
    tasks: dict[str, Callable[[], None]] = {}
    for size in sorted({min(size, len(split)) for size in BATCH_SIZES}):
        tasks[f"plain {size}"] = partial(plain_pass, network, split, size, device)
    for group, names in groups.items():
        tasks[group] = partial(score, network, blocks, split, names, chosen.batch_size, device)
    # What is imported at its first use is imported here.
    score(network, blocks, split.subset(torch.arange(min(50, len(split)))), FIVE, chosen.batch_size, device)
    memory = peak_memory(partial(score, network, blocks, split, list(METRICS), chosen.batch_size, device))
    seconds = fastest(tasks, chosen.repeats, device)

    passes = {name.removeprefix("plain "): value for name, value in seconds.items() if name.startswith("plain ")}
    plain = min(passes.values())
    origin = provenance(fingerprint([str(value) for value in vars(chosen).values()]), 0)
    return {
        "network": what,
        "images": len(split),
        "image_source": split.dataset.name,
        "candidates": len(blocks),
        "device": device,
        "threads": chosen.threads,
        "batch_size": chosen.batch_size,
        "repeats": chosen.repeats,
        "load_average_before": load,
        "sweep_passes": Probe(network, blocks, split, split.dataset.classes).sweep_passes,
        "plain_seconds": plain,
        "plain_seconds_by_batch_size": passes,
        "peak_memory_mib": memory,
        "scoring": {name: {"seconds": seconds[name], "ratio": seconds[name] / plain} for name in groups},
        "provenance": origin,
    }


def markdown(found: dict[str, Any]) -> str:
    """The table, with what it was measured on."""
    hardware, versions = found["provenance"]["hardware"], found["provenance"]["versions"]
    batch = min(found["plain_seconds_by_batch_size"], key=found["plain_seconds_by_batch_size"].get)
    lines = [
        f"{found['network']}, {found['candidates']} candidates, {found['images']} images ({found['image_source']}), "
        f"{found['batch_size']} in a batch; fastest of {found['repeats']}.",
        f"{hardware['cpu']}, {hardware['logical_cores']} cores, {found['threads']} threads, load before the start "
        f"{found['load_average_before']:.1f}; {hardware['platform']}; Python {versions['python']}, torch {versions['torch']}, "
        f"NumPy {versions['numpy']}, SciPy {versions['scipy']}.",
        "",
        "| what | seconds | plain passes |",
        "|---|---:|---:|",
        f"| plain forward pass, batches of {batch} (the fastest) | {found['plain_seconds']:.2f} | 1.0 |",
    ]
    titles = {"five": "the five metrics that are not Gaussian", "eight": "all eight metrics"}
    for name, cost in found["scoring"].items():
        lines.append(f"| {titles.get(name, f'`{name}`')} | {cost['seconds']:.2f} | {cost['ratio']:.1f} |")
    lines += [
        "",
        f"By the number of blocks passed, the sweep over the silenced blocks is {found['sweep_passes']:.1f} plain passes.",
    ]
    if found["peak_memory_mib"] is not None:
        lines[-1] += f" All eight metrics together add {found['peak_memory_mib']:.0f} MiB to the network and the images."
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and write the file."""
    try:
        chosen = arguments(argv)
        found = measure(chosen)
    except PrunebenchError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(markdown(found))
    if chosen.out is not None:
        write_json(chosen.out, found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
