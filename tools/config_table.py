"""The table of all config keys in ``config/README.md``, made from the classes of the config: ``python tools/config_table.py``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from prunebench import plugins
from prunebench.config import accepted, resolve, schema
from prunebench.evaluation import Evaluation

README = Path(__file__).resolve().parents[1] / "config" / "README.md"
BEGIN = "<!-- keys: begin (made by `make schema`) -->"
END = "<!-- keys: end -->"


def rows(node: Mapping[str, Any], whole: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str, str, str]]:
    """(key, what it accepts, default, meaning) of the keys of a section and of all sections in it."""
    for name, raw in node["properties"].items():
        key, part = above + name, resolve(raw, whole)
        required = name in node.get("required", [])
        default = "**required**" if required else f"`{json.dumps(raw['default'])}`" if raw.get("default") is not None else ""
        items = resolve(part["items"], whole) if "items" in part else {}
        if above and part["type"] == "object" and "anyOf" in raw:
            # It stands in for a section of the suite and has the same keys.
            yield key, f"as `{name}`", "", part["description"]
        elif part["type"] == "object" and "properties" in part:
            yield key, "section", default, part["description"]
            yield from rows(part, whole, f"{key}.")
        elif items.get("type") == "object" and "anyOf" in raw and above:
            yield key, f"as `{name}`", "", part["description"]
        elif items.get("type") == "object":
            names = "names or sections" if "name" in items else "sections"
            yield key, f"list of {names}" + (", at least one" if part.get("minItems") else ""), default, part["description"]
            yield from rows(items, whole, f"{key}[].")
        else:
            yield (
                key,
                accepted(part),
                "`[]`" if part["type"] == "array" and not default and "default" not in raw else default,
                part["description"],
            )


def table() -> str:
    """The table in Markdown."""
    whole = schema()
    lines = ["| key | accepts | default | meaning |", "|---|---|---|---|"]
    lines += [line(*row) for row in rows(whole, whole)]
    lines += ["", "Options of the built-in evaluations, below `evaluations[].options`:", ""]
    lines += ["| evaluation: option | accepts | default | meaning |", "|---|---|---|---|"]
    for name, evaluation in plugins.builtin(Evaluation, "evaluation").items():
        if evaluation.options:
            options = evaluation.options.model_json_schema()
            lines += [line(*row) for row in rows(options, options, f"{name}: ")]
    return "\n".join(lines)


def line(key: str, accepts: str, default: str, meaning: str) -> str:
    """A row of the table in Markdown."""
    return f"| `{key}` | {accepts} | {default} | {' '.join(meaning.split())} |".replace("|  |", "| |")


def with_table(text: str) -> str:
    """A README with the table between its two marks made anew."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def main() -> None:
    """Rewrite ``config/README.md``."""
    README.write_text(with_table(README.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
