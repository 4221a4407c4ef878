"""A real, throw-away SLURM on this machine, for tests and to try a profile: ``python tools/slurm_cluster.py up``.

Starts munged, MariaDB, slurmdbd, slurmctld and a slurmd for each node from the packages of Debian or Ubuntu, as root, without
systemd and without cgroups. All listen on the loopback interface, and all their files lie in one folder. Jobs run as root, with
whatever they are told to run, so it is no place for other people's jobs.

Two partitions: ``cpu`` (default) and ``gpu``, whose nodes have GPUs that are names alone. Account ``lab``. With ``--qos=urgent`` a
job takes the place of others.
"""

from __future__ import annotations

import argparse
import dataclasses
import fcntl
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
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
POLICY = Path("/usr/sbin/policy-rc.d")
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
# The daemons' programs are often not on the path of a shell.
PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"


def missing_packages() -> list[str]:
    """The packages whose programs are not there."""
    return sorted({package for name, package in PACKAGES.items() if not shutil.which(name, path=PATH)})


def require_root() -> None:
    """Everything here is started as root, since daemons have to start jobs."""
    if os.geteuid() != 0:
        raise ClusterError("a test cluster is started as root: run it with sudo, or in a container")


def apt(*arguments: str) -> str:
    """Run apt-get quietly; its output is shown if it fails."""
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(["apt-get", "-qq", *arguments], env=quiet, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = (done.stdout + done.stderr).splitlines()[-12:]
        raise ClusterError("\n  ".join([f"apt-get {' '.join(arguments)} failed:", *lines]))
    return done.stdout


def install() -> list[str]:
    """Install the packages that are missing, and return their names. None of their daemons is started."""
    require_root()
    if not missing_packages():
        return []
    apt("update")
    # Ubuntu 22.04 has the version in the name: mariadb-server-core-10.6.
    known = subprocess.run(["apt-cache", "pkgnames", "mariadb-"], capture_output=True, text=True, check=False).stdout.split()
    names = [next((name for name in sorted(known) if name.startswith(package)), package) for package in missing_packages()]
    ours = not POLICY.exists()
    if ours:
        POLICY.write_text("#!/bin/sh\nexit 101\n")
        POLICY.chmod(0o755)
    try:
        apt("install", "-y", "--no-install-recommends", *names)
    finally:
        if ours:
            POLICY.unlink()
    return names


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
            self._start(self.accounting, ["slurmdbd"], lambda: self.try_run("sacctmgr", "-n", "list", "cluster") is not None)
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
        command = ["munged", "--num-threads=10", *(f"--{name}={path}" for name, path in options.items())]
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
        self._start(self.database, ["setsid", "--fork", *server], lambda: self.try_run(*client, "-e", "select 1") is not None)
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
        self._start(self.controller, command, lambda: " is UP" in (self.try_run("scontrol", "ping") or ""))

    def _start_slurmd(self, name: str) -> None:
        # A controller that did not notice a crash still calls the node's former state, so the new slurmd must have registered.
        since = time.strftime("%Y-%m-%dT%H:%M:%S") if self.slurmds[name].pid is None else ""
        if self.state(name) not in UP:
            self.try_run("scontrol", "update", f"nodename={name}", "state=resume")

        def ready() -> bool:
            started = re.search(r"SlurmdStartTime=(\d\S*)", self.try_run("scontrol", "show", "node", name) or "")
            return bool(started and started[1] >= since) and self.state(name) in UP

        self._start(self.slurmds[name], ["slurmd", "-N", name, "-f", str(self.settings.conf)], ready)

    def _start(self, daemon: Daemon, command: Sequence[str], ready: Callable[[], bool]) -> None:
        """Start a daemon if it does not run, and wait until it answers."""
        if daemon.pid is None:
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
        (a preempted one too); ``scontrol update jobid=<id> starttime=now`` ends that wait.
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
            self.run("scontrol", "update", f"nodename={name}", "state=down", "reason=crashed")

    def start_node(self, name: str) -> None:
        """Start a node again, and wait until it takes jobs."""
        self._known(name)
        self._start_slurmd(name)

    def restart_controller(self, kill: bool = True) -> None:
        """Let slurmctld crash (or stop it in peace), and start it again. Its state is on disk, so jobs go on."""
        self.controller.stop(0 if kill else 20)
        self._start_controller()

    # --- asking

    def state(self, name: str) -> str:
        """A node's state in one word, such as idle; ``down*`` is of a node that does not answer."""
        return (self.try_run("sinfo", "-h", "-N", "-n", name, "-o", "%T") or "").split("\n")[0]

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


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Settings()
    folder = argparse.ArgumentParser(add_help=False)
    folder.add_argument(
        "--folder", type=Path, default=default.folder, help=f"where all its files are (default: {default.folder})"
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    up = commands.add_parser("up", parents=[folder], help="start what does not run yet")
    up.add_argument("--install", action="store_true", help="install missing packages with apt-get")
    for name, what in (
        ("port", "the first of its ports: three, and one for each node"),
        ("cpu-nodes", "nodes of the partition cpu"),
        ("gpu-nodes", "nodes of the partition gpu"),
        ("gpus", "GPUs of each node of the partition gpu"),
    ):
        value = getattr(default, name.replace("-", "_"))
        up.add_argument(f"--{name}", type=int, help=f"{what} (default: as it was started before, or {value})")
    up.add_argument("--link", action=argparse.BooleanOptionalAction, help=f"lead {LINK} to it (default: yes)")
    down = commands.add_parser("down", parents=[folder], help="end its processes and jobs, and nobody else's")
    down.add_argument("--purge", action="store_true", help="remove its folder too")
    commands.add_parser("status", parents=[folder], help="say what runs; exit code 1 if something does not")
    commands.add_parser("install", help="install missing packages with apt-get, no more")
    kill = commands.add_parser("kill-node", parents=[folder], help="let a node crash with all its jobs")
    kill.add_argument("node", metavar="NAME")
    kill.add_argument("--notice", action="store_true", help="tell the controller, which finds out after 20 to 40 s otherwise")
    commands.add_parser("start-node", parents=[folder], help="start a node again").add_argument("node", metavar="NAME")
    restart = commands.add_parser("restart-controller", parents=[folder], help="let slurmctld crash and start it again")
    restart.add_argument("--gently", action="store_true", help="stop it in peace, as for an update")
    return parser.parse_args(argv)


def perform(chosen: argparse.Namespace) -> int:
    """Do what the command line says; returns the exit code."""
    if chosen.command == "install" or (chosen.command == "up" and chosen.install):
        if installed := install():
            print("Installed:", *installed)
        if chosen.command == "install":
            return 0
    saved = (chosen.folder / "cluster.json").is_file()
    if chosen.command == "up":
        before = Cluster.started_in(chosen.folder).settings if saved else Settings(folder=chosen.folder)
        names = ("port", "cpu_nodes", "gpu_nodes", "gpus", "link")
        given = {name: getattr(chosen, name) for name in names if getattr(chosen, name) is not None}
        cluster = Cluster(dataclasses.replace(before, **given))
        cluster.up()
        print(cluster.run("sinfo", "-o", "%P %D %t %c %m %G %N"), end="")
        print(f"export SLURM_CONF={cluster.settings.conf}")
        return 0
    if chosen.command == "down" and not saved:
        print(f"No cluster was started in {chosen.folder}.")
        return 0
    cluster = Cluster.started_in(chosen.folder)
    if chosen.command == "down":
        cluster.down(purge=chosen.purge)
    elif chosen.command == "kill-node":
        cluster.kill_node(chosen.node, notice=chosen.notice)
    elif chosen.command == "start-node":
        cluster.start_node(chosen.node)
    elif chosen.command == "restart-controller":
        cluster.restart_controller(kill=not chosen.gently)
    else:
        running = cluster.status()
        for name, pid in running.items():
            print(f"{name:14} {'not running' if pid is None else pid}")
        if running["slurmctld"]:
            print(cluster.run("sinfo", "-o", "%P %D %T %c %m %G %N"), end="")
        return int(None in running.values())
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    try:
        return perform(arguments(argv))
    except ClusterError as error:
        print(f"slurm_cluster: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
