"""The configuration of the test cluster that ``slurm_cluster.py`` starts: settings, and the text of each of SLURM's files.

Everything here is pure: it needs no SLURM. Verified with SLURM 22.05; the differences of 21.08 and 23.11 are marked.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

ACCOUNT = "lab"
# The first line of slurm.conf; by it a link in /etc/slurm is known to lead to a cluster of ours.
MARK = "# Made by tools/slurm_cluster.py: changes are lost."
# MariaDB's and munge's sockets lie in the folder, and the kernel takes 107 bytes for the path of a socket.
LONGEST_FOLDER = 80


class ClusterError(Exception):
    """What a person has to know or do, in one line; logs of a daemon may follow."""


@dataclass(frozen=True)
class Settings:
    """What can be chosen. Ports from ``port`` on are used: controller, accounting, database, then one for each node."""

    folder: Path = field(default_factory=lambda: Path(tempfile.gettempdir()) / "prunebench-slurm")
    port: int = 17000
    cpu_nodes: int = 2
    gpu_nodes: int = 2
    gpus: int = 2
    cpus: int = 4
    memory_mb: int = 16000
    link: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", self.folder.resolve())
        if len(str(self.folder)) > LONGEST_FOLDER or any(character in str(self.folder) for character in " \t\n'\"%#,="):
            raise ClusterError(f"--folder {self.folder}: needs a path of at most {LONGEST_FOLDER} plain characters")
        for option, number in (("--cpu-nodes", self.cpu_nodes), ("--gpu-nodes", self.gpu_nodes), ("--gpus", self.gpus)):
            if not 1 <= number <= 64:
                raise ClusterError(f"{option} {number}: must be 1 to 64")
        if not 1024 <= self.port <= 65535 - 3 - len(self.nodes):
            raise ClusterError(f"--port {self.port}: {3 + len(self.nodes)} ports from there on must lie in 1024 to 65535")

    @property
    def conf(self) -> Path:
        """Where slurm.conf lies; all else of SLURM's configuration is beside it."""
        return self.folder / "etc" / "slurm.conf"

    @property
    def partitions(self) -> dict[str, list[str]]:
        """The names of the nodes of each partition."""
        return {
            "cpu": [f"cpu{number}" for number in range(1, self.cpu_nodes + 1)],
            "gpu": [f"gpu{number}" for number in range(1, self.gpu_nodes + 1)],
        }

    @property
    def nodes(self) -> list[str]:
        """The names of all nodes."""
        return [name for names in self.partitions.values() for name in names]

    @property
    def node_ports(self) -> dict[str, int]:
        """The port of each node's slurmd. A node keeps its port when others are added after it, but for the GPU nodes."""
        return {name: self.port + 3 + number for number, name in enumerate(self.nodes)}


def slurm_conf(settings: Settings, host: str) -> str:
    """The text of slurm.conf; ``host`` is the name of this machine, which the controller compares with its own."""
    folder = settings.folder
    nodes = [
        f"NodeName={name} NodeHostname={name} NodeAddr=127.0.0.1 Port={port} CPUs={settings.cpus} RealMemory={settings.memory_mb}"
        + (f" Gres=gpu:fake:{settings.gpus}" if name in settings.partitions["gpu"] else "")
        for name, port in settings.node_ports.items()
    ]
    partitions = [
        f"PartitionName={name} Nodes={','.join(names)} Default={'YES' if name == 'cpu' else 'NO'} MaxTime=1-0 State=UP"
        for name, names in settings.partitions.items()
    ]
    lines = f"""{MARK}
ClusterName=lab
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={settings.port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge/munge.sock
CredType=cred/munge
MpiDefault=none
MailProg=/bin/true
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd.%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.%n.log
# No cgroups, so that it runs in containers too. Memory is looked at every 2 s; a job over its limit is killed and FAILED.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=2
JobAcctGatherParams=OverMemoryKill
# Nodes claim what they are told to have, whatever this machine has.
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
# Jobs start within seconds; a lost node is noticed in about half a minute. Finished jobs stay in squeue for MinJobAge.
SchedulerType=sched/backfill
SchedulerParameters=sched_min_interval=100000,sched_interval=5,bf_interval=5,batch_sched_delay=1
ReturnToService=2
SlurmdTimeout=15
SlurmctldTimeout=30
InactiveLimit=0
KillWait=2
OverTimeLimit=0
MinJobAge=300
UnkillableStepTimeout=20
# Jobs of the QOS `urgent` take the place of those of `normal`: these wait again, or are cancelled if sent with --no-requeue.
PreemptType=preempt/qos
PreemptMode=REQUEUE
PriorityType=priority/multifactor
PriorityWeightQOS=1000
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={settings.port + 1}
# The socket, not a password: the default one is of this machine's own munged.
AccountingStoragePass={folder}/munge/munge.sock
AccountingStorageEnforce=associations,qos
AccountingStorageTRES=gres/gpu""".splitlines()
    return "\n".join([*lines, *nodes, *partitions]) + "\n"


def gres_conf(settings: Settings) -> str:
    """The text of gres.conf: links to a device stand for GPUs, which jobs then see numbered in CUDA_VISIBLE_DEVICES."""
    devices = f"{settings.folder}/etc/gpu[0-{settings.gpus - 1}]"
    return "".join(f"NodeName={name} Name=gpu Type=fake File={devices}\n" for name in settings.partitions["gpu"])


def cgroup_conf(version: tuple[int, int]) -> str:
    """The text of cgroup.conf. Nothing here uses cgroups, but from 22.05 on slurmd wants to set them up, unless told otherwise.

    22.05 cannot be told to leave them; its plugin for version 1 is the one that asks nothing of the machine when it starts.
    """
    if version >= (23, 2):
        return "CgroupPlugin=disabled\n"
    return "CgroupPlugin=cgroup/v1\n" if version >= (22, 5) else "CgroupAutomount=no\n"


def slurmdbd_conf(settings: Settings, host: str, password: str) -> str:
    """The text of slurmdbd.conf, which holds the password of the database."""
    folder = settings.folder
    return f"""AuthType=auth/munge
AuthInfo=socket={folder}/munge/munge.sock
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort={settings.port + 1}
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={settings.port + 2}
StorageUser=slurm
StoragePass={password}
StorageLoc=slurm
LogFile={folder}/log/slurmdbd.log
PidFile={folder}/run/slurmdbd.pid
"""
