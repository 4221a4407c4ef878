"""The command line: help for everything, one line for a mistake, and no torch where none is needed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers import architecture, random_network
from prunebench import __version__, experiments, job_settings
from prunebench.cli import _alone_in, main, parser
from prunebench.config import read
from prunebench.models.files import save_network
from shared import REPOSITORY

DEMO = REPOSITORY / "config" / "config.yaml"
COMMANDS = [
    "dense",
    "score",
    "oracle",
    "rank",
    "one-shot",
    "iterative",
    "filters",
    "evaluate",
    "measure",
    "deliver",
    "audit-series",
]
COMMANDS += [
    "collect",
    "tables",
    "figures",
    "import-keras",
    "import-torch",
    "audit",
    "paper",
    "typeset",
    "trace",
    "check",
    "verify",
    "plan",
    "watch",
    "schema",
]
# Commands with --settings, and what else they require.
JOBS = {
    "dense": ["--out", "o", "--work", "w"],
    "score": ["--network", "n", "--out", "o", "--cost", "c", "--work", "w"],
    "oracle": ["--network", "n", "--out", "o", "--cost", "c", "--work", "w"],
    "rank": ["--scores", "s", "--out", "o"],
    "one-shot": ["--dense", "d", "--out", "o", "--work", "w"],
    "iterative": ["--dense", "d", "--scores", "s", "--out", "o", "--work", "w"],
    "evaluate": ["--replicate", "r", "--work", "w", "--cache", "c"],
    "measure": ["--experiment", "e", "--out", "o", "--work", "w"],
    "deliver": ["--replicate", "r"],
    "audit-series": ["--replicate", "r", "--work", "w"],
}


def failure(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line on standard error of a command that has to end with status 2."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    printed = capsys.readouterr()
    assert caught.value.code == 2
    assert printed.out == ""
    assert printed.err.startswith("prunebench: ")
    assert printed.err.count("\n") == 1
    return printed.err


def test_the_commands_are_these() -> None:
    [commands] = [action.choices for action in parser()._actions if action.choices]
    assert list(commands) == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_and_option_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([command, "--help"])
    text = capsys.readouterr().out
    assert caught.value.code == 0
    assert f"prunebench {command}" in text
    [group] = [action for action in parser()._actions if action.choices and command in action.choices]
    for action in group.choices[command]._actions:  # type: ignore[index,union-attr]
        assert action.help, action.dest


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out.strip() == __version__


@pytest.mark.parametrize("command", JOBS)
@pytest.mark.parametrize("text", ["", "no JSON", "[]", "{}", '{"version": 3}', "null", "{"])
def test_bad_settings_are_one_line(command: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    message = failure(capsys, command, "--settings", text, *JOBS[command])
    assert "--settings: " in message
    assert "\n" not in message.strip()


def settings(command: str) -> dict[str, Any]:
    suite = read(DEMO)
    match command:
        case "rank":
            return job_settings.rank_job(suite, "digits", "resnet32")
        case "dense" | "score" | "oracle":
            return getattr(job_settings, f"{command}_job")(suite, "digits", "resnet32", 0)  # type: ignore[no-any-return]
        case "deliver" | "audit-series":
            # The demo delivers nothing: one network and one series that are not there.
            here = job_settings.context(suite, "digits", "resnet32", 0)
            if command == "deliver":
                return {**here, "networks": {"delivered/theirs/draw0/a": "nowhere"}}
            own = {"series": {"theirs": ["a"]}, "criteria": [], "sample": {}, "constraints": {}}
            return {**here, **own}
        case "one-shot" | "iterative":
            [batch] = [
                batch for batch in experiments.chain_batches(suite, "digits", "resnet32", command) if "cka" in batch.chains
            ]
            return job_settings.chains_job(suite, "digits", "resnet32", 0, batch)
    group = experiments.evaluation_groups(suite, "digits", "resnet32", "network" if command == "evaluate" else "architecture")[0]
    return job_settings.evaluate_job(suite, "digits", "resnet32", 0 if command == "evaluate" else None, group)


@pytest.mark.parametrize("command", JOBS)
def test_settings_that_lack_or_misspell_a_key(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    right = settings(command)
    if "common" in right:
        right = right["common"]

    def said(changed: dict[str, Any]) -> str:
        whole = settings(command)
        return json.dumps({**whole, "common": changed} if "common" in whole else changed)

    lacking = {key: value for key, value in right.items() if key != "version"}
    assert "version" in failure(capsys, command, "--settings", said(lacking), *JOBS[command])
    assert "extra_key" in failure(capsys, command, "--settings", said({**right, "extra_key": 1}), *JOBS[command])


EACH = """
import json, sys
from prunebench.cli import main
for arguments in json.loads(sys.argv[1]):
    print("-", flush=True, file=sys.stderr)
    try:
        main(arguments)
    except SystemExit as end:
        print("status", end.code, flush=True, file=sys.stderr)
"""


def test_missing_input_files_are_named(tmp_path: Path) -> None:
    """In a process of their own, since jobs set torch's threads, and in one, since torch takes seconds to import."""
    commands = [command for command in JOBS if command not in ("dense", "deliver")]
    calls = []
    for command in commands:
        places = [str(tmp_path / command / part) if not part.startswith("--") else part for part in JOBS[command]]
        calls.append([command, "--settings", json.dumps(settings(command)), *places])
    run = subprocess.run(
        [sys.executable, "-c", EACH, json.dumps(calls)], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    outputs = run.stderr.split("-\n", 1)[1].split("\n-\n")
    assert len(outputs) == len(commands)
    for command, output in zip(commands, outputs, strict=True):
        assert output.strip().endswith("status 2"), output
        assert f"{tmp_path / command}/" in output, output
        assert "no such file" in output


def test_collect_with_a_bad_suite(capsys: pytest.CaptureFixture[str]) -> None:
    places = ["--results", "r", "--out", "o"]
    assert "--suite: not JSON" in failure(capsys, "collect", "--suite", "{", *places)
    assert "--suite: holds [], expected keys and values" in failure(capsys, "collect", "--suite", "[]", *places)


def test_tables_and_figures_without_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert str(tmp_path) in failure(capsys, "tables", "--tables", str(tmp_path))
    assert str(tmp_path) in failure(capsys, "figures", "--tables", str(tmp_path), "--out", str(tmp_path / "figures"))


def test_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["check", str(DEMO)])
    assert "suite 'demo' is in order" in capsys.readouterr().out
    path = tmp_path / "wrong.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(DEMO.read_text(encoding="utf-8")), "replicates": "three"}))
    expected = f"prunebench: {path}: replicates: 'three' is refused (accepted: a whole number of at least 1)\n"
    assert failure(capsys, "check", str(path)) == expected
    assert "no such file" in failure(capsys, "check", str(tmp_path / "nowhere.yaml"))


def test_schema(capsys: pytest.CaptureFixture[str]) -> None:
    main(["schema"])
    assert json.loads(capsys.readouterr().out)["$schema"].startswith("https://json-schema.org/")


@pytest.mark.parametrize("command", ["check", "plan"])
def test_a_config_is_checked_and_planned_without_torch(command: str, tmp_path: Path) -> None:
    """Every call of snakemake pays for what is imported while a suite is planned; records of finished jobs would need numpy."""
    code = (
        f"import sys; from prunebench.cli import main; main(['{command}', {str(DEMO)!r}]); "
        "print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    loaded = set(run.stdout.splitlines()[-1].split())
    assert "prunebench" in loaded
    assert not loaded & {"torch", "torchvision", "sklearn", "pandas", "scipy", "matplotlib", "codecarbon", "numpy"}


def test_a_reader_that_leaves_is_no_mistake() -> None:
    """As ``| head`` does: nobody reads the pipe any more when the command writes."""
    reading, writing = os.pipe()
    os.close(reading)
    run = subprocess.run(
        [sys.executable, "-m", "prunebench", "schema"], stdout=writing, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writing)
    assert (run.returncode, run.stderr) == (1, "")


def test_another_broken_pipe_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("prunebench.cli._schema", fail)
    with pytest.raises(BrokenPipeError):
        main(["schema"])


def test_a_folder_in_the_place_of_a_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = architecture()
    save_network(tmp_path / "dense", random_network(network), network)
    (tmp_path / "there").mkdir()
    paths = [str(tmp_path / name) for name in ("dense", "dense", "there")]
    with pytest.raises(SystemExit) as stop:
        main(["audit", "--dense", paths[0], "--networks", paths[1], "--out", paths[2]])
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert message == f"prunebench: {paths[2]}: Is a directory; give another place\n"


def test_weights_can_be_read_by_others(tmp_path: Path) -> None:
    network = architecture()
    before = os.umask(0o022)
    try:
        save_network(tmp_path, random_network(network), network)
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o644}


# What a cluster does to jobs


def test_sigterm_ends_in_one_line_and_puts_things_in_order(tmp_path: Path) -> None:
    """Stopped in the middle of a write, while it holds its work folder."""
    code = (
        "import sys, time; from pathlib import Path\n"
        "from prunebench import artifacts, cli\n"
        "def write(path):\n"
        "    path.write_text('half'); print('writing', flush=True); time.sleep(60)\n"
        "def run(options):\n"
        "    with cli._alone_in(Path(sys.argv[1])): artifacts.write_atomically(Path(sys.argv[1]) / 'file.csv', write)\n"
        "cli._schema = run\n"
        "cli.main(['schema'])\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout and process.stdout.readline() == "writing\n"
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".csv"] == [f".file.{process.pid}.csv"]
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 143
    assert said == "prunebench: stopped by SIGTERM; run again to go on from the last checkpoint\n"
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_sigterm_is_the_callers_again_after_a_command() -> None:
    before = signal.getsignal(signal.SIGTERM)
    main(["schema"])
    assert signal.getsignal(signal.SIGTERM) is before


def test_who_holds_a_work_folder_clears_what_killed_writers_left(tmp_path: Path) -> None:
    step = tmp_path / "draw0" / "step1"
    step.mkdir(parents=True)
    (step / ".weights.4321.safetensors").write_text("half")
    (step / "weights.safetensors").write_text("whole")
    with _alone_in(tmp_path):
        assert [path.name for path in step.iterdir()] == ["weights.safetensors"]


def test_a_full_disk_is_one_line_also_where_the_log_is_on_it() -> None:
    with open("/dev/full", "w") as full:
        run = subprocess.run(
            [sys.executable, "-m", "prunebench", "schema"], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
        mute = subprocess.run([sys.executable, "-m", "prunebench", "schema"], stdout=full, stderr=full, check=False)
    assert (run.returncode, mute.returncode) == (2, 2)
    assert run.stderr.startswith("prunebench: the log: disk full (No space left on device): ") and run.stderr.count("\n") == 1


def test_a_delivered_network_is_left_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It may have been put there by hand."""
    monkeypatch.chdir(tmp_path)
    replicate = Path("results/demo/digits/resnet20/replicate0")
    network = replicate / "delivered/mine/draw0/blocks1"
    network.mkdir(parents=True)
    (network / "architecture.json").write_text("{")
    job = settings("evaluate")
    job = {**job, "chains": {"delivered/mine": {"draws": 1, "points": ["blocks1"]}}, "with_dense": False}
    save_network(replicate / "dense", random_network(architecture()), architecture())
    paths = ["--replicate", str(replicate), "--work", "results/demo/.work/evaluate", "--cache", "cache"]
    with pytest.raises(SystemExit):
        main(["evaluate", "--settings", json.dumps(job), *paths])
    message = capsys.readouterr().err
    assert "architecture.json: corrupt" in message and "put a whole one in its place" in message
    assert [file.name for file in network.iterdir()] == ["architecture.json"]


@pytest.mark.parametrize("place", ["results/demo/digits", "networks", "results/another/digits", "results"])
def test_only_a_corrupt_result_of_the_suite_is_set_aside(
    tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    path = Path(place) / "scores.csv"
    path.parent.mkdir(parents=True)
    path.write_text("step,criterion,dra")
    message = failure(
        capsys,
        *("rank", "--settings", json.dumps({"version": "1", "criteria": {"cka": 1}})),
        *("--scores", str(path), "--out", "results/demo/digits/one-shot"),
    )
    assert message.startswith(f"prunebench: {path}: corrupt, truncated")
    aside = place == "results/demo/digits"
    assert ("set aside as scores.csv.corrupt; run the same command again" in message) == aside
    assert [file.name for file in path.parent.iterdir() if file.is_file()] == ["scores.csv" + aside * ".corrupt"]
