"""Whether the results of a suite are whole: every file is read by its contract. Free of torch."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tqdm import tqdm

from prunebench import consistency, experiments
from prunebench.artifacts import read_csv, read_json, sha256_of
from prunebench.config import Suite
from prunebench.consistency import Plan
from prunebench.errors import CorruptFile, PrunebenchError
from prunebench.models.files import load_architecture
from prunebench.planned import TIDY, planned_jobs
from prunebench.reporting import FIGURES, TABLES
from prunebench.reporting.collect import LOSSES, check_rows

END_OF_PNG = b"IEND\xaeB`\x82"
KEYS = {
    "training.json": ["epochs", "removed"],
    "scoring.json": ["criteria"],
    "oracle.json": ["epochs"],
}
WORD = "[A-Za-z0-9_-]+"
NETWORK = rf"(architecture\.json|weights\.safetensors|training\.json|evaluations/{WORD}\.json)"
CONTRACT = re.compile(
    "|".join(
        [
            rf"{WORD}/{WORD}/replicate\d+/dense/({NETWORK}|(scores|oracle)\.csv|(scoring|oracle)\.json)",
            rf"{WORD}/{WORD}/replicate\d+/{WORD}/{WORD}/draw\d+/({WORD}/{NETWORK}|(ranking|removals|scores)\.csv)",
            rf"{WORD}/{WORD}/replicate\d+/delivered/{WORD}/(audit|audit_choices)\.csv",
            rf"{WORD}/{WORD}/measured/{WORD}\.json",
            rf"tables/({'|'.join([*TIDY, 'provenance', *TABLES])})\.(csv|parquet|md|tex|html)",
            r"tables/robustbench\.json",
            rf"figures/({'|'.join(FIGURES)})_{WORD}\.(png|pdf)",
            r"paper/main\.tex",
        ]
    )
)
"""Results by their names below ``results/<suite>/`` (docs/data-contracts.md)."""


def verify(folder: Path, suite: Suite | None = None) -> tuple[int, list[CorruptFile]]:
    """Read every result of a suite. Other files below ``results/<suite>/`` are the user's, and are not looked at.

    Args:
        folder: ``results/<suite>``.
        suite: Its config. With it, results are what the workflow makes of it, and tables of chains and audits are held to the
            networks that it names. Without it they are what has the name of a result, also if a rule of the user's made it, and
            nothing says which of the networks that are there belong to a table.

    Returns:
        The number of files that were read, and what is wrong with those that are corrupt.

    Raises:
        PrunebenchError: there is no such folder, or nothing in it is of this config.
    """
    if not folder.is_dir():
        raise PrunebenchError(f"{folder}: no such folder; give results/<suite>")
    paths = _made(folder, suite) if suite else _named(folder)
    if suite and not paths:
        raise PrunebenchError(f"{folder}: nothing that the config of suite '{suite.suite}' makes; give results/{suite.suite}")
    looks = [(path, _look(path)) for path in paths]
    if suite:
        ours = set(paths)
        looks += [(path, look) for path, look in _relations(folder, suite) if path in ours]
    found: dict[Path, CorruptFile] = {}
    for path, look in tqdm(looks, desc="verify", unit="file", disable=None):
        try:
            look(path)
        except CorruptFile as error:
            found.setdefault(error.path, error)
        except FileNotFoundError:
            # A job that runs meanwhile writes it anew.
            continue
        except (PrunebenchError, ValueError) as error:
            # What reads well and is not what the contract says. Missing files are the workflow's affair.
            if path.is_file() and "no such file" not in str(error):
                found.setdefault(path, CorruptFile(path, str(error).removeprefix(f"{path}: ")))
    return len(paths), list(found.values())


def _made(folder: Path, suite: Suite) -> list[Path]:
    """Files that the workflow makes for a suite and that are there."""
    outputs = (Path(output).relative_to(Path("results", suite.suite)) for job in planned_jobs(suite) for output in job.outputs)
    return sorted(folder / output for output in outputs if (folder / output).is_file())


def _named(folder: Path) -> list[Path]:
    """Files that have the names of results."""
    return [
        path for path in sorted(folder.rglob("*")) if CONTRACT.fullmatch(path.relative_to(folder).as_posix()) and path.is_file()
    ]


def _look(path: Path) -> Callable[[Path], object]:
    """How a file is read."""
    folder = path.parent.name
    if path.name in KEYS:
        return lambda path: read_json(path, KEYS[path.name])
    if path.name == "architecture.json":
        return lambda path: load_architecture(path.parent)
    if path.suffix == ".json" and folder in ("evaluations", "measured"):
        return lambda path: read_json(path, ["evaluation", "values" if folder == "evaluations" else "architectures"])
    looks: dict[str, Callable[[Path], object]] = {
        ".safetensors": _weights,
        ".csv": _table,
        ".json": lambda path: json.loads(path.read_text(encoding="utf-8")),
        ".parquet": _parquet,
        ".png": lambda path: _ends(path, END_OF_PNG),
        ".pdf": lambda path: _ends(path, b"%%EOF"),
    }
    return looks.get(path.suffix, _text)


def _weights(path: Path) -> None:
    if read_json(path.parent / "architecture.json", ["sha256"])["sha256"] != sha256_of(path):
        raise CorruptFile(path, "its SHA-256 is not the one in architecture.json")


def _table(path: Path) -> None:
    rows = read_csv(path, [])
    check_rows(path, len(rows))
    if path.parent.name != "dense":
        return
    consistency.check_vouched(path)
    if path.name == "scores.csv":
        consistency.check_scores(path, read_csv(path, ["criterion", "draw", "block", "score"]))
    elif path.name == "oracle.csv" and path.with_name("oracle.json").is_file():
        epochs = read_json(path.with_name("oracle.json"), ["epochs"])["epochs"]
        consistency.check_oracle(path, read_csv(path, LOSSES), epochs)


def _parquet(path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    try:
        parquet.read_table(path)
    except FileNotFoundError:
        raise
    except (pyarrow.ArrowException, OSError) as error:
        raise CorruptFile(path, f"not a Parquet file ({error})") from None


def _ends(path: Path, mark: bytes) -> None:
    if mark not in path.read_bytes()[-1024:]:
        raise CorruptFile(path, "truncated: its end is missing")


def _text(path: Path) -> None:
    content = path.read_bytes()
    if not content or b"\0" in content:
        raise CorruptFile(path, "empty, or it holds zero bytes")


def _relations(folder: Path, suite: Suite) -> Iterator[tuple[Path, Callable[[Path], None]]]:
    """Tables, each with what holds it to the networks that the config says it belongs to."""
    plan = Plan.of(suite)
    for dataset, model in experiments.pairs(suite):
        for replicate in range(suite.replicates):
            place = folder / dataset / model / f"replicate{replicate}"
            dense = place / "dense"
            if (dense / "scores.csv").is_file():
                yield (
                    dense / "scores.csv",
                    lambda path: consistency.check_scores(
                        path, read_csv(path, ["criterion", "draw", "block"]), load_architecture(path.parent), plan
                    ),
                )
            for chain, (draws, points) in experiments.chains(suite, dataset, model).items():
                for draw in range(draws):
                    networks = [place / chain / f"draw{draw}" / point for point in points]
                    if chain.startswith(("one-shot/", "iterative/")) and all((n / "training.json").is_file() for n in networks):
                        yield from _chain(networks, dense, plan if chain.startswith("iterative/") else None)
            for method, points in experiments.audited(suite, dataset, model).items():
                audit = place / "delivered" / method / "audit.csv"
                if audit.is_file():
                    yield audit, partial(_audit, dense=dense, networks=len(points), suite=suite)


def _chain(networks: list[Path], dense: Path, plan: Plan | None) -> Iterator[tuple[Path, Callable[[Path], None]]]:
    def removed() -> list[list[str]]:
        return [read_json(network / "training.json", ["removed"])["removed"] for network in networks]

    folder = networks[0].parent
    if (folder / "removals.csv").is_file():
        yield (
            folder / "removals.csv",
            lambda path: consistency.check_removals(path, [row["block"] for row in read_csv(path, ["block"])], removed()),
        )
    if (folder / "ranking.csv").is_file() and (dense / "scores.csv").is_file():
        yield (
            folder / "ranking.csv",
            lambda path: consistency.check_ranking(path, read_csv(path, ["block"]), read_csv(dense / "scores.csv", ["block"])),
        )
    if plan and (folder / "scores.csv").is_file():
        yield (
            folder / "scores.csv",
            lambda path: consistency.check_chain_scores(
                path, read_csv(path, ["step", "block"]), removed(), load_architecture(dense), plan
            ),
        )


def _audit(path: Path, dense: Path, networks: int, suite: Suite) -> None:
    rows = read_csv(path, ["step", "status"])
    consistency.check_audit(path, rows, len(load_architecture(dense).blocks), networks)
    choices = path.with_name("audit_choices.csv")
    if suite.audit.criteria and choices.is_file():
        consistency.check_choices(choices, read_csv(choices, ["step", "criterion"]), rows, len(suite.audit.criteria))
