"""Finding criteria, models, datasets and evaluations: the package's own and a user's file, in one way.

A plugin is a Python file that defines one object of the kind at module level. The files in the package's folder of that kind are
the built-in ones; a user names a file of their own by its path, wherever the config takes a name. There is no registry to keep.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import importlib.util
import pkgutil
import re
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Protocol, TypeVar

from prunebench.errors import PrunebenchError


class Named(Protocol):
    """What every plugin object has."""

    @property
    def name(self) -> str:
        """As in configs, paths and tables."""
        ...


T = TypeVar("T", bound=Named)

NAME = re.compile(r"[A-Za-z0-9_-]+")


def builtin(kind: type[T], package: str) -> dict[str, T]:
    """The objects of ``kind`` that the modules in ``prunebench.<package>`` define, by name."""
    return dict(_builtin(kind, package))


@cache
def _builtin(kind: type[T], package: str) -> dict[str, T]:
    folder = importlib.import_module(f"prunebench.{package}")
    found: dict[str, T] = {}
    for module in pkgutil.iter_modules(folder.__path__):
        if module.ispkg:  # what plugins are built with, such as torch modules: slow to import, and no plugins
            continue
        for item in _objects(importlib.import_module(f"prunebench.{package}.{module.name}"), kind):
            found[item.name] = item
    return dict(sorted(found.items()))


def find(kind: type[T], package: str, reference: str) -> T:
    """The object that ``reference`` names: a built-in name or the path of a Python file that defines exactly one.

    Raises:
        PrunebenchError: there is no such name or file, or the file cannot be imported or defines none or several.
    """
    if not reference.endswith(".py"):
        known = builtin(kind, package)
        if reference not in known:
            raise PrunebenchError(unknown(reference, known, f"{kind.__name__.lower()}"))
        return known[reference]
    path = Path(reference)
    if not path.is_file():
        raise PrunebenchError(f"'{reference}': no such file (paths are relative to the working directory)")
    known = builtin(kind, package)
    # A file may import built-in objects, to build on them.
    items = [item for item in _objects(load_file(path), kind) if not any(item is other for other in known.values())]
    if len(items) != 1:
        raise PrunebenchError(f"'{reference}' defines {len(items)} objects of {kind.__name__} at module level, expected one")
    [item] = items
    if not isinstance(item.name, str) or not NAME.fullmatch(item.name):
        raise PrunebenchError(f"'{reference}': the name {item.name!r} may only have letters, digits, _ and -")
    if item.name in known:
        raise PrunebenchError(f"'{reference}': the name {item.name!r} is taken by a built-in; choose another")
    return item


def unknown(value: str, accepted: dict[str, T] | list[str], what: str) -> str:
    """The sentence that refuses an unknown name, with the nearest known one."""
    near = difflib.get_close_matches(value, list(accepted), n=1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return f"'{value}' is not a known {what}; {hint}accepted: {', '.join(accepted)}, or the path of a Python file"


def load_file(path: Path) -> ModuleType:
    """Import a Python file by its path; the same file twice is the same module.

    Raises:
        PrunebenchError: the file raises when imported; the message names the line.
    """
    path = path.resolve()
    name = f"prunebench_plugin_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise PrunebenchError(f"'{path}' is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        line = error.lineno if isinstance(error, SyntaxError) else _last_line(error, path)
        where = f", line {line}" if line else ""
        what = error.msg if isinstance(error, SyntaxError) else error
        raise PrunebenchError(f"'{path}'{where}: {type(error).__name__}: {what}") from error
    return module


def _last_line(error: BaseException, path: Path) -> int | None:
    line, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def _objects(module: ModuleType, kind: type[T]) -> list[T]:
    """Objects of ``kind`` at module level, also those inside a module-level list or tuple; imported ones count once."""
    found: dict[int, T] = {}
    for value in vars(module).values():
        for item in value if isinstance(value, list | tuple) else [value]:
            if isinstance(item, kind):
                found[id(item)] = item
    return list(found.values())
