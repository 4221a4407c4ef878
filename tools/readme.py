"""Put the demo's own figure and headline into docs/demo and README.md. `make readme` runs it after `make demo`."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- demo: made by `make readme` -->\n", "<!-- end of demo -->\n"


def with_table(readme: str, table: str) -> str:
    """The README with the table between its markers."""
    before, rest = readme.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n{table.strip()}\n\n{END}{after}"


def table_of(headline: str) -> str:
    """The lines of the first Markdown table: of the first experiment."""
    first = headline[headline.index("\n|") :].strip().split("\n\n")[0]
    return "\n".join(line for line in first.splitlines() if line.startswith("|"))


if __name__ == "__main__":
    results = Path(sys.argv[1]) if len(sys.argv) > 1 else REPOSITORY / "results" / "demo"
    demo = REPOSITORY / "docs" / "demo"
    demo.mkdir(parents=True, exist_ok=True)
    for source, name in (
        ("tables/headline.md", "headline.md"),
        ("figures/accuracy_digits_resnet32.png", "accuracy.png"),
        ("figures/removals_digits_resnet32.png", "removals.png"),
        ("figures/quality_digits_resnet32.png", "quality.png"),
        ("figures/robustness_digits_resnet32.png", "robustness.png"),
    ):
        shutil.copy(results / source, demo / name)
    readme = REPOSITORY / "README.md"
    readme.write_text(with_table(readme.read_text(), table_of((demo / "headline.md").read_text())))
