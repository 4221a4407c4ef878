"""Reading and writing the files of ``docs/data-contracts.md``: whole or not at all, and never silently wrong."""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prunebench.errors import PrunebenchError

SCHEMA = 1


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` make a temporary neighbour of ``path``, then rename it, so that ``path`` is whole or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays last, since some writers choose their format by it.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        write(temporary)
        with open(temporary, "rb") as handle:
            os.fsync(handle.fileno())
        # Some writers leave a file to its owner alone; results are for colleagues too, as far as the umask lets them.
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically."""

    def write(temporary: Path) -> None:
        temporary.write_bytes(text.encode())

    write_atomically(path, write)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON object with its schema version, keys in the order given."""
    write_text(path, json.dumps({"schema": SCHEMA, **content}, indent=1, allow_nan=False) + "\n")


def read_json(path: Path, keys: Iterable[str] = ()) -> dict[str, Any]:
    """Read a JSON object and check that ``keys`` are there.

    Raises:
        PrunebenchError: the file is missing, is no JSON object, has another schema version or lacks a key.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PrunebenchError(f"{path}: no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise PrunebenchError(f"{path}: corrupt, not JSON ({error}); delete it and run again") from None
    if not isinstance(content, dict):
        raise PrunebenchError(f"{path}: holds a {type(content).__name__}, expected a JSON object")
    if content.get("schema") != SCHEMA:
        raise PrunebenchError(f"{path}: schema is {content.get('schema')!r}, expected {SCHEMA}")
    missing = [key for key in keys if key not in content]
    if missing:
        raise PrunebenchError(f"{path}: lacks {', '.join(missing)} (see docs/data-contracts.md)")
    return content


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV table; floats in full, ``None`` as an empty field."""

    def write(temporary: Path) -> None:
        with open(temporary, "w", newline="", encoding="utf-8") as handle:
            writer = csv.writer(handle, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows(rows)

    write_atomically(path, write)


def read_csv(path: Path, columns: Iterable[str]) -> list[dict[str, str]]:
    """Read a CSV table as one dictionary of strings for each row and check that ``columns`` are there.

    Raises:
        PrunebenchError: the file is missing, is no UTF-8 CSV table, lacks a column, or a row has too few or many fields.
    """
    try:
        with open(path, newline="", encoding="utf-8") as handle:
            reader = csv.DictReader(handle, strict=True)
            rows = list(reader)
            header = reader.fieldnames or []
    except FileNotFoundError:
        raise PrunebenchError(f"{path}: no such file") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise PrunebenchError(f"{path}: corrupt, not a CSV table ({error}); delete it and run again") from None
    missing = [column for column in columns if column not in header]
    if missing:
        raise PrunebenchError(f"{path}: lacks the column {', '.join(missing)}; it has {', '.join(header) or 'none'}")
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise PrunebenchError(f"{path}, line {number}: {len(header)} fields expected; delete the file and run again")
    return rows


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, as hexadecimal digits."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def fingerprint(content: object) -> str:
    """SHA-256 of a JSON-serialisable object, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
