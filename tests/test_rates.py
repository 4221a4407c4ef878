"""From work to time: reference rates, and what records make of them."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from prunebench.config import parse
from prunebench.costs import Costs, Work
from prunebench.errors import PrunebenchError
from prunebench.planned import PlannedJob, planned_jobs
from prunebench.rates import LEAST_FACTOR, Benchmark, Clock, Record, ran_on, read_benchmark, records_of, reference
from shared import REPOSITORY

HEADER = "s\th:m:s\tmax_rss\tmax_vms\tmax_uss\tmax_pss\tio_in\tio_out\tmean_load\tcpu_time\n"


def job(stage: str, number: int = 0) -> PlannedJob:
    return PlannedJob(stage, stage, (), f"{stage}{number}.log", dataset="digits", model="resnet20", replicate=number)


def record(stage: str, macs: float, seconds: float) -> Record:
    return Record(job(stage), Work(macs=macs), Benchmark(seconds, None))


def plain(hardware: str, macs: float) -> float:
    return macs / reference(hardware)["macs"].value


@pytest.mark.parametrize("hardware", ["cpu", "gpu"])
def test_the_table_has_a_rate_for_every_kind_of_work(hardware: str) -> None:
    rates = reference(hardware)
    assert set(rates) == {"start", *(field.name for field in fields(Work))}
    for rate in rates.values():
        assert rate.value > 0 and rate.factor >= 1 and rate.source
        assert rate.status in ("measured", "assumed")


def test_without_records_time_is_the_start_and_work_over_rate() -> None:
    clock = Clock("cpu")
    rates = reference("cpu")
    found = clock.of(job("dense"), Work(macs=1e12, networks=3, seconds=5))
    assert found.seconds == pytest.approx(rates["start"].value + 1e12 / rates["macs"].value + 3 / rates["networks"].value + 5)
    # As uncertain as what it is made of.
    assert rates["seconds"].factor < found.factor <= rates["macs"].factor
    assumed = reference("gpu")["macs"].factor
    assert Clock("gpu").of(job("dense"), Work(macs=1e15)).factor == pytest.approx(assumed, rel=0.05)
    assert assumed > rates["macs"].factor


def test_threads_make_training_faster_but_not_as_many_times() -> None:
    one, four = (Clock("cpu", threads).of(job("dense"), Work(macs=1e13)).seconds for threads in (1, 4))
    assert 1 / 4 < four / one < 1 / 2


def test_records_give_the_start_and_the_factor_of_a_stage() -> None:
    some = [record("one-shot", macs, 7 + 2 * plain("cpu", macs)) for macs in (1e11, 3e11, 1e12, 4e12)]
    clock = Clock("cpu", records=some)
    assert clock.start == pytest.approx(7)
    found = clock.of(job("one-shot"), Work(macs=1e13))
    assert found.seconds == pytest.approx(7 + 2 * plain("cpu", 1e13)) and found.factor == LEAST_FACTOR
    # A stage without records has those of its kind, and is less certain; another kind has the reference.
    other = clock.of(job("iterative"), Work(macs=1e13))
    assert other.seconds == pytest.approx(found.seconds) and other.factor > found.factor
    assert clock.of(job("score"), Work(macs=1e13)).seconds == pytest.approx(7 + plain("cpu", 1e13))


def test_jobs_that_found_their_work_done_move_nothing() -> None:
    some = [record("one-shot", macs, 5 + 2 * plain("cpu", macs)) for macs in (1e12, 2e12, 4e12, 8e12)]
    resumed = [record("one-shot", 4e12, 5.5), record("one-shot", 8e12, 5.5)]
    found = Clock("cpu", records=[*some, *resumed]).of(job("one-shot"), Work(macs=1e13))
    assert found.seconds == pytest.approx(2 * plain("cpu", 1e13), rel=0.15)


def test_scatter_of_the_records_is_the_range() -> None:
    some = [record("score", 1e13, factor * plain("cpu", 1e13)) for factor in (1, 2, 2, 2, 4)]
    found = Clock("cpu", records=some).of(job("score"), Work(macs=1e13))
    assert found.factor == pytest.approx(2, rel=0.05)


def test_a_benchmark_of_snakemake_is_read(tmp_path: Path) -> None:
    path = tmp_path / "dense.benchmark.tsv"
    path.write_text(HEADER + "10.04\t0:00:10\t447.29\t2258.50\t369.09\t402.65\t0.08\t1.86\t89.59\t9.48\n")
    assert read_benchmark(path) == Benchmark(10.04, 447.29)
    path.write_text(HEADER + "0.3\t0:00:00\tNA\tNA\tNA\tNA\tNA\tNA\tNA\tNA\n")
    assert read_benchmark(path) == Benchmark(0.3, None)


@pytest.mark.parametrize(
    "content", [b"", HEADER.encode(), b"s\tx\nsoon\t1\n", b"h:m:s\n0:00:10\n", b"s\nnan\n", b"s\n-3\n", b"\xff\xfe\x00"]
)
def test_a_benchmark_that_is_none_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "dense.benchmark.tsv"
    path.write_bytes(content)
    with pytest.raises(PrunebenchError, match=r"dense\.benchmark\.tsv: .*delete the file") as error:
        read_benchmark(path)
    assert "\n" not in str(error.value)


def test_records_of_a_suite_are_found_and_broken_ones_are_named(tmp_path: Path) -> None:
    content = {"suite": "s", "experiments": [{"dataset": "digits", "model": "resnet20"}], "operating_points": [{"blocks": 1}]}
    suite = parse({**content, "schedules": {"one-shot": {"criteria": ["cka"]}}}, "test")
    costs = Costs(suite)
    [dense, *others] = [each for each in planned_jobs(suite) if each.stage == "dense"]
    for each, text in ((dense, "s\n9.5\n"), (others[0], "nothing")):
        assert each.benchmark
        (tmp_path / each.benchmark).parent.mkdir(parents=True)
        (tmp_path / each.benchmark).write_text(text)
    records, problems = records_of(suite, costs, tmp_path)
    assert [(found.job, found.work, found.benchmark.seconds) for found in records] == [(dense, costs.of(dense).work, 9.5)]
    [problem] = problems
    assert str(others[0].benchmark) in problem


@pytest.mark.parametrize(("gpus", "device", "expected"), [([], "auto", "cpu"), (["H"], "auto", "gpu"), (["H"], "cpu", "cpu")])
def test_what_a_suite_ran_on_is_read_from_its_results(gpus: list[str], device: str, expected: str, tmp_path: Path) -> None:
    from prunebench.artifacts import write_json
    from prunebench.config import read

    suite = read(REPOSITORY / "config/config.yaml").model_copy(update={"device": device})
    assert ran_on(suite, tmp_path) is None
    path = tmp_path / "results/demo/digits/resnet32/replicate1/dense/training.json"
    path.parent.mkdir(parents=True)
    write_json(path, {"provenance": {"hardware": {"gpus": gpus}}})
    assert ran_on(suite, tmp_path) == expected
