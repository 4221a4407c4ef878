"""Evaluations in a suite: their options, the networks they are limited to, and jobs that go on where they stopped."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import Any

import pytest

from helpers import architecture, evaluate_job, random_network
from prunebench import evaluating, experiments, job_settings
from prunebench.artifacts import read_json
from prunebench.config import Suite, parse
from prunebench.errors import PrunebenchError
from prunebench.models.files import save_network

COUNTING = '''
"""Counts its calls in a file."""

from pathlib import Path

from pydantic import Field

from prunebench.config import Section
from prunebench.evaluation import Evaluation, Values


class Options(Section):
    """Options."""

    calls: str = "calls"
    """Where calls are counted."""
    fails_at: int = Field(0, ge=0)
    """Which call fails."""


def measure(subject):
    options = Options.model_validate(dict(subject.options))
    path = Path(options.calls)
    number = len(path.read_text()) + 1 if path.exists() else 1
    path.write_text("x" * number)
    checkpoint = subject.work / "half"
    resumed = checkpoint.exists()
    if number == options.fails_at:
        subject.work.mkdir(parents=True)
        checkpoint.touch()
        raise RuntimeError("killed")
    return Values({"calls": number, "resumed": float(resumed), "seed": float(subject.seed % 1000)})


EVALUATION = Evaluation("counting", measure, options=Options, unsuited=lambda dataset: "too large" if dataset.classes > 10 else None)
'''


def suite(*evaluations: Any, **changes: Any) -> Suite:
    content: dict[str, Any] = {
        "suite": "small",
        "replicates": 2,
        "experiments": [{"dataset": "digits", "model": "resnet20"}],
        "schedules": {"one-shot": {"criteria": ["cka", "random"], "draws": 3}, "iterative": {"criteria": ["cka"]}},
        "operating_points": [{"blocks": 1}, {"blocks": 2}],
        "evaluations": list(evaluations),
    }
    return parse(content | changes, "test")


@pytest.fixture
def counting(tmp_path: Path) -> str:
    path = tmp_path / "counting.py"
    path.write_text(COUNTING, encoding="utf-8")
    return str(path)


@pytest.fixture
def replicate(tmp_path: Path) -> Path:
    folder = tmp_path / "replicate0"
    for place, removed in (("dense", []), ("one-shot/x/draw0/blocks1", ["stage1.block1"])):
        described = architecture().without(removed)
        save_network(folder / place, random_network(described), described)
    return folder


def evaluate(replicate: Path, reference: str, **options: Any) -> list[dict[str, Any]]:
    job = evaluate_job(reference, options=options, chains={"one-shot/x": {"draws": 1, "points": ["blocks1"]}})
    evaluating.evaluate(job, replicate, replicate / ".work", replicate / "cache")
    places = (replicate / "dense", replicate / "one-shot/x/draw0/blocks1")
    return [read_json(place / "evaluations" / "counting.json")["values"] for place in places]


def test_a_killed_job_goes_on_where_it_stopped(tmp_path: Path, counting: str, replicate: Path) -> None:
    options = {"calls": str(tmp_path / "calls"), "fails_at": 2}
    with pytest.raises(RuntimeError, match="killed"):
        evaluate(replicate, counting, **options)
    # Snakemake deletes the outputs of a failed job.
    (replicate / "dense" / "evaluations" / "counting.json").unlink()
    dense, pruned = evaluate(replicate, counting, **options)
    assert (dense["calls"], dense["resumed"]) == (1, 0), "the finished network is not evaluated again"
    assert (pruned["calls"], pruned["resumed"]) == (3, 1), "the other goes on from its checkpoint"
    assert dense["seed"] == pruned["seed"]
    assert [path for path in (replicate / ".work").rglob("half")] == [], "checkpoints go when the result is there"
    assert evaluate(replicate, counting, **options)[1]["calls"] == 3


def test_what_a_result_depends_on_makes_it_anew(tmp_path: Path, counting: str, replicate: Path) -> None:
    options = {"calls": str(tmp_path / "calls")}
    evaluate(replicate, counting, **options)
    assert evaluate(replicate, counting, fails_at=9, **options)[0]["calls"] == 3, "another option"
    described = architecture().without(["stage1.block1"])
    save_network(replicate / "one-shot/x/draw0/blocks1", random_network(described, seed=1), described)
    dense, pruned = evaluate(replicate, counting, fails_at=9, **options)
    assert (dense["calls"], pruned["calls"]) == (3, 5), "other weights"


def test_checkpoints_of_other_weights_or_options_are_not_taken_up(tmp_path: Path, counting: str, replicate: Path) -> None:
    calls = str(tmp_path / "calls")
    with pytest.raises(RuntimeError, match="killed"):
        evaluate(replicate, counting, calls=calls, fails_at=2)
    assert evaluate(replicate, counting, calls=calls, fails_at=9)[1]["resumed"] == 0, "another option"
    with pytest.raises(RuntimeError, match="killed"):
        evaluate(replicate, counting, calls=calls, fails_at=6)
    assert (replicate / ".work/one-shot/x/draw0/blocks1/counting/half").is_file()
    described = architecture().without(["stage1.block1"])
    save_network(replicate / "one-shot/x/draw0/blocks1", random_network(described, seed=1), described)
    assert evaluate(replicate, counting, calls=calls, fails_at=6)[1]["resumed"] == 0, "other weights"
    assert list((replicate / ".work").rglob("*.identity")) == [], "they go with the checkpoints"


@pytest.fixture
def measuring(counting: str) -> str:
    path = Path(counting)
    path.write_text(COUNTING.replace("options=Options,", 'options=Options, per="architecture",'), encoding="utf-8")
    return counting


def measure(replicate: Path, reference: str, **options: Any) -> list[tuple[float, float]]:
    job = evaluate_job(reference, options=options, chains={"one-shot/x": {"draws": 1, "points": ["blocks1"]}})
    experiment = replicate.parent
    evaluating.measure(job, experiment, experiment / "measured", experiment / ".work")
    rows = read_json(experiment / "measured" / "counting.json")["architectures"]
    return [(row["values"]["calls"], row["values"]["resumed"]) for row in rows]


def test_a_measurement_goes_on_on_the_same_machine_alone(
    tmp_path: Path, measuring: str, replicate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"calls": str(tmp_path / "calls"), "fails_at": 2}
    with pytest.raises(RuntimeError, match="killed"):
        measure(replicate, measuring, **options)
    assert measure(replicate, measuring, **options) == [(1, 0), (3, 1)]
    (tmp_path / "calls").unlink()
    with pytest.raises(RuntimeError, match="killed"):
        measure(replicate, measuring, **options)
    monkeypatch.setattr(platform, "node", lambda: "another-machine")
    assert measure(replicate, measuring, **options) == [(3, 0), (4, 0)]
    (tmp_path / "calls").unlink()
    with pytest.raises(RuntimeError, match="killed"):
        measure(replicate, measuring, **options)
    monkeypatch.setattr(evaluating, "device_name", lambda device: "another processor")
    assert measure(replicate, measuring, **options) == [(3, 0), (4, 0)]


def test_a_result_that_was_deleted_is_measured_again(tmp_path: Path, measuring: str, replicate: Path) -> None:
    options = {"calls": str(tmp_path / "calls")}
    assert measure(replicate, measuring, **options) == [(1, 0), (2, 0)]
    (tmp_path / "measured" / "counting.json").unlink()
    assert measure(replicate, measuring, **options) == [(3, 0), (4, 0)]


def test_what_was_measured_is_kept_until_all_of_the_job_is(tmp_path: Path, measuring: str, replicate: Path) -> None:
    other = tmp_path / "failing.py"
    text = Path(measuring).read_text().replace('"counting"', '"failing"').replace("number == options.fails_at", "number == 3")
    other.write_text(text, encoding="utf-8")
    job = evaluate_job(measuring, str(other), options={"calls": str(tmp_path / "calls")})
    places = (tmp_path, tmp_path / "measured", tmp_path / ".work")
    (tmp_path / "calls").write_text("x")
    with pytest.raises(RuntimeError, match="killed"):
        evaluating.measure(job, *places)
    # Snakemake deletes all outputs of a job that failed.
    (tmp_path / "measured" / "counting.json").unlink()
    evaluating.measure(job, *places)
    [row] = read_json(tmp_path / "measured" / "counting.json")["architectures"]
    assert row["values"]["calls"] == 2


def test_a_corrupt_result_is_named_and_made_anew(
    tmp_path: Path, counting: str, replicate: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"calls": str(tmp_path / "calls")}
    evaluate(replicate, counting, **options)
    kept = replicate / ".work" / "dense" / "counting.json"
    kept.write_text(kept.read_text()[:50])
    assert evaluate(replicate, counting, **options)[0]["calls"] == 3
    assert str(kept) in capsys.readouterr().out


def folders(content: Suite, name: str, replicate: int) -> list[str]:
    found = experiments.evaluated(content, "digits", "resnet20", replicate)
    return [folder for folder, names in found.items() if name in names]


def test_limits(counting: str) -> None:
    content = suite(
        "accuracy",
        {
            "evaluation": counting,
            "criteria": ["random"],
            "schedules": ["one-shot"],
            "operating_points": ["blocks2"],
            "replicates": 1,
            "draws": 2,
        },
    )
    assert folders(content, "counting", 0) == ["dense", "one-shot/random/draw0/blocks2", "one-shot/random/draw1/blocks2"]
    assert folders(content, "counting", 1) == []
    assert len(folders(content, "accuracy", 1)) == 1 + 2 * (1 + 3 + 1)


@pytest.mark.parametrize("size", [1, 2, 100])
def test_jobs_divide_the_networks_among_them(size: int) -> None:
    content = suite("accuracy", "complexity", "latency", jobs={"chains_per_evaluation": size})
    [group] = experiments.evaluation_groups(content, "digits", "resnet20", "network")
    assert group.names == ["accuracy", "complexity"]
    found = [folder for batch in range(len(group.batches)) for folder in group.folders(batch)]
    assert sorted(found) == sorted(experiments.network_folders(content, "digits", "resnet20"))
    assert len(group.batches) == -(-3 // size)
    [group] = experiments.evaluation_groups(content, "digits", "resnet20", "architecture")
    assert len(group.batches) == 1, "what is measured is measured by one job"


def test_options_reach_the_job_with_their_defaults(counting: str) -> None:
    content = suite({"evaluation": counting, "options": {"fails_at": 3}})
    [group] = experiments.evaluation_groups(content, "digits", "resnet20", "network")
    job = job_settings.evaluate_job(content, "digits", "resnet20", 0, group)
    assert json.loads(json.dumps(job))["evaluations"] == [{"evaluation": counting, "options": {"calls": "calls", "fails_at": 3}}]


INPUTS = 'inputs=lambda options, dataset, root: [root / f"{options[\'calls\']}-{dataset.name}.npy", root / "more"], '


def test_files_that_decide_the_values_make_a_job_run_again(tmp_path: Path, counting: str) -> None:
    Path(counting).write_text(COUNTING.replace("options=Options,", f"options=Options, {INPUTS}"), encoding="utf-8")
    content = suite({"evaluation": counting}, data={"root": str(tmp_path / "data")})
    [group] = experiments.evaluation_groups(content, "digits", "resnet20", "network")

    def inputs() -> Any:
        return job_settings.evaluate_job(content, "digits", "resnet20", 0, group)["evaluations"][0]["inputs"]

    assert inputs() == {}
    (tmp_path / "data" / "more").mkdir(parents=True)
    file = tmp_path / "data" / "calls-digits.npy"
    file.write_bytes(b"123")
    assert inputs() == {str(file): 3, str(file.with_name("more")): 0}


def test_a_result_without_a_file_that_is_there_now_is_made_anew(tmp_path: Path, counting: str, replicate: Path) -> None:
    options = {"calls": str(tmp_path / "calls")}
    for inputs, calls in (({}, 1), ({"extra.npy": 3}, 2), ({"extra.npy": 3}, 2), ({"extra.npy": 4}, 3)):
        job = evaluate_job(counting, evaluations=[{"evaluation": counting, "options": options, "inputs": inputs}])
        evaluating.evaluate(job, replicate, replicate / ".work", replicate / "cache")
        assert read_json(replicate / "dense" / "evaluations" / "counting.json")["values"]["calls"] == calls


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ({"options": {"fails": 3}}, r"evaluations\[0\]\.options\.fails: unknown key; did you mean 'fails_at'"),
        (
            {"options": {"fails_at": -1}},
            r"evaluations\[0\]\.options\.fails_at: -1 is refused \(accepted: a whole number of at least 0",
        ),
        ({"criteria": ["cak"]}, r"evaluations\[0\]\.criteria\[0\]: 'cak' is not known in this suite; did you mean 'cka'"),
        ({"operating_points": ["block2"]}, r"operating_points\[0\]: 'block2' is not known in this suite; did you mean 'blocks2'"),
        ({"schedules": ["oneshot"]}, r"schedules\[0\]: 'oneshot' is not known in this suite; did you mean 'one-shot'"),
        ({"datasets": ["digit"]}, r"datasets\[0\]: 'digit' is not known in this suite; did you mean 'digits'"),
        ({"replicates": 0}, r"replicates: 0 is refused"),
        ({"draw": 1}, r"draw: unknown key; did you mean 'draws'"),
    ],
)
def test_mistakes_in_an_evaluation(counting: str, item: dict[str, Any], words: str) -> None:
    with pytest.raises(PrunebenchError, match=words):
        suite({"evaluation": counting, **item})


def test_an_evaluation_without_options_takes_none() -> None:
    with pytest.raises(PrunebenchError, match=r"evaluations\[0\]\.options: 'accuracy' has no options"):
        suite({"evaluation": "accuracy", "options": {"images": 3}})


def test_a_dataset_that_does_not_suit_is_refused_unless_left_out(counting: str) -> None:
    both = [{"dataset": "digits", "model": "resnet20"}, {"dataset": "cifar100", "model": "resnet20"}]
    with pytest.raises(PrunebenchError, match="'counting' does not suit 'cifar100': too large"):
        suite({"evaluation": counting}, experiments=both)
    content = suite({"evaluation": counting, "datasets": ["digits"]}, experiments=both)
    assert experiments.evaluation_groups(content, "cifar100", "resnet20", "network") == []


def test_an_experiment_may_follow_fewer_criteria() -> None:
    both = [{"dataset": "digits", "model": "resnet20"}, {"dataset": "cifar10", "model": "resnet20"}]
    both[1] |= {"criteria": ["random"], "schedules": ["one-shot"], "oracle": False}  # type: ignore[dict-item]
    content = suite("accuracy", experiments=both, oracle={"criteria": ["taylor"]})
    assert set(experiments.chains(content, "cifar10", "resnet20")) == {"one-shot/random"}
    assert set(experiments.chains(content, "digits", "resnet20")) == {"one-shot/cka", "one-shot/random", "iterative/cka"}
    assert set(job_settings.score_job(content, "cifar10", "resnet20", 0)["criteria"]) == {"random"}
    assert set(job_settings.score_job(content, "digits", "resnet20", 0)["criteria"]) == {"cka", "random", "taylor"}
    assert set(job_settings.rank_job(content, "cifar10", "resnet20")["criteria"]) == {"random"}
    assert not experiments.asks_oracle(content, content.experiments[1]) and experiments.asks_oracle(content)
    # A criterion may be taken out of the suite's list alone; a name that nothing has is a mistake.
    both[1] |= {"criteria": ["wasserstein"]}  # type: ignore[dict-item]
    assert experiments.chains(suite("accuracy", experiments=both), "cifar10", "resnet20") == {}
    both[1] |= {"criteria": ["waserstein"]}  # type: ignore[dict-item]
    with pytest.raises(PrunebenchError, match=r"experiments\[1\]\.criteria\[0\]: 'waserstein' is not known in this suite"):
        suite("accuracy", experiments=both)


@pytest.mark.parametrize(
    "kind", ["int | float", "int | str | None", "dict[str, float]", "tuple[int, int]", "Literal[1, 2]", 'Literal["a"]']
)
def test_options_of_any_type_are_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "odd.py"
    path.write_text(
        "from typing import Literal\n"
        "from prunebench.config import Section\n"
        "from prunebench.evaluation import Evaluation, Values\n"
        f"class Options(Section):\n    width: {kind} = None\n"
        "ODD = Evaluation('odd', lambda subject: Values({}), options=Options)\n"
    )
    with pytest.raises(PrunebenchError, match=r"evaluations\[0\]\.options\.width") as caught:
        suite({"evaluation": str(path), "options": {"width": [None]}})
    assert all(line.startswith("test: evaluations[0]") for line in str(caught.value).splitlines())


def test_only_what_is_evaluated_has_tables() -> None:
    content = suite("accuracy", {"evaluation": "fgsm", "datasets": ["cifar10"]})
    assert "fgsm" not in experiments.subjects(content) and "accuracy" in experiments.subjects(content)


def test_filters_need_the_networks_that_they_are_taken_from() -> None:
    one = [{"dataset": "digits", "model": "resnet20", "schedules": ["one-shot-filters"]}]
    with pytest.raises(PrunebenchError, match=r"experiments\[0\]\.schedules: one-shot-filters takes the networks of one-shot"):
        suite("accuracy", experiments=one)


def test_results_are_found_again_when_work_is_divided_anew(replicate: Path, tmp_path: Path, counting: str) -> None:
    options = {"calls": str(tmp_path / "calls")}
    evaluate(replicate, counting, **options)
    job = evaluate_job(counting, options=options, chains={"one-shot/x": {"draws": 1, "points": ["blocks1"]}}, with_dense=False)
    evaluating.evaluate(job, replicate, replicate / ".work", replicate / "cache")
    assert (tmp_path / "calls").read_text() == "xx"
