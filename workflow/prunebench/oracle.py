"""The oracle: what removing each block really does, tried block by block. Criteria are held to it (``reporting/quality.py``).

It looks at one block at a time, so it says which block should go first and not which set of k blocks should go.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from prunebench import progress
from prunebench.artifacts import fingerprint, read_json, read_kept, sha256_of, write_csv, write_json
from prunebench.data import Split
from prunebench.energy_meter import Energy
from prunebench.errors import PrunebenchError
from prunebench.evaluation.accuracy import classify
from prunebench.jobs import OracleJob
from prunebench.models.files import load_network, load_weights
from prunebench.provenance import provenance
from prunebench.pruning import Step, drop_weights, network_digests, remove_and_tune
from prunebench.stages import meter, workshop
from prunebench.surgery import Constraints, candidates, remove

COLUMNS = ("block", "fine_tuning_epochs", "cross_entropy_nats", "accuracy_percent", "images")


def oracle(job: OracleJob, dense_folder: Path, out: Path, cost: Path, work: Path) -> None:
    """Remove each candidate block of a dense network by itself and look at the validation split, before and after fine-tuning.

    Every block gets the same epochs with the same images in the same order. The test split is not read. A block that was
    fine-tuned before lies in the work folder and is not trained again; when all is written, its weights go.

    Args:
        job: What to do.
        dense_folder: The network to start from.
        out: ``oracle.csv``: a row for each block and length of fine-tuning, 0 first.
        cost: ``oracle.json``: epochs, and the energy of all fine-tuning.
        work: Folder for checkpoints and finished blocks.

    Raises:
        PrunebenchError: a loss is not finite.
    """
    dense = Step(dense_folder, ())
    weights, architecture = load_weights(dense_folder), dense.architecture
    epochs = job.fine_tuning.epochs_per_block
    rows: list[Sequence[Any]] = []
    energy = Energy()
    steps = []
    with meter(job) as counted:
        shop = workshop(job, counted)
        blocks = candidates(architecture, Constraints(**job.constraints.model_dump()))
        for number, block in enumerate(tqdm(blocks, desc="oracle", unit="block"), start=1):
            progress.at("block", number, len(blocks), block)
            path = work / f"{block}.json"
            identity = fingerprint([shop.context, shop.device, epochs, block, *network_digests(dense_folder)])
            kept = read_kept(path, identity, "losses", f"looking at the network without {block} again")
            if epochs:
                # Once its losses are known, nobody needs its weights.
                step = remove_and_tune(shop, dense, [block], work / block, f"oracle {block}", with_weights=kept is None)
                training = step.folder / "training.json"
                energy = energy + Energy.from_json(read_json(training, ["energy"])["energy"], str(training))
                steps.append(step)
            if kept is None:
                network, _ = remove(weights, architecture, [block])
                losses = [[block, 0, *_look(network, shop.validation_split, shop.device, f"without {block}")]]
                if epochs:
                    where = f"without {block}, after {epochs} epochs"
                    network = load_network(step.folder)
                    losses.append([block, epochs, *_look(network, shop.validation_split, shop.device, where)])
                write_json(path, {"identity": identity, "losses": losses})
            else:
                losses = kept["losses"]
            rows += losses
    write_csv(out, COLUMNS, rows)
    spent = {"energy": energy.to_json()} if epochs else {}
    content = {"epochs": epochs, **spent, "losses_sha256": sha256_of(out)}
    write_json(cost, {**content, "provenance": provenance(job.config_sha256, job.seed)})
    drop_weights(steps)


def _look(network: nn.Module, split: Split, device: str, where: str) -> tuple[float, float, int]:
    """Mean cross-entropy (nats), accuracy (%) and number of images."""
    correct, loss = classify(network, split, torch.device(device), batch_size=500)
    if not math.isfinite(loss):
        raise PrunebenchError(f"oracle: {where}: the validation loss is {loss}; it cannot be compared with that of other blocks")
    return loss, 100.0 * correct / len(split), len(split)
