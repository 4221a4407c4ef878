"""The workflow as a whole, on a suite of seconds: what users of `snakemake` see."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from shared import REPOSITORY

TABLES = ("results", "scores", "removals", "oracle", "quality", "accuracy", "versus_random", "versus_dense", "headline")
TABLES += ("robustness", "calibration", "shortcut", "dense_networks")


def command(folder: Path, *options: str) -> list[str]:
    start = [sys.executable, "-m", "snakemake", "--snakefile", str(REPOSITORY / "Snakefile"), "--directory", str(folder)]
    return [*start, "--configfile", str(REPOSITORY / "tests/suites/tiny.yaml"), "--cores", "2", "--nolock", *options]


def environment() -> dict[str, str]:
    # As when the virtual environment is active: rules call `python`.
    return {**os.environ, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}


def run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(folder, "--rerun-incomplete", "--logger", "prunebench", *options),
        env=environment(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=600,
        check=False,
    )


def make_folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "docs").symlink_to(REPOSITORY / "docs")
    return path


def tables(folder: Path) -> dict[str, bytes]:
    return {name: (folder / "results/tiny/tables" / f"{name}.csv").read_bytes() for name in TABLES}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which the tiny suite has run to its end."""
    folder = make_folder(tmp_path_factory.mktemp("tiny"))
    done = run(folder)
    assert done.returncode == 0, done.stdout[-3000:]
    yield folder


def test_every_kind_of_chain_reaches_the_tables(finished: Path) -> None:
    results = pd.read_csv(finished / "results/tiny/tables/results.csv")
    chains = set(results[["schedule", "criterion"]].drop_duplicates().itertuples(index=False, name=None))
    one_shot = {("one-shot", name) for name in ("cka", "random", "weight_norm", "odd_first")}
    others = {("dense", "dense"), ("iterative", "first"), ("one-shot-filters", "random"), ("delivered", "slim")}
    assert chains == others | one_shot
    accuracy = results[(results["quantity"] == "accuracy_percent") & (results["dataset"] == "digits")]
    # Two replicates of: dense, three chains and an outsider's network at two points, random twice, and again with fewer filters.
    assert len(accuracy) == 2 * (1 + 2 * (3 + 1 + 1 + 2 + 2))
    assert accuracy["value"].between(0, 100).all()
    # With a planted mark: dense, and random twice at the one point of that experiment. AutoAttack: dense and one network at two points.
    assert len(results[(results["quantity"] == "accuracy_percent") & (results["dataset"] == "digits_shortcut")]) == 2 * (1 + 2)
    assert len(results[(results["evaluation"] == "autoattack") & (results["quantity"] == "images")]) == 1 + 2


def test_the_same_blocks_are_removed_at_the_same_cost(finished: Path) -> None:
    results = pd.read_csv(finished / "results/tiny/tables/results.csv")
    reductions = results[results["quantity"] == "flops_reduction_percent"]
    blocks = reductions[reductions["schedule"].isin(["one-shot", "iterative"])]
    # ResNet-20 loses the same share of its MACs with each block; 20 % takes two of them.
    assert blocks.groupby("operating_point")["value"].nunique().to_dict() == {"blocks1": 1, "flops20": 1}
    assert (reductions[reductions["operating_point"] == "flops20"]["value"] >= 19.99).all()
    epochs = results[(results["quantity"] == "epochs") & (results["blocks_removed"] > 0)]
    assert (epochs["value"] == epochs["blocks_removed"] + (epochs["schedule"] == "one-shot-filters")).all()
    # Filters take 20 % of what is left, or a little more.
    filters = reductions[reductions["schedule"] == "one-shot-filters"].groupby("operating_point")["value"].max()
    left = blocks.groupby("operating_point")["value"].max()
    assert ((100 - filters) / (100 - left)).between(0.75, 0.8001).all()


def test_ranking_of_a_rule_of_ones_own_decides(finished: Path) -> None:
    removals = pd.read_csv(finished / "results/tiny/tables/removals.csv")
    mine = removals[(removals["chain_criterion"] == "odd_first") & (removals["replicate"] == 0)]
    # Candidates in order of the network are block1 and block2 of each stage; every second one goes first.
    assert list(mine["block"]) == ["stage1.block2", "stage2.block2"]


def test_criteria_are_held_to_the_oracle_whether_they_are_followed_or_not(finished: Path) -> None:
    losses = pd.read_csv(finished / "results/tiny/tables/oracle.csv")
    # Two replicates, six candidates, without fine-tuning and after one epoch.
    assert len(losses) == 2 * 6 * 2 and not losses.duplicated(["replicate", "block", "fine_tuning_epochs"]).any()
    found = pd.read_csv(finished / "results/tiny/tables/quality.csv")
    names = ["cka", "l1_norm", "weight_norm", "random", "first"]
    assert found["criterion"].tolist() == [*names, *names] and found["fine_tuning_epochs"].tolist() == [0] * 5 + [1] * 5
    assert found["tau"].between(-1, 1).all() and (found["regret_nats"] >= 0).all()
    assert (finished / "results/tiny/figures/quality_digits_resnet20.pdf").is_file()
    # No consensus is scored here.
    assert not (finished / "results/tiny/tables/consensus_parts.csv").exists()


def test_a_second_run_has_nothing_to_do(finished: Path) -> None:
    again = run(finished)
    assert again.returncode == 0
    assert "Nothing to be done" in again.stdout


def test_a_deleted_file_is_made_again_by_its_job_alone(finished: Path) -> None:
    before = tables(finished)
    chain = finished / "results/tiny/digits/resnet20/replicate1/iterative/first/draw0"
    weights = (chain / "flops20/weights.safetensors").read_bytes()
    (chain / "flops20/weights.safetensors").unlink()
    again = run(finished)
    assert again.returncode == 0, again.stdout[-3000:]
    assert (chain / "flops20/weights.safetensors").read_bytes() == weights
    assert tables(finished) == before
    assert "Iterative by first" in again.stdout
    assert "One-shot" not in again.stdout and "Training the dense" not in again.stdout
    log = (finished / "logs/tiny/digits/resnet20/replicate1/iterative/first.log").read_text()
    assert log.count("done before") == 2, "finished steps are not trained again"


def test_truncated_results_are_named_set_aside_and_made_again(finished: Path) -> None:
    before = tables(finished)
    experiment = finished / "results/tiny/digits/resnet20"
    weights, scores = experiment / "replicate0/dense/weights.safetensors", experiment / "replicate1/dense/scores.csv"
    whole = {path: path.read_bytes() for path in (weights, scores)}
    with weights.open("r+b") as handle:
        handle.truncate(5000)
    # Between two rows, where a table still reads well.
    scores.write_bytes(whole[scores][: whole[scores].rstrip().rindex(b"\n") + 1])
    mended = run(finished, "--keep-going")
    said = mended.stdout
    assert mended.returncode != 0
    # Snakemake may end as soon as it misses the first, before the second is read.
    for _ in range(3):
        if mended.returncode != 0:
            mended = run(finished, "--keep-going")
            said += mended.stdout
    assert mended.returncode == 0, said[-3000:]
    for path in whole:
        assert f"dense/{path.name}: corrupt" in said and f"set aside as {path.name}.corrupt" in said
        path.with_name(f"{path.name}.corrupt").unlink()
    assert {path: path.read_bytes() for path in whole} == whole
    assert tables(finished) == before


@pytest.mark.slow
def test_killed_runs_end_with_the_same_bytes(finished: Path, tmp_path: Path) -> None:
    """SIGKILL at random moments, to Snakemake alone or to all its processes, then the same command again."""
    folder = make_folder(tmp_path / "killed")
    moments = random.Random(0)
    for attempt in range(4):
        process = subprocess.Popen(
            command(folder, "--rerun-incomplete", "--quiet", "all"),
            env=environment(),
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(moments.uniform(5, 15))
        os.killpg(process.pid, signal.SIGKILL) if attempt % 2 else process.kill()
        process.wait()
        if attempt % 2 == 0:
            # Jobs of a killed Snakemake live on for a while; `make demo` waits for them by its lock, here we end them.
            os.killpg(process.pid, signal.SIGKILL)
    done = run(folder)
    assert done.returncode == 0, done.stdout[-3000:]
    assert tables(folder) == tables(finished)
