"""The command line: a thin adapter between files and the stages. The workflow's rules call it; so can a person."""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from prunebench import __version__
from prunebench.errors import CorruptFile, DiskFull, PrunebenchError, lack_of_space

if TYPE_CHECKING:
    from types import ModuleType

    from prunebench.config import Suite
    from prunebench.jobs import ChainJob, FiltersJob

C = TypeVar("C", bound="ChainJob | FiltersJob")


def _threads(number: int) -> None:
    """Hold torch and the numerical libraries to so many threads: results depend on it."""
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
        os.environ[variable] = str(number)
    import torch

    torch.set_num_threads(number)
    torch.use_deterministic_algorithms(True)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Hold a work folder: a job that outlived a killed run must end before its successor begins.

    Nobody else writes below it then, so what killed writers left there goes, however new it is.
    """
    from prunebench.artifacts import clear_temporaries

    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"{folder}: another job is at work here; waiting for it to end", flush=True)
                fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            print(f"{folder}: this file system has no locks ({error}); see that no other job is at work here", flush=True)
        else:
            clear_temporaries(folder.rglob(".*"))
        yield


@contextmanager
def _at_work(folder: Path, stage: str, quiet: bool = False, started: float | None = None) -> Iterator[None]:
    """Hold a work folder and keep a progress file (``prunebench.progress.recorded``)."""
    from prunebench.progress import recorded

    with _alone_in(folder), recorded(folder, stage, quiet, started):
        yield


def _dense(options: argparse.Namespace) -> None:
    from prunebench.jobs import DenseJob, read_job

    job = read_job(DenseJob, options.settings)
    _threads(job.threads)
    from prunebench import stages

    with _at_work(options.work, "dense"):
        stages.dense(job, options.out, options.work)


def _score(options: argparse.Namespace) -> None:
    from prunebench.jobs import ScoreJob, read_job

    job = read_job(ScoreJob, options.settings)
    _threads(job.threads)
    from prunebench import stages

    with _at_work(options.work, "score"):
        stages.score(job, options.network, options.out, options.cost, options.work)


def _oracle(options: argparse.Namespace) -> None:
    from prunebench.jobs import OracleJob, read_job

    job = read_job(OracleJob, options.settings)
    _threads(job.threads)
    from prunebench.oracle import oracle

    with _at_work(options.work, "oracle"):
        oracle(job, options.network, options.out, options.cost, options.work)


def _rank(options: argparse.Namespace) -> None:
    from prunebench.jobs import RankJob, read_job
    from prunebench.ranking import rank

    rank(read_job(RankJob, options.settings), options.scores, options.out)


def _one_shot(options: argparse.Namespace) -> None:
    from prunebench.jobs import ChainJob

    def follow(stages: ModuleType, job: ChainJob, out: Path, work: Path) -> None:
        rankings = [out / f"draw{draw}" / "ranking.csv" for draw in range(job.draws)]
        stages.one_shot(job, options.dense, rankings, out, work)

    _follow(options, ChainJob, follow)


def _iterative(options: argparse.Namespace) -> None:
    from prunebench.jobs import ChainJob

    def follow(stages: ModuleType, job: ChainJob, out: Path, work: Path) -> None:
        stages.iterative(job, options.dense, options.scores, out, work)

    _follow(options, ChainJob, follow)


def _filters(options: argparse.Namespace) -> None:
    from prunebench.jobs import FiltersJob

    def follow(stages: ModuleType, job: FiltersJob, out: Path, work: Path) -> None:
        stages.filters(job, [folder for folder in options.networks if folder.parts[-3] == out.name], out, work)

    _follow(options, FiltersJob, follow)


def _follow(options: argparse.Namespace, kind: type[C], follow: Callable[[ModuleType, C, Path, Path], None]) -> None:
    """Follow the chains of a job, one after the other, each in folders of its own."""
    from prunebench.jobs import ChainsJob, read_job

    started = time.time()
    jobs = read_job(ChainsJob, options.settings).each(kind)
    _threads(next(iter(jobs.values())).threads)
    from prunebench import progress, stages

    for number, (name, job) in enumerate(jobs.items(), start=1):
        with _at_work(options.work / name, options.out.name, started=started):
            progress.at("chain", number, len(jobs), name if len(jobs) > 1 else "")
            follow(stages, job, options.out / name, options.work / name)


def _evaluate(options: argparse.Namespace) -> None:
    from prunebench.jobs import EvaluateJob, read_job

    job = read_job(EvaluateJob, options.settings)
    _threads(job.threads)
    from prunebench import evaluating

    with _at_work(options.work / ".jobs" / job.share, "evaluate"):
        evaluating.evaluate(job, options.replicate, options.work, options.cache)


def _measure(options: argparse.Namespace) -> None:
    from prunebench.jobs import EvaluateJob, read_job

    job = read_job(EvaluateJob, options.settings)
    from prunebench import evaluating

    with _at_work(options.work / ".jobs" / job.share, "measure", quiet=True):
        evaluating.measure(job, options.experiment, options.out, options.work)


def _deliver(options: argparse.Namespace) -> None:
    from prunebench.jobs import DeliverJob, read_job

    job = read_job(DeliverJob, options.settings)
    _threads(job.threads)
    from prunebench import delivered

    delivered.deliver(job, options.replicate)


def _audit_series(options: argparse.Namespace) -> None:
    from prunebench.jobs import AuditJob, read_job

    job = read_job(AuditJob, options.settings)
    _threads(job.threads)
    from prunebench import delivered

    with _at_work(options.work, "audit"):
        delivered.audit(job, options.replicate, options.work)


def _suite(text: str) -> Suite:
    from prunebench.config import parse

    try:
        return parse(json.loads(text), "--suite")
    except json.JSONDecodeError as error:
        raise PrunebenchError(f"--suite: not JSON: {error}") from None


def _collect(options: argparse.Namespace) -> None:
    from prunebench import experiments
    from prunebench.consistency import Plan
    from prunebench.reporting.collect import Asked, NetworkFolder, collect

    suite = _suite(options.suite)
    networks: dict[NetworkFolder, list[str]] = {}
    measured, audits, oracles = [], [], []
    for (dataset, model), pair in experiments.pairs(suite).items():
        experiment = options.results / suite.suite / dataset / model
        measured += [experiment / "measured" / f"{name}.json" for name in experiments.measured(suite, dataset, model)]
        for replicate in range(suite.replicates):
            place = experiment / f"replicate{replicate}"
            for folder, names in experiments.evaluated(suite, dataset, model, replicate).items():
                networks[NetworkFolder.from_path(place / folder)] = names
            if experiments.asks_oracle(suite, pair.experiment):
                oracles.append(place / "dense")
            for method in experiments.audited(suite, dataset, model):
                audits.append(((suite.suite, dataset, model, replicate, method), place / "delivered" / method))
    number = len(suite.audit.criteria)
    asked = Asked(oracles=oracles, audits=audits, choices=bool(number), criteria=number, plan=Plan.of(suite))
    collect(networks, measured, options.out, asked)


def _tables(options: argparse.Namespace) -> None:
    from prunebench.reporting.tables import write_tables

    write_tables(options.tables)


def _figures(options: argparse.Namespace) -> None:
    from prunebench.reporting.drawing import Widths
    from prunebench.reporting.figures import write_figures

    write_figures(options.tables, options.out, Widths(options.column_width_mm, options.text_width_mm))


def _paper(options: argparse.Namespace) -> None:
    from prunebench.reporting.paper import write_paper

    source = write_paper(options.tables, options.figures, options.out, _suite(options.suite))
    print(f"{source}: written; make a PDF of it by: prunebench typeset {options.out}")


def _typeset(options: argparse.Namespace) -> None:
    from prunebench.typesetting import typeset

    print(typeset(options.folder))


def _trace(options: argparse.Namespace) -> None:
    from prunebench.reporting.trace import report, trace

    found = trace(options.table, options.row, options.column)
    print(report(found, options.table.parent, at_most=len(found.values) if options.all else 30))


def _check(options: argparse.Namespace) -> None:
    from prunebench.config import read

    suite = read(options.config)
    print(f"{options.config}: suite '{suite.suite}' is in order")


def _verify(options: argparse.Namespace) -> None:
    from prunebench.artifacts import set_aside
    from prunebench.config import read
    from prunebench.verifying import verify

    if options.set_aside and not options.configfile:
        raise PrunebenchError(
            "--set-aside: give --configfile too, which says what the workflow makes anew; other files may be yours"
        )
    files, corrupt = verify(options.folder, read(options.configfile) if options.configfile else None)
    for error in corrupt:
        print(f"{error}; set aside as {set_aside(error.path).name}" if options.set_aside else error)
    print(f"{files - len(corrupt)} files are whole" + (f", {len(corrupt)} corrupt" if corrupt else ""))
    if corrupt:
        sys.exit(1)


def _plan(options: argparse.Namespace) -> None:
    from prunebench import plan

    found = plan.plan(options.config, options.records, options.hardware, options.jobs)
    print(plan.as_json(found) if options.json else plan.text(found))


def _watch(options: argparse.Namespace) -> None:
    from prunebench.watch_view import watch

    watch(options.config, options.directory, options.every, options.once, options.json)


def _schema(options: argparse.Namespace) -> None:
    from prunebench.config import schema

    print(json.dumps(schema(), indent=2))


def _import_keras(options: argparse.Namespace) -> None:
    from prunebench.models.files import save_network
    from prunebench.models.keras_files import import_keras, mean_from, training_mean
    from prunebench.surgery import stage_sizes

    mean = mean_from(options.mean) if options.mean else training_mean(options.data_root)
    network, architecture = import_keras(options.weights, options.architecture, mean, options.model)
    save_network(options.out, network, architecture)
    sizes = ", ".join(map(str, stage_sizes(architecture).values()))
    print(f"{options.out}: {architecture.model} with {sizes} blocks in its stages")


def _import_torch(options: argparse.Namespace) -> None:
    from prunebench.data import find_dataset
    from prunebench.models.files import save_network
    from prunebench.models.torch_files import import_torch
    from prunebench.surgery import stage_sizes

    dataset = find_dataset(options.dataset)
    mean, std = options.mean, options.std
    if not (mean and std):
        if dataset.channel_statistics is None:
            raise PrunebenchError(
                f"{dataset.name} has no statistics by convention: give --mean and --std of the network's training"
            )
        mean, std = mean or dataset.channel_statistics[0], std or dataset.channel_statistics[1]
    input_shape = tuple(options.input_shape or dataset.input_shape)
    classes = options.classes or dataset.classes
    network, architecture = import_torch(options.weights, options.model, input_shape, classes, mean, std)
    save_network(options.out, network, architecture)
    sizes = ", ".join(map(str, stage_sizes(architecture).values()))
    print(f"{options.out}: {architecture.model} with {sizes} blocks in its stages, for images of shape {input_shape}")


def _audit(options: argparse.Namespace) -> None:
    """For people: the same matching as in a suite, of any files; no images are needed."""
    import torch

    from prunebench.artifacts import write_csv
    from prunebench.audit import AUDIT, Checkpoint, audit, audit_rows, block_weights
    from prunebench.models.keras_files import read_architecture
    from prunebench.takeover import read_network

    def read(path: Path, model: str | None) -> Checkpoint:
        # Whatever mean image: only the weights of blocks are compared.
        described = path.with_suffix(".json")
        network, architecture = read_network(
            path, model, lambda: torch.zeros(read_architecture(described, model).architecture.input_shape)
        )
        return Checkpoint(str(path), architecture, block_weights(network))

    dense = read(options.dense, None)
    transitions = audit(dense, [read(path, dense.architecture.model) for path in options.networks])
    if options.out:
        write_csv(options.out, AUDIT, audit_rows(transitions))
    for transition in transitions:
        print(f"{transition.before} -> {transition.after}: {len(transition.removed)} removed")
        for finding in transition.findings:
            if finding.removed:
                place = f"index {finding.index} of its stage, confidence {finding.confidence:.2f}, {finding.verdict}"
                print(f"  {finding.block}: {place}; most similar block after: {finding.similarity:z.2f}")
        kept = min((finding for finding in transition.findings if not finding.removed), key=lambda finding: finding.similarity)
        print(f"  least similar of the kept: {kept.block}, {kept.similarity:z.2f}")


def _positive(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number of at least 1")
    return int(text)


def parser() -> argparse.ArgumentParser:
    """The commands: one for each stage, and a few for people."""
    top = argparse.ArgumentParser(
        prog="prunebench", description="Stages of the pruning benchmark, from files to files (docs/data-contracts.md)."
    )
    top.add_argument("--version", action="version", version=__version__)
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(name: str, run: Callable[[argparse.Namespace], None], text: str, settings: bool = True) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run)
        if settings:
            command.add_argument("--settings", required=True, metavar="JSON", help="what the job is told (prunebench.jobs)")
        return command

    def paths(command: argparse.ArgumentParser, **names: str) -> None:
        for name, text in names.items():
            command.add_argument(f"--{name}", type=Path, required=True, metavar="PATH", help=text)

    dense = add("dense", _dense, "Train a dense network, or take one over from files.")
    paths(dense, out="folder of the network", work="folder for checkpoints")
    score = add("score", _score, "Score every removable block with every criterion.")
    paths(score, network="folder of the network", out="scores.csv", cost="scoring.json", work="folder for checkpoints")
    oracle = add(
        "oracle", _oracle, "Remove each block by itself: the loss on the validation split, also after a short fine-tuning."
    )
    paths(oracle, network="folder of the dense network", out="oracle.csv", cost="oracle.json", work="folder for checkpoints")
    rank = add("rank", _rank, "Turn scores into one ranking.csv for each criterion and draw.")
    paths(rank, scores="scores.csv", out="folder of the one-shot chains")
    one_shot = add("one-shot", _one_shot, "Remove blocks by rankings of the dense network, then fine-tune once.")
    chained = {"out": "folder of the schedule's chains", "work": "folder for their checkpoints"}
    paths(one_shot, dense="folder of the dense network", **chained | {"out": chained["out"] + "; their ranking.csv are there"})
    iterative = add("iterative", _iterative, "Remove a few blocks, fine-tune, score again, until all points are reached.")
    paths(iterative, dense="folder of the dense network", scores="its scores.csv", **chained)
    filters = add("filters", _filters, "Prune filters of a criterion's one-shot networks, then fine-tune again.")
    filters.add_argument(
        "--networks", type=Path, nargs="+", required=True, metavar="FOLDER", help="<criterion>/draw<d>/<point>, all of them"
    )
    paths(filters, **chained)
    evaluate = add("evaluate", _evaluate, "Evaluate networks on the test split: one JSON for each network and evaluation.")
    paths(
        evaluate,
        replicate="folder of the replicate; the dense network is in dense/",
        work="folder for finished results and checkpoints",
        cache="folder for what all networks share",
    )
    measure = add("measure", _measure, "Measure latency and energy once for each distinct architecture.")
    paths(measure, experiment="folder of the experiment", out="folder of the results", work="folder for finished results")
    deliver = add("deliver", _deliver, "Take over finished networks from files.")
    paths(deliver, replicate="folder of the replicate; the networks go to delivered/")
    series = add("audit-series", _audit_series, "Say which blocks went between the networks that were delivered.")
    paths(series, replicate="folder of the replicate", work="folder for scores")
    collect = add("collect", _collect, "Gather all results in tidy tables.", settings=False)
    paths(collect, results="folder of all suites", out="folder of the tables")
    collect.add_argument("--suite", required=True, metavar="JSON", help="the whole config")
    tables = add("tables", _tables, "Make the paper's tables from the tidy ones: CSV, LaTeX, Markdown.", settings=False)
    paths(tables, tables="folder of the tidy tables; the paper's go there too")
    figures = add("figures", _figures, "Make the figures from the tidy tables: PDF and PNG.", settings=False)
    paths(figures, tables="folder of the tidy tables", out="folder of the figures")
    keras = add(
        "import-keras", _import_keras, "Import a network of the layer-pruning papers from its Keras files.", settings=False
    )
    paths(keras, weights="weights (HDF5)", architecture="architecture (JSON)", out="folder of the network")
    keras.add_argument("--model", metavar="NAME", help="the unpruned network that a pruned one was made from, such as resnet56")
    mean = keras.add_mutually_exclusive_group(required=True)
    mean.add_argument(
        "--data-root", type=Path, metavar="PATH", help="where CIFAR-10 is, to subtract the mean of its training images"
    )
    mean.add_argument(
        "--mean", type=Path, metavar="PATH", help="mean image in its place: .npy, (height, width, channels) in [0, 1]"
    )
    pretrained = add(
        "import-torch", _import_torch, "Import pretrained weights of a model, such as torchvision's.", settings=False
    )
    paths(pretrained, weights="state dict: .safetensors, or .pth or .pt of torch.save", out="folder of the network")
    pretrained.add_argument("--model", required=True, metavar="NAME", help="the model, or the path of a Python file of yours")
    pretrained.add_argument("--dataset", required=True, metavar="NAME", help="the dataset, or the path of a Python file of yours")
    pretrained.add_argument("--classes", type=int, metavar="N", help="if not the dataset's")
    pretrained.add_argument("--input-shape", type=int, nargs=3, metavar=("C", "H", "W"), help="if not the dataset's")
    for name, text in (("mean", "mean of each channel in [0, 1]"), ("std", "standard deviation of each channel")):
        text = f"{text}, as in the network's training; if not the dataset's convention"
        pretrained.add_argument(f"--{name}", type=float, nargs="+", metavar="X", help=text)
    audit = add("audit", _audit, "Say which blocks went between networks, by matching their weights.", settings=False)
    paths(audit, dense="the dense network: its folder, or Keras weights (.h5) with the architecture beside them (.json)")
    audit.add_argument(
        "--networks", type=Path, nargs="+", required=True, metavar="PATH", help="networks made from it, in order, as --dense"
    )
    audit.add_argument("--out", type=Path, metavar="PATH", help="audit.csv, a row for each block of each network")
    for name, width, text in (("column", 84.0, "one column"), ("text", 174.0, "all columns")):
        figures.add_argument(
            f"--{name}-width-mm", type=float, default=width, metavar="MM", help=f"printed width of {text} [%(default)g]"
        )
    paper = add("paper", _paper, "Put all tables and figures into one document for LaTeX.", settings=False)
    paths(paper, tables="folder of the tables", figures="folder of the figures", out="folder of the document")
    paper.add_argument("--suite", required=True, metavar="JSON", help="the whole config")
    pdf = add("typeset", _typeset, "Make a PDF of that document, where LaTeX is installed.", settings=False)
    pdf.add_argument("folder", type=Path, help="folder of the document: results/<suite>/paper")
    where = add(
        "trace",
        _trace,
        "Say where a number of a table comes from: the values that it was made from, their files and provenance.",
        settings=False,
    )
    where.add_argument("table", type=Path, help="results/<suite>/tables/accuracy.csv, or .md or .tex")
    where.add_argument(
        "--row",
        required=True,
        metavar="COLUMN=VALUE,...",
        help="columns of the CSV file, or headers as shown, until one row is left; or its number in the CSV file, from 1",
    )
    where.add_argument("--column", required=True, metavar="NAME", help="a column of the CSV file, or a header as shown")
    where.add_argument("--all", action="store_true", help="write out all values, not the first 30")
    check = add("check", _check, "Check a config file.", settings=False)
    check.add_argument("config", type=Path, help="config/config.yaml")
    whole = add("verify", _verify, "Read every result of a suite and name those that are damaged.", settings=False)
    whole.add_argument("folder", type=Path, help="results/<suite>")
    whole.add_argument(
        "--set-aside",
        action="store_true",
        help="rename them to <name>.corrupt, so that the workflow makes them anew; when nothing runs, and with --configfile",
    )
    whole.add_argument(
        "--configfile",
        type=Path,
        metavar="PATH",
        help="the suite's config: what the workflow makes is read, and tables are held to the networks that it names",
    )
    plan = add("plan", _plan, "Say what a suite will take: jobs, hours, disk and memory by stage.", settings=False)
    plan.add_argument("config", type=Path, help="config/config.yaml; finished jobs are looked for in the working directory")
    plan.add_argument(
        "--records",
        type=Path,
        nargs="+",
        action="append",
        default=[],
        metavar="PATH",
        help="config of another suite that ran on such machines, and the folder that it ran in, if not here; may be repeated",
    )
    plan.add_argument(
        "--hardware", choices=["cpu", "gpu"], help="one core, or a GPU; by default as in the records, then as the config"
    )
    plan.add_argument("--jobs", "--cores", type=_positive, default=64, metavar="N", help="jobs that run at once [%(default)d]")
    plan.add_argument(
        "--json", action="store_true", help="for programs: times in hours and minutes, each as low, expected and high"
    )
    watch = add("watch", _watch, "Show what the jobs of a suite are at, until all are done.", settings=False)
    watch.add_argument(
        "config", type=Path, nargs="?", default=Path("config/config.yaml"), help="the suite's config file [%(default)s]"
    )
    watch.add_argument(
        "--directory", type=Path, default=Path(), metavar="PATH", help="where Snakemake runs, with results/ and logs/ [here]"
    )
    watch.add_argument(
        "--every", type=float, default=10.0, metavar="SECONDS", help="time between two looks, at least 1 [%(default)g]"
    )
    watch.add_argument("--once", action="store_true", help="look once")
    watch.add_argument("--json", action="store_true", help="look once and print what was seen as JSON")
    add("schema", _schema, "Print the JSON schema of the config.", settings=False)
    return top


def _reader_left() -> bool:
    """Whether standard output is a pipe that nobody reads any more."""
    poll = select.poll()
    try:
        poll.register(sys.stdout.fileno(), 0)
    except OSError:
        # No file, as in tests.
        return False
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


class Terminated(SystemExit):
    """SIGTERM came: a time limit, a preemption, or somebody who cancelled the job."""


@contextmanager
def _ending_on_sigterm() -> Iterator[None]:
    """Let SIGTERM end the process like an exception, so that temporary files go and locks are freed; a cluster gives it 30 s."""

    def stop(number: int, frame: object) -> None:
        # Not again while things are put in order.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Terminated(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _say(message: object) -> None:
    """Tell the user, where there is still space for it: logs may lie on the disk that is full."""
    with suppress(OSError):
        print(f"prunebench: {message}", file=sys.stderr, flush=True)
    try:
        sys.stdout.flush()
    except OSError:
        # Python flushes once more at exit (docs.python.org/3/library/signal.html, note on SIGPIPE).
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; a user's mistake ends in one line on standard error and exit status 2, SIGTERM in one line and status 143.

    If the reader of the output leaves, as ``| head`` does, the command ends without a word, with exit status 1.
    """
    options = parser().parse_args(arguments)
    try:
        with _ending_on_sigterm():
            options.run(options)
        sys.stdout.flush()
    except Terminated:
        _say("stopped by SIGTERM; run again to go on from the last checkpoint")
        raise
    except BrokenPipeError:
        if not _reader_left():
            # Some other pipe, such as a worker's: that is a failure to be seen.
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except CorruptFile as error:
        _say(f"{error}; {_set_aside(error.path, options)}")
        sys.exit(2)
    except PrunebenchError as error:
        _say(error)
        sys.exit(2)
    except (IsADirectoryError, NotADirectoryError, FileExistsError, PermissionError) as error:
        _say(f"{error.filename2 or error.filename}: {error.strerror}; give another place")
        sys.exit(2)
    except OSError as error:
        if not (reason := lack_of_space(error)):
            raise
        _say(DiskFull(error.filename or "the log", reason))
        sys.exit(2)


def _set_aside(path: Path, options: argparse.Namespace) -> str:
    """Rename a corrupt file if it is a result of the suite that the command works for, and say what was done, or what to do."""
    from prunebench.artifacts import set_aside
    from prunebench.planned import NETWORK

    # As the workflow calls commands: from its folder, so that results/<suite> begins every place that they write to.
    given = [vars(options).get(name) for name in ("out", "work", "replicate", "tables")]
    places = {place.parts[:2] for place in given if place and place.parts[:1] == ("results",)}
    # A delivered network may have been put there by hand, or by a rule that makes the same bytes again.
    delivered = path.parts[5:6] == ("delivered",) and path.name in NETWORK
    if len(path.parts) < 3 or path.parts[:2] not in places or delivered:
        return "put a whole one in its place, or delete it if a run of the workflow makes it, and run again"
    return f"set aside as {set_aside(path).name}; run the same command again to make it anew"
