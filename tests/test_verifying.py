"""Damage behind the workflow's back is found before it reaches a table, and by `prunebench verify`."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers import DATA, DATASET, SAMPLE, OneKwh
from prunebench import cli, evaluating, experiments, job_settings, stages, verifying
from prunebench.config import Suite, parse
from prunebench.errors import CorruptFile, PrunebenchError
from prunebench.jobs import ChainJob, DenseJob, EvaluateJob, OracleJob, RankJob, ScoreJob
from prunebench.oracle import oracle
from prunebench.ranking import rank
from prunebench.reporting.figures import write_figures
from prunebench.reporting.tables import write_tables
from prunebench.verifying import verify

NAME = "few_digits"
CONFIG = {
    "suite": "small",
    "replicates": 1,
    "experiments": [{"dataset": DATASET, "model": "resnet20"}],
    "schedules": {"one-shot": {"criteria": ["cka"]}, "iterative": {"criteria": ["cka", "last"], "blocks_per_step": 2}},
    "operating_points": [{"blocks": 1}, {"blocks": 3}],
    "fine_tuning": {"epochs_per_block": 0},
    "dense_training": {"epochs": 1},
    "oracle": {"epochs": 1},
    "sample": SAMPLE,
    "data": DATA,
    "evaluations": ["accuracy", "complexity"],
}


def collect(root: Path, suite: Suite) -> None:
    arguments = ["collect", "--suite", suite.model_dump_json(by_alias=True, exclude_none=True)]
    options = cli.parser().parse_args([*arguments, "--results", str(root), "--out", str(root / "small/tables")])
    options.run(options)


@pytest.fixture(scope="module")
def suite() -> Suite:
    return parse(CONFIG, "small.yaml")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, suite: Suite) -> Path:
    """``results`` with a whole suite, up to its figures."""
    root = tmp_path_factory.mktemp("made") / "results"
    place, where = root / "small" / NAME / "resnet20" / "replicate0", (suite, NAME, "resnet20")
    dense, work = place / "dense", root / "small" / ".work"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "EnergyMeter", OneKwh)
        stages.dense(DenseJob(**job_settings.dense_job(*where, 0)), dense, work / "dense")
        stages.score(ScoreJob(**job_settings.score_job(*where, 0)), dense, dense / "scores.csv", dense / "scoring.json")
        oracle(OracleJob(**job_settings.oracle_job(*where, 0)), dense, dense / "oracle.csv", dense / "oracle.json", work / "o")
        rank(RankJob(**job_settings.rank_job(*where)), dense / "scores.csv", place / "one-shot")
        job = ChainJob(**job_settings.chain_job(*where, 0, "one-shot", "cka"))
        stages.one_shot(job, dense, [place / "one-shot/cka/draw0/ranking.csv"], place / "one-shot/cka", work / "c")
        for name in ("cka", "last"):
            job = ChainJob(**job_settings.chain_job(*where, 0, "iterative", name))
            stages.iterative(job, dense, dense / "scores.csv", place / "iterative" / name, work / name)
        [group] = experiments.evaluation_groups(*where, "network")
        for batch in range(len(group.batches)):
            job = EvaluateJob(**job_settings.evaluate_job(*where, 0, group, batch))
            evaluating.evaluate(job, place, work / "e", work / "cache")
    collect(root, suite)
    write_tables(root / "small" / "tables")
    write_figures(root / "small" / "tables", root / "small" / "figures")
    return root


@pytest.fixture
def results(made: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(made, tmp_path / "results"))


PLACE = f"{NAME}/resnet20/replicate0"
TABLES = {
    "dense/scores.csv": 12,
    "dense/oracle.csv": 12,
    "one-shot/cka/draw0/removals.csv": 3,
    "iterative/cka/draw0/removals.csv": 3,
    "iterative/cka/draw0/scores.csv": 10,
    "iterative/last/draw0/scores.csv": 10,
}
CUTS = [(table, rows) for table, every in TABLES.items() for rows in range(0, every, 1 if every < 11 else 5)]


def cut(path: Path, rows: int) -> None:
    path.write_text("".join(path.read_text().splitlines(keepends=True)[: 1 + rows]))


@pytest.mark.parametrize(("table", "rows"), CUTS)
def test_a_table_cut_between_two_rows_reaches_no_table(results: Path, suite: Suite, table: str, rows: int) -> None:
    path = results / "small" / PLACE / table
    assert len(path.read_text().splitlines()) == 1 + TABLES[table]
    cut(path, rows)
    for look in (partial(collect, results, suite), partial(verify, results / "small", suite)):
        try:
            found = look()
        except CorruptFile as error:
            assert error.path == path
        else:
            assert found and [error.path for error in found[1]] == [path]


@pytest.mark.parametrize("rows", [0, 1, 5])
def test_a_ranking_cut_between_two_rows_decides_nothing(results: Path, suite: Suite, tmp_path: Path, rows: int) -> None:
    place = results / "small" / PLACE
    path = place / "one-shot/cka/draw0/ranking.csv"
    cut(path, rows)
    assert [error.path for error in verify(results / "small", suite)[1]] == [path]
    job = ChainJob(**job_settings.chain_job(suite, NAME, "resnet20", 0, "one-shot", "cka"))
    with pytest.raises(CorruptFile) as error:
        stages.one_shot(job, place / "dense", [path], tmp_path / "out", tmp_path / "work")
    assert error.value.path == path


@pytest.mark.parametrize("rows", [0, 5, 6, 11])
def test_scores_cut_between_two_rows_decide_nothing(results: Path, suite: Suite, tmp_path: Path, rows: int) -> None:
    place = results / "small" / PLACE
    path = place / "dense/scores.csv"
    cut(path, rows)
    jobs = [
        lambda: rank(RankJob(**job_settings.rank_job(suite, NAME, "resnet20")), path, tmp_path),
        lambda: stages.iterative(
            ChainJob(**job_settings.chain_job(suite, NAME, "resnet20", 0, "iterative", "cka")),
            *(place / "dense", path, tmp_path / "out", tmp_path / "work"),
        ),
    ]
    for job in jobs:
        with pytest.raises(CorruptFile) as error:
            job()
        assert error.value.path == path


@pytest.mark.parametrize("table", ["results", "scores", "removals", "oracle", "dense_networks"])
def test_a_tidy_table_that_lacks_a_row_makes_no_table(results: Path, table: str) -> None:
    path = results / "small/tables" / f"{table}.csv"
    cut(path, len(path.read_text().splitlines()) - 2)
    with pytest.raises(CorruptFile) as error:
        write_tables(path.parent)
    assert error.value.path == path
    assert [found.path for found in verify(results / "small")[1]] == [path]


def test_whole_results_are_whole(results: Path, suite: Suite, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(CONFIG))
    number = len([path for path in (results / "small").rglob("*") if path.is_file() and ".work" not in path.parts])
    assert number > 60
    # What is no result does not count.
    (results / "small/tables/.results.123.csv").write_text("half")
    (results / "small/tables/results.csv.corrupt").write_text("half")
    for more in ([], ["--configfile", str(tmp_path / "small.yaml")]):
        cli.main(["verify", str(results / "small"), *more])
        assert capsys.readouterr().out == f"{number} files are whole\n"


def half(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.parametrize("damage", [half, zeros, lambda path: path.write_bytes(b"")], ids=["half", "zeros", "empty"])
def test_every_kind_of_file_is_read(
    results: Path, tmp_path: Path, damage: Callable[[Path], object], capsys: pytest.CaptureFixture[str]
) -> None:
    """All but the texts, of which half cannot be told from the whole."""
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(CONFIG))
    every = [path for path in sorted((results / "small").rglob("*")) if path.is_file() and ".work" not in path.parts]
    kinds: dict[str, Path] = {}
    for path in every:
        kinds.setdefault(path.name if path.parent.parent.name != "small" else path.suffix, path)
    texts = {".md", ".tex", ".html"} if damage is half else set()
    # One without the other would be named too, since the description vouches for the weights.
    wanted = sorted(path for kind, path in kinds.items() if kind not in {*texts, "architecture.json", ".parquet"})
    for path in wanted:
        damage(path)
    with pytest.raises(SystemExit) as stop:
        cli.main(["verify", str(results / "small"), "--set-aside", "--configfile", str(tmp_path / "small.yaml")])
    assert stop.value.code == 1
    said = capsys.readouterr().out
    assert {path for path in wanted if f"{path}: corrupt, " not in said} == set()
    assert said.count("\n") == len(wanted) + 1 and said.endswith(
        f"{len(every) - len(wanted)} files are whole, {len(wanted)} corrupt\n"
    )
    assert not any(path.exists() for path in wanted)
    assert all(path.with_name(f"{path.name}.corrupt").exists() for path in wanted)
    cli.main(["verify", str(results / "small")])


def test_files_of_the_users_own_are_not_looked_at(
    results: Path, suite: Suite, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small, external = results / "small", CONFIG | {"external": {"rules": [str(tmp_path / "my.smk")], "rankings": ["mine"]}}
    (tmp_path / "my.smk").touch()
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(external))
    own = [small / name for name in ("notes/mine.csv", "notes/TODO.txt", "tables/mine.csv", f"{NAME}/scores.csv")]
    for path in own:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"" if path.suffix == ".txt" else b"half")
    assert verify(small)[1] == []
    # As a program may write it that knows nothing of line ends; networks were made from it.
    ranking = small / PLACE / "one-shot/mine/draw0/ranking.csv"
    shutil.copytree(small / PLACE / "one-shot/cka/draw0", ranking.parent)
    ranking.write_text(ranking.read_text().rstrip("\n"))
    with pytest.raises(SystemExit):
        cli.main(["verify", str(small), "--set-aside"])
    assert "--set-aside: give --configfile" in capsys.readouterr().err
    cli.main(["verify", str(small), "--set-aside", "--configfile", str(tmp_path / "small.yaml")])
    assert " corrupt" not in capsys.readouterr().out and all(path.exists() for path in [*own, ranking])
    with pytest.raises(PrunebenchError, match="nothing that the config of suite 'small' makes"):
        verify(small / "notes", suite)


def test_a_file_that_vanishes_meanwhile_is_not_missed(results: Path, suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of the workflow deletes what it makes anew."""
    gone = [results / "small" / name for name in (f"figures/accuracy_{NAME}_resnet20.png", "tables/removals.parquet")]
    gone += [results / "small/tables/headline.md", results / "small" / PLACE / "dense/scores.csv"]
    real = verifying._relations

    def between(folder: Path, suite: Suite) -> Any:
        for path in gone:
            path.unlink()
        return real(folder, suite)

    monkeypatch.setattr(verifying, "_relations", between)
    assert verify(results / "small", suite)[1] == []
    assert not any(path.exists() for path in gone)


@pytest.mark.parametrize("name", ["dense/architecture.json", "tables/results.parquet"])
def test_what_vouches_for_others_is_named_itself(results: Path, name: str) -> None:
    path = results / "small" / (name if name.startswith("tables") else f"{PLACE}/{name}")
    half(path)
    assert {error.path for error in verify(results / "small")[1]} == {path}


def test_networks_of_an_earlier_config_do_not_count(results: Path, suite: Suite) -> None:
    """Without its config a chain's larger networks cannot be told from a table that lacks rows."""
    chain = results / "small" / PLACE / "iterative/cka/draw0"
    shutil.copytree(chain / "blocks3", chain / "blocks9")
    training = chain / "blocks9" / "training.json"
    training.write_text(training.read_text().replace('"removed": [', '"removed": [\n  "stage1.block2",', 1))
    assert verify(results / "small", suite)[1] == verify(results / "small")[1] == []
