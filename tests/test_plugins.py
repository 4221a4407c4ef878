"""Plugins by name and by file: what a user adds is found, and the names that the documentation lists are the ones there are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from prunebench import experiments, job_settings, plugins
from prunebench.artifacts import sha256_of
from prunebench.config import parse
from prunebench.criteria import Criterion, find_criterion
from prunebench.data import Dataset, find_dataset
from prunebench.errors import PrunebenchError
from prunebench.evaluation import Evaluation, find_evaluation
from prunebench.models import Model, find_model
from shared import REPOSITORY

KINDS: dict[str, tuple[Any, str, Any]] = {
    "criteria": (Criterion, "criteria", find_criterion),
    "dataset": (Dataset, "data", find_dataset),
    "model": (Model, "models", find_model),
    "evaluations": (Evaluation, "evaluation", find_evaluation),
}

TOYS = {
    "criteria": """
from prunebench.criteria import Criterion

TOY = Criterion("toy", lambda probe: [1.0] * len(probe.blocks))
""",
    "dataset": """
from prunebench.data import Dataset

def load(folder, part, download):
    raise FileNotFoundError(folder)

DATASET = Dataset(name="toy", input_shape=(3, 4, 4), classes=2, crop_padding=0, flip=False, load=load, help="None.")
""",
    "model": """
from prunebench.models import Block, Model

def blocks():
    return [Block(f"stage1.block{i}", 1, i, True) for i in range(4)]

def macs(architecture):
    return 100 * len(architecture.blocks)

MODELS = [Model("toy", blocks, None, macs)]
""",
    "evaluations": """
from prunebench.evaluation import Evaluation, Values

TOY = Evaluation("toy", lambda subject: Values({"toys": 1.0}), per="architecture")
""",
}


@pytest.fixture
def toys(tmp_path: Path) -> dict[str, str]:
    files = {}
    for kind, source in TOYS.items():
        path = tmp_path / f"toy {kind}.py"  # a path may have spaces
        path.write_text(source)
        files[kind] = str(path)
    return files


@pytest.mark.parametrize("kind", KINDS)
def test_a_toy_is_found_by_its_path(kind: str, toys: dict[str, str]) -> None:
    _, _, find = KINDS[kind]
    found = find(toys[kind])
    assert found.name == "toy"
    assert find(toys[kind]) is found
    with pytest.raises(PrunebenchError, match="'toy' is not a known"):
        find("toy")


def test_a_suite_of_toys(toys: dict[str, str]) -> None:
    content: dict[str, Any] = {
        "suite": "toys",
        "experiments": [{"dataset": toys["dataset"], "model": toys["model"]}],
        "schedules": {"one-shot": {"criteria": [toys["criteria"]]}},
        "operating_points": [{"blocks": 2}, {"flops_reduction": 50.0}],
        "evaluations": [toys["evaluations"], "accuracy"],
    }
    suite = parse(content, "toys.yaml")
    assert list(experiments.pairs(suite)) == [("toy", "toy")]
    folders = list(experiments.network_folders(suite, "toy", "toy"))
    assert folders == ["dense", "one-shot/toy/draw0/blocks2", "one-shot/toy/draw0/flops50"]
    assert experiments.measured(suite, "toy", "toy") == ["toy"]
    assert experiments.evaluated(suite, "toy", "toy", 0) == {folder: ["accuracy"] for folder in folders}
    # Jobs are told the path, so that they find the file too.
    assert job_settings.score_job(suite, "toy", "toy", 0)["criteria"] == {toys["criteria"]: 1}
    # Four blocks of the same cost of which the first stays and two must be left.
    content["operating_points"] = [{"flops_reduction": 50.1}]
    with pytest.raises(PrunebenchError, match=r"out of reach for toy: at most 50.00 %, with 2 blocks removed"):
        parse(content, "toys.yaml")


def test_a_file_may_build_on_a_built_in_object(tmp_path: Path) -> None:
    path = tmp_path / "reverse.py"
    path.write_text(
        "from prunebench.criteria import Criterion\nfrom prunebench.criteria.baselines import FIRST\n"
        "REVERSE = Criterion('reverse', FIRST.score, FIRST.needs, removes='highest')\n"
    )
    assert find_criterion(str(path)).name == "reverse"


def test_jobs_run_again_when_a_file_that_a_criterion_combines_changes(tmp_path: Path) -> None:
    part, vote = str(tmp_path / "part.py"), str(tmp_path / "vote.py")
    Path(part).write_text("from prunebench.criteria import Criterion\nPART = Criterion('part', len)\n")
    Path(vote).write_text(
        f"from prunebench.criteria import Criterion\nVOTE = Criterion('vote', len, combines=({part!r}, 'cka'))\n"
    )
    chains = {"criteria": [vote]}
    suite = parse(
        {
            "suite": "votes",
            "experiments": [{"dataset": "digits", "model": "resnet20"}],
            "schedules": {"one-shot": chains, "iterative": chains},
            "operating_points": [{"blocks": 1}],
            "evaluations": ["accuracy"],
        },
        "votes.yaml",
    )
    pair = suite, "digits", "resnet20", 0
    for job in (job_settings.score_job(*pair), job_settings.chain_job(*pair, "iterative", "vote")):
        assert job["files"] == {path: sha256_of(Path(path)) for path in (vote, part)}


def test_a_file_that_raises_is_read_again_once_mended(tmp_path: Path) -> None:
    path = tmp_path / "slip.py"
    path.write_text("from prunebench.criteria import Criterion\nSLIP = Criterion('slip', undefined)\n")
    with pytest.raises(PrunebenchError, match="line 2: NameError: name 'undefined' is not defined"):
        find_criterion(str(path))
    path.write_text("from prunebench.criteria import Criterion\nSLIP = Criterion('slip', score=len)  # mended\n")
    assert find_criterion(str(path)).name == "slip"


def test_the_line_is_that_of_the_file_and_not_of_a_library(tmp_path: Path) -> None:
    path = tmp_path / "deep.py"
    path.write_text("import json\n\n\njson.loads('{')\n")
    with pytest.raises(PrunebenchError, match=r"deep\.py', line 4: JSONDecodeError"):
        find_criterion(str(path))


@pytest.mark.parametrize("kind", KINDS)
def test_built_ins_are_those_that_the_documentation_lists(kind: str) -> None:
    type_, package, find = KINDS[kind]
    text = (REPOSITORY / "config" / "README.md").read_text(encoding="utf-8")
    section = text.split("## Names that are built in")[1].split("##")[0]
    [row] = re.findall(rf"\| {kind} \| (.*) \|", section)
    names = plugins.builtin(type_, package)
    assert sorted(re.findall(r"`([^`]+)`", row)) == sorted(names)
    for name, item in names.items():
        assert name == item.name
        assert plugins.NAME.fullmatch(name)
        assert find(name) is item
        assert kind not in ("criteria", "model") or item.source, f"{name} names no source"


def test_what_built_in_criteria_combine_is_there() -> None:
    for criterion in plugins.builtin(Criterion, "criteria").values():
        for other in criterion.combines:
            assert find_criterion(other).name == other
        assert criterion.removes in ("lowest", "highest")


@pytest.mark.parametrize("reference", ["CKA", "ck", "", "cka "])
def test_a_near_miss_is_no_hit(reference: str) -> None:
    with pytest.raises(PrunebenchError, match="is not a known criterion"):
        find_criterion(reference)
