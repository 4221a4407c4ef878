"""The test cluster of tools/slurm_cluster.py: what its pieces do, and, marked `slurm`, that it is a real SLURM."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import slurm_lab
from slurm_cluster import Cluster, ClusterError, Settings, main
from slurm_files import MARK, cgroup_conf, gres_conf, slurm_conf, slurmdbd_conf
from slurm_lab import check_link
from slurm_processes import Daemon, environment, kill_at_once, pids, program, send, tree, wait_until

slurm = pytest.mark.slurm


# --- pieces


def test_every_node_is_in_one_partition_and_has_a_port_of_its_own(tmp_path: Path) -> None:
    settings = Settings(folder=tmp_path, port=20000, cpu_nodes=3, gpu_nodes=2, gpus=4)
    text = slurm_conf(settings, "here")
    nodes = dict(re.findall(r"^NodeName=(\w+) .* Port=(\d+)", text, flags=re.MULTILINE))
    assert list(nodes) == ["cpu1", "cpu2", "cpu3", "gpu1", "gpu2"]
    others = re.findall(
        r"(?:SlurmctldPort|AccountingStoragePort|DbdPort|StoragePort)=(\d+)", text + slurmdbd_conf(settings, "here", "x")
    )
    assert {*nodes.values(), *others} == {str(port) for port in range(20000, 20008)}
    assert re.findall(r"^PartitionName=(\w+) Nodes=(\S+) Default=(\w+)", text, flags=re.MULTILINE) == [
        ("cpu", "cpu1,cpu2,cpu3", "YES"),
        ("gpu", "gpu1,gpu2", "NO"),
    ]
    assert re.findall(r"NodeName=(\w+) .*Gres=gpu:fake:4", text) == ["gpu1", "gpu2"]
    assert [line.split()[0] for line in gres_conf(settings).splitlines()] == ["NodeName=gpu1", "NodeName=gpu2"]
    assert text.startswith(MARK)


def test_every_path_of_the_configuration_is_in_the_folder(tmp_path: Path) -> None:
    settings = Settings(folder=tmp_path)
    for text in (slurm_conf(settings, "here"), slurmdbd_conf(settings, "here", "x"), gres_conf(settings)):
        paths = re.findall(r"=(?:socket=)?(/[^\s]+)", text)
        assert paths and {path for path in paths if not path.startswith(f"{tmp_path}/")} <= {"/bin/true"}


@pytest.mark.parametrize(
    "version, said", [((21, 8), "CgroupAutomount=no"), ((22, 5), "CgroupPlugin=cgroup/v1"), ((23, 11), "CgroupPlugin=disabled")]
)
def test_each_version_of_slurm_is_kept_from_cgroups_in_its_own_way(version: tuple[int, int], said: str) -> None:
    assert cgroup_conf(version) == said + "\n"


@pytest.mark.parametrize(
    "option, chosen",
    [
        ("--folder", {"folder": Path("/tmp") / ("long" * 20)}),
        ("--folder", {"folder": Path("/tmp/with space")}),
        ("--cpu-nodes", {"cpu_nodes": 0}),
        ("--gpu-nodes", {"gpu_nodes": 65}),
        ("--gpus", {"gpus": 0}),
        ("--port", {"port": 80}),
        ("--port", {"port": 65530}),
    ],
)
def test_a_setting_that_cannot_work_is_named(option: str, chosen: dict[str, object]) -> None:
    with pytest.raises(ClusterError, match=option):
        Settings(**chosen)  # type: ignore[arg-type]


@pytest.fixture
def pretender(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process with the name of a daemon, which no cluster started."""
    copy = tmp_path / "slurmd"
    shutil.copy(str(shutil.which("sleep")), copy)
    with subprocess.Popen([copy, "300"]) as process:
        assert wait_until(lambda: program(process.pid) == "slurmd", 10)
        yield process
        process.kill()


def test_a_stale_pid_file_never_costs_another_process_its_life(tmp_path: Path, pretender: subprocess.Popen[bytes]) -> None:
    daemon = Daemon("slurmd", tmp_path / "pid", tmp_path / "log", tmp_path / "slurm.conf")
    for text in (str(pretender.pid), str(os.getpid()), "no number", "", "999999999"):
        daemon.pid_file.write_text(text)
        assert daemon.pid is None
        daemon.stop(0)
        assert not daemon.pid_file.exists()
    assert pretender.poll() is None


def test_a_daemon_that_ignores_a_request_to_end_is_killed(tmp_path: Path) -> None:
    daemon = Daemon("bash", tmp_path / "pid", tmp_path / "log", tmp_path / "slurm.conf")
    stubborn = "trap '' TERM; touch ready; while true; do sleep 0.1; done"
    with subprocess.Popen(["bash", "-c", stubborn], cwd=tmp_path, env={**os.environ, "SLURM_CONF": str(daemon.conf)}) as process:
        assert wait_until((tmp_path / "ready").exists, 10)
        daemon.pid_file.write_text(f"{process.pid}\n")
        assert daemon.pid == process.pid
        daemon.stop(0.3)
        assert process.wait(10) == -signal.SIGKILL
    assert daemon.pid is None


def test_a_killed_tree_leaves_no_grandchild(tmp_path: Path) -> None:
    command = "bash -c 'sleep 300 & echo $! > grandchild; wait' & wait"
    with subprocess.Popen(["bash", "-c", command], cwd=tmp_path) as process:
        assert wait_until(lambda: (tmp_path / "grandchild").is_file() and (tmp_path / "grandchild").read_text() != "", 10)
        grandchild = int((tmp_path / "grandchild").read_text())
        assert {process.pid, grandchild} < tree([process.pid])
        kill_at_once(lambda: tree([process.pid]))
        assert process.wait(10) == -signal.SIGKILL
    assert program(grandchild) == ""


def test_a_daemon_that_fails_shows_the_end_of_its_log(tmp_path: Path) -> None:
    daemon = Daemon("slurmd", tmp_path / "pid", tmp_path / "log", tmp_path / "slurm.conf")
    daemon.log.write_text("".join(f"line {number}\n" for number in range(100)) + "fatal: no such node\n")
    said = str(daemon.failure("did not start"))
    assert said.startswith(f"slurmd did not start; the end of {daemon.log}:")
    assert said.endswith("fatal: no such node") and "line 50" not in said


def test_the_machines_own_slurm_is_never_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link, ours, other = tmp_path / "slurm.conf", tmp_path / "ours.conf", tmp_path / "other.conf"
    monkeypatch.setattr(slurm_lab, "LINK", link)
    check_link(ours)
    link.symlink_to(ours)
    check_link(ours)
    link.unlink()
    link.symlink_to(other)  # leads nowhere
    check_link(ours)
    other.write_text(f"{MARK}\n")  # of a test cluster that does not run any more
    check_link(ours)
    other.write_text("ClusterName=site\n")
    with pytest.raises(ClusterError, match="--no-link"):
        check_link(ours)
    link.unlink()
    link.write_text("ClusterName=site\n")
    with pytest.raises(ClusterError, match="--no-link"):
        check_link(ours)


def test_what_is_missing_is_named_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(slurm_lab, "PATH", str(tmp_path))
    assert main(["up", "--folder", str(tmp_path / "lab")]) == 1
    said = capsys.readouterr().err
    assert "--install" in said and "apt-get install" in said
    assert all(package in said for package in ("munge", "slurmctld", "slurmd", "slurmdbd", "slurm-client", "mariadb-server-core"))
    assert not (tmp_path / "lab").exists()


@pytest.mark.parametrize("command", ["up", "down", "install", "kill-node cpu1", "start-node cpu1", "restart-controller"])
def test_without_root_it_says_so(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    # Where nothing is missing, nothing has to be installed, by whomever.
    monkeypatch.setattr("slurm_cluster.missing_packages", lambda: ["munge"])
    assert main([*command.split(), *([] if command == "install" else ["--folder", str(tmp_path / "lab")])]) == 1
    assert "as root" in capsys.readouterr().err
    assert not (tmp_path / "lab").exists()


def test_where_no_cluster_is_nothing_is_taken_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert main(["down", "--folder", str(tmp_path)]) == 0
    assert main(["kill-node", "cpu1", "--folder", str(tmp_path)]) == 1
    assert f"up --folder {tmp_path}" in capsys.readouterr().err


# --- a real one


def submit(cluster: Cluster, command: str, *options: str) -> str:
    """The number of a new job, on one node of the partition cpu if not told otherwise."""
    options = ("--time=5", "--mem=50", "--output=/dev/null", *options)
    return cluster.run("sbatch", "--parsable", *options, f"--wrap={command}").strip()


def state(cluster: Cluster, job: str) -> str:
    return cluster.run("squeue", "-h", "-t", "all", "-j", job, "-o", "%T").strip()


def becomes(cluster: Cluster, job: str, wanted: str, seconds: float = 30) -> None:
    wait_until(lambda: state(cluster, job) == wanted, seconds)
    assert state(cluster, job) == wanted


def processes(cluster: Cluster, job: str) -> list[int]:
    """The processes of a job's own commands."""
    found = ((pid, environment(pid)) for pid in pids())
    conf = cluster.environment["SLURM_CONF"]
    return [pid for pid, said in found if (said.get("SLURM_JOB_ID"), said.get("SLURM_CONF")) == (job, conf)]


def works(cluster: Cluster, job: str, count: int = 1) -> None:
    """Wait until a job has so many processes: SLURM calls it RUNNING a little before."""
    becomes(cluster, job, "RUNNING")
    assert wait_until(lambda: len(processes(cluster, job)) >= count, 10)


@pytest.fixture(scope="module")
def overdue(cluster: Cluster) -> str:
    """A job that runs for longer than it may; SLURM counts in minutes, so it is sent early and asked for last."""
    return submit(cluster, "sleep 300", "--time=1", "--partition=gpu", "--nodelist=gpu1")


@slurm
def test_started_twice_it_stays_as_it_is(cluster: Cluster, overdue: str) -> None:
    before = cluster.status()
    assert None not in before.values() and len(before) == 8
    cluster.up()
    assert cluster.status() == before


@slurm
@pytest.mark.parametrize("partition", ["cpu", "gpu"])
def test_jobs_run_on_both_partitions(cluster: Cluster, partition: str) -> None:
    ran = cluster.run("srun", "-p", partition, "-N", "2", "-t", "1", "--mem=50", "printenv", "SLURMD_NODENAME")
    assert sorted(ran.split()) == [f"{partition}1", f"{partition}2"]


@slurm
def test_a_job_sees_the_gpus_that_it_asked_for(cluster: Cluster) -> None:
    srun = ("srun", "-t", "1", "--mem=50")
    for options, seen in ((("-p", "gpu", "--gpus=1"), "0"), (("-p", "gpu", "--gres=gpu:2"), "0,1"), (("-p", "gpu"), "")):
        assert cluster.run(*srun, *options, "sh", "-c", "echo $CUDA_VISIBLE_DEVICES").strip() == seen
    with pytest.raises(ClusterError, match="not available"):
        cluster.run("sbatch", "--partition=cpu", "--gpus=1", "--wrap=true")


@slurm
def test_accounting_keeps_what_became_of_jobs(cluster: Cluster) -> None:
    jobs = {submit(cluster, "true"): "COMPLETED|0:0|lab", submit(cluster, "exit 3", "--account=lab"): "FAILED|3:0|lab"}
    for job, wanted in jobs.items():
        query = ("sacct", "-nXP", "-j", job, "-o", "state,exitcode,account")
        assert wait_until(lambda query=query, wanted=wanted: cluster.run(*query).strip() == wanted, 30)
    with pytest.raises(ClusterError, match="Invalid account"):
        cluster.run("sbatch", "--account=elsewhere", "--wrap=true")


@slurm
def test_an_urgent_job_takes_the_place_of_another(cluster: Cluster) -> None:
    fill = ("--nodes=2", "--exclusive")
    waits, ends = (submit(cluster, "sleep 300", *fill, option) for option in ("--requeue", "--no-requeue"))
    becomes(cluster, waits, "RUNNING")
    urgent = submit(cluster, "sleep 2", "--qos=urgent", *fill)
    becomes(cluster, urgent, "RUNNING")
    assert state(cluster, waits) == "PENDING"
    becomes(cluster, ends, "RUNNING")  # it ran while the first one may not start again
    urgent = submit(cluster, "sleep 1", "--qos=urgent", *fill)
    becomes(cluster, ends, "PREEMPTED")
    becomes(cluster, urgent, "COMPLETED")
    cluster.run("scontrol", "update", f"jobid={waits}", "starttime=now")
    becomes(cluster, waits, "RUNNING")
    cluster.run("scancel", waits)


@slurm
def test_a_job_over_its_memory_is_killed(cluster: Cluster) -> None:
    job = submit(cluster, "python3 -c 'import time; kept = bytes(range(256)) * 2**20; time.sleep(300)'")
    becomes(cluster, job, "FAILED")
    assert wait_until(lambda: processes(cluster, job) == [], 10)


@slurm
@pytest.mark.parametrize("crash", [False, True])
def test_running_jobs_outlive_the_controller(cluster: Cluster, crash: bool) -> None:
    job = submit(cluster, "sleep 12")
    works(cluster, job, 2)
    before, controller = processes(cluster, job), cluster.controller.pid
    cluster.restart_controller(crash)
    assert cluster.controller.pid not in (controller, None)
    assert state(cluster, job) == "RUNNING" and processes(cluster, job) == before != []
    becomes(cluster, job, "COMPLETED")


@slurm
def test_a_port_that_is_taken_is_named(cluster: Cluster, tmp_path: Path) -> None:
    port = cluster.settings.port
    beside = Cluster(Settings(folder=tmp_path, port=port - 2, link=False))
    with pytest.raises(ClusterError, match=f"--port {port - 2}: mariadbd needs port {port}"):
        beside.up()
    beside.down(purge=True)
    assert None not in cluster.status().values()


@slurm
def test_nothing_of_a_crashed_node_is_left_and_it_comes_back(cluster: Cluster) -> None:
    on_node = "--nodelist=cpu1"
    ends = submit(cluster, "(setsid sleep 300 &); sleep 300", "--no-requeue", on_node)
    waits = submit(cluster, "sleep 300", "--requeue", on_node)
    other = submit(cluster, "sleep 300", "--nodelist=cpu2")
    works(cluster, ends, 3)
    works(cluster, waits)
    works(cluster, other)
    cluster.kill_node("cpu1")
    assert processes(cluster, ends) == processes(cluster, waits) == [] and processes(cluster, other) != []
    assert cluster.status()["slurmd cpu1"] is None and cluster.status()["slurmd cpu2"]
    becomes(cluster, ends, "NODE_FAIL", 90)
    assert wait_until(lambda: cluster.state("cpu1") == "down*", 10)
    assert (state(cluster, waits), state(cluster, other)) == ("PENDING", "RUNNING")
    cluster.start_node("cpu1")
    assert cluster.state("cpu1") == "idle"
    cluster.run("scontrol", "update", f"jobid={waits}", "starttime=now", "reqnodelist=cpu2")
    works(cluster, waits)
    # The same, but started again before the controller can have noticed.
    cluster.kill_node("cpu2")
    cluster.start_node("cpu2")
    becomes(cluster, waits, "PENDING")
    becomes(cluster, other, "PENDING")
    cluster.run("scancel", waits, other)


@slurm
def test_a_crash_that_is_told_is_known_at_once(cluster: Cluster) -> None:
    job = submit(cluster, "sleep 300", "--no-requeue", "--nodelist=cpu2")
    works(cluster, job)
    cluster.kill_node("cpu2", notice=True)
    becomes(cluster, job, "NODE_FAIL", 5)
    cluster.start_node("cpu2")
    assert cluster.state("cpu2") == "idle"
    with pytest.raises(ClusterError, match=r"cpu9.*cpu1, cpu2, gpu1, gpu2"):
        cluster.kill_node("cpu9")


@slurm
def test_a_job_over_its_time_is_ended(cluster: Cluster, overdue: str) -> None:
    becomes(cluster, overdue, "TIMEOUT", 120)


@slurm
def test_it_starts_again_after_everything_was_killed(cluster: Cluster, pretender: subprocess.Popen[bytes]) -> None:
    for pid in [pid for pid in cluster.status().values() if pid is not None]:
        send(pid, signal.SIGKILL)
    # By now the number of a slurmd that was killed may be somebody else's, even of another slurmd.
    cluster.slurmds["cpu1"].pid_file.write_text(str(pretender.pid))
    cluster.up()
    assert None not in cluster.status().values() and pretender.poll() is None
    assert cluster.run("srun", "-t", "1", "--mem=50", "-w", "cpu1", "echo", "ran").strip() == "ran"


@slurm
def test_down_ends_its_own_processes_and_no_other(cluster: Cluster, pretender: subprocess.Popen[bytes]) -> None:
    job = submit(cluster, "(setsid sleep 300 &); sleep 300")
    works(cluster, job, 3)
    cluster.slurmds["gpu1"].stop()
    cluster.slurmds["gpu1"].pid_file.write_text(str(pretender.pid))
    ours = {pid for pid in pids() if cluster.environment["SLURM_CONF"] in environment(pid).values()}
    assert len(ours) >= 7 + 3
    cluster.down()
    assert [pid for pid in ours if program(pid)] == [] and set(cluster.status().values()) == {None}
    assert pretender.poll() is None
    assert cluster.settings.conf.is_file()
    cluster.down(purge=True)
    assert not cluster.settings.folder.exists()
