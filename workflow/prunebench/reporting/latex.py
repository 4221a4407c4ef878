"""Text, captions and tables for a document in LaTeX: nothing runs out of the page, no letter is too small to read."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

from prunebench.reporting.formats import Column, Table, cells_of, parts
from prunebench.reporting.formats import latex as cell_text

# Sizes of letters, largest first, with the width in points of one on average; small letters are wider for their size. Nothing smaller
# than 7 points is put on paper.
_SIZES = {r"\small": 4.6, r"\footnotesize": 4.25, r"\scriptsize": 3.95}
_SMALLEST = r"\scriptsize"
_GAP = 6.0
_WRAP, _NARROW = 36, 24
"""Columns of text with more letters are broken into lines of so many; narrower where that keeps a page upright."""
_PAGE_HEIGHT = 690.0
_EXTRA = {
    "\u2192": r"$\to$",
    "\u2264": r"$\le$",
    "\u2265": r"$\ge$",
    "\u00d7": r"$\times$",
    "\u00b7": r"$\cdot$",
    "\u2026": r"\dots{}",
    "\u2014": "---",
    "\u2018": "`",
    "\u2019": "'",
    "\u201c": "``",
    "\u201d": "''",
    "\u03b5": r"$\varepsilon$",
    "\u03c3": r"$\sigma$",
    "\u03b1": r"$\alpha$",
    "\u2113": r"$\ell$",
    "\u221e": r"$\infty$",
    "\u03bc": r"\textmu{}",
    "\u2020": r"\textdagger{}",
    "\u2021": r"\textdaggerdbl{}",
    "\u00a0": "~",
}


def inline(text: str) -> str:
    """Plain text for LaTeX: special characters escaped, what the fonts lack named by its code."""
    found = []
    # Spaces as they come, letter by letter, so that nothing is taken for a number.
    for letter in unicodedata.normalize("NFC", text):
        if letter in _EXTRA:
            found.append(_EXTRA[letter])
        elif letter == '"':
            found.append("\\textquotedbl{}")
        elif not letter.isdigit() and cell_text(letter) != letter and cell_text(letter) != f"${letter}$":
            found.append(cell_text(letter))
        elif ord(letter) < 0x180:
            found.append(letter)
        else:
            found.append(rf"\texttt{{U+{ord(letter):04X}}}")
    return "".join(found)


def entitled(title: str, what: str) -> str:
    """A caption of a title and what it is shown of; a question keeps its mark."""
    return f"{title} {what[0].upper()}{what[1:]}." if title.endswith("?") else f"{title}: {what}."


def restructured(text: str) -> str:
    """A paragraph of reStructuredText: literals, emphasis and the rest as it is."""
    pieces = re.split(r"(``.+?``|\*\*.+?\*\*|\*[^*\s][^*]*\*)", text)
    found = []
    for piece in pieces:
        if piece.startswith("``") and len(piece) > 4:
            # Paths and commands may break after their separators.
            literal = re.sub(r"([/,=.]|\\_)", r"\1\\allowbreak{}", inline(piece[2:-2]))
            found.append(rf"\texttt{{{literal}}}")
        elif piece.startswith("**") and len(piece) > 4:
            found.append(rf"\textbf{{{inline(piece[2:-2])}}}")
        elif piece.startswith("*") and len(piece) > 2:
            found.append(rf"\emph{{{inline(piece[1:-1])}}}")
        else:
            found.append(inline(piece))
    return "".join(found)


def captioned(path: Path) -> str:
    """The text of a caption's file, its paragraphs apart; empty if there is none, as where the package alone is installed."""
    if not path.exists():
        return ""
    text = path.read_text(encoding="utf-8")
    found = []
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        lines = paragraph.splitlines()
        if all(line.lstrip().startswith(("- ", "* ")) or line.startswith("  ") for line in lines):
            items = re.split(r"\n(?=\s*[-*] )", paragraph)
            items = [" ".join(item.split())[2:] for item in items]
            found.append("\n".join([r"\begin{itemize}", *(rf"\item {restructured(item)}" for item in items), r"\end{itemize}"]))
        else:
            found.append(restructured(" ".join(paragraph.split())))
    return "\n\n".join(found) + "\n"


# --- tables ----------------------------------------------------------------------------------------------------------


def _broken(header: str) -> list[str]:
    """A header in lines: as wide as its longest word at least, and else about eleven letters."""
    words, lines = header.split(), [""]
    width = max(11, *map(len, words)) if words else 11
    for word in words:
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def _letters(column: Column, cells: Sequence[str], wrap: int) -> int:
    """Width of a column in letters."""
    longest = max((len(cell) for cell in cells), default=0)
    if not column.right and longest > wrap:
        longest = wrap
    return max(longest, *(len(line) for line in _broken(column.header)))


def _width(letters: Sequence[int], size: str = _SMALLEST) -> float:
    """Width in points of columns of so many letters."""
    return sum(_SIZES[size] * count + _GAP for count in letters)


def layouts(table: Table, rows: Sequence[Sequence[str]], page: float) -> Iterator[tuple[list[int], str, bool, int]]:
    """How to print a part of a table: which columns, at what size, whether on a turned page, and how many letters a line of text has.

    Upright at the largest size that fits; turned if 7 points would not fit upright; in several tables that share their first columns of
    words if not even 7 points fit on a turned page.

    Args:
        table: The table.
        rows: The texts of its cells.
        page: Width of an upright page in points.
    """
    every = list(range(len(table.columns)))
    for turned, width, wrap in ((False, page, _WRAP), (False, page, _NARROW), (True, _PAGE_HEIGHT, _WRAP)):
        letters = [_letters(table.columns[number], [row[number] for row in rows], wrap) for number in every]
        for size in _SIZES:
            if _width(letters, size) <= width:
                yield every, size, turned, wrap
                return
    keys = [number for number in every if not table.columns[number].right][:2] or every[:1]
    rest = [number for number in every if number not in keys]

    def divided(width: float) -> list[list[int]]:
        found: list[list[int]] = [[]]
        for number in rest:
            if found[-1] and _width([letters[n] for n in (*keys, *found[-1], number)]) > width:
                found.append([])
            found[-1].append(number)
        return found

    # As few tables as can be, and of these the evenest.
    fewest = len(divided(_PAGE_HEIGHT))
    width = next(width for width in range(100, int(_PAGE_HEIGHT) + 1, 10) if len(divided(width)) <= fewest)
    for chosen in divided(width):
        yield [*keys, *chosen], _SMALLEST, _width([letters[n] for n in (*keys, *chosen)]) > page, _WRAP


# Marks a cell that stands out until it is written.
_BOLD = "\N{START OF TEXT}"


def of_table(table: Table, title: str, width_mm: float) -> Iterator[str]:
    """A table as ``longtable`` environments with booktabs rules, one for each of its parts (``formats.parts``)."""
    if table.data.empty:
        yield "The suite has no values for this table."
    for key, frame in parts(table):
        rows, rules = cells_of(table, frame, str, lambda text: _BOLD + text)
        split = list(layouts(table, rows, width_mm * 72.27 / 25.4))
        for number, (columns, size, turned, wrap) in enumerate(split, start=1):
            which = f", part {number} of {len(split)}" if len(split) > 1 else ""
            yield r"\begin{landscape}" if turned else ""
            yield from _longtable(table, columns, rows, rules, (size, wrap), inline(entitled(title, f"{', '.join(key)}{which}")))
            yield r"\end{landscape}" if turned else ""


def _longtable(
    table: Table,
    columns: Sequence[int],
    rows: Sequence[Sequence[str]],
    rules: Sequence[int],
    letters: tuple[str, int],
    caption: str,
) -> Iterator[str]:
    (size, wrap), shapes, headers = letters, [], []
    for number in columns:
        column = table.columns[number]
        wide = not column.right and max((len(row[number]) for row in rows), default=0) > wrap
        text = rf">{{\raggedright\arraybackslash}}p{{{_SIZES[size] * wrap:.0f}pt}}"
        shapes.append(text if wide else "r" if column.right else "l")
        lines = r"\\".join(inline(line) for line in _broken(column.header))
        headers.append(rf"\shortstack[{'r' if column.right else 'l'}]{{{lines}}}")
    head = [" & ".join(headers) + r" \\", r"\midrule"]
    yield rf"{{{size}\begin{{longtable}}{{@{{}}{''.join(shapes)}@{{}}}}"
    yield rf"\caption{{{caption}}}\\"
    yield from [r"\toprule", *head, r"\endfirsthead"]
    yield from [r"\toprule", *head, r"\endhead"]
    yield from [r"\bottomrule", r"\endfoot"]
    for number, row in enumerate(rows):
        if number in rules:
            yield r"\midrule"
        yield " & ".join(_cell(row[column]) for column in columns) + r" \\"
    yield r"\end{longtable}}"


def _cell(text: str) -> str:
    """A cell: numbers in mathematics; a bracket in the beginning would be taken for an option of the line before."""
    if text.startswith(_BOLD):
        # Letters are set in bold by the one, mathematics by the other.
        return rf"\textbf{{\boldmath {_cell(text.removeprefix(_BOLD))}}}"
    shown = cell_text(text)
    # Mathematics has no spaces of its own between a value and its interval.
    shown = shown.replace(" [", r"\ [") if shown.startswith("$") else inline(text)
    return f"{{{shown}}}" if shown.startswith(("[", "*")) else shown
