"""The SLURM profile: the site file, what is asked of SLURM, and that a run ends whatever SLURM does (with a stand-in for its commands)."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo

from prunebench.config import read_section
from prunebench.errors import PrunebenchError
from prunebench.squeue import SlurmJob
from snakemake_executor_plugin_slurm_site import Executor, ExecutorSettings, slurm
from snakemake_executor_plugin_slurm_site.site import Site

ROOT = Path(__file__).parents[1]

# Each job has a folder named by its number. What becomes of it can be ordered beforehand in fate.<number>: a state that it ends with at
# once, without running; GONE, for not being in the queue; or an error of sbatch that is given once.
SBATCH = """#!/bin/sh
number=1
until mkdir $STAND_IN/$number 2>/dev/null; do number=$((number + 1)); done
job=$STAND_IN/$number
fate=$(cat $STAND_IN/fate.$number 2>/dev/null)
case $fate in *error*) echo "$fate" >&2; exit 1;; esac
printf '%s\\n' "$@" >$job/arguments
while [ $# -gt 0 ]; do
    case $1 in --job-name) name=$2;; -D) folder=$2;; esac
    shift
done
cat >$job/script
echo "None|0:01|5:00|node1|$name|$folder" >$job/rest
if [ -z "$fate" ]; then
    echo RUNNING >$job/state
    setsid sh -c 'echo $$ >'$job'/pid; sh '$job'/script && end=COMPLETED || end=FAILED; echo $end >'$job'/state' >$job/log 2>&1 &
elif [ "$fate" != GONE ]; then
    echo "$fate" >$job/state
fi
echo $number
"""
SQUEUE = """#!/bin/sh
[ -e $STAND_IN/down ] && { echo "slurm_load_jobs error: Unable to contact slurm controller" >&2; exit 1; }
for state in $STAND_IN/*/state; do
    [ -e $state ] && job=${state%/state} && echo "${job##*/}|$(cat $state)|$(cat $job/rest)"
done
exit 0
"""
SCANCEL = """#!/bin/sh
shift
for number; do
    echo $number >>$STAND_IN/cancelled
    [ -e $STAND_IN/$number/pid ] && grep -q RUNNING $STAND_IN/$number/state && kill -- -$(cat $STAND_IN/$number/pid)
    [ -e $STAND_IN/$number/state ] && echo CANCELLED >$STAND_IN/$number/state
done
exit 0
"""
SACCT = """#!/bin/sh
exit 0
"""

WORKFLOW = """
rule all:
    input: "both.txt"

rule plain:
    output: "plain.txt"
    log: "plain.log"
    resources:
        runtime=lambda wildcards, attempt: 100 * attempt,
        mem_mb=lambda wildcards, attempt: 1000 * attempt,
    shell: "echo {resources.runtime} >{output}"

rule trained:
    output: "{name}.net"
    resources:
        gpu=2,
        runtime=30,
    threads: 3
    shell: "touch {output}"

rule measured:
    input: "a.net"
    output: "measured.txt"
    threads: 8
    resources:
        alone=1,
        cpus_per_task=2,
    shell: "touch {output}"

rule both:
    localrule: True
    input: "plain.txt", "measured.txt"
    output: "both.txt"
    shell: "touch {output}"
"""


@dataclass
class StandIn:
    """A folder with a workflow and the profile, and SLURM's commands as scripts on PATH."""

    folder: Path

    @property
    def state(self) -> Path:
        return self.folder / "stand-in"

    @property
    def environment(self) -> dict[str, str]:
        paths = {
            "PATH": os.pathsep.join([str(self.folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]),
            "PYTHONPATH": str(ROOT / "workflow"),
            "STAND_IN": str(self.state),
        }
        return {**os.environ, **paths}

    def command(self, *arguments: str) -> list[str]:
        return ["snakemake", "--profile", "slurm", "--cores", "64", "--latency-wait", "5", *arguments]

    def run(self, *arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """To its end; one that hangs fails by its time limit."""
        return subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env=environment or self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=100,
        )

    def order(self, number: int, fate: str) -> None:
        (self.state / f"fate.{number}").write_text(fate)

    def jobs(self) -> dict[str, list[str]]:
        """What sbatch was called with, by the job's name."""
        found: dict[str, list[str]] = {}
        for path in sorted(self.state.glob("*/arguments"), key=lambda path: int(path.parent.name)):
            arguments = path.read_text().splitlines()
            found[arguments[arguments.index("--job-name") + 1]] = arguments
        return found

    def submissions(self, name: str) -> int:
        return sum(f"\n{name}\n" in path.read_text() for path in self.state.glob("*/arguments"))

    def cancelled(self) -> list[str]:
        path = self.state / "cancelled"
        return path.read_text().split() if path.exists() else []


def stand_in(folder: Path, site: dict[str, Any] | None = None, workflow: str = WORKFLOW) -> StandIn:
    """Polls every second; without the logger's summary."""
    made = StandIn(folder)
    for name, text in {"sbatch": SBATCH, "squeue": SQUEUE, "scancel": SCANCEL, "sacct": SACCT}.items():
        path = folder / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    made.state.mkdir()
    (folder / "Snakefile").write_text(workflow)
    shutil.copytree(ROOT / "slurm", folder / "slurm")
    profile = folder / "slurm/profile.yaml"
    keys = yaml.safe_load(profile.read_text())
    keys["slurm-site-init-seconds-before-status-checks"] = 1
    keys["slurm-site-max-seconds-between-status-checks"] = 1
    profile.write_text(yaml.safe_dump(keys))
    if site is not None:
        (folder / "slurm/site.yaml").write_text(yaml.safe_dump(site))
    return made


def after(arguments: list[str], flag: str) -> str:
    return arguments[arguments.index(flag) + 1]


ONE_JOB = """
rule all:
    output: "one.txt"
    log: "one.log"
    resources:
        runtime=lambda wildcards, attempt: 100 * attempt
    shell: "echo {resources.runtime} >{output}"
"""


# --- the site file ---


def test_site_file_of_the_repository_takes_all_defaults() -> None:
    assert read_section(ROOT / "slurm/site.yaml", Site) == Site()


def test_every_key_of_the_site_file_is_described_in_it() -> None:
    text = (ROOT / "slurm/site.yaml").read_text()
    keys = {*Site.model_fields, *Site.model_fields["gpu"].annotation.model_fields}  # type: ignore[union-attr]
    assert not [key for key in keys if f"{key}:" not in text]
    uncommented = "\n".join(
        line.replace("# ", "", 1) if line.lstrip().startswith("# ") and line.split("# ", 1)[1].split(":")[0] in keys else line
        for line in text.splitlines()
    )
    site = Site.model_validate(yaml.safe_load(uncommented))
    assert site.account and site.cpu.partition and site.gpu.max_mem_mb


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("cpu: {partiton: a}", "cpu.partiton: unknown key; did you mean 'partition'?"),
        ("acount: a", "acount: unknown key; did you mean 'account'?"),
        ("account: 1234", "account: 1234 is refused (accepted: text); put it in quotes"),
        ("gpu: {max_runtime_min: 2 days}", "gpu.max_runtime_min: '2 days' is refused (accepted: a whole number of at least 1)"),
        ("gpu: {request: '--gpus=1'}", "gpu.request: '--gpus=1' is refused (accepted: an option of sbatch with {gpu} in it"),
        ("options: qos=high", "options: 'qos=high' is refused (accepted: options of sbatch"),
        ("alone: --comment='x", "refused (accepted: options of sbatch"),
        ("- account", "expected keys and values"),
        ("a: [", "not YAML"),
    ],
)
def test_mistakes_in_a_site_file_are_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(content)
    with pytest.raises(PrunebenchError) as error:
        read_section(path, Site)
    assert str(error.value).startswith(f"{path}: ")
    assert message in str(error.value)


def sbatch_line(site: dict[str, Any], **resources: Any) -> list[str]:
    settings = SimpleNamespace(requeue=True, no_requeue=False, qos=None, reservation=None)
    params = {"run_uuid": "a job", "slurm_logfile": "logs/%j.log", "comment_str": "x", "workdir": "/some where"}
    return Site.model_validate(site).command(resources, 1, settings=settings, **params)


def test_gpu_jobs_and_others_go_to_their_partitions() -> None:
    site = {"cpu": {"partition": "small,large"}, "gpu": {"partition": "a100"}}
    assert after(sbatch_line(site, gpu=1), "-p") == "a100"
    assert after(sbatch_line(site, gpu=0), "-p") == "small,large"
    assert after(sbatch_line(site), "-p") == "small,large"
    assert "-p" not in sbatch_line({}, gpu=1)


@pytest.mark.parametrize(
    ("request_", "options"),
    [("--gpus={gpu}", ["--gpus=2"]), ("--gres=gpu:a100:{gpu} --gpu-bind=none", ["--gres=gpu:a100:2", "--gpu-bind=none"])],
)
def test_gpus_are_asked_for_as_the_site_wants_and_only_so(request_: str, options: list[str]) -> None:
    line = sbatch_line({"gpu": {"request": request_}}, gpu=2)
    assert [each for each in line if "gpu" in each] == options
    assert not [each for each in sbatch_line({"gpu": {"request": request_}}, gpu=0) if "gpu" in each]


def test_limits_of_a_kind_of_nodes_cap_what_its_jobs_ask_for() -> None:
    site = {"cpu": {"max_runtime_min": 60, "max_mem_mb": 500}, "gpu": {"max_runtime_min": 2000}}
    line = sbatch_line(site, runtime=240, mem_mb=400)
    assert (after(line, "-t"), after(line, "--mem")) == ("60", "400")
    line = sbatch_line(site, runtime=240, mem_mb=4000, gpu=1)
    assert (after(line, "-t"), after(line, "--mem")) == ("240", "4000")


def test_options_with_spaces_stay_whole_and_alone_is_for_those_who_ask() -> None:
    site = {"account": "my project", "options": "--qos=low --comment='a b'", "alone": "--exclusive=user"}
    line = sbatch_line(site)
    assert after(line, "-A") == "my project" and after(line, "-D") == "/some where"
    assert line[-2:] == ["--qos=low", "--comment=a b"]
    assert sbatch_line(site, alone=1)[-1] == "--exclusive=user"
    assert "--requeue" in line


def test_partition_that_a_rule_names_wins() -> None:
    assert after(sbatch_line({"cpu": {"partition": "cpu"}}, slurm_partition="big"), "-p") == "big"


# --- the commands ---


@pytest.mark.parametrize(
    ("message", "passes"),
    [
        ("sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)", True),
        ("Batch job submission failed: Socket timed out on send/recv operation", True),
        ("sbatch: error: QOSMaxSubmitJobPerUserLimit", True),
        (
            "sbatch: error: AssocMaxSubmitJobLimit sbatch: error: Batch job submission failed: Job violates accounting/QOS policy",
            True,
        ),
        ("sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying", True),
        ("sbatch: error: QOSMaxWallDurationPerJobLimit ... policy (job submit limit, user's size and/or time limits)", False),
        ("Batch job submission failed: Invalid account or account/partition combination specified", False),
        ("Batch job submission failed: Requested node configuration is not available", False),
        ("Batch job submission failed: Requested time limit is invalid (missing or exceeds some limit)", False),
    ],
)
def test_what_is_worth_another_try(message: str, passes: bool) -> None:
    assert slurm.SlurmError(message).passes is passes


def test_lock_is_freed_by_the_end_of_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "results/.lock"
    held = slurm.take_lock(path)
    with pytest.raises(slurm.SlurmError, match=r"\.lock: another run is at work in this folder"):
        slurm.take_lock(path)
    held.close()
    slurm.take_lock(path).close()


def looks(*states: str, accounted: str = "", reason: str = "None") -> tuple[list[str | None], list[str]]:
    """What becomes of a job in these states, "" for not in the queue, and what a person is told."""
    told: list[str] = []
    executor = Executor.__new__(Executor)
    executor.logger = SimpleNamespace(warning=told.append)
    info = SubmittedJobInfo(None, "7", {"missed": 0, "lost": False, "told": ""})
    verdicts = []
    for state in states:
        info.aux["missed"] = 0 if state else info.aux["missed"] + 1
        job = SlurmJob("7", state, reason, "0:01", "5:00", "node1", "prunebench-x", "/") if state else None
        verdicts.append(executor.verdict(info, job, {"7": accounted} if accounted else {}))
    return verdicts, told


@pytest.mark.parametrize("state", ["PREEMPTED", "NODE_FAIL"])
def test_requeued_job_passes_through_a_failure_and_is_waited_for(state: str) -> None:
    assert looks("RUNNING", state, "PENDING", "RUNNING", state, "COMPLETING", "COMPLETED")[0] == [None] * 6 + ["COMPLETED"]
    assert looks("RUNNING", state, state)[0] == [None, None, state]


def test_job_that_is_missing_for_a_moment_is_waited_for() -> None:
    assert looks("RUNNING", "", "", "RUNNING", "", "")[0] == [None] * 6
    assert looks("RUNNING", "", "", "")[0] == [None, None, None, "GONE"]
    assert looks("", "", "", accounted="COMPLETED")[0] == [None, None, "COMPLETED"]


def test_accounting_is_asked_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert slurm.accounted(["1"]) == {}
    path = tmp_path / "sacct"
    path.write_text("#!/bin/sh\necho '1|CANCELLED by 1000'; echo '2|COMPLETED'; echo '3|'\n")
    path.chmod(0o755)
    assert slurm.accounted(["1", "2", "3"]) == {"1": "CANCELLED", "2": "COMPLETED"}
    path.write_text("#!/bin/sh\necho 'Slurm accounting storage is disabled' >&2; exit 1\n")
    assert slurm.accounted(["1"]) == {}


def test_accounting_that_is_behind_is_not_waited_for_for_ever() -> None:
    verdicts = looks(*[""] * 100, accounted="RUNNING")[0]
    assert verdicts[5] is None and verdicts[-1] == "GONE"


@pytest.mark.parametrize(
    ("reason", "lines"),
    [
        ("Resources", 0),
        ("QOSMaxCpuPerUserLimit", 0),
        ("BeginTime", 0),
        ("launch failed requeued held", 1),
        ("JobHeldAdmin", 1),
        ("PartitionTimeLimit", 1),
        ("QOSMaxWallDurationPerJobLimit", 1),
    ],
)
def test_job_that_waits_in_vain_is_named_once(reason: str, lines: int) -> None:
    verdicts, told = looks("PENDING", "PENDING", "PENDING", reason=reason)
    assert verdicts == [None] * 3 and len(told) == lines
    assert all("SLURM job 7" in line and reason in line for line in told)


def test_submission_whose_answer_was_lost_is_found_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls: list[str] = []

    def ask(*command: str, text: str = "") -> str:
        calls.append(command[0])
        if command[0] == "sbatch":
            raise slurm.SlurmError("Batch job submission failed: Socket timed out on send/recv operation")
        # Elsewhere; of another name; ended; known already; and the one.
        listed = [("8", "RUNNING", "x", "/elsewhere"), ("7", "RUNNING", "y", tmp_path), ("5", "COMPLETED", "x", tmp_path)]
        listed += [("4", "RUNNING", "x", tmp_path), ("6", "PENDING", "x", tmp_path)]
        lines = [f"{number}|{state}|None|0:01|5:00|node1|prunebench-{name}|{folder}" for number, state, name, folder in listed]
        return "\n".join(lines) + "\n"

    monkeypatch.setattr(slurm, "ask", ask)
    executor = Executor.__new__(Executor)
    executor.logger = SimpleNamespace(warning=lambda text: None)
    executor.stopped, executor.known, executor.folder, executor.unanswered_since = threading.Event(), {"4"}, str(tmp_path), None
    executor.workflow = SimpleNamespace(executor_settings=ExecutorSettings(init_seconds_before_status_checks=0))
    assert executor.submit(["sbatch"], "", "prunebench-x") == "6"
    assert calls == ["sbatch", "squeue"]


# --- whole runs ---


def test_run_asks_for_what_the_rules_need(tmp_path: Path) -> None:
    site = {
        "account": "lab",
        "cpu": {"partition": "cpu", "max_runtime_min": 70},
        "gpu": {"partition": "gpu", "request": "--gres=gpu:{gpu}"},
    }
    made = stand_in(tmp_path, site)
    run = made.run()
    assert run.returncode == 0, run.stdout
    assert (tmp_path / "both.txt").exists()
    jobs = made.jobs()
    assert set(jobs) == {"prunebench-plain", "prunebench-trained-a", "prunebench-measured"}
    plain, trained, measured = (jobs[f"prunebench-{name}"] for name in ("plain", "trained-a", "measured"))
    assert (after(plain, "-p"), after(plain, "-t"), after(plain, "--mem"), after(plain, "-A")) == ("cpu", "70", "1000", "lab")
    assert (after(trained, "-p"), after(trained, "-t"), after(trained, "--mem")) == ("gpu", "30", "4000")
    assert "--gres=gpu:2" in trained and "--cpus-per-task=3" in trained
    assert after(measured, "-p") == "cpu" and "--exclusive" in measured and "--cpus-per-task=2" in measured
    assert "--exclusive" not in plain
    assert after(plain, "--output") == str(tmp_path / "logs/slurm/rule_plain/%j.log")
    # The cap is of what is asked for; the rule itself is as always.
    assert (tmp_path / "plain.txt").read_text() == "100\n"
    assert not made.cancelled()


def test_names_of_jobs_hold_the_suite(tmp_path: Path) -> None:
    """By them `prunebench watch` tells apart the suites that share a folder."""
    made = stand_in(tmp_path)
    run = made.run("--config", "suite=mine")
    assert run.returncode == 0, run.stdout
    assert set(made.jobs()) == {"prunebench-plain-mine", "prunebench-trained-mine-a", "prunebench-measured-mine"}


@pytest.mark.parametrize(
    ("fate", "words"),
    [
        ("PREEMPTED", "SLURM job 1 ended as PREEMPTED: another job took its place"),
        ("TIMEOUT", "SLURM job 1 ended as TIMEOUT: its time limit of 100 min was too short"),
        ("GONE", "SLURM job 1 is not in the queue any more"),
    ],
)
def test_job_that_is_lost_is_submitted_again_with_more(tmp_path: Path, fate: str, words: str) -> None:
    made = stand_in(tmp_path, workflow=ONE_JOB)
    made.order(1, fate)
    run = made.run()
    assert run.returncode == 0, run.stdout
    assert words in run.stdout
    assert (tmp_path / "one.txt").read_text() == "200\n"
    assert made.submissions("prunebench-all") == 2
    # Should the first one come back, it must not run beside the second.
    assert made.cancelled() == ([] if fate == "TIMEOUT" else ["1"])


def test_job_that_always_fails_ends_the_run_with_its_reason(tmp_path: Path) -> None:
    made = stand_in(
        tmp_path, workflow=ONE_JOB.replace("echo {resources.runtime} >{output}", "echo no such dataset >{log}; false")
    )
    run = made.run("--retries", "1")
    assert run.returncode == 1
    assert made.submissions("prunebench-all") == 2
    assert "SLURM job 2 ended as FAILED" in run.stdout and "no such dataset" in run.stdout


def test_submission_waits_for_a_controller_and_takes_no_attempt(tmp_path: Path) -> None:
    made = stand_in(tmp_path, workflow=ONE_JOB)
    made.order(1, "sbatch: error: Batch job submission failed: Unable to contact slurm controller (connect failure)")
    run = made.run()
    assert run.returncode == 0, run.stdout
    assert "prunebench-all has to wait: sbatch: error" in run.stdout
    assert (tmp_path / "one.txt").read_text() == "100\n"


def test_refused_site_is_told_once(tmp_path: Path) -> None:
    made = stand_in(tmp_path, workflow=ONE_JOB)
    for number in range(1, 5):
        made.order(number, "sbatch: error: Batch job submission failed: Invalid account")
    run = made.run()
    assert run.returncode == 1
    assert run.stdout.count("Invalid account") == 1 and "Mend slurm/site.yaml" in run.stdout


def test_second_run_is_refused(tmp_path: Path) -> None:
    made = stand_in(tmp_path, workflow=ONE_JOB)
    (tmp_path / "results").mkdir()
    with open(tmp_path / "results/.lock", "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        run = made.run()
    assert run.returncode == 1
    assert "results/.lock: another run is at work in this folder" in run.stdout
    assert not made.jobs()


def test_wrong_site_file_is_refused_before_a_job(tmp_path: Path) -> None:
    made = stand_in(tmp_path, site={"partition": "gpu"}, workflow=ONE_JOB)
    run = made.run()
    assert run.returncode == 1
    assert "slurm/site.yaml: partition: unknown key" in run.stdout and "Traceback" not in run.stdout
    assert not made.jobs()


def wait_for(condition: Any, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


SLOW = ONE_JOB.replace('shell: "', 'shell: "touch began; [ -e fast ] || sleep 300; ')


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGINT])
def test_jobs_of_a_run_that_was_killed_do_not_outlive_it(tmp_path: Path, kill: signal.Signals) -> None:
    made = stand_in(tmp_path, workflow=SLOW)
    first = subprocess.Popen(
        made.command(), cwd=tmp_path, env=made.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for((tmp_path / "began").exists)
        # A job of the same user, of another folder: it stays.
        other = made.state / "99"
        other.mkdir()
        (other / "state").write_text("RUNNING\n")
        (other / "rest").write_text("None|0:01|5:00|node1|prunebench-all|/elsewhere\n")
        first.send_signal(kill)
        assert first.wait(60) != 0
        assert made.cancelled() == ([] if kill == signal.SIGKILL else ["1"])
        (tmp_path / "fast").touch()
        run = made.run()
    finally:
        if first.poll() is None:
            first.kill()
        if not made.cancelled():
            subprocess.run([str(tmp_path / "bin/scancel"), "1"], env=made.environment, check=False)
    assert run.returncode == 0, run.stdout
    assert made.cancelled() == ["1"]
    assert ("An earlier run left 1 jobs in the queue: cancelled" in run.stdout) == (kill == signal.SIGKILL)
    assert (other / "state").read_text() == "RUNNING\n"


def test_controller_that_does_not_answer_is_waited_for(tmp_path: Path) -> None:
    made = stand_in(tmp_path, workflow=SLOW)
    run = subprocess.Popen(
        made.command(), cwd=tmp_path, env=made.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        wait_for((tmp_path / "began").exists)
        (made.state / "down").touch()
        assert run.stdout
        wait_for(lambda: "SLURM does not answer" in run.stdout.readline())  # type: ignore[union-attr]
        (made.state / "down").unlink()
        assert run.poll() is None
        run.send_signal(signal.SIGINT)
        run.communicate(timeout=60)
    finally:
        run.kill()
    assert made.cancelled() == ["1"]


def without_slurm(made: StandIn) -> dict[str, str]:
    """Variables of a machine that has no SLURM, wherever this one has it."""
    shutil.rmtree(made.folder / "bin")
    (made.folder / "bin").mkdir()
    for name in ("sh", "bash", "which"):
        (made.folder / "bin" / name).symlink_to(shutil.which(name) or name)
    return {**made.environment, "PATH": os.pathsep.join([str(made.folder / "bin"), str(Path(sys.executable).parent)])}


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["-n"], 0, "1 jobs"),
        (["--executor", "local"], 0, "100%"),
        ([], 1, "squeue: no such command here; start on a login node of a SLURM cluster"),
    ],
)
def test_machine_without_slurm_can_plan_and_run_but_not_submit(
    tmp_path: Path, arguments: list[str], code: int, words: str
) -> None:
    made = stand_in(tmp_path, workflow=ONE_JOB)
    run = made.run(*arguments, environment=without_slurm(made))
    assert run.returncode == code, run.stdout
    assert words in run.stdout
