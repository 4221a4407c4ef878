"""Watching a run: what is said of folders in which jobs are done, at work, silent, failed and waiting, with SLURM and without."""

from __future__ import annotations

import io
import json
import logging
import os
import stat
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from prunebench import watch_view
from prunebench.artifacts import write_json, write_text
from prunebench.cli import main
from prunebench.config import Suite, parse
from prunebench.durations import Durations, clock
from prunebench.jobs import EvaluateJob
from prunebench.planned import PlannedJob
from prunebench.progress import Level, Report, file_of
from prunebench.watch import Seen, Snapshot, Watch, keys_of, label, name_of
from prunebench.watch_view import view
from snakemake_logger_plugin_prunebench import Estimate, LogHandler

CONFIG: dict[str, Any] = {
    "suite": "small",
    "replicates": 2,
    "experiments": [{"dataset": "digits", "model": "resnet20"}],
    "schedules": {"one-shot": {"criteria": ["cka", "random"], "draws": 2}, "iterative": {"criteria": ["cka"]}},
    "operating_points": [{"blocks": 1}, {"blocks": 2}],
    "evaluations": ["accuracy", {"evaluation": "latency", "options": {"seconds": 0.1}}],
    "jobs": {"chains_per_evaluation": 10},
}
WORK = Path("results/small/.work/digits/resnet20")
FRESH = 1.0
LONG = 10000.0


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, on a machine without SLURM."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path / "here"


@pytest.fixture
def watch() -> Watch:
    return Watch(parse(CONFIG, "test"))


def job(watch: Watch, stage: str, replicate: int | None = 0, name: str = "") -> PlannedJob:
    [found] = [
        each for each in watch.jobs if each.stage == stage and each.replicate == replicate and (not name or each.name == name)
    ]
    return found


def seen(watch: Watch, stage: str, replicate: int | None = 0, name: str = "") -> Seen:
    wanted = job(watch, stage, replicate, name)
    return next(each for each in watch.look().seen if each.job is wanted)


def finish(*jobs: PlannedJob, seconds: float = 10.0, logs: bool = True) -> None:
    """What a job leaves that has succeeded."""
    for each in jobs:
        for output in each.outputs:
            text = json.dumps({"schema": 1, "validation_accuracy": 90.0 + (each.replicate or 0)})
            write_text(Path(output), text)
        if logs:
            write_text(Path(each.log), "done\n")
        if logs and each.benchmark:
            write_text(Path(each.benchmark), f"s\th:m:s\tmax_rss\n{seconds}\t0:00:10\t300\n")


def report(work: Path | str, ago: float = FRESH, started: float = 100.0, **content: Any) -> None:
    """A progress file that was written some seconds ago, by a job that began ``started`` seconds ago."""
    now = time.time()
    told = {"stage": "one-shot", "host": "gpu1", "pid": 1, "alive_seconds": 120.0, "started": now - started, "updated": now - ago}
    path = file_of(WORK / work)
    write_json(path, Report.model_validate({**told, "work": str(Path("digits/resnet20") / work), **content}).model_dump())


def squeue(tmp_path: Path, *lines: str, words: str = "", status: int = 0) -> None:
    """Put a squeue on the path that says these lines, and these words on standard error."""
    path = tmp_path / "bin" / "squeue"
    write_text(tmp_path / "queue", "".join(f"{line}\n" for line in lines))
    said = f"echo '{words}' >&2\n" if words else ""
    path.write_text(f"#!/bin/sh\nwhile read -r line; do echo \"$line\"; done <'{tmp_path / 'queue'}'\n{said}exit {status}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def text_of(snapshot: Snapshot, width: int = 120, rows: int | None = None) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(view(snapshot, rows))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_nothing_has_run(watch: Watch) -> None:
    snapshot = watch.look()
    assert {each.state for each in snapshot.seen} == {"waiting"}
    assert not snapshot.finished
    assert (snapshot.left(), snapshot.work(), snapshot.queue, snapshot.notes) == (None, None, None, [])
    assert "nothing runs" in text_of(snapshot)


@pytest.mark.parametrize("logs", [True, False])
def test_everything_is_done(watch: Watch, logs: bool) -> None:
    finish(*watch.jobs, logs=logs)
    snapshot = watch.look()
    assert {each.state for each in snapshot.seen} == {"done"}
    assert snapshot.finished
    assert snapshot.accuracies == {("digits", "resnet20"): [90.0, 91.0]}
    shown = text_of(snapshot)
    assert "everything is done" in shown
    assert "90.50 % (mean of 2)" in shown
    assert "6/6" in shown


def test_results_that_were_deleted_are_not_done_though_their_benchmark_is_there(watch: Watch, folder: Path) -> None:
    done = job(watch, "one-shot", 0, "cka")
    finish(done)
    assert seen(watch, "one-shot", 0, "cka").state == "done"
    (folder / "results").rename(folder / "elsewhere")
    assert seen(watch, "one-shot", 0, "cka").state == "waiting"


@pytest.mark.parametrize("stage", ["dense", "score", "one-shot", "iterative", "evaluate", "measure"])
def test_not_everything_is_done_if_one_file_is_missing(watch: Watch, stage: str) -> None:
    """Also where all was there when it was last looked."""
    finish(*watch.jobs)
    assert watch.look().finished
    short = next(each for each in watch.jobs if each.stage == stage)
    last = Path(short.outputs[-1])
    last.rename(f"{last}.corrupt")
    for looking in (watch, Watch(watch.suite)):
        snapshot = looking.look()
        assert not snapshot.finished
        assert [each.job.log for each in snapshot.of("waiting") if each.job.dataset] == [short.log]
        assert "everything is done" not in text_of(snapshot)


def test_a_suite_that_got_an_operating_point_is_not_done(watch: Watch) -> None:
    finish(*watch.jobs)
    grown = Watch(parse({**CONFIG, "operating_points": [{"blocks": 1}, {"blocks": 2}, {"blocks": 3}]}, "test"))
    waiting = {each.job.stage for each in grown.look().of("waiting")}
    assert waiting == {"one-shot", "iterative", "evaluate", "collect", "tables", "figures"}
    finish(*(each for each in grown.jobs if each.dataset))
    assert {each.job.stage for each in grown.look().of("done")} >= {"one-shot", "iterative", "evaluate"}


def test_tables_are_not_done_when_a_job_ran_again_after_them(watch: Watch) -> None:
    finish(*watch.jobs)
    again = job(watch, "evaluate", 1)
    later = time.time() + 60
    # Its log and its results were there before, so that no folder changes.
    os.utime(str(again.benchmark), (later, later))
    assert {each.job.stage for each in watch.look().of("waiting")} == {"collect", "tables", "figures"}
    for each in watch.jobs[-3:]:
        os.utime(each.outputs[0], (later, later))
    assert watch.look().finished


def test_tables_of_a_suite_that_has_grown_are_not_done(watch: Watch) -> None:
    finish(*watch.jobs)
    grown = Watch(parse({**CONFIG, "replicates": 3}, "test"))
    assert {each.job.stage for each in grown.look().of("waiting") if each.job.dataset is None} == {"collect", "tables", "figures"}
    new = [each for each in grown.jobs if each.replicate == 2]
    finish(*new)
    later = time.time() + 60
    for each in filter(None, (each.benchmark for each in new)):
        os.utime(each, (later, later))
    assert {each.job.stage for each in grown.look().of("waiting")} == {"collect", "tables", "figures"}
    for each in grown.jobs[-3:]:
        for output in each.outputs:
            os.utime(output, (later, later))
    assert grown.look().finished


def test_a_job_at_work_is_shown_with_its_place_and_accuracy(watch: Watch) -> None:
    at = [Level(level="step", number=2, of=4, name="blocks2"), Level(level="epoch", number=6, of=10)]
    report("replicate1/one-shot/cka", at=at, validation_accuracy=91.25, slurm_job="4711", attempt=2, started=723.0)
    found = seen(watch, "one-shot", 1, "cka")
    assert found.state == "running"
    assert found.share == pytest.approx(1 / 4 + 5 / 40)
    shown = " ".join(text_of(watch.look()).split())
    assert "one-shot cka, r1 step 2/4 blocks2, epoch 6/10 91.25 12:03" in shown
    assert "gpu1, job 4711, attempt 2" in shown
    assert "SILENT" not in shown
    assert "updated" not in shown


def test_a_job_at_work_again_is_at_work_though_its_old_results_are_there(watch: Watch) -> None:
    finish(job(watch, "one-shot", 0, "cka"))
    report("replicate0/one-shot/cka")
    assert seen(watch, "one-shot", 0, "cka").state == "running"


@pytest.mark.parametrize(
    ("content", "state", "note"),
    [
        ({"ago": LONG}, "silent", "no sign of life"),
        ({"ago": LONG, "alive_seconds": 2 * LONG}, "running", ""),
        ({"state": "failed", "error": "the loss is nan"}, "failed", "the loss is nan"),
        ({"state": "stopped"}, "waiting", "stopped"),
    ],
)
def test_states_by_progress_file(watch: Watch, content: dict[str, Any], state: str, note: str) -> None:
    report("replicate0/iterative/cka", **content)
    found = seen(watch, "iterative")
    assert (found.state, found.note) == (state, note)
    shown = text_of(watch.look())
    assert ("SILENT: no sign of life" in shown) == (state == "silent")
    assert ("1 failed" in shown and "the loss is nan" in shown) == (state == "failed")


def test_a_job_that_was_killed_and_whose_results_came_another_way_is_done(watch: Watch) -> None:
    report("replicate0/iterative/cka", ago=LONG)
    finish(job(watch, "iterative"))
    assert seen(watch, "iterative").state == "done"


@pytest.mark.parametrize(
    ("text", "ago", "state", "note"),
    [
        ("", 0.0, "running", "starting"),
        ("epoch 1\repoch 2\n", 0.0, "running", "starting"),
        ("epoch 1\repoch 2\n", LONG, "silent", "its log ends without an error"),
        ("bar\rprunebench: network.h5: no such file\n\n", LONG, "failed", "prunebench: network.h5: no such file"),
        ("Traceback\n  line\ntorch.OutOfMemoryError: CUDA\n", 0.0, "failed", "torch.OutOfMemoryError: CUDA"),
        ("slurmstepd: error: Detected 1 oom_kill event\n", 0.0, "failed", "slurmstepd: error: Detected 1 oom_kill event"),
        ("prunebench: stopped by SIGTERM; run again to go on from the last checkpoint", LONG, "waiting", "stopped"),
        ("x" * 9000 + "\nKeyboardInterrupt\n", 0.0, "failed", "KeyboardInterrupt"),
    ],
)
def test_states_by_log(watch: Watch, text: str, ago: float, state: str, note: str) -> None:
    log = Path(job(watch, "score").log)
    write_text(log, text)
    os.utime(log, (time.time() - ago,) * 2)
    found = seen(watch, "score")
    assert (found.state, found.note) == (state, note)


def test_evaluating_jobs_are_found_by_what_they_share_a_folder_for(watch: Watch) -> None:
    """As the job itself names its folder, from what the workflow tells it."""
    from prunebench.job_settings import evaluate_job

    for stage, replicate in (("evaluate", 1), ("measure", None)):
        planned = job(watch, stage, replicate)
        assert planned.group is not None
        told = evaluate_job(watch.suite, "digits", "resnet20", replicate, planned.group, 0)
        place = f"replicate1/{stage}" if replicate else stage
        assert keys_of(planned, "small") == [f"digits/resnet20/{place}/.jobs/{EvaluateJob.model_validate(told).share}"]
        report(f"{place}/.jobs/{EvaluateJob.model_validate(told).share}")
        assert seen(watch, stage, replicate).state == "running"


def test_a_job_of_several_chains_is_at_the_one_that_spoke_last() -> None:
    watch = Watch(parse({**CONFIG, "jobs": {"chains_per_job": 2}}, "test"))
    report("replicate0/one-shot/cka", ago=LONG, state="failed", error="old")
    at = [Level(level="chain", number=2, of=2, name="random"), Level(level="draw", number=1, of=2)]
    report("replicate0/one-shot/random", at=at)
    found = seen(watch, "one-shot", 0, "batch0")
    assert (found.state, found.share) == ("running", 0.5)
    assert "chain 2/2 random, draw 1/2" in text_of(watch.look())


def test_slurm(watch: Watch, tmp_path: Path, folder: Path) -> None:
    here = f"node1|prunebench-one_shot_cka_digits_resnet20-small-0|{folder}"
    squeue(
        tmp_path,
        f"1|RUNNING|None|1:00|4:00:00|{here}",
        f"2|PENDING|Resources|0:00|4:00:00||my-lab-one_shot_cka_digits_resnet20-small-1|{folder}",
        f"3|PENDING|Priority|0:00|4:00:00||prunebench-dense-small-small_digits_resnet20_1|{folder}",
        f"4|RUNNING|None|0:10|4:00:00|node2|prunebench-iterative_cka_digits_resnet20-small-0|{folder}",
        "5|PENDING|Priority|0:00|1:00||prunebench-score-small-small_digits_resnet20_1|/another/folder",
        "6|RUNNING|None|0:10|1:00|node2||/another/folder",
    )
    report("replicate0/one-shot/cka", slurm_job="1")
    report("replicate0/iterative/cka", slurm_job="4", ago=LONG)
    report("replicate1/iterative/cka", slurm_job="7", ago=LONG)
    states = {(each.job.stage, each.job.replicate, each.job.name): each for each in watch.look().seen}
    assert states["one-shot", 0, "cka"].state == "running"
    assert states["one-shot", 1, "cka"].state == "queued"
    assert states["dense", 1, ""].state == "queued"
    assert states["iterative", 0, "cka"].state == "silent"
    assert states["iterative", 0, "cka"].note == "no sign of life"
    assert states["iterative", 1, "cka"].note == "SLURM has it no more"
    assert states["score", 1, ""].state == "waiting"
    shown = text_of(watch.look())
    assert "SLURM: 2 RUNNING; 2 PENDING (1 Resources, 1 Priority)" in shown
    assert "job 4, RUNNING, SILENT" in shown


def test_a_job_that_slurm_has_just_started_again_is_starting(watch: Watch, tmp_path: Path, folder: Path) -> None:
    report("replicate0/iterative/cka", slurm_job="7", ago=LONG)
    squeue(tmp_path, f"8|RUNNING|None|0:10|4:00:00|node2|prunebench-iterative_cka_digits_resnet20-small-0|{folder}")
    found = seen(watch, "iterative")
    assert (found.state, found.note) == ("running", "starting")
    assert "node2, job 8, RUNNING" in text_of(watch.look())


@pytest.mark.parametrize("other", ["large", "my-small", "small-2"])
def test_jobs_of_another_suite_in_the_same_folder_are_not_this_ones(
    watch: Watch, tmp_path: Path, folder: Path, other: str
) -> None:
    theirs = [name_of(each, other) for each in Watch(parse({**CONFIG, "suite": other}, "test")).jobs]
    squeue(tmp_path, *(f"{number}|PENDING|Priority|0:00|1:00||prunebench-{name}|{folder}" for number, name in enumerate(theirs)))
    assert {each.state for each in watch.look().seen} == {"waiting"}
    mine = Watch(parse({**CONFIG, "suite": other}, "test"))
    assert {each.state for each in mine.look().seen} == {"queued"}


@pytest.mark.parametrize(
    ("words", "note"), [("", "squeue failed: exit code 1"), ("one\nslurm: down", "squeue failed: slurm: down")]
)
def test_a_squeue_that_fails_is_noted(watch: Watch, tmp_path: Path, words: str, note: str) -> None:
    squeue(tmp_path, words=words, status=1)
    snapshot = watch.look()
    assert snapshot.queue is None
    assert snapshot.notes == [note]
    assert f"Note: {note}\n" in text_of(snapshot)


def test_names_in_the_queue_are_of_one_job_each(watch: Watch) -> None:
    names = [name_of(each, "small") for each in watch.jobs]
    assert len(set(names)) == len(names)


def test_time_left_is_work_left_by_what_runs(watch: Watch) -> None:
    finish(job(watch, "dense", 0), seconds=100.0)
    # Half of it, while all else takes what the dense network took.
    report("replicate1/dense", at=[Level(level="epoch", number=6, of=10)])
    assert seen(watch, "dense", 1).left == pytest.approx(50.0)
    report("replicate0/one-shot/cka")
    snapshot = watch.look()
    others = [each for each in snapshot.of("running", "waiting") if not each.job.local]
    work = 100.0 * len(others) - 50.0
    assert snapshot.work() == pytest.approx(work)
    assert snapshot.left() == pytest.approx(work / 2)
    assert snapshot.work("dense") == pytest.approx(50.0)
    # It cannot end before its longest job.
    assert snapshot.left("score") == pytest.approx(100.0)
    assert f"about {clock(work / 2)} left (2 at once)" in text_of(snapshot)


def test_a_corrupt_benchmark_is_left_out(watch: Watch) -> None:
    finish(job(watch, "dense", 0), job(watch, "score", 0), seconds=100.0)
    Path(str(job(watch, "score", 0).benchmark)).write_text("half a")
    assert seen(watch, "score", 1).left == pytest.approx(100.0)


def test_a_first_job_says_by_itself_how_long_it_takes(watch: Watch) -> None:
    report("replicate1/dense", at=[Level(level="epoch", number=6, of=10)], started=100.0)
    assert seen(watch, "dense", 1).left == pytest.approx(100.0, rel=0.01)
    # A second attempt began somewhere in the middle.
    report("replicate1/dense", at=[Level(level="epoch", number=6, of=10)], started=100.0, attempt=2)
    assert seen(watch, "dense", 1).left is None


@pytest.mark.parametrize("text", ["{", "[]", '{"schema": 1}', "\xff"])
def test_a_corrupt_progress_file_is_noted_and_the_others_are_shown(watch: Watch, text: str) -> None:
    report("replicate0/one-shot/cka")
    report("replicate1/one-shot/cka")
    path = file_of(WORK / "replicate1/one-shot/cka")
    path.write_text(text, encoding="latin-1")
    path.with_name(".half.1.json").write_text("{")
    snapshot = watch.look()
    assert [str(path) in note for note in snapshot.notes] == [True]
    assert len(snapshot.of("running")) == 1


@pytest.mark.parametrize("width", [80, 120])
def test_the_view_fits(watch: Watch, width: int, tmp_path: Path, folder: Path) -> None:
    squeue(tmp_path, f"1|PENDING|Resources|0:00|4:00:00||prunebench-one_shot_cka_digits_resnet20-small-0|{folder}")
    finish(job(watch, "dense", 0), job(watch, "dense", 1))
    at = [Level(level="draw", number=2, of=2), Level(level="step", number=2, of=4, name="flops54_6")]
    for name in ("one-shot/random", "one-shot/cka", "iterative/cka"):
        report(f"replicate1/{name}", at=at, validation_accuracy=91.25, slurm_job="4711", attempt=2, ago=100.0)
    report("replicate0/iterative/cka", state="failed", error="the loss is nan in epoch 3 of 10; lower learning_rate " * 3)
    shown = text_of(watch.look(), width)
    assert max(map(len, shown.splitlines())) <= width
    assert len(text_of(watch.look(), width, rows=1).splitlines()) < len(shown.splitlines())
    assert "and 2 more" in text_of(watch.look(), width, rows=1)


def write_config(folder: Path, **changes: Any) -> str:
    (folder / "suite.yaml").write_text(yaml.safe_dump({**CONFIG, **changes}))
    return str(folder / "suite.yaml")


def test_once_and_json(watch: Watch, tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finish(job(watch, "dense", 0))
    report("replicate0/one-shot/cka", at=[Level(level="step", number=2, of=4)])
    path = write_config(tmp_path)
    before = sorted(folder.rglob("*"))
    main(["watch", path, "--once", "--directory", str(folder)])
    assert "step 2/4" in capsys.readouterr().out
    main(["watch", path, "--json", "--directory", str(folder)])
    told = json.loads(capsys.readouterr().out)
    assert told["stages"]["dense"] == {
        **{"total": 2, "done": 1, "running": 0, "silent": 0, "failed": 0, "queued": 0, "waiting": 1},
        **{"left_s": 10.0, "work_left_s": 10.0},
    }
    [running] = told["jobs"]
    assert (running["stage"], running["state"], running["at"], running["share"]) == ("one-shot", "running", "step 2/4", 0.25)
    assert told["slurm"] is None
    assert told["finished"] is False
    assert sorted(folder.rglob("*")) == before, "it only reads"


@pytest.mark.parametrize("terminal", [True, False])
def test_it_ends_when_everything_is_done(watch: Watch, monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    """What is missing is made while it sleeps."""
    finish(*watch.jobs[:-1])
    monkeypatch.setattr(watch_view.time, "sleep", lambda seconds: finish(*watch.jobs[-1:]))
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100, height=40)
    watch_view._follow(watch, console, every=1.0)
    assert isinstance(console.file, io.StringIO)
    assert "everything is done" in console.file.getvalue()


def test_control_c_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(watch_view.time, "sleep", interrupt)
    main(["watch", write_config(tmp_path)])
    assert "nothing runs" in capsys.readouterr().out


def test_the_directory_has_the_files_that_the_suite_names(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(["watch", str(tmp_path / "none.yaml"), "--once"])
    assert "none.yaml" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["watch", write_config(tmp_path), "--once", "--directory", str(tmp_path / "nowhere")])
    assert "nowhere" in capsys.readouterr().err


def large() -> Suite:
    criteria = ["cka", "linear_0", "linear_1", "permutation", "wasserstein", "consensus", "random", "first", "taylor", "l1_norm"]
    changes = {"replicates": 200, "schedules": {"one-shot": {"criteria": criteria}, "iterative": {"criteria": criteria}}}
    return parse({**CONFIG, **changes, "jobs": {"chains_per_evaluation": 1}, "evaluations": ["accuracy"]}, "test")


def looked(watch: Watch) -> tuple[Snapshot, Counter[str], Counter[str]]:
    """What a look finds, how often it lists each folder, and how often it asks for each file."""
    listed: Counter[str] = Counter()
    asked: Counter[str] = Counter()

    def counted(real: Any, counts: Counter[str]) -> Any:
        def call(path: Any = ".", *arguments: Any, **options: Any) -> Any:
            # Others, such as pytest's threads and imports, ask for absolute paths.
            if isinstance(path, str | Path) and not os.path.isabs(path):  # noqa: PTH117
                counts[str(path)] += 1
            return real(path, *arguments, **options)

        return call

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "scandir", counted(os.scandir, listed))
        patch.setattr(os, "stat", counted(os.stat, asked))
        snapshot = watch.look()
    return snapshot, listed, asked


def test_ten_thousand_jobs_are_found_by_listing_folders() -> None:
    watch = Watch(large())
    assert len(watch.jobs) > 8000
    snapshot, listed, asked = looked(watch)
    assert {each.state for each in snapshot.seen} == {"waiting"}
    assert (listed, asked) == ({".": 1}, {})
    # With all files of ten replicates, what is there is listed, each folder once.
    for each in watch.jobs:
        if each.replicate is not None and each.replicate < 10:
            for path in filter(None, [each.log, each.benchmark, *each.outputs]):
                os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120
                open(path, "a").close()
    snapshot, listed, asked = looked(watch)
    assert len(snapshot.of("done")) > 350
    assert set(listed.values()) == {1}
    assert all(os.path.isdir(each) for each in listed), "none below one that is not there"  # noqa: PTH112
    assert not asked
    # What was whole is not looked through again as long as jobs are left.
    again, listed, asked = looked(watch)
    assert len(again.of("done")) == len(snapshot.of("done"))
    assert listed.total() < len(snapshot.of("done"))
    assert not asked


def test_torch_is_not_imported(folder: Path, tmp_path: Path) -> None:
    code = "import sys; from prunebench.cli import main; main(sys.argv[1:]); print(*sys.modules, file=sys.stderr)"
    arguments = ["watch", write_config(tmp_path), "--once"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert not set(done.stderr.split()) & {"torch", "torchvision", "sklearn", "pandas", "scipy", "matplotlib", "numpy"}


def test_labels(watch: Watch) -> None:
    assert label(job(watch, "dense", 1)) == "dense, digits resnet20 r1"
    assert label(job(watch, "one-shot", 1, "cka"), several=False) == "one-shot cka, r1"
    assert label(job(watch, "collect", None)) == "collect"
    assert label(job(watch, "measure", None), several=False) == "measure latency batch 0"


def test_durations_are_of_the_nearest_kind() -> None:
    durations = Durations()
    assert durations.mean(("dense",)) is None
    durations.add(("evaluate", "digits", "fgsm"), 10.0)
    durations.add(("evaluate", "digits", "fgsm"), 20.0)
    durations.add(("evaluate", "cifar10", "fgsm"), 60.0)
    assert durations.mean(("evaluate", "digits", "fgsm")) == 15.0
    assert durations.mean(("evaluate", "digits", "pgd")) == 15.0
    assert durations.mean(("evaluate", "imagenet", "pgd")) == 30.0
    assert durations.mean(("dense",)) == 30.0
    assert durations.number(("evaluate", "digits")) == 2


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (245, "4:05"), (3723.4, "1:02:03"), (86399, "23:59:59"), (98000, "1 d 3 h")]
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_the_time_left_of_a_run_takes_jobs_of_the_same_rule_as_alike() -> None:
    estimate = Estimate()
    estimate.total.update({"one_shot_cka_digits_resnet20": 4, "one_shot_last_digits_resnet20": 2, "dense": 2})
    for _ in range(3):
        estimate.finish("one_shot_cka_digits_resnet20", 100.0)
    assert estimate.left(elapsed=150.0) is None
    estimate.finish("dense", 10.0)
    estimate.finish("dense", 10.0)
    # One more of cka, two of another criterion that take as long; 320 s were worked in 160 s, two side by side.
    assert estimate.left(elapsed=160.0) == pytest.approx((100.0 + 2 * 100.0) / 2)


def test_the_logger_says_what_slurm_says_of_a_job_that_failed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    handler = LogHandler.__new__(LogHandler)
    logging.Handler.__init__(handler)
    handler.stream = sys.stdout
    write_text(Path("logs/slurm/4711.log"), "slurmstepd: error: CANCELLED DUE TO TIME LIMIT\n")
    record = {"rule_name": "dense", "log": ["logs/dense.log", "logs/slurm/4711.log"], "rule_msg": "SLURM status is: 'TIMEOUT'"}
    handler._fail(record)
    printed = capsys.readouterr().out
    assert "logs/dense.log, logs/slurm/4711.log" in printed
    assert "TIMEOUT" in printed
    assert "DUE TO TIME LIMIT" in printed
