"""What a suite will take: totals, what is done, how long all of it lasts, and how it should be divided."""

from __future__ import annotations

import json
import shutil
import statistics
from pathlib import Path
from typing import Any

import pytest
import yaml

from prunebench.artifacts import write_json
from prunebench.cli import main
from prunebench.config import Suite, parse, read
from prunebench.costs import Cost, Costs, Work
from prunebench.division import LONG_ENOUGH_MINUTES, TOO_LONG_MINUTES, advice
from prunebench.plan import ATTEMPTS, Estimate, longest_path, submitted
from prunebench.planned import RUNTIME_MINUTES, PlannedJob, planned_jobs
from prunebench.rates import Clock, Duration
from shared import REPOSITORY

HEADER = "s\th:m:s\tmax_rss\n"
CONTENT: dict[str, Any] = {
    "suite": "small",
    "device": "cpu",
    "experiments": [{"dataset": "digits", "model": "resnet20"}],
    "schedules": {"one-shot": {"criteria": ["cka", "random"]}},
    "operating_points": [{"blocks": 1}],
    "evaluations": ["accuracy"],
}


def planned(capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, Any]:
    main(["plan", "small.yaml", "--json", *options])
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(CONTENT))
    return tmp_path


def finish(folder: Path, job: PlannedJob, seconds: float, gpus: tuple[str, ...] = ()) -> None:
    for output in job.outputs:
        (folder / output).parent.mkdir(parents=True, exist_ok=True)
        write_json(folder / output, {"provenance": {"hardware": {"gpus": list(gpus)}}})
    if job.benchmark:
        (folder / job.benchmark).parent.mkdir(parents=True, exist_ok=True)
        (folder / job.benchmark).write_text(f"{HEADER}{seconds}\t0:00:10\t512.5\n")


def row(found: dict[str, Any], stage: str) -> dict[str, Any]:
    [only] = [each for each in found["stages"] if each["stage"] == stage]
    return dict(only)


def test_totals_are_those_of_the_stages(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = planned(capsys)
    jobs = planned_jobs(read(folder / "small.yaml"))
    assert found["total"]["jobs"] == len(jobs) == sum(each["jobs"] for each in found["stages"])
    assert found["total"]["done"] == 0
    low, expected, high = found["total"]["cpu_hours"]
    assert 0 < low < expected < high
    assert expected == pytest.approx(sum(each["cpu_hours"][1] for each in found["stages"]))
    # Ranking, collecting and presenting are not for the cluster.
    assert found["submitted"]["jobs"] == len([job for job in jobs if not job.local]) < len(jobs)
    assert found["total"]["gpu_hours"] == [0, 0, 0]


def test_a_gpu_is_counted_for_the_jobs_that_ask_for_one(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = planned(capsys, "--hardware", "gpu")
    assert row(found, "dense")["gpu_hours"][1] > 0 and row(found, "rank")["gpu_hours"] == [0, 0, 0]
    # Nothing of it is measured, so it is far from certain.
    low, _, high = found["total"]["gpu_hours"]
    assert high / low > 4


def test_finished_jobs_cost_nothing_more_and_tell_the_others_how_long_they_take(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = planned(capsys)
    dense = [job for job in planned_jobs(read(folder / "small.yaml")) if job.stage == "dense"]
    for job in dense[:2]:
        finish(folder, job, 900.0)
    after = planned(capsys)
    assert row(after, "dense")["done"] == 2 and after["total"]["done"] == 2
    assert row(after, "dense")["median_minutes"] == pytest.approx(15)
    assert row(after, "dense")["cpu_hours"][1] == pytest.approx(900 / 3600, rel=0.05)
    assert row(after, "dense")["memory_mb"] == 512.5
    # Training of the same kind takes as much longer than the reference says.
    assert row(after, "one-shot")["cpu_hours"][1] > 3 * row(before, "one-shot")["cpu_hours"][1]
    # A job whose file was deleted has to run again.
    (folder / dense[0].outputs[0]).unlink()
    assert row(planned(capsys), "dense")["done"] == 1


def test_a_finished_suite_has_nothing_left(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for job in planned_jobs(read(folder / "small.yaml")):
        finish(folder, job, 60.0)
    found = planned(capsys)
    assert found["total"]["done"] == found["total"]["jobs"]
    assert found["total"]["cpu_hours"] == [0, 0, 0] and found["wall_hours"]["high"] == 0
    assert found["submitted"]["median_minutes"] == 1 and found["advice"] is None
    main(["plan", "small.yaml"])
    assert "Nothing is left to do." in capsys.readouterr().out


def test_a_benchmark_that_cannot_be_read_is_named_and_left_out(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [job, *_] = planned_jobs(read(folder / "small.yaml"))
    finish(folder, job, 900.0)
    assert job.benchmark
    (folder / job.benchmark).write_text("cut of")
    found = planned(capsys)
    assert any(job.benchmark in warning for warning in found["warnings"])
    assert found["total"]["done"] == 1 and found["records"] == {}


def test_jobs_are_done_though_their_logs_are_gone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for job in planned_jobs(read(folder / "small.yaml")):
        finish(folder, job, 60.0)
    shutil.rmtree(folder / "logs")
    found = planned(capsys)
    assert found["total"]["done"] == found["total"]["jobs"]
    assert found["total"]["cpu_hours"] == [0, 0, 0]


def test_records_of_another_suite_count_where_the_hardware_is_the_same(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = folder / "other.yaml"
    other.write_text(yaml.safe_dump({**CONTENT, "suite": "other", "device": "auto"}))
    [job, *_] = planned_jobs(read(other))
    finish(folder / "elsewhere", job, 900.0)
    before = planned(capsys)
    after = planned(capsys, "--records", "other.yaml", "elsewhere")
    assert after["records"] == {"dense": 1}
    assert after["total"]["cpu_hours"][1] > 3 * before["total"]["cpu_hours"][1]
    # Not there: the folder is named.
    [note] = [text for text in planned(capsys, "--records", "other.yaml")["warnings"] if "other.yaml" in text]
    assert "logs/other" in note
    finish(folder / "elsewhere", job, 900.0, gpus=("a GPU",))
    found = planned(capsys, "--hardware", "cpu", "--records", "other.yaml", "elsewhere")
    assert found["records"] == {} and any("left out" in text for text in found["warnings"])
    assert planned(capsys, "--records", "other.yaml", "elsewhere")["hardware"] == "gpu"


def test_rules_of_ones_own_are_named_since_nothing_is_known_of_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(REPOSITORY)
    main(["plan", "tests/suites/tiny.yaml"])
    assert "your own rules are not counted: docs/examples/methods.smk" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["missing.yaml"], "missing.yaml: no such file"),
        (["small.yaml", "--records", "small.yaml", "a", "b"], "one at most"),
        (["small.yaml", "--records", "missing.yaml"], "missing.yaml: no such file"),
    ],
)
def test_mistakes_are_one_line(folder: Path, options: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["plan", *options])
    told = capsys.readouterr().err
    assert end.value.code == 2 and words in told and told.count("\n") == 1


@pytest.mark.parametrize("number", ["0", "-1", "many"])
def test_jobs_at_once_is_a_number(folder: Path, number: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["plan", "small.yaml", "--jobs", number])
    assert end.value.code == 2 and "at least 1" in capsys.readouterr().err


def estimate(stage: str, seconds: float, replicate: int | None = 0, done: bool = False) -> Estimate:
    pair = (None, None) if stage in ("collect", "tables", "figures") else ("digits", "resnet20")
    job = PlannedJob(stage, stage, (), f"{stage}.log", None, *pair, replicate)
    return Estimate(job, Cost(Work()), Duration(seconds, 1.0), done)


def test_the_longest_chain_of_jobs_is_found() -> None:
    some = [
        *(estimate("dense", 10, replicate) for replicate in (0, 1)),
        *(estimate("score", 5, replicate) for replicate in (0, 1)),
        estimate("one-shot", 20),
        estimate("one-shot", 50, replicate=1),
        estimate("iterative", 40),
        estimate("evaluate", 30),
        estimate("oracle", 60),
        estimate("collect", 2, replicate=None),
        estimate("tables", 3, replicate=None),
        estimate("figures", 4, replicate=None),
    ]
    # Dense, score, iterative, evaluate; then collect and, beside the tables, the figures.
    assert longest_path(some) == 10 + 5 + 40 + 30 + 2 + 4
    # Measuring waits for the slowest replicate.
    assert longest_path([*some, estimate("measure", 100, replicate=None)]) == 10 + 5 + 50 + 100 + 2 + 4
    # An oracle that takes longest holds up all.
    assert longest_path([*some, estimate("oracle", 500)]) == 10 + 500 + 2 + 4
    assert longest_path([estimate("dense", 10, done=True)]) == 0


def test_a_cluster_sees_what_is_submitted_and_not_done() -> None:
    waiting, done, local = estimate("dense", 1), estimate("dense", 2, done=True), estimate("rank", 3)
    assert submitted([waiting, done, local]) == [waiting]
    assert submitted([done, local]) == [done]


@pytest.mark.parametrize("at_once", [1, 8, 10**6])
def test_wall_time_lies_between_its_bounds(folder: Path, at_once: int, capsys: pytest.CaptureFixture[str]) -> None:
    found = planned(capsys, "--jobs", str(at_once))
    wall, work = found["wall_hours"], sum(each["cpu_hours"][1] for each in found["stages"] if not each["local"])
    assert wall["low"] <= max(wall["longest_chain"], work / at_once) <= wall["high"] * 1.0001


def paper(**changes: Any) -> Suite:
    """Of the size of a paper's: the networks are small enough that many jobs are short."""
    criteria = ["cka", "linear_0", "linear_1", "permutation", "wasserstein", "taylor", "l1_norm", "first", "last", "bn_scale"]
    content = {
        "suite": "paper",
        "replicates": 10,
        "experiments": [{"dataset": "cifar10", "model": "resnet56"}],
        "schedules": {"one-shot": {"criteria": criteria}, "iterative": {"criteria": criteria}},
        "operating_points": [{"blocks": 2}, {"blocks": 6}],
        "fine_tuning": {"epochs_per_block": 2},
        **changes,
    }
    return parse(content, "test")


@pytest.mark.parametrize("at_once", [16, 100])
def test_advice_makes_the_median_job_long_enough_and_no_other_too_long(at_once: int) -> None:
    suite, clock = paper(), Clock("gpu")
    costs = Costs(suite)
    better = advice(suite, costs, clock, at_once)
    assert better is not None

    def minutes(some: Suite, stages: tuple[str, ...]) -> list[float]:
        counted = Costs(some)
        return [clock.of(job, counted.of(job).work).seconds / 60 for job in planned_jobs(some) if job.stage in stages]

    wanted = {key: better[key] for key in ("chains_per_job", "chains_per_evaluation")}
    divided = paper(jobs=wanted)
    chained = ("one-shot", "iterative")
    assert statistics.median(minutes(suite, chained)) < LONG_ENOUGH_MINUTES
    assert len(minutes(divided, chained)) >= at_once
    assert max(minutes(divided, chained)) <= TOO_LONG_MINUTES
    # With one chain less the jobs are too short; with so many they are long enough, or too few for more.
    less = paper(jobs={**wanted, "chains_per_job": wanted["chains_per_job"] - 1}) if wanted["chains_per_job"] > 1 else suite
    assert statistics.median(minutes(less, chained)) < LONG_ENOUGH_MINUTES
    more = paper(jobs={**wanted, "chains_per_job": wanted["chains_per_job"] + 1})
    long_enough = statistics.median(minutes(divided, chained)) >= LONG_ENOUGH_MINUTES
    assert long_enough or len(minutes(more, chained)) < at_once
    assert better["jobs"] == len([job for job in planned_jobs(divided) if not job.local])


def test_there_is_no_advice_where_jobs_are_as_many_as_may_run_at_once() -> None:
    suite = paper(jobs={"chains_per_job": 10, "chains_per_evaluation": 20})
    assert advice(suite, Costs(suite), Clock("gpu"), at_once=20) is None


@pytest.mark.parametrize(
    ("config", "hardware"), [("config/config.yaml", "cpu"), ("config/config.yaml", "gpu"), ("config/paper-consensus.yaml", "gpu")]
)
@pytest.mark.parametrize("at_once", [8, 64, 1000])
def test_advice_makes_jobs_fewer_or_longer(config: str, hardware: str, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    suite, clock = read(Path(config)), Clock(hardware)
    costs = Costs(suite)
    better = advice(suite, costs, clock, at_once)
    now = [job for job in planned_jobs(suite) if not job.local]
    median = statistics.median(clock.of(job, costs.of(job).work).seconds / 60 for job in now)
    if better is not None:
        assert better["jobs"] < len(now) or better["median_minutes"] > median
        # Smaller numbers, down to the config's own, would divide the work in another way.
        for key, mine in suite.jobs.model_dump().items():
            if better[key] > mine:
                less = {**{name: better[name] for name in suite.jobs.model_dump()}, key: better[key] - 1}
                divided = suite.model_copy(update={"jobs": suite.jobs.model_copy(update=less)})
                assert len([job for job in planned_jobs(divided) if not job.local]) > better["jobs"]


@pytest.mark.parametrize(("times", "attempt"), [(0.8, None), (2.0, 2), (5.0, 3), (9.0, 4), (12.0, None)])
def test_of_jobs_longer_than_their_rule_asks_for_it_is_said_whether_retries_end_them(
    folder: Path, capsys: pytest.CaptureFixture[str], times: float, attempt: int | None
) -> None:
    def dense(epochs: int) -> dict[str, Any]:
        large = {**CONTENT, "dense_training": {"epochs": epochs}}
        (folder / "small.yaml").write_text(yaml.safe_dump(large))
        return planned(capsys)

    asked = RUNTIME_MINUTES["dense"]
    of_epochs = row(dense(100_000), "dense")["longest_minutes"] / 100_000
    warnings = dense(round(times * asked / of_epochs))["warnings"]
    if times < 1:
        assert not warnings
        return
    [warning] = warnings
    assert warning.startswith("dense: jobs of up to") and f"ask a cluster for {asked}" in warning
    if attempt:
        assert f"ends in attempt {attempt} of {ATTEMPTS}" in warning
    else:
        assert f"together have {10 * asked}" in warning and "started again" in warning and "--hardware gpu" in warning


def test_attempts_are_those_of_the_profile() -> None:
    profile = yaml.safe_load((REPOSITORY / "slurm/profile.yaml").read_text())
    assert profile["retries"] + 1 == ATTEMPTS


def test_the_text_says_what_the_json_says(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = planned(capsys, "--hardware", "gpu", "--jobs", "4")
    main(["plan", "small.yaml", "--hardware", "gpu", "--jobs", "4"])
    told = capsys.readouterr().out
    for each in found["stages"]:
        [line] = [line for line in told.splitlines() if line.startswith(each["stage"] + " ")]
        assert str(each["jobs"]) in line.split() and ("(local)" in line) == each["local"]
    assert "start 9" in told and "(assumed)" in told and "With 4 jobs at once" in told
    assert f"{found['submitted']['jobs']} jobs that a cluster sees" in told


def test_a_suite_of_ten_thousand_jobs_is_divided() -> None:
    pairs = [{"dataset": data, "model": f"resnet{depth}"} for data in ("cifar10", "cifar100", "digits") for depth in (32, 44, 56)]
    suite = paper(experiments=pairs, replicates=30)
    assert len(planned_jobs(suite)) > 10_000
    better = advice(suite, Costs(suite), Clock("gpu"), 64)
    assert better is not None and better["jobs"] < 4000
