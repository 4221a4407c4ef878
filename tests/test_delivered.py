"""Networks delivered from files: configs that name them, taking them over, auditing them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from helpers import SAMPLE, architecture, context, random_network
from prunebench import delivered, experiments, job_settings, scoring, scoring_progress
from prunebench.artifacts import read_csv, write_json
from prunebench.cli import main
from prunebench.config import Suite, parse
from prunebench.errors import PrunebenchError
from prunebench.jobs import AuditJob, DeliverJob
from prunebench.models import find_model
from prunebench.models.files import build, load_architecture, load_network, save_network
from prunebench.reporting.audit import agreement, summarise
from prunebench.reporting.collect import Asked, NetworkFolder, Tables, collect, read_tables
from prunebench.reporting.figures import make_figure
from prunebench.surgery import remove
from shared import REPOSITORY
from test_keras_files import Writer

REMOVED = [["stage1.block1"], ["stage2.block1", "stage3.block2"]]


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A dense ResNet-20 and two networks made from it, as folders ``dense``, ``a`` and ``b``; ``a`` also as a Keras pair."""
    described = architecture(keras_compatible=True)
    network = random_network(described)
    save_network(tmp_path / "dense", network, described)
    for name, blocks in zip("ab", REMOVED, strict=True):
        network, described = remove(network.state_dict(), described, blocks)
        save_network(tmp_path / name, network, described)
        if name == "a":
            weights, text = Writer(network, described).write(tmp_path / "keras")
            weights.rename(tmp_path / "a.h5"), text.rename(tmp_path / "a.json")
    return tmp_path


def content(sources: Path, **series: Any) -> dict[str, Any]:
    one = {"method": "theirs", "network": f"{sources}/{{point}}", "points": ["a", "b"], **series}
    experiment = {"dataset": "digits", "model": "resnet20", "dense": f"{sources}/dense", "delivered": [one]}
    return {"suite": "small", "replicates": 1, "experiments": [experiment]}


def refusal(wrong: dict[str, Any]) -> str:
    with pytest.raises(PrunebenchError) as caught:
        parse(wrong, "my.yaml")
    return str(caught.value)


def test_a_suite_of_delivered_networks_needs_no_criteria_and_no_points(sources: Path) -> None:
    suite = parse(content(sources), "test")
    folders = list(experiments.network_folders(suite, "digits", "resnet20"))
    assert folders == ["dense", "delivered/theirs/draw0/a", "delivered/theirs/draw0/b"]
    # The collecting job reads the suite from its JSON.
    assert parse(suite.model_dump(mode="json", by_alias=True, exclude_none=True), "again") == suite


@pytest.mark.parametrize(
    ("series", "words"),
    [
        (
            {"points": ["a", "c"]},
            "experiments[0].delivered[0].network: '{sources}/{{point}}': {sources}/c/architecture.json: no such file",
        ),
        ({"points": ["a", "a"]}, "experiments[0].delivered[0].points[1]: a is there twice"),
        ({"network": "{sources}/a"}, "is one network for several points; write {{point}}"),
        ({"method": "cka"}, "experiments[0].delivered[0].method: 'cka' is the name of a criterion"),
        ({"points": []}, "experiments[0].delivered[0].points: [] is refused (accepted: a list of at least one item"),
        ({"point": ["a"]}, "delivered[0].point: unknown key; did you mean 'points'?"),
        ({"points": ["a b"]}, "delivered[0].points[0]: 'a b' is refused"),
        ({"network": "{sources}/{{point}}.h5", "points": ["a", "b"]}, "{sources}/b.h5: no such file"),
    ],
)
def test_mistakes_are_named(sources: Path, series: dict[str, Any], words: str) -> None:
    series = {key: value.format(sources=sources) if isinstance(value, str) else value for key, value in series.items()}
    assert words.format(sources=sources) in refusal(content(sources, **series)).replace("b.json", "b.h5")


def test_two_methods_of_one_name_and_criteria_that_draw_are_refused(sources: Path) -> None:
    twice = content(sources)
    twice["experiments"][0]["delivered"] *= 2
    assert "delivered[1].method: 'theirs'" in refusal(twice)
    assert "audit.criteria[0]: 'random' draws at random" in refusal(content(sources) | {"audit": {"criteria": ["random"]}})
    assert "operating_points: this key is required" in refusal(
        content(sources) | {"schedules": {"one-shot": {"criteria": ["cka"]}}}
    )


def test_other_files_make_the_jobs_run_again(sources: Path) -> None:
    suite: Suite = parse(content(sources, network=f"{sources}/{{point}}.h5", points=["a"]), "test")
    before = job_settings.deliver_job(suite, "digits", "resnet20", 0)
    assert set(before["files"]) == {f"{sources}/a.h5", f"{sources}/a.json"}
    (sources / "a.json").write_text((sources / "a.json").read_text() + "\n")
    assert job_settings.deliver_job(suite, "digits", "resnet20", 0) != before


def deliver_job(**networks: Path) -> DeliverJob:
    folders = {f"delivered/theirs/draw0/{name}": str(source) for name, source in networks.items()}
    return DeliverJob.model_validate({**context(), "networks": folders})


def test_folders_and_keras_files_give_the_same_network(sources: Path, tmp_path: Path) -> None:
    delivered.deliver(deliver_job(a=sources / "a", keras=sources / "a.h5"), tmp_path / "r")
    folder, keras = (tmp_path / "r/delivered/theirs/draw0" / name for name in ("a", "keras"))
    assert load_architecture(folder).blocks == load_architecture(sources / "a").blocks
    # Keras files do not say which blocks they were.
    assert load_architecture(keras).blocks[:2] == ("stage1.block0", "stage1.block1")
    images = torch.rand(4, 1, 8, 8)
    own, other = load_network(folder), load_network(keras)
    assert other.normalise.mean.shape == (1, 8, 8) and 0 < other.normalise.mean.mean() < 1
    own.normalise, other.normalise = torch.nn.Identity(), torch.nn.Identity()
    with torch.inference_mode():
        torch.testing.assert_close(own(images), other(images))


@pytest.mark.parametrize("kind", ["truncated", "text", "mislabelled", "model", "shape"])
def test_damaged_and_foreign_files_are_refused_in_one_line(sources: Path, tmp_path: Path, kind: str) -> None:
    source, whole = sources / "a.h5", (sources / "a.h5").read_bytes()
    if kind == "truncated":
        source.write_bytes(whole[: len(whole) // 2])
    elif kind == "text":
        source.write_text("no HDF5")
    elif kind == "mislabelled":
        described = architecture(keras_compatible=True).without(["stage2.block1"])
        Writer(random_network(described), described).write(sources / "other")[0].replace(source)
    else:
        other = architecture("resnet32") if kind == "model" else architecture(input_shape=(3, 8, 8))
        source = sources / kind
        save_network(source, random_network(other), other)
    with pytest.raises(PrunebenchError) as caught:
        delivered.deliver(deliver_job(a=source), tmp_path / "r")
    assert str(caught.value).startswith(str(source)) and "\n" not in str(caught.value)


def test_a_record_of_another_network_does_not_stay(sources: Path, tmp_path: Path) -> None:
    left = tmp_path / "r/delivered/theirs/draw0/a/training.json"
    write_json(left, {"epochs": 200, "removed": []})
    delivered.deliver(deliver_job(a=sources / "a.h5"), tmp_path / "r")
    assert (left.parent / "weights.safetensors").is_file() and not left.exists()


def test_what_is_the_same_in_all_replicates_is_no_replicate(sources: Path) -> None:
    message = refusal(content(sources) | {"replicates": 2})
    assert "experiments[0].delivered[0].network: " in message and "the same network in all 2 replicates" in message


def test_criteria_without_anything_to_audit_are_refused(sources: Path) -> None:
    message = refusal(content(sources, audit=False) | {"audit": {"criteria": ["cka"]}})
    assert message == "my.yaml: audit.criteria: no experiment has delivered networks to audit; leave the section out"


def audit_job(**changes: Any) -> AuditJob:
    settings = {"series": {"theirs": ["a", "b"]}, "criteria": [], "sample": SAMPLE, "constraints": {}}
    return AuditJob.model_validate({**context(), **settings, **changes})


@pytest.fixture
def replicate(sources: Path, tmp_path: Path) -> Path:
    """A replicate's folder with the dense network and two delivered ones."""
    folder = tmp_path / "small/digits/resnet20/replicate0"
    save_network(folder / "dense", load_network(sources / "dense"), load_architecture(sources / "dense"))
    delivered.deliver(deliver_job(a=sources / "a.h5", b=sources / "b"), folder)
    return folder


def tables_of(replicate: Path, tmp_path: Path, choices: bool) -> Tables:
    """The tidy tables of what was audited."""
    write_json(replicate / "dense/evaluations/accuracy.json", {"values": {"accuracy_percent": 50.0}})
    keys = ("small", "digits", "resnet20", 0, "theirs")
    asked = Asked(audits=[(keys, replicate / "delivered/theirs")], choices=choices)
    collect({NetworkFolder.from_path(replicate / "dense"): None}, [], tmp_path / "tables", asked)
    return read_tables(tmp_path / "tables")


def test_audit_from_files_to_tables(replicate: Path, tmp_path: Path) -> None:
    delivered.audit(audit_job(criteria=["first", "l1_norm"]), replicate, tmp_path / "w")
    series = replicate / "delivered/theirs"
    rows = read_csv(series / "audit.csv", ["step", "block", "status", "similarity"])
    assert [row["block"] for row in rows if row["status"] == "removed"] == [*REMOVED[0], *REMOVED[1]]
    assert len(rows) == 9 + 8
    found = {(row["to"], row["criterion"]): row for row in read_csv(series / "audit_choices.csv", ["choice", "hits"])}
    assert found["a", "first"]["choice"] == "stage1.block1" and found["a", "first"]["hits"] == "1"
    # After that stage 1 can shrink no further, so two blocks from the front are of stage 2 alone, which may lose one of its three.
    assert found["b", "first"]["choice"] == "stage2.block1 stage3.block1" and found["b", "first"]["hits"] == "1"
    assert float(found["a", "l1_norm"]["expected_hits"]) == pytest.approx(1 / 6)

    tables = tables_of(replicate, tmp_path, choices=True)
    table = summarise(tables.audit_blocks)
    assert list(table["blocks"]) == ["stage1.block1", "stage2.block1 stage3.block2"]
    assert list(table["stages_after"]) == ["2, 3, 3", "2, 2, 2"] and (table["lowest_similarity_kept"] > 0.999).all()
    counts = agreement(tables.audit_choices).set_index("criterion")
    assert counts.loc["first", "hits"] == 2 and counts.loc["first", "removed"] == 3
    assert tables.subjects() == {"audit", "audit_choices", "accuracy"}
    assert len(make_figure("audit", tables, "digits", "resnet20").axes) == 3

    without = tables_of(replicate, tmp_path, choices=False)
    assert without.subjects() == {"audit", "accuracy"}, "a table of an earlier config is not looked at"
    assert len(make_figure("audit", without, "digits", "resnet20").axes) == 2


def test_scores_of_an_audit_are_kept(replicate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = audit_job(criteria=["l1_norm"])
    delivered.audit(job, replicate, tmp_path / "w")
    first = (replicate / "delivered/theirs/audit_choices.csv").read_bytes()
    monkeypatch.setattr(delivered, "make_probe", None)
    delivered.audit(job, replicate, tmp_path / "w")
    assert (replicate / "delivered/theirs/audit_choices.csv").read_bytes() == first


def test_an_audit_that_is_killed_while_it_scores_goes_on_there(
    replicate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = audit_job(criteria=["l1_norm", "bn_scale", "cka"])
    choices = replicate / "delivered/theirs/audit_choices.csv"
    delivered.audit(job, replicate, tmp_path / "whole")
    expected = choices.read_bytes()
    monkeypatch.setattr(scoring_progress, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(scoring_progress, "SHARE", 1e9)
    real, scored = scoring.checked_scores, list[str]()

    def scores(criterion: Any, probe: Any) -> Any:
        scored.append(criterion.name)
        if len(scored) == 5:
            raise InterruptedError
        return real(criterion, probe)

    monkeypatch.setattr(scoring, "checked_scores", scores)
    with pytest.raises(InterruptedError):
        delivered.audit(job, replicate, tmp_path / "w")
    delivered.audit(job, replicate, tmp_path / "w")
    assert choices.read_bytes() == expected
    # The network at which it died is the second; of that one criterion was finished.
    assert scored == ["l1_norm", "bn_scale", "cka", "l1_norm", "bn_scale", "bn_scale", "cka"]
    assert not [path for path in (tmp_path / "w").iterdir() if path.is_dir()]


def test_a_series_that_is_no_sequence_is_refused(replicate: Path, tmp_path: Path) -> None:
    with pytest.raises(PrunebenchError, match=r"^delivered method theirs: a: 2, 3, 3 blocks .*set `audit: false`"):
        delivered.audit(audit_job(series={"theirs": ["b", "a"]}), replicate, tmp_path / "w")


FOUND = """
from prunebench.models.found import found_model


def make(input_shape, classes):
    from torch import nn

    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, x):
            return x + self.conv(x)

    stem, pool = nn.Conv2d(input_shape[0], 4, 3), [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes)]
    return nn.Sequential(stem, *(Residual() for _ in range(5)), *pool)


MODEL = found_model("found", make, input_shape=(1, 8, 8), classes=10)
"""


def test_networks_whose_blocks_are_found_are_audited_from_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In a suite and by the command: such networks have weights by names that are not those of their blocks."""
    path = tmp_path / "found.py"
    path.write_text(FOUND)
    described = find_model(str(path)).dense(str(path), (1, 8, 8), 10)
    torch.manual_seed(0)
    network = build(described)
    save_network(tmp_path / "dense", network, described)
    removed = [["stage1.block3"], ["stage1.block1"]]
    for name, blocks in zip("ab", removed, strict=True):
        network, described = remove(network.state_dict(), described, blocks)
        save_network(tmp_path / "delivered/theirs/draw0" / name, network, described)
    delivered.audit(audit_job(model=str(path)), tmp_path, tmp_path / "w")
    folders = [str(tmp_path / "delivered/theirs/draw0" / name) for name in "ab"]
    main(["audit", "--dense", str(tmp_path / "dense"), "--networks", *folders, "--out", str(tmp_path / "audit.csv")])
    capsys.readouterr()
    for table in (tmp_path / "delivered/theirs/audit.csv", tmp_path / "audit.csv"):
        rows = read_csv(table, ["block", "status"])
        assert [[row["block"]] for row in rows if row["status"] == "removed"] == removed


@pytest.mark.slow
def test_a_suite_of_delivered_networks_runs(sources: Path, tmp_path: Path) -> None:
    suite = content(sources) | {"evaluations": ["accuracy", "complexity"], "audit": {"criteria": ["first", "l1_norm"]}}
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump(suite))
    start = [sys.executable, "-m", "snakemake", "--snakefile", str(REPOSITORY / "Snakefile"), "--directory", str(tmp_path)]
    run = subprocess.run(
        [*start, "--configfile", str(tmp_path / "suite.yaml"), "--cores", "2", "--nolock", "--logger", "prunebench"],
        env={**os.environ, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=600,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-3000:]
    results = tmp_path / "results/small"
    found = {(row["criterion"], row["operating_point"]) for row in read_csv(results / "tables/results.csv", ["criterion"])}
    assert found == {("dense", "dense"), ("theirs", "a"), ("theirs", "b")}
    rows = read_csv(results / "tables/audit.csv", ["blocks", "uncertain"])
    assert [row["blocks"] for row in rows] == ["stage1.block1", "stage2.block1 stage3.block2"]
    assert (results / "figures/audit_digits_resnet20.png").is_file() and (results / "tables/audit_agreement.md").is_file()
    # Nothing was scored for chains that there are not.
    assert not (results / "digits/resnet20/replicate0/dense/scores.csv").exists()
