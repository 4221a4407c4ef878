"""Progress files: what jobs say while they work, what is left of it, and that no job is harmed by it."""

from __future__ import annotations

import errno
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from helpers import OneKwh, architecture, chain_job, dense_job, evaluate_job, random_network, score_job
from prunebench import evaluating, progress, stages
from prunebench.cli import main
from prunebench.errors import PrunebenchError
from prunebench.jobs import RankJob
from prunebench.models.files import save_network
from prunebench.progress import Level, Report, file_of, read_report, recorded, words
from prunebench.ranking import rank


@pytest.fixture(autouse=True)
def quick_meter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "EnergyMeter", OneKwh)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[Report]:
    """Every report that is written."""
    reports: list[Report] = []
    real = progress.write_report

    def write(path: Path, report: Report) -> None:
        reports.append(report)
        real(path, report)

    monkeypatch.setattr(progress, "write_report", write)
    return reports


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dense network with scores and a ranking by its last blocks."""
    folder = tmp_path_factory.mktemp("replicate0")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "EnergyMeter", OneKwh)
        stages.dense(dense_job(), folder / "dense", folder / ".work" / "dense")
    stages.score(score_job({"cka": 1}), folder / "dense", folder / "dense" / "scores.csv", folder / "dense" / "scoring.json")
    rank(RankJob(version="1", criteria={"cka": 1}), folder / "dense" / "scores.csv", folder / "one-shot")
    return folder


def begun(work: Path) -> Path:
    """The progress file of a job that has just begun."""
    now = time.time()
    report = Report(stage="dense", work=work.name, started=now, updated=now, alive_seconds=1, host="h", pid=1)
    progress.write_report(file_of(work), report)
    return file_of(work)


def test_a_one_shot_chain_says_its_steps_epochs_and_accuracy(dense: Path, tmp_path: Path, said: list[Report]) -> None:
    job = chain_job("one-shot", "cka", {"blocks": 1}, {"blocks": 2}, fine_tuning={"epochs_per_block": 2})
    work = tmp_path / "results/s/.work/digits/resnet20/replicate0/one-shot/cka"
    with recorded(work, "one-shot", quiet=True):
        stages.one_shot(job, dense / "dense", [dense / "one-shot/cka/draw0/ranking.csv"], tmp_path / "out", work)
        here = read_report(file_of(work))
    places = list(dict.fromkeys(words(report.at) for report in said))
    assert [place for place in places if place] == [
        "step 1/2 blocks1",
        "step 1/2 blocks1, epoch 1/2",
        "step 1/2 blocks1, epoch 2/2",
        "step 2/2 blocks2",
        *(f"step 2/2 blocks2, epoch {epoch}/4" for epoch in (1, 2, 3, 4)),
    ]
    assert [report.share for report in said] == sorted(report.share for report in said)
    steps = [json.loads((tmp_path / f"out/draw0/blocks{count}/training.json").read_text()) for count in (1, 2)]
    known = list(dict.fromkeys(report.validation_accuracy for report in said))
    assert known == list(dict.fromkeys([None, *(step["validation_accuracy"] for step in steps)]))
    assert here.train_accuracy == steps[1]["history"][-1]["train_accuracy"]
    assert here.work == "digits/resnet20/replicate0/one-shot/cka"
    # A chain that runs again finds its steps done, and still says how good they are.
    said.clear()
    with recorded(work, "one-shot", quiet=True):
        stages.one_shot(job, dense / "dense", [dense / "one-shot/cka/draw0/ranking.csv"], tmp_path / "out", work)
    assert said[-1].validation_accuracy == steps[1]["validation_accuracy"]


def test_an_iterative_chain_says_how_many_steps_there_are(dense: Path, tmp_path: Path, said: list[Report]) -> None:
    work = tmp_path / ".work/iterative/cka"
    job = chain_job("iterative", "cka", {"blocks": 2}, {"blocks": 3})
    with recorded(work, "iterative", quiet=True):
        stages.iterative(job, dense / "dense", dense / "dense" / "scores.csv", tmp_path / "out", work)
    places = [words(report.at) for report in said]
    assert [place for place in dict.fromkeys(places) if place.endswith(("blocks2", "blocks3"))] == [
        "step 1/3 blocks2",
        "step 2/3 blocks2",
        "step 3/3 blocks3",
    ]
    assert "step 2/3, criterion cka" in places


def test_scoring_says_its_criteria(dense: Path, tmp_path: Path, said: list[Report]) -> None:
    job = score_job({"cka": 1, "first": 1})
    with recorded(tmp_path / ".work/score", "score", quiet=True):
        stages.score(job, dense / "dense", tmp_path / "scores.csv", tmp_path / "scoring.json", tmp_path / ".work/score")
    assert [words(report.at) for report in said][-2:] == ["criterion 1/2 cka", "criterion 2/2 first"]


@pytest.mark.parametrize(("counts", "size", "steps"), [([3], 1, 3), ([3], 2, 2), ([3, 4], 2, 3), ([4, 0, 4], 2, 2), ([0], 1, 0)])
def test_steps_stop_at_each_point(counts: list[int], size: int, steps: int) -> None:
    assert stages.steps_to(counts, size) == steps


def test_an_evaluation_says_its_networks(tmp_path: Path, said: list[Report]) -> None:
    save_network(tmp_path / "replicate0/dense", random_network(architecture()), architecture())
    work = tmp_path / ".work/evaluate"
    with recorded(work, "evaluate", quiet=True):
        evaluating.evaluate(evaluate_job("accuracy", "complexity"), tmp_path / "replicate0", work, tmp_path / "cache")
    assert [words(report.at) for report in said][-2:] == [
        f"network dense, evaluation {name}" for name in ("1/2 accuracy", "2/2 complexity")
    ]


def test_the_file_goes_with_success_and_changes_no_result(dense: Path, tmp_path: Path) -> None:
    results = {}
    for name in ("told", "untold"):
        work = tmp_path / name / ".work" / "one-shot"
        arguments = (dense / "dense", [dense / "one-shot/cka/draw0/ranking.csv"], tmp_path / name / "out", work)
        if name == "told":
            with recorded(work, "one-shot"):
                stages.one_shot(chain_job("one-shot", "cka", {"blocks": 1}), *arguments)
            assert not file_of(work).exists()
        else:
            stages.one_shot(chain_job("one-shot", "cka", {"blocks": 1}), *arguments)
        out = tmp_path / name / "out"
        files = {path.relative_to(out): path.read_bytes() for path in sorted(out.rglob("*.[cs]*"))}
        training = json.loads((out / "draw0/blocks1/training.json").read_text())
        del training["provenance"]
        results[name] = (files, training)
    assert results["told"] == results["untold"]


@pytest.mark.parametrize(
    ("error", "state", "message"),
    [
        (PrunebenchError("the loss is nan;\nlower learning_rate"), "failed", "the loss is nan;"),
        (MemoryError(), "failed", "MemoryError: no message"),
        (KeyboardInterrupt(), "stopped", ""),
        (SystemExit(143), "stopped", ""),
    ],
)
def test_how_a_job_ended_is_left_in_the_file(tmp_path: Path, error: BaseException, state: str, message: str) -> None:
    with pytest.raises(type(error)), recorded(tmp_path, "dense"):
        progress.at("epoch", 3, 5)
        raise error
    report = read_report(file_of(tmp_path))
    assert (report.state, report.error, words(report.at)) == (state, message, "epoch 3/5")
    # The next attempt counts it, and its success clears it away.
    with recorded(tmp_path, "dense"):
        assert read_report(file_of(tmp_path)).attempt == 2
    assert not file_of(tmp_path).exists()


def test_the_thread_writes_changes_and_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "WRITE_SECONDS", 0.01)

    def seen(what: Any) -> bool:
        until = time.monotonic() + 20
        while not what(read_report(file_of(tmp_path))):
            assert time.monotonic() < until
            time.sleep(0.01)
        return True

    with recorded(tmp_path, "dense"):
        progress.at("epoch", 2, 3)
        progress.found(validation_accuracy=50.0)
        assert seen(lambda report: report.validation_accuracy == 50.0 and words(report.at) == "epoch 2/3")
        monkeypatch.setattr(progress, "SIGN_OF_LIFE_SECONDS", 0.0)
        before = read_report(file_of(tmp_path)).updated
        assert seen(lambda report: report.updated > before)


def test_no_job_fails_by_its_progress_file(tmp_path: Path) -> None:
    (tmp_path / ".progress").write_text("a file where the folder should be")
    with recorded(tmp_path, "dense"):
        progress.at("epoch", 1, 3)
    assert (tmp_path / ".progress").read_text() == "a file where the folder should be"


def test_no_job_fails_by_a_number_that_json_has_no_word_for(tmp_path: Path) -> None:
    with recorded(tmp_path, "dense", quiet=True):
        progress.found(train_accuracy=float("nan"))
        progress.found(train_accuracy=10.0)
        assert read_report(file_of(tmp_path)).train_accuracy == 10.0


def test_no_job_fails_by_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with recorded(tmp_path, "dense", quiet=True):
        before = file_of(tmp_path).read_bytes()
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", full)
            progress.at("epoch", 1, 3)
        assert file_of(tmp_path).read_bytes() == before
    assert not file_of(tmp_path).exists()


def test_writing_neither_lists_the_folder_nor_waits_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All jobs of a suite share the folder, and write every few seconds."""
    for number in range(20):
        progress.write_report(file_of(tmp_path / ".work" / str(number)), progress.read_report(begun(tmp_path)))
    calls: list[str] = []
    real = {name: getattr(os, name) for name in ("listdir", "scandir", "fsync")}

    def counted(name: str) -> Any:
        def call(*arguments: Any) -> Any:
            calls.append(name)
            return real[name](*arguments)

        return call

    with recorded(tmp_path / ".work" / "a", "dense", quiet=True):
        with monkeypatch.context() as patch:
            for name in real:
                patch.setattr(os, name, counted(name))
            progress.at("epoch", 2, 3)
        assert calls == []
        assert words(read_report(file_of(tmp_path / ".work" / "a")).at) == "epoch 2/3"


def test_what_a_killed_write_left_goes_with_the_next_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = file_of(tmp_path).parent
    with monkeypatch.context() as patch:
        # As a kill leaves it: nothing is put in order.
        patch.setattr(os, "replace", lambda *paths: None)
        patch.setattr(Path, "unlink", lambda path, missing_ok=False: None)
        begun(tmp_path)
    assert [path.name for path in folder.iterdir()] != []
    with recorded(tmp_path, "dense"):
        assert list(folder.iterdir()) == [file_of(tmp_path)]
    assert list(folder.iterdir()) == []


def test_chains_of_a_job_say_when_the_job_began(tmp_path: Path, said: list[Report], monkeypatch: pytest.MonkeyPatch) -> None:
    """The share done is the job's too, so that both tell how long it will take."""
    chains = {name: {"criterion": name} for name in ("cka", "random")}
    common = chain_job("one-shot", "cka", {"blocks": 1}).model_dump(mode="json", exclude_none=True, exclude={"criterion"})
    job = {"common": {**common, "replicate": 0}, "chains": chains}
    monkeypatch.setattr(stages, "one_shot", lambda *arguments: time.sleep(0.01))
    places = {"dense": tmp_path, "out": tmp_path / "out/one-shot", "work": tmp_path / ".work"}
    options = [text for name, path in places.items() for text in (f"--{name}", str(path))]
    before = time.time()
    main(["one-shot", "--settings", json.dumps(job), *options])
    assert {report.work for report in said} == {"cka", "random"}
    [started] = {report.started for report in said}
    assert before <= started <= min(report.updated for report in said)


def test_a_corrupt_file_is_named_and_no_hindrance(tmp_path: Path) -> None:
    file_of(tmp_path).parent.mkdir()
    file_of(tmp_path).write_text("[" * 100_000)
    with recorded(tmp_path, "dense"):
        assert read_report(file_of(tmp_path)).attempt == 1
    for text in ("{", "[]", '{"schema": 1}', '{"schema": 1, "stage": 3}'):
        file_of(tmp_path).write_text(text)
        with pytest.raises(PrunebenchError, match=str(file_of(tmp_path))):
            read_report(file_of(tmp_path))
        with recorded(tmp_path, "dense"):
            assert read_report(file_of(tmp_path)).attempt == 1


def test_outside_of_a_job_nothing_is_said() -> None:
    progress.at("epoch", 1, 2)
    progress.found(train_accuracy=1.0)


def test_the_share_done_counts_inner_loops_as_parts_of_outer_ones() -> None:
    report = Report(stage="one-shot", work="w", started=0, updated=0, alive_seconds=1, host="h", pid=1)
    levels = [Level(level="draw", number=2, of=4), Level(level="step", number=1, of=2), Level(level="epoch", number=6, of=10)]
    assert report.share == 0
    assert report.model_copy(update={"at": levels[:1]}).share == pytest.approx(1 / 4)
    assert report.model_copy(update={"at": levels}).share == pytest.approx(1 / 4 + 5 / 80)


def test_jobs_of_a_suite_keep_their_files_in_one_folder() -> None:
    work = Path("results/demo/.work/digits/resnet32/replicate0/evaluate/.jobs/0f")
    assert file_of(work) == Path("results/demo/.work/.progress/digits.resnet32.replicate0.evaluate..jobs.0f.json")
