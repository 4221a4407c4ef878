"""A scoring that is killed, wherever, ends with the scores of one that is not."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from helpers import OneKwh, architecture, random_network, random_split, score_job
from prunebench import scoring, scoring_progress, stages
from prunebench.criteria import Criterion
from prunebench.energy_meter import Energy
from prunebench.models.files import save_network
from prunebench.scoring import Probe
from prunebench.scoring_progress import Progress
from prunebench.surgery import Constraints, candidates

Scores = dict[str, list[float]]
# Of each thing that the sweep collects one, and some that look for themselves.
NAMES = ["cka", "gaussian_stochastic_2", "wasserstein", "loss_increase", "taylor", "l1_norm"]


class Killed(Exception):
    """In place of a signal."""


@pytest.fixture
def keep_always(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring_progress, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(scoring_progress, "SHARE", math.inf)


def probe(progress: Progress | None = None) -> Probe:
    """Forty images in seven batches."""
    dense = architecture()
    return Probe(
        random_network(dense), candidates(dense, Constraints()), random_split(40), 10, batch_size=6, seed=5, progress=progress
    )


def die_at(call: int, function: Callable[..., Any], seen: list[int] | None = None) -> Callable[..., Any]:
    """The function, until it is called for the ``call``-th time."""
    calls = [] if seen is None else seen

    def dying(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == call:
            raise Killed
        return function(*arguments, **options)

    return dying


def all_scores(one: Probe) -> Scores:
    return {name: one.scores(name) for name in NAMES}


@pytest.fixture(scope="module")
def expected() -> Scores:
    return all_scores(probe())


@pytest.mark.usefixtures("keep_always")
@pytest.mark.parametrize("batches", [1, 4, 6])
def test_a_sweep_goes_on_from_its_last_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: Scores, batches: int
) -> None:
    real = scoring.silenced_features
    # Twice: what was restored is kept again.
    for more in (1, 2):
        with monkeypatch.context() as patch:
            patch.setattr(scoring, "silenced_features", die_at(batches + 1 if more == 1 else 2, real))
            if batches + more > 7:
                break
            with pytest.raises(Killed):
                all_scores(probe(Progress(tmp_path, "mine")))
    seen: list[int] = []
    monkeypatch.setattr(scoring, "silenced_features", die_at(100, real, seen))
    assert all_scores(probe(Progress(tmp_path, "mine"))) == expected
    assert len(seen) == 7 - batches - (1 if batches < 6 else 0)


@pytest.mark.usefixtures("keep_always")
@pytest.mark.parametrize("finished", [1, 3, 5])
def test_finished_criteria_are_not_scored_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: Scores, finished: int
) -> None:
    real = scoring.checked_scores
    with monkeypatch.context() as patch:
        patch.setattr(scoring, "checked_scores", die_at(finished + 1, real))
        with pytest.raises(Killed):
            all_scores(probe(Progress(tmp_path, "mine")))
    seen: list[int] = []
    monkeypatch.setattr(scoring, "checked_scores", die_at(100, real, seen))
    assert all_scores(probe(Progress(tmp_path, "mine"))) == expected
    assert len(seen) == len(NAMES) - finished


@pytest.mark.usefixtures("keep_always")
def test_a_criterion_that_draws_after_one_that_was_kept_draws_the_same(tmp_path: Path) -> None:
    """One draws behind the part that it combines: both take numbers from one generator."""
    kept: dict[int, list[float]] = {}
    for attempt, progress in enumerate((None, Progress(tmp_path, "mine"), "again")):
        one = probe(Progress(tmp_path, "mine") if progress == "again" else progress)  # type: ignore[arg-type]
        one.reseed(3)

        def score(probe: Probe, dies: bool = attempt == 1) -> Sequence[float]:
            drawn = probe.scores("random")
            if dies:
                raise Killed
            return [a + b for a, b in zip(drawn, probe.random.random(len(drawn)), strict=True)]

        both = Criterion("both", score, combines=("random",), draws=True)
        if attempt == 1:
            with pytest.raises(Killed):
                one.scores(both)
        else:
            kept[attempt] = one.scores(both)
    assert kept[0] == kept[2]


@pytest.mark.usefixtures("keep_always")
@pytest.mark.parametrize("file", ["sweep.safetensors", "values2.safetensors", "finished.json"])
@pytest.mark.parametrize("damage", ["truncated", "flipped", "deleted", "foreign"])
def test_what_is_damaged_or_foreign_is_named_and_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], expected: Scores, file: str, damage: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(scoring, "checked_scores", die_at(3, scoring.checked_scores))
        with pytest.raises(Killed):
            all_scores(probe(Progress(tmp_path, "mine")))
    path = tmp_path / file
    whole = path.read_bytes()
    if damage == "truncated":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "flipped":
        path.write_bytes(
            whole[:-60] + bytes([whole[-60] ^ 1]) + whole[-59:] if file != "finished.json" else whole.replace(b'"', b"'", 1)
        )
    elif damage == "deleted":
        path.unlink()
    # Losses of another network would pass unnoticed otherwise.
    identity = "another" if damage == "foreign" else "mine"
    capsys.readouterr()
    assert all_scores(probe(Progress(tmp_path, identity))) == expected
    if damage != "deleted":
        assert str(path) in capsys.readouterr().out or (damage, file) == ("foreign", "values2.safetensors")


def test_quick_scorings_keep_nothing(tmp_path: Path) -> None:
    """Below ten seconds a checkpoint would cost more than it saves."""
    all_scores(probe(Progress(tmp_path / "scoring", "mine")))
    assert not (tmp_path / "scoring").exists()


def test_large_states_are_kept_less_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(scoring_progress.time, "monotonic", lambda: now[0])
    progress = Progress(tmp_path, "mine")

    def write(*arguments: object) -> None:
        now[0] += 3.0

    monkeypatch.setattr(progress, "_write_sweep", write)
    now[0] = 9.9
    assert not progress.due()
    now[0] = 10.0
    assert progress.due()
    progress.keep_sweep(1, 1.0, None, None)  # type: ignore[arg-type]
    now[0] = 13.0 + 149.9
    assert not progress.due()
    now[0] = 13.0 + 150.1
    assert progress.due()


# The stage


CRITERIA = {"cka": 1, "consensus": 1, "random": 3, "taylor": 1}
FEW = {"cka": 1, "random": 1, "taylor": 1}


@pytest.fixture
def network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(stages, "EnergyMeter", OneKwh)
    save_network(tmp_path / "dense", random_network(architecture()), architecture())
    return tmp_path / "dense"


@pytest.mark.usefixtures("keep_always")
@pytest.mark.parametrize("finished", [0, 4, 10, 12])
def test_a_killed_job_writes_the_same_scores(
    tmp_path: Path, network: Path, monkeypatch: pytest.MonkeyPatch, finished: int
) -> None:
    job = score_job(CRITERIA)
    stages.score(job, network, tmp_path / "whole.csv", tmp_path / "whole.json")
    arguments = job, network, tmp_path / "scores.csv", tmp_path / "scoring.json", tmp_path / "work"
    with monkeypatch.context() as patch:
        patch.setattr(scoring, "checked_scores", die_at(finished + 1, scoring.checked_scores))
        with pytest.raises(Killed):
            stages.score(*arguments)
    kept = tmp_path / "work" / "scoring" / "finished.json"
    before = json.loads(kept.read_text()) if finished else {"finished": {}, "sweep_seconds": 0.0}
    sweeps: list[int] = []
    monkeypatch.setattr(scoring, "silenced_features", die_at(100, scoring.silenced_features, sweeps))
    stages.score(*arguments)
    assert (tmp_path / "scores.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert not sweeps, "its one batch was kept"
    whole, resumed = (json.loads((tmp_path / name).read_text()) for name in ("whole.json", "scoring.json"))
    for name, cost in whole["criteria"].items():
        found = resumed["criteria"][name]
        assert found.keys() == cost.keys()
        passes = ("forward_passes", "backward_passes")
        assert [found[key] for key in passes] == pytest.approx([cost[key] for key in passes])
        assert found["seconds"] > 0
    # What was finished before cost what it cost then; energy is that of both attempts, as far as it was kept.
    if finished > 1:
        assert resumed["criteria"]["cka"]["seconds"] >= before["finished"]["cka"]["seconds"]
        assert resumed["energy"]["energy_kwh"] > before["energy"]["energy_kwh"] > 0
    assert not kept.parent.exists()


@pytest.mark.usefixtures("keep_always")
@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 8},
        {"replicate": 1},
        {"sample": {"images_per_class": 4, "batch_size": 50}},
        {"data": {"validation_fraction": 0.2, "test_fraction": 0.4}},
        {"constraints": {"keep_first_block": False}},
        {"version": "another"},
        {"network": 1},
    ],
)
def test_what_was_kept_under_other_settings_is_not_used(
    tmp_path: Path, network: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], changes: dict[str, Any]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(scoring, "checked_scores", die_at(3, scoring.checked_scores))
        with pytest.raises(Killed):
            stages.score(score_job(FEW), network, tmp_path / "a", tmp_path / "b", tmp_path / "work")
    if "network" in changes:
        save_network(network, random_network(architecture(), seed=changes.pop("network")), architecture())
    capsys.readouterr()
    job = score_job(FEW, **changes)
    stages.score(job, network, tmp_path / "scores.csv", tmp_path / "scoring.json", tmp_path / "work")
    said = capsys.readouterr().out
    assert "finished.json: of another configuration" in said and "sweep.safetensors: checkpoint of another" in said
    stages.score(job, network, tmp_path / "whole.csv", tmp_path / "whole.json")
    assert (tmp_path / "scores.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


@pytest.mark.usefixtures("keep_always")
def test_another_criterion_does_not_score_the_others_again(
    tmp_path: Path, network: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(scoring, "checked_scores", die_at(3, scoring.checked_scores))
        with pytest.raises(Killed):
            stages.score(
                score_job({"cka": 1, "linear_1": 1, "last": 1}), network, tmp_path / "a", tmp_path / "b", tmp_path / "work"
            )
    seen: list[int] = []
    monkeypatch.setattr(scoring, "checked_scores", die_at(100, scoring.checked_scores, seen))
    job = score_job({"permutation": 1, "cka": 1, "linear_1": 1})
    stages.score(job, network, tmp_path / "a", tmp_path / "b", tmp_path / "work")
    assert len(seen) == 1


def test_energy_kept_with_the_sweep_counts(tmp_path: Path) -> None:
    progress = Progress(tmp_path, "mine", lambda: Energy(energy_kwh=2.0, duration_s=5.0))
    one = probe()
    progress.keep_sweep(7, 1.0, one.losses * 40, one.statistics)
    again = Progress(tmp_path, "mine")
    assert again.sweep() is not None and again.earlier.energy_kwh == 2.0
