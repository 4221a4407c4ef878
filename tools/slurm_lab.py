"""The test cluster of ``slurm_cluster.py``: its daemons, how they start and stop, and the faults that tests let them have."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import slurm_files
from slurm_files import ACCOUNT, MARK, ClusterError, Settings
from slurm_processes import Daemon, environment, kill_at_once, open_files, pids, program, tree, wait_until

# Where SLURM's programs look when SLURM_CONF is not set: Snakemake's jobs drop it.
LINK = Path("/etc/slurm/slurm.conf")
PACKAGES = {
    "munged": "munge",
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "slurmdbd": "slurmdbd",
    "srun": "slurm-client",
    "mariadbd": "mariadb-server-core",
    "mariadb": "mariadb-client-core",
}
# States of a node that takes jobs, or will when those that it has end.
UP = ("idle", "mixed", "allocated", "completing")
DAEMONS = ("slurmstepd", "slurmd", "slurmctld", "slurmdbd", "mariadbd", "munged")
# Seconds after which slurmctld has written down what changed (SAVE_MAX_WAIT in its source is 5).
SAVED_AFTER = 6
# The daemons' programs are often not on the path of a shell.
PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"


def missing_packages() -> list[str]:
    """The packages whose programs are not there."""
    return sorted({package for name, package in PACKAGES.items() if not shutil.which(name, path=PATH)})


def require_root() -> None:
    """Everything here is started as root, since daemons have to start jobs."""
    if os.geteuid() != 0:
        raise ClusterError("a test cluster is started as root: run it with sudo, or in a container")


class Cluster:
    """A test cluster in a folder. After ``up`` give ``environment`` to whatever is to use it."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self.nodes = self.settings.nodes
        self.environment = {"SLURM_CONF": str(self.settings.conf)}
        folder = self.settings.folder
        daemon = partial(Daemon, conf=self.settings.conf)
        self.munged = daemon("munged", folder / "munge" / "munged.pid", folder / "munge" / "munged.log")
        self.database = daemon("mariadbd", folder / "run" / "mariadbd.pid", folder / "log" / "mariadbd.log")
        self.accounting = daemon("slurmdbd", folder / "run" / "slurmdbd.pid", folder / "log" / "slurmdbd.log")
        self.controller = daemon("slurmctld", folder / "run" / "slurmctld.pid", folder / "log" / "slurmctld.log")
        self.slurmds = {
            name: daemon("slurmd", folder / "run" / f"slurmd.{name}.pid", folder / "log" / f"slurmd.{name}.log")
            for name in self.nodes
        }

    @classmethod
    def started_in(cls, folder: Path) -> Cluster:
        """The cluster that was started in a folder."""
        try:
            saved = json.loads((folder / "cluster.json").read_text())
        except FileNotFoundError as error:
            raise ClusterError(f"{folder}: no cluster was started there; start one with: up --folder {folder}") from error
        return cls(Settings(folder=folder, **saved))

    # --- up

    def up(self) -> None:
        """Start what does not run yet, and wait until all nodes take jobs. Changed settings restart all of it."""
        require_root()
        if missing := missing_packages():
            raise ClusterError(
                f"SLURM is not installed whole: add --install, or: apt-get install --no-install-recommends {' '.join(missing)}"
            )
        if self.settings.link:
            check_link(self.settings.conf)
        with self._locked():
            self._write_files()
            self._start_munged()
            self._start_database()
            self._start(
                self.accounting,
                ["slurmdbd"],
                lambda: self.try_run("sacctmgr", "-n", "list", "cluster") is not None,
                self.settings.port + 1,
            )
            self._make_accounts()
            self._start_controller()
            for name in self.nodes:
                self._start_slurmd(name)
            if self.settings.link:
                LINK.parent.mkdir(exist_ok=True)
                LINK.unlink(missing_ok=True)
                LINK.symlink_to(self.settings.conf)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Make the folder, and wait while another process starts or stops the cluster in it."""
        folder = self.settings.folder
        while True:
            folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            if folder.stat().st_uid != 0 or folder.stat().st_mode & 0o022:
                raise ClusterError(f"{folder}: belongs to another user or can be written by others; choose another --folder")
            handle = os.open(folder, os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                # Who held the lock may have removed the folder.
                if folder.exists() and os.fstat(handle).st_ino == folder.stat().st_ino:
                    yield
                    return
            finally:
                os.close(handle)

    def _write_files(self) -> None:
        settings = self.settings
        folder, etc = settings.folder, settings.conf.parent
        for name in ("etc", "run", "log", "state", "munge", *(f"spool/{node}" for node in self.nodes)):
            (folder / name).mkdir(parents=True, exist_ok=True)
            (folder / name).chmod(0o755)
        password = folder / "etc" / "password"
        if not password.is_file():
            write(password, secrets.token_hex(16), 0o600)
        host = socket.gethostname().split(".")[0]
        version = self.run("slurmctld", "-V").split()[-1].split(".")
        texts = {
            "slurm.conf": slurm_files.slurm_conf(settings, host),
            "gres.conf": slurm_files.gres_conf(settings),
            "cgroup.conf": slurm_files.cgroup_conf((int(version[0]), int(version[1]))),
            "slurmdbd.conf": slurm_files.slurmdbd_conf(settings, host, password.read_text()),
        }
        for number in range(settings.gpus):
            device = etc / f"gpu{number}"
            device.unlink(missing_ok=True)
            device.symlink_to("/dev/null")
        if any((etc / name).is_file() and (etc / name).read_text() != text for name, text in texts.items()):
            self._stop_all()
        for name, text in texts.items():
            # SLURM refuses a slurmdbd.conf that others can read.
            write(etc / name, text, 0o600 if name == "slurmdbd.conf" else 0o644)
        saved = {key: value for key, value in dataclasses.asdict(settings).items() if key != "folder"}
        write(folder / "cluster.json", json.dumps(saved) + "\n")

    def _start_munged(self) -> None:
        folder = self.settings.folder / "munge"
        key, sock = folder / "munge.key", folder / "munge.sock"
        if not key.is_file():
            write(key, secrets.token_hex(64), 0o400)
        if self.munged.pid is None:
            sock.unlink(missing_ok=True)
        options = {"socket": sock, "key-file": key, "log-file": self.munged.log, "pid-file": self.munged.pid_file}
        options["seed-file"] = folder / "munge.seed"
        # Forced, since it refuses a folder that not all users can enter, where only root needs to.
        command = ["munged", "--force", "--num-threads=10", *(f"--{name}={path}" for name, path in options.items())]
        self._start(self.munged, command, sock.is_socket)

    def _start_database(self) -> None:
        folder = self.settings.folder
        data, unfinished, sock = folder / "db", folder / "db.new", folder / "run" / "mariadb.sock"
        if not data.is_dir():
            shutil.rmtree(unfinished, ignore_errors=True)
            # Only root may enter the database as root, and only by the socket.
            options = ("--no-defaults", "--user=root", "--auth-root-authentication-method=socket", "--skip-test-db")
            self.run("mariadb-install-db", *options, f"--datadir={unfinished}")
            unfinished.rename(data)
        server = ["mariadbd", "--no-defaults", "--user=root", f"--datadir={data}", f"--socket={sock}"]
        server += [f"--pid-file={self.database.pid_file}", "--bind-address=127.0.0.1", f"--port={self.settings.port + 2}"]
        # Small and quick: nothing here is worth a wait for the disk.
        server += ["--innodb-buffer-pool-size=64M", "--innodb-log-file-size=16M", "--innodb-flush-log-at-trx-commit=0"]
        client = ("mariadb", "--no-defaults", "--user=root", f"--socket={sock}")
        self._start(
            self.database,
            ["setsid", "--fork", *server],
            lambda: self.try_run(*client, "-e", "select 1") is not None,
            self.settings.port + 2,
        )
        password = (folder / "etc" / "password").read_text()
        for statement in (
            "create database if not exists slurm",
            f"create or replace user slurm@'127.0.0.1' identified by '{password}'",
            f"create or replace user slurm@localhost identified by '{password}'",
            "grant all on slurm.* to slurm@'127.0.0.1'",
            "grant all on slurm.* to slurm@localhost",
        ):
            self.run(*client, "-e", statement)

    def _make_accounts(self) -> None:
        users = {"root", os.environ.get("SUDO_USER", "root")}

        def have_none() -> list[str]:
            query = ("sacctmgr", "-nP", "list", "assoc", f"account={ACCOUNT}", "format=user,qos")
            found = [line.split("|") for line in self.run(*query).splitlines()]
            return sorted(users - {user for user, qos in found if "urgent" in qos})

        if not have_none():
            return
        # sacctmgr fails where something is there already, so what counts is what is there in the end.
        for words in (
            "add cluster lab",
            "add qos urgent",
            "modify qos urgent set preempt=normal priority=1000",
            f"add account {ACCOUNT}",
            f"modify account {ACCOUNT} set qos=normal,urgent defaultqos=normal",
            *(f"add user {user} account={ACCOUNT}" for user in users),
            *(f"modify user {user} set defaultaccount={ACCOUNT}" for user in users),
        ):
            self.try_run("sacctmgr", "-i", *words.split())
        if missing := have_none():
            raise self.accounting.failure(f"has no account {ACCOUNT} for {', '.join(missing)}")

    def _start_controller(self) -> None:
        command = ["slurmctld", "-f", str(self.settings.conf)]
        self._start(self.controller, command, lambda: " is UP" in (self.try_run("scontrol", "ping") or ""), self.settings.port)

    def _start_slurmd(self, name: str) -> None:
        # A controller that did not notice a crash still calls the node's former state, so the new slurmd must have registered.
        since = time.strftime("%Y-%m-%dT%H:%M:%S") if self.slurmds[name].pid is None else ""
        if self.state(name) not in UP:
            self.try_run("scontrol", "update", f"nodename={name}", "state=resume")

        def ready() -> bool:
            started = re.search(r"SlurmdStartTime=(\d\S*)", self.try_run("scontrol", "show", "node", name) or "")
            return bool(started and started[1] >= since) and self.state(name) in UP

        self._start(
            self.slurmds[name], ["slurmd", "-N", name, "-f", str(self.settings.conf)], ready, self.settings.node_ports[name]
        )

    def _start(self, daemon: Daemon, command: Sequence[str], ready: Callable[[], bool], port: int | None = None) -> None:
        """Start a daemon if it does not run, and wait until it answers."""
        if daemon.pid is None:
            # A database that was killed gives its port back when the system has done with its memory.
            if port and not wait_until(lambda: not taken(port), 5):
                raise ClusterError(
                    f"--port {self.settings.port}: {daemon.program} needs port {port}, which another program listens on"
                )
            daemon.pid_file.unlink(missing_ok=True)
            with daemon.log.open("a") as log:
                done = subprocess.run(
                    command, env=self._variables(), cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False
                )
            if done.returncode or not wait_until(lambda: daemon.pid is not None, 15):
                raise daemon.failure("did not start")
        if not wait_until(ready, 60):
            raise daemon.failure("runs, but does not answer")

    # --- down

    def down(self, purge: bool = False) -> None:
        """End the cluster's processes and jobs, and remove its link; with ``purge`` its folder too."""
        require_root()
        if not self.settings.folder.exists():
            return
        with self._locked():
            self._stop_all()
            if LINK.is_symlink() and LINK.readlink() == self.settings.conf:
                LINK.unlink()
            if purge:
                shutil.rmtree(self.settings.folder)

    def _stop_all(self) -> None:
        # Nodes first, as a crash: jobs would otherwise outlive them.
        for name in self.nodes:
            self.kill_node(name)
        for daemon in (self.controller, self.accounting, self.database, self.munged):
            daemon.stop()
        # What another configuration or a lost pid file left behind: daemons, and jobs.
        logs = self.settings.folder / "log"

        def left(pid: int) -> bool:
            if program(pid) in DAEMONS and any(logs in path.parents for path in open_files(pid)):
                return True
            return self._owns(pid) and (program(pid) in DAEMONS or "SLURMD_NODENAME" in environment(pid))

        kill_at_once(lambda: tree(pid for pid in pids() if left(pid)))

    def _owns(self, pid: int) -> bool:
        return environment(pid).get("SLURM_CONF") == str(self.settings.conf)

    # --- faults

    def kill_node(self, name: str, notice: bool = False) -> None:
        """Let a node crash: its slurmd and all processes of its jobs are gone at once.

        The controller finds out after SlurmdTimeout and a failed ping, 20 to 40 s; with ``notice`` it is told at once. Then a job
        sent with --no-requeue is NODE_FAIL. Another one waits again, for 120 s at least, which no setting of SLURM 22.05 changes
        (nor that of a preempted job); ``scontrol update jobid=<id> starttime=now`` ends the wait. After a crash add
        ``reqnodelist=<another node>``: the order to kill the job is still on its way to the crashed one, and would meet it there.
        """
        self._known(name)
        log = self.slurmds[name].log

        def of_node(pid: int) -> bool:
            # What slurmd starts for a job keeps the log of its node open. What a job sent to the background has another parent.
            if program(pid) in ("slurmd", "slurmstepd"):
                return log in open_files(pid)
            return environment(pid).get("SLURMD_NODENAME") == name and self._owns(pid)

        kill_at_once(lambda: tree(pid for pid in pids() if of_node(pid)))
        self.slurmds[name].stop(0)
        if notice:
            self._tell_of_crash(name)

    def start_node(self, name: str) -> None:
        """Start a node again, and wait until it takes jobs.

        A controller that did not notice the crash is told. It would otherwise believe a job that is younger than some seconds
        to run on, for minutes.
        """
        self._known(name)
        if self.slurmds[name].pid is None and self.state(name) in UP:
            self._tell_of_crash(name)
        self._start_slurmd(name)

    def _tell_of_crash(self, name: str) -> None:
        self.run("scontrol", "update", f"nodename={name}", "state=down", "reason=crashed")

    def restart_controller(self, crash: bool = False) -> None:
        """Stop slurmctld, start it again, and wait until its nodes answer. Its state is on disk, so jobs go on.

        With ``crash`` it is killed. What it was told in the seconds before is not on disk yet: SLURM would forget the job and give
        its number to the next one. So that nothing of this is left to chance, it is killed 6 s after the call.
        """
        if crash:
            time.sleep(SAVED_AFTER)
        self.controller.stop(0 if crash else 20)
        self._start_controller()
        nodes = [name for name, daemon in self.slurmds.items() if daemon.pid]
        if not wait_until(lambda: all(self.state(name) in UP for name in nodes), 60):
            raise self.controller.failure("runs, but nodes do not answer it")

    # --- asking

    def state(self, name: str) -> str:
        """A node's state in one word, such as idle; ``down*`` is of a node that does not answer, empty if nobody knows."""
        # Of all nodes, since what sinfo says of a single one may be long out of date.
        lines = (self.try_run("sinfo", "-h", "-N", "-o", "%N %T") or "").splitlines()
        return dict(line.split() for line in lines).get(name, "")

    def status(self) -> dict[str, int | None]:
        """The process of each daemon, None where it does not run."""
        daemons = {daemon.program: daemon for daemon in (self.munged, self.database, self.accounting, self.controller)}
        daemons |= {f"slurmd {name}": daemon for name, daemon in self.slurmds.items()}
        return {name: daemon.pid for name, daemon in daemons.items()}

    def run(self, *command: str) -> str:
        """What a command of SLURM prints; an error says what it complained of."""
        done = subprocess.run(
            command, env=self._variables(), cwd="/", stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise ClusterError(f"{' '.join(command)}: {(done.stderr or done.stdout).strip() or f'exit code {done.returncode}'}")
        return done.stdout

    def try_run(self, *command: str) -> str | None:
        """The same, None if it fails."""
        try:
            return self.run(*command)
        except ClusterError:
            return None

    def _variables(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM", "SBATCH", "SRUN"))}
        return {**kept, **self.environment, "PATH": PATH}

    def _known(self, name: str) -> None:
        if name not in self.slurmds:
            raise ClusterError(f"{name}: no node of this cluster; there are {', '.join(self.nodes)}")


def write(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a file whole, never readable by more than it should be."""
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        file.write(text)
    new.chmod(mode)
    new.replace(path)


def taken(port: int) -> bool:
    """Whether something listens on a port of this machine."""
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def check_link(conf: Path) -> None:
    """Refuse to take the place of another configuration of SLURM."""
    if LINK.is_symlink() and LINK.readlink() != conf and LINK.exists():
        other = LINK.readlink()
        if LINK.read_text().startswith(MARK) and not any(
            program(pid) == "slurmctld" and environment(pid).get("SLURM_CONF") == str(other) for pid in pids()
        ):
            return
        raise ClusterError(f"{LINK} leads to {other}, another cluster: take it down first, or add --no-link")
    if LINK.exists() and not LINK.is_symlink():
        raise ClusterError(f"{LINK} is a file of this machine's own SLURM and stays; add --no-link to start a cluster beside it")
