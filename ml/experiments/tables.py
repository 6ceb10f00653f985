"""Tables of results: in the terminal, as CSV and JSON, and in the marked block of a page."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml.common.errors import ConfigError
from ml.common.files import write_bytes, write_json
from ml.evaluation.figures import MODEL_NAMES, model_name
from ml.evaluation.results import Estimate
from ml.evaluation.words import lower_name
from ml.settings import get_settings

Value = str | int | float | Estimate | None
BEGIN, END = "<!-- results: written by the command, not by hand -->", "<!-- end of results -->"


def model_label(model: str) -> str:
    """A model's name in a table: ``logistic regression``, ``LightGBM``; a variant's as it is."""
    return lower_name(model_name(model)) if model in MODEL_NAMES else model


@dataclass(frozen=True)
class Table:
    """A table for people and programs.

    Attributes:
        name: short, for the file.
        title: what it shows, one sentence.
        columns: their names.
        rows: values in their order; an `Estimate` has an interval, None is a dash.
        digits: behind the point.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]
    digits: int = 3

    def markdown(self) -> str:
        """The title and a pipe table."""
        lines = [self.title, "", f"| {' | '.join(self.columns)} |", "|" + "---|" * len(self.columns)]
        lines += [f"| {' | '.join(map(self._text, row))} |" for row in self.rows]
        return "\n".join(lines)

    def plain(self) -> str:
        """Columns of equal width, for a terminal."""
        cells = [self.columns, *(tuple(map(self._text, row)) for row in self.rows)]
        widths = [max(len(row[k]) for row in cells) for k in range(len(self.columns))]
        lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) for row in cells]
        return "\n".join([self.title, *(line.rstrip() for line in lines)])

    def csv(self) -> str:
        """Every estimate as three columns: value, low and high."""
        wide = [k for k in range(len(self.columns)) if any(isinstance(row[k], Estimate) for row in self.rows)]
        names = [[name, f"{name} low", f"{name} high"] if k in wide else [name] for k, name in enumerate(self.columns)]
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow([name for group in names for name in group])
        for row in self.rows:
            writer.writerow([value for k, cell in enumerate(row) for value in _values(cell, k in wide)])
        return buffer.getvalue()

    def records(self) -> list[dict[str, Any]]:
        """A mapping per row."""
        return [dict(zip(self.columns, map(_plain, row), strict=True)) for row in self.rows]

    def _text(self, value: Value) -> str:
        if isinstance(value, Estimate):
            if math.isnan(value.low):
                return self._text(value.value)
            return f"{self._text(value.value)} [{self._text(value.low)}, {self._text(value.high)}]"
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return "–"
        if isinstance(value, float):
            return f"{value:.{self.digits}f}".replace("-", "−")
        return f"{value:,}" if isinstance(value, int) else value


@dataclass(frozen=True)
class Results:
    """What an experiment ends with.

    Attributes:
        facts: one line each about the set-up, for people.
        tables: in the order in which they are read.
        figure: SVG.
        setup: the plan, for programs.
    """

    name: str
    digest: str
    facts: tuple[str, ...]
    tables: tuple[Table, ...]
    figure: bytes
    setup: dict[str, Any]

    def save(self, folder: Path) -> None:
        """``results.json``, a CSV per table, ``figure.svg`` and ``results.md``."""
        tables = {table.name: table.records() for table in self.tables}
        write_json(folder / "results.json", {"experiment": self.name, "setup": self.setup, "tables": tables})
        for table in self.tables:
            write_bytes(folder / f"{table.name}.csv", table.csv().encode())
        write_bytes(folder / "figure.svg", self.figure)
        write_bytes(folder / "results.md", (self.block("figure.svg") + "\n").encode())

    def block(self, figure: str) -> str:
        """The marked part of a page."""
        facts = "\n".join(f"- {fact}" for fact in self.facts)
        tables = "\n\n".join(table.markdown() for table in self.tables)
        return f"{BEGIN}\n\n{facts}\n\n![Results]({figure})\n\n{tables}\n\n{END}"

    def put_into(self, page: Path) -> None:
        """Put the block between the marks of a page, and the figure beside it.

        Raises:
            ConfigError: the page is absent or has no marks.
        """
        text = page.read_text() if page.is_file() else ""
        head, begin, rest = text.partition(BEGIN)
        _, end, tail = rest.partition(END)
        if not begin or not end:
            raise ConfigError(f"{page} has no marked part for results", f"write the lines {BEGIN} and {END} into it")
        figure = page.with_suffix(".svg")
        write_bytes(figure, self.figure)
        write_bytes(page, (head + self.block(figure.name) + tail).encode())


def people(count: int) -> str:
    """A count of patients for people; a small one is not told."""
    least = get_settings().min_cell
    return f"{count:,}" if count >= least else f"fewer than {least}"


def _values(cell: Value, wide: bool) -> list[Any]:
    if isinstance(cell, Estimate):
        return [cell.value, cell.low, cell.high]
    return [cell, "", ""] if wide else [cell]


def _plain(cell: Value) -> Any:
    """For JSON, in which NaN has no place."""
    if isinstance(cell, Estimate):
        return {name: _plain(value) for name, value in cell.model_dump().items()}
    return None if isinstance(cell, float) and math.isnan(cell) else cell
