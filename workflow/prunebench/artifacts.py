"""Reading and writing the files of ``docs/data-contracts.md``: whole or not at all, and never silently wrong."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from prunebench.errors import CorruptFile, DiskFull, PrunebenchError, lack_of_space

SCHEMA = 1
DAY = 86400.0
# Read once, while there is one thread: it can only be read by changing it, for the whole process.
_UMASK = os.umask(0o022)
os.umask(_UMASK)
_TEMPORARY = re.compile(r"\.(?P<stem>.+)\.\d+(?P<suffix>(\.\w+)?)")


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` make a temporary neighbour of ``path``, then rename it, so that ``path`` is whole or absent.

    Raises:
        DiskFull: there is no space left; the temporary is gone, and what was at ``path`` is still there.
    """
    # The suffix stays last, since some writers choose their format by it.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Of this file others may be at work on another node, so only what is too old to be theirs goes.
        clear_temporaries(path.parent.iterdir(), path, older_than=DAY)
        # One of a dead process of this number may be a link to another file, which must not be written over.
        temporary.unlink(missing_ok=True)
        write(temporary)
        with open(temporary, "rb") as handle:
            os.fsync(handle.fileno())
        # Some writers leave a file to its owner alone; results are for colleagues too, as far as the umask lets them.
        temporary.chmod(0o666 & ~_UMASK)
        os.replace(temporary, path)
    except Exception as error:
        if reason := lack_of_space(error):
            raise DiskFull(path, reason) from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def clear_temporaries(among: Iterable[Path], target: Path | None = None, older_than: float = 0.0) -> None:
    """Delete what killed writers left: temporaries of ``target``, or of any file, that were last written so many seconds ago."""
    for path in among:
        match = _TEMPORARY.fullmatch(path.name)
        if match and (target is None or f"{match['stem']}{match['suffix']}" == target.name):
            # Another job may clear the same folder.
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime >= older_than:
                    path.unlink()


def set_aside(path: Path) -> Path:
    """Rename a corrupt file, so that it is missing and made again; its new name ends in ``.corrupt``."""
    aside = path.with_name(f"{path.name}.corrupt")
    # Another job may have found it too.
    with suppress(FileNotFoundError):
        # One that was set aside before may be a link to the same file, and then renaming does nothing (rename(2)).
        if aside.exists() and aside.samefile(path):
            path.unlink()
        else:
            os.replace(path, aside)
    return aside


def not_there(path: Path) -> PrunebenchError:
    """The error of a file that is not there; whoever tries again right after it was set aside is told so."""
    aside = path.with_name(f"{path.name}.corrupt")
    set_aside_before = f", since it was set aside as {aside.name}: run the workflow again" if aside.exists() else ""
    return PrunebenchError(f"{path}: no such file{set_aside_before}")


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
        CorruptFile: the file is no JSON object.
        PrunebenchError: the file is missing, has another schema version or lacks a key.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise not_there(path) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CorruptFile(path, f"not JSON ({error})") from None
    if not isinstance(content, dict):
        raise CorruptFile(path, f"it holds a {type(content).__name__}, expected a JSON object")
    if content.get("schema") != SCHEMA:
        raise PrunebenchError(f"{path}: schema is {content.get('schema')!r}, expected {SCHEMA}")
    missing = [key for key in keys if key not in content]
    if missing:
        raise PrunebenchError(f"{path}: lacks {', '.join(missing)} (see docs/data-contracts.md)")
    return content


def read_kept(path: Path, identity: str, key: str, instead: str) -> dict[str, Any] | None:
    """What an earlier attempt kept with this ``identity``; damage is named, with what is done ``instead``.

    Args:
        path: A JSON file; it need not be there.
        identity: What the content depends on: another one's is not used.
        key: What has to be in it.
        instead: For the message.
    """
    if not path.is_file():
        return None
    try:
        content = read_json(path, ["identity", key])
    except PrunebenchError as error:
        print(f"{error}: {instead}", flush=True)
        return None
    return content if content["identity"] == identity else None


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV table; floats in full, ``None`` as an empty field."""

    def write(temporary: Path) -> None:
        with open(temporary, "w", newline="", encoding="utf-8") as handle:
            writer = csv.writer(handle, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows(rows)

    write_atomically(path, write)


def read_csv(path: Path, columns: Iterable[str], ours: bool = True) -> list[dict[str, str]]:
    """Read a CSV table as one dictionary of strings for each row and check that ``columns`` are there.

    Args:
        path: The file.
        columns: What has to be there; others may be.
        ours: Whether the package wrote it, which ends every line; programs of users may leave out the last line's end.

    Raises:
        CorruptFile: the file is no UTF-8 CSV table, a row has too few or many fields, or the last line does not end.
        PrunebenchError: the file is missing or lacks a column.
    """
    try:
        text = path.read_bytes().decode()
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        rows = list(reader)
        header = reader.fieldnames or []
    except FileNotFoundError:
        raise not_there(path) from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise CorruptFile(path, f"not a CSV table ({error})") from None
    if "\0" in text:
        # As a node leaves files that goes down while the system still holds their ends.
        raise CorruptFile(path, "not a CSV table (it holds zero bytes)")
    if not text or (ours and not text.endswith("\n")):
        # Cut within its last number, a table would still read well.
        raise CorruptFile(path, "truncated: its last line does not end" if text else "empty")
    missing = [column for column in columns if column not in header]
    if missing:
        raise PrunebenchError(f"{path}: lacks the column {', '.join(missing)}; it has {', '.join(header) or 'none'}")
    for number, row in enumerate(rows, start=2):
        if None in row or None in row.values():
            raise CorruptFile(path, f"line {number}: {len(header)} fields expected")
    return rows


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, as hexadecimal digits."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def fingerprint(content: object) -> str:
    """SHA-256 of a JSON-serialisable object, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
