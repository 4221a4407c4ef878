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
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from slurm_files import ClusterError, Settings
from slurm_lab import LINK, Cluster, missing_packages, require_root

__all__ = ["Cluster", "ClusterError", "Settings"]

# Where Debian looks whether a package may start its daemons when it is installed.
POLICY = Path("/usr/sbin/policy-rc.d")


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
    restart = commands.add_parser("restart-controller", parents=[folder], help="stop slurmctld and start it again")
    restart.add_argument("--crash", action="store_true", help="kill it, once it has written down what it knows")
    return parser.parse_args(argv)


def perform(chosen: argparse.Namespace) -> int:
    """Do what the command line says; returns the exit code."""
    if chosen.command != "status" and not (chosen.command == "install" and not missing_packages()):
        require_root()
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
        cluster.restart_controller(crash=chosen.crash)
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
    # A kill unwinds as Ctrl-C does, so that an installation leaves no policy behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
