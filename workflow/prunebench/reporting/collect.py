"""The tidy tables: every number of a suite in a row of its own (``docs/data-contracts.md``, ``tables/``)."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd

from prunebench import artifacts
from prunebench.criteria.consensus import METRICS, OF_EIGHT
from prunebench.errors import CorruptFile, PrunebenchError
from prunebench.models import Architecture
from prunebench.published import any_published
from prunebench.reporting import ENOUGH, without_table

DENSE = "dense"
DELIVERED = "delivered"
TRAINING = "training"
SCORING = "scoring"
ORACLE = "oracle"

NETWORK_COLUMNS = ("suite", "dataset", "model", "replicate", "schedule", "criterion", "draw", "operating_point")
RESULT_COLUMNS = (*NETWORK_COLUMNS, "blocks_removed", "evaluation", "quantity", "value", "source")
MEASURED_COLUMNS = (*RESULT_COLUMNS, "method")
CHAIN_COLUMNS = ("suite", "dataset", "model", "replicate", "schedule", "chain_criterion")
SCORE_COLUMNS = (*CHAIN_COLUMNS, "step", "criterion", "draw", "removes", "block", "score")
REMOVAL_COLUMNS = (*CHAIN_COLUMNS, "draw", "step", "block", "score")
# As in prunebench.audit, which needs torch: reporting is free of it.
AUDIT = ("step", "from", "to", "block", "index", "status", "similarity", "confidence", "verdict")
CHOICES = ("step", "from", "to", "criterion", "removed", "candidates", "choice", "hits", "expected_hits")
_LOSSES = ("block", "fine_tuning_epochs", "cross_entropy_nats", "accuracy_percent", "images")
ORACLE_COLUMNS = (*NETWORK_COLUMNS[:4], *_LOSSES)
PROVENANCE_COLUMNS = ("source", "config_sha256", "seed", "commit", "created", "hardware", "versions")

# Which dense network a replicate starts from: the digest of its weights.
DENSE_COLUMNS = (*NETWORK_COLUMNS[:4], "sha256", "source")
AUDIT_COLUMNS = (*NETWORK_COLUMNS[:4], "method", *AUDIT)
CHOICE_COLUMNS = (*NETWORK_COLUMNS[:4], "method", *CHOICES)

_INTEGERS = {
    "replicate",
    "draw",
    "blocks_removed",
    "step",
    "fine_tuning_epochs",
    "images",
    "index",
    "removed",
    "candidates",
    "hits",
}
_FLOATS = {"value", "score", "cross_entropy_nats", "accuracy_percent", "similarity", "confidence", "expected_hits"}
_NAME = r"[A-Za-z0-9_-]+"
_FOLDER = re.compile(
    rf"(?:^|.*/)(?P<suite>{_NAME})/(?P<dataset>{_NAME})/(?P<model>{_NAME})/replicate(?P<replicate>\d+)/"
    rf"(?:{DENSE}|(?P<schedule>{_NAME})/(?P<criterion>{_NAME})/draw(?P<draw>\d+)/(?P<operating_point>{_NAME}))"
)
_MEASURED = re.compile(
    rf"(?:^|.*/)(?P<suite>{_NAME})/(?P<dataset>{_NAME})/(?P<model>{_NAME})/measured/(?P<evaluation>{_NAME})\.json"
)
# Quantities that share the method by which energy was found: emissions are energy times the grid's intensity, power is energy over time.
_ENERGY_WORDS = ("energy", "emissions", "carbon", "co2", "kwh", "joule", "power", "watts")


@dataclass(frozen=True, order=True)
class NetworkFolder:
    """One network's folder and what its path says about the experiment.

    The dense network has schedule, criterion and operating point ``dense`` and draw 0.
    """

    suite: str
    dataset: str
    model: str
    replicate: int
    schedule: str
    criterion: str
    draw: int
    operating_point: str
    folder: Path

    @classmethod
    def from_path(cls, folder: Path) -> NetworkFolder:
        """Read the experiment from ``<suite>/<dataset>/<model>/replicate<r>/...`` at the end of a path.

        Raises:
            PrunebenchError: the path does not follow ``docs/data-contracts.md``.
        """
        match = _FOLDER.fullmatch(folder.as_posix())
        if match is None:
            raise PrunebenchError(
                f"{folder}: no network's folder; expected <suite>/<dataset>/<model>/replicate<r>/dense or "
                "<suite>/<dataset>/<model>/replicate<r>/<schedule>/<criterion>/draw<d>/<point>"
            )
        part = {name: value if value is not None else DENSE for name, value in match.groupdict().items()}
        return cls(
            suite=part["suite"],
            dataset=part["dataset"],
            model=part["model"],
            replicate=int(part["replicate"]),
            schedule=part["schedule"],
            criterion=part["criterion"],
            draw=int(match["draw"] or 0),
            operating_point=part["operating_point"],
            folder=folder,
        )

    @property
    def is_dense(self) -> bool:
        """Whether this is the unpruned network of its replicate."""
        return self.schedule == DENSE

    @property
    def keys(self) -> tuple[str, str, str, int, str, str, int, str]:
        """The values of ``NETWORK_COLUMNS``."""
        return (
            self.suite,
            self.dataset,
            self.model,
            self.replicate,
            self.schedule,
            self.criterion,
            self.draw,
            self.operating_point,
        )

    @property
    def chain_folder(self) -> Path:
        """Where the scores and removals of the network's chain lie; the dense network is a chain of its own."""
        return self.folder if self.is_dense else self.folder.parent

    def source(self, path: Path) -> str:
        """A file of this network, relative to the suite's folder, so that tables hold no machine's paths."""
        suite_folder = self.folder.parents[3 if self.is_dense else 6]
        return PurePosixPath(path.relative_to(suite_folder)).as_posix()


@dataclass(frozen=True)
class Tables:
    """The tidy tables of one suite, as read back by ``read_tables``."""

    results: pd.DataFrame
    measured: pd.DataFrame
    scores: pd.DataFrame
    removals: pd.DataFrame
    oracle: pd.DataFrame
    audit_blocks: pd.DataFrame
    audit_choices: pd.DataFrame
    dense_networks: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(DENSE_COLUMNS)))

    def of(self, dataset: str, model: str, *others: str) -> Tables:
        """The rows of one dataset, and of the ``others`` that stand beside it, and one model."""
        frames = {field.name: getattr(self, field.name) for field in fields(self)}
        names = [dataset, *others]
        return Tables(**{name: frame[frame["dataset"].isin(names) & (frame["model"] == model)] for name, frame in frames.items()})

    def designs(self) -> list[tuple[str, str]]:
        """The (dataset, model) pairs that have results, sorted."""
        return sorted({(str(d), str(m)) for d, m in zip(self.results["dataset"], self.results["model"], strict=True)})

    def conditional(self, dataset: str, model: str) -> bool:
        """Whether replicates share a dense network, so that what is said of their spread holds for that network alone."""
        weights = self.of(dataset, model).dense_networks["sha256"]
        return bool(weights.duplicated().any())

    def subjects(self) -> set[str]:
        """What there is to show beside what every suite has (``prunebench.reporting.Place``)."""
        scored = set(self.scores.loc[self.scores["schedule"] == DENSE, "criterion"])
        voted = scored & set(OF_EIGHT) and scored >= set(METRICS)
        found = {"oracle": len(self.oracle), "consensus": voted, "audit": len(self.audit_blocks)}
        found["audit_choices"] = len(self.audit_choices)
        found["published"] = any_published(self.designs())
        found["ranks"] = self.results["replicate"].nunique() >= ENOUGH
        found["further"] = without_table(self.results["evaluation"])
        evaluated = set(self.results["evaluation"]) | set(self.measured["evaluation"]) - {ORACLE}
        return {name for name, there in found.items() if there} | evaluated


def planted(results: pd.DataFrame) -> set[str]:
    """The datasets with a planted mark, as the evaluation ``shortcut`` says."""
    rows = results[(results["evaluation"] == "shortcut") & (results["quantity"] == "training_mark_agreement_percent")]
    return set(rows["dataset"])


def control_of(dataset: str, results: pd.DataFrame) -> str | None:
    """The dataset without the mark that a planted one was made from, if the evaluation ran there too: its name begins with it."""
    marked = planted(results)
    if dataset not in marked:
        return None
    others = set(results.loc[results["evaluation"] == "shortcut", "dataset"]) - marked
    return max((other for other in others if dataset.startswith(f"{other}_")), key=len, default=None)


@dataclass(frozen=True)
class Asked:
    """What a suite asks for beside networks and evaluations: files of an earlier config that asked for more do not count.

    Attributes:
        oracles: Folders of dense networks that must have an ``oracle.csv``.
        audits: Series that were audited: (suite, dataset, model, replicate, method) and the folder.
        choices: Whether each of these has an ``audit_choices.csv``.
    """

    oracles: Collection[Path] = ()
    audits: Sequence[tuple[tuple[str, str, str, int, str], Path]] = ()
    choices: bool = False


def architecture_id(architecture: Mapping[str, Any]) -> str:
    """The identity of the architecture that an ``architecture.json`` describes, as measured files name it.

    Raises:
        PrunebenchError: a key is missing or of the wrong kind.
    """
    try:
        return Architecture.from_json(architecture).identity
    except (KeyError, TypeError, ValueError) as error:
        raise PrunebenchError(f"not an architecture: {type(error).__name__} {error}") from None


def collect(
    networks: Mapping[NetworkFolder, Sequence[str] | None],
    measured: Iterable[Path],
    out: Path,
    asked: Asked = Asked(),
) -> None:
    """Write the tidy tables (the fields of ``Tables``, as CSV and Parquet) and their provenance.

    The bytes written depend on the content of the files alone, not on their order or on where they lie.

    Args:
        networks: the networks of the suite, each with the names of the evaluations that it must have; ``None`` takes all files that
            are there. The caller lists them, since a file left by an earlier config must not count.
        measured: the files ``<suite>/<dataset>/<model>/measured/<evaluation>.json``.
        out: the folder of the tables.
        asked: what else there must be.

    Raises:
        PrunebenchError: a file is missing, corrupt or breaks the contract; the message names it.
    """
    reader = _Reader(asked.oracles)
    for network, evaluations in sorted(networks.items(), key=lambda item: item[0]):
        reader.read_network(network, evaluations)
    if not reader.architectures:
        raise PrunebenchError(f"{out}: no network to collect; the suite's config defines none")
    for path in sorted(set(measured)):
        reader.read_measured(path)
    _write_table(out / "results", RESULT_COLUMNS, reader.results)
    _write_table(out / "measured", MEASURED_COLUMNS, reader.measured)
    _write_table(out / "scores", SCORE_COLUMNS, reader.scores)
    _write_table(out / "removals", REMOVAL_COLUMNS, reader.removals)
    _write_table(out / "oracle", ORACLE_COLUMNS, reader.oracle_rows)
    _write_table(out / "audit_blocks", AUDIT_COLUMNS, _audit_rows(asked.audits, "audit.csv", AUDIT))
    _write_table(out / "dense_networks", DENSE_COLUMNS, reader.dense_networks)
    choices = asked.audits if asked.choices else ()
    _write_table(out / "audit_choices", CHOICE_COLUMNS, _audit_rows(choices, "audit_choices.csv", CHOICES))
    artifacts.write_csv(out / "provenance.csv", PROVENANCE_COLUMNS, sorted(reader.provenance))


def read_tables(tables: Path) -> Tables:
    """Read the tidy tables of one suite back from their CSV files.

    Raises:
        PrunebenchError: a table is missing, corrupt, lacks a column, or mixes several suites.
    """
    read = Tables(
        results=_read_table(tables / "results.csv", RESULT_COLUMNS),
        measured=_read_table(tables / "measured.csv", MEASURED_COLUMNS),
        scores=_read_table(tables / "scores.csv", SCORE_COLUMNS),
        removals=_read_table(tables / "removals.csv", REMOVAL_COLUMNS),
        oracle=_read_table(tables / "oracle.csv", ORACLE_COLUMNS),
        audit_blocks=_read_table(tables / "audit_blocks.csv", AUDIT_COLUMNS),
        audit_choices=_read_table(tables / "audit_choices.csv", CHOICE_COLUMNS),
        dense_networks=_read_table(tables / "dense_networks.csv", DENSE_COLUMNS),
    )
    suites = sorted(read.results["suite"].unique())
    if len(suites) != 1:
        raise PrunebenchError(f"{tables / 'results.csv'}: expected the rows of one suite, found {suites or 'no row'}")
    return read


def _audit_rows(
    series: Iterable[tuple[tuple[str, str, str, int, str], Path]], file: str, columns: Sequence[str]
) -> list[tuple[Any, ...]]:
    """The rows of a file of each audited series, each behind what the series is."""
    rows: list[tuple[Any, ...]] = []
    for keys, folder in sorted(series):
        frame = _read_table(folder / file, columns).astype(object)
        # An empty field, of a number that does not apply, is read as nan.
        rows += [(*keys, *(None if value != value else value for value in row)) for row in frame.itertuples(index=False)]
    return rows


class _Reader:
    """Gathers the rows of all tables, file by file."""

    def __init__(self, oracles: Collection[Path]) -> None:
        self.oracles = frozenset(oracles)
        self.architectures: list[tuple[NetworkFolder, int, str]] = []
        self.results: list[tuple[Any, ...]] = []
        self.measured: list[tuple[Any, ...]] = []
        self.scores: list[tuple[Any, ...]] = []
        self.removals: list[tuple[Any, ...]] = []
        self.oracle_rows: list[tuple[Any, ...]] = []
        self.dense_networks: list[tuple[Any, ...]] = []
        self.provenance: set[tuple[Any, ...]] = set()
        self._dense_blocks: dict[tuple[str, str, str, int], int] = {}
        self._chains_read: set[Path] = set()

    def read_network(self, network: NetworkFolder, evaluations: Sequence[str] | None) -> None:
        architecture_path = network.folder / "architecture.json"
        architecture = artifacts.read_json(architecture_path, ["blocks"])
        training_path = network.folder / "training.json"
        training: dict[str, Any] | None = None
        # A dense network that was imported, and one that somebody's own rule made, need not have been trained here.
        if network.schedule not in (DENSE, DELIVERED) or training_path.exists():
            training = artifacts.read_json(training_path, ["epochs", "removed"])
        blocks_removed = self._blocks_removed(network, training, architecture_path, architecture)
        try:
            identity = architecture_id(architecture)
        except PrunebenchError as error:
            raise PrunebenchError(f"{architecture_path}: {error} (see docs/data-contracts.md)") from None
        self.architectures.append((network, blocks_removed, identity))
        if network.is_dense:
            weights = architecture.get("sha256")
            if not isinstance(weights, str) or not weights:
                raise PrunebenchError(f"{architecture_path}: sha256 is {weights!r}, expected the digest of weights.safetensors")
            self.dense_networks.append((*network.keys[:4], weights, network.source(architecture_path)))
        if training is not None:
            self._read_training(network, blocks_removed, training_path, training)
        for path in self._evaluation_files(network.folder / "evaluations", evaluations):
            content = artifacts.read_json(path, ["values"])
            self._add_results(network, blocks_removed, path.stem, content["values"], path)
            self._add_provenance(network.source(path), content)
        if network.chain_folder not in self._chains_read:
            self._chains_read.add(network.chain_folder)
            self._read_chain(network, blocks_removed)

    def read_measured(self, path: Path) -> None:
        match = _MEASURED.fullmatch(path.as_posix())
        if match is None:
            raise PrunebenchError(f"{path}: expected a path <suite>/<dataset>/<model>/measured/<evaluation>.json")
        content = artifacts.read_json(path, ["architectures"])
        source = PurePosixPath(match["dataset"], match["model"], "measured", path.name).as_posix()
        self._add_provenance(source, content)
        found = False
        for entry in _objects(path, "architectures", content["architectures"]):
            if "architecture_id" not in entry or "values" not in entry:
                raise PrunebenchError(f"{path}: an entry of architectures lacks architecture_id or values")
            values = _numbers(path, entry["values"])
            labels = _strings(path, entry.get("labels", {}))
            for network, blocks_removed, identity in self.architectures:
                same = (network.suite, network.dataset, network.model) == match.group("suite", "dataset", "model")
                if not same or identity != entry["architecture_id"]:
                    continue
                found = True
                for quantity, value in values.items():
                    row = (*network.keys, blocks_removed, match["evaluation"], quantity, value, source)
                    self.measured.append((*row, _method(quantity, labels)))
        if not found:
            raise PrunebenchError(f"{path}: none of its architectures belongs to a network of the suite; run again")

    def _blocks_removed(
        self, network: NetworkFolder, training: Mapping[str, Any] | None, path: Path, architecture: Mapping[str, Any]
    ) -> int:
        blocks = architecture["blocks"]
        if not isinstance(blocks, list):
            raise PrunebenchError(f"{path}: blocks is {blocks!r}, expected a list of names")
        if network.is_dense:
            self._dense_blocks[network.keys[:4]] = len(blocks)
            return 0
        if training is not None:
            if not isinstance(training["removed"], list):
                raise PrunebenchError(f"{network.folder / 'training.json'}: removed is not a list of block names")
            return len(training["removed"])
        # "delivered" sorts before "dense", so the dense network may not have been read yet.
        if network.keys[:4] not in self._dense_blocks:
            dense_path = network.folder.parents[3] / DENSE / "architecture.json"
            self._dense_blocks[network.keys[:4]] = len(artifacts.read_json(dense_path, ["blocks"])["blocks"])
        return self._dense_blocks[network.keys[:4]] - len(blocks)

    def _evaluation_files(self, folder: Path, evaluations: Sequence[str] | None) -> list[Path]:
        if evaluations is not None:
            return [folder / f"{name}.json" for name in sorted(set(evaluations))]
        # Hidden files are temporaries of a writer that was killed.
        paths = sorted(path for path in folder.glob("*.json") if not path.name.startswith("."))
        if not paths:
            raise PrunebenchError(f"{folder}: holds no evaluation; run the evaluations of this network first")
        return paths

    def _read_training(self, network: NetworkFolder, blocks_removed: int, path: Path, training: Mapping[str, Any]) -> None:
        wanted = ("epochs", "epochs_per_block", "validation_accuracy")
        values = {key: training[key] for key in wanted if key in training}
        self._add_results(network, blocks_removed, TRAINING, values, path)
        self._add_energy(network, blocks_removed, TRAINING, training.get("energy") or {}, path)
        self._add_provenance(network.source(path), training)

    def _add_energy(self, network: NetworkFolder, blocks_removed: int, evaluation: str, energy: object, path: Path) -> None:
        if not isinstance(energy, dict):
            raise PrunebenchError(f"{path}: energy is {energy!r}, expected an object")
        labels = {"energy_method": str(energy.get("method") or "")}
        numbers = {key: value for key, value in energy.items() if not isinstance(value, str)}
        for quantity, value in _numbers(path, numbers).items():
            row = (*network.keys, blocks_removed, evaluation, quantity, value, network.source(path))
            self.measured.append((*row, _method(quantity, labels)))

    def _read_chain(self, network: NetworkFolder, blocks_removed: int) -> None:
        folder = network.chain_folder
        chain = (*network.keys[:5], network.criterion)
        # Only scored chains have scores: the iterative ones, and the dense network where a criterion needs scores.
        if (folder / "scores.csv").exists() and network.schedule in (DENSE, "iterative"):
            for line, row in _csv_rows(folder / "scores.csv", SCORE_COLUMNS[6:]):
                step, draw = _whole(line, row, "step"), _whole(line, row, "draw")
                score = _float(line, row, "score")
                if score is None:
                    raise PrunebenchError(f"{line}: score is empty")
                if row["removes"] not in ("lowest", "highest"):
                    raise PrunebenchError(f"{line}: removes is {row['removes']!r}, expected lowest or highest")
                self.scores.append((*chain, step, row["criterion"], draw, row["removes"], row["block"], score))
        if (folder / "scoring.json").exists() and network.is_dense:
            self._read_scoring(network, folder / "scoring.json")
        if network.folder in self.oracles:
            self._read_oracle(network)
        decides = network.schedule in ("one-shot", "iterative")
        if network.is_dense or not (decides or (folder / "removals.csv").exists()):
            return
        for line, row in _csv_rows(folder / "removals.csv", ("step", "block", "score")):
            step, score = _whole(line, row, "step"), _float(line, row, "score")
            self.removals.append((*chain, network.draw, step, row["block"], score))

    def _read_scoring(self, network: NetworkFolder, path: Path) -> None:
        """One row for each criterion's cost; ``criterion`` says whose cost it is, ``schedule`` that it was the dense network."""
        content = artifacts.read_json(path, ["criteria"])
        criteria = content["criteria"]
        if not isinstance(criteria, dict):
            raise PrunebenchError(f"{path}: criteria is no object of a criterion's name to its costs")
        self._add_provenance(network.source(path), content)
        for criterion, costs in criteria.items():
            keys = (*network.keys[:5], criterion, 0, DENSE, 0, SCORING)
            for quantity, value in _numbers(path, costs).items():
                # The energy of one criterion is a share of the job's, by time: estimated, whatever measured the whole.
                method = _method(quantity, {"energy_method": "estimated"})
                self.measured.append((*keys, quantity, value, network.source(path), method))
            if content.get("images") is not None:
                images = _numbers(path, {"images": content["images"]})["images"]
                self.measured.append((*keys, "images", images, network.source(path), ""))

    def _read_oracle(self, network: NetworkFolder) -> None:
        """The losses without each block, and what finding them cost."""
        path = network.folder / "oracle.csv"
        for line, row in _csv_rows(path, _LOSSES):
            numbers = [_float(line, row, column) for column in ("cross_entropy_nats", "accuracy_percent")]
            if None in numbers:
                raise PrunebenchError(f"{line}: cross_entropy_nats or accuracy_percent is empty")
            whole = [_whole(line, row, column) for column in ("fine_tuning_epochs", "images")]
            self.oracle_rows.append((*network.keys[:4], row["block"], whole[0], *numbers, whole[1]))
        path = network.folder / "oracle.json"
        content = artifacts.read_json(path, ["epochs"])
        self._add_provenance(network.source(path), content)
        self._add_energy(network, 0, ORACLE, content.get("energy") or {}, path)

    def _add_results(self, network: NetworkFolder, blocks_removed: int, evaluation: str, values: object, path: Path) -> None:
        for quantity, value in _numbers(path, values).items():
            self.results.append((*network.keys, blocks_removed, evaluation, quantity, value, network.source(path)))

    def _add_provenance(self, source: str, content: Mapping[str, Any]) -> None:
        provenance = content.get("provenance")
        if not isinstance(provenance, dict):
            return
        self.provenance.add((source, *(_as_text(provenance.get(key)) for key in PROVENANCE_COLUMNS[1:])))


def _numbers(path: Path, values: object) -> dict[str, int | float]:
    """The numbers of an object; ``null`` stands for a quantity that does not apply and is left out."""
    if not isinstance(values, dict):
        raise PrunebenchError(f"{path}: values is {values!r}, expected an object of numbers")
    numbers: dict[str, int | float] = {}
    for quantity, value in values.items():
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise PrunebenchError(f"{path}: {quantity} is {value!r}, expected a finite number")
        numbers[quantity] = value
    return numbers


def _strings(path: Path, labels: object) -> dict[str, str]:
    if not isinstance(labels, dict) or not all(isinstance(value, str) for value in labels.values()):
        raise PrunebenchError(f"{path}: labels is {labels!r}, expected an object of strings")
    return labels


def _objects(path: Path, key: str, value: object) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise PrunebenchError(f"{path}: {key} is no list of objects")
    return value


def _method(quantity: str, labels: Mapping[str, str]) -> str:
    """How a quantity was found: label ``method`` says it of all, ``<stem>_method`` of quantities that name the stem."""
    for label in sorted(labels):
        if not label.endswith("_method"):
            continue
        stem = label.removesuffix("_method")
        words = _ENERGY_WORDS if stem == "energy" else (stem,)
        if any(word in quantity for word in words):
            return labels[label]
    return labels.get("method", "")


def _as_text(value: object) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _csv_rows(path: Path, columns: Sequence[str]) -> list[tuple[str, dict[str, str]]]:
    """The rows of a CSV file, each with the words by which an error names its line."""
    return [(f"{path}, line {n}", row) for n, row in enumerate(artifacts.read_csv(path, columns), start=2)]


def _whole(line: str, row: Mapping[str, str], column: str) -> int:
    try:
        return int(row[column])
    except ValueError:
        raise PrunebenchError(f"{line}: {column} is {row[column]!r}, expected a whole number") from None


def _float(line: str, row: Mapping[str, str], column: str) -> float | None:
    if row[column] == "":
        return None
    try:
        return float(row[column])
    except ValueError:
        raise PrunebenchError(f"{line}: {column} is {row[column]!r}, expected a number") from None


def _write_table(stem: Path, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
    # A missing score is None, which has no order; it only ever ties where the columns before it are equal too.
    rows = sorted(rows, key=lambda row: tuple((value is not None, value) for value in row))
    artifacts.write_csv(stem.with_suffix(".csv"), columns, rows)
    frame = _typed(pd.DataFrame(rows, columns=list(columns)))
    artifacts.write_atomically(stem.with_suffix(".parquet"), lambda path: frame.to_parquet(path, engine="pyarrow", index=False))


def _typed(frame: pd.DataFrame) -> pd.DataFrame:
    """The same types whether or not a table has rows."""
    types = {c: "int64" if c in _INTEGERS else "float64" if c in _FLOATS else "str" for c in frame.columns}
    return frame.astype(types)


def _read_table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    rows = artifacts.read_csv(path, columns)
    frame = pd.DataFrame([[row[column] for column in columns] for row in rows], columns=list(columns))
    try:
        for column in _FLOATS & set(columns):
            frame[column] = [float(text) if text else math.nan for text in frame[column]]
        return _typed(frame)
    except ValueError as error:
        raise CorruptFile(path, str(error)) from None
