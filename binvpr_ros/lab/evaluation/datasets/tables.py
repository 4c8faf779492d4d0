# SPDX-License-Identifier: Apache-2.0
"""Text tables, line by line; an error names the file and the line."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TypeVar

from binvpr_ros.lab.evaluation.datasets.dataset import DatasetError

Entry = TypeVar("Entry")
FIRST_COMMA = re.compile(r"\s*[^\s,]*\s*,")
"""How a line starts whose fields are separated by commas."""
NOT_UTF_8 = re.compile("[\0\udc80-\udcff]")
"""Bytes that are not UTF-8, as `surrogateescape` decodes them, and those of ASCII in UTF-16."""


@dataclass(frozen=True)
class Row:
    """The fields of one line."""

    path: Path
    line: int  # from 1
    fields: list[str]

    def wrong(self, what: str) -> DatasetError:
        """Return the error that says what is wrong with this line."""
        return DatasetError(f"{self.path}, line {self.line}: {what}; correct the line")

    def text(self, at: int) -> str:
        """Return field number `at`, from 0; raises DatasetError where there is none."""
        if at >= len(self.fields):
            raise self.wrong(f"it has {len(self.fields)} fields, not {at + 1} or more")
        return self.fields[at]

    def expect_length_of(self, first: Row) -> None:
        """Raise DatasetError unless this line has as many fields as the first one of its table."""
        if len(self.fields) != len(first.fields):
            raise self.wrong(f"it has {len(self.fields)} fields, the first line has {len(first.fields)}")

    def columns(self, names: Sequence[str]) -> list[int]:
        """Return where the fields `names` stand in this line, the head of a table; raises DatasetError."""
        missing = [name for name in names if name not in self.fields]
        if missing and len(self.fields) == 1 and ";" in self.fields[0]:
            raise DatasetError(f"{self.path} has semicolons between its fields; save it with commas")
        if missing:
            raise self.wrong(f"the columns {', '.join(missing)} are missing (needed: {', '.join(names)})")
        return [self.fields.index(name) for name in names]

    def integers(self, at: int, below: int) -> list[int]:
        """Return the integers from 0 to `below` - 1 in field `at`, separated by spaces; raises DatasetError."""
        numbers = []
        for word in self.text(at).split():
            if not (word.isascii() and word.isdigit() and len(word) < 19):
                raise self.wrong(f"{word!r} is not an index")
            numbers.append(int(word))
            if numbers[-1] >= below:
                raise self.wrong(f"the index {word} is out of range: there are {below} images, and 0 is the first")
        return numbers

    def index(self, at: int, below: int) -> int:
        """Return the one integer from 0 to `below` - 1 in field `at`; raises DatasetError."""
        numbers = self.integers(at, below)
        if len(numbers) != 1:
            raise self.wrong(f"{self.text(at)!r} is not an index")
        return numbers[0]

    def numbers(self, at: Sequence[int]) -> list[float]:
        """Return the finite numbers of the fields `at`; raises DatasetError."""
        return [self._number(self.text(place)) for place in at]

    def stamp(self, at: int, unit: int) -> int:
        """Return the time of field `at`, given in units of `unit` nanoseconds, in nanoseconds; raises DatasetError."""
        text = self.text(at)
        try:
            # A float would lose nanoseconds of the time since 1970.
            stamp = Decimal(text) * unit
        except ArithmeticError:  # of the module decimal, which has several
            raise self.wrong(f"{text!r} is not a time") from None
        if not (stamp.is_finite() and abs(stamp) < 2**63):
            raise self.wrong(f"{text!r} is not a time")
        return round(stamp)

    def _number(self, text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise self.wrong(f"{text!r} is not a number")
        return number


def read_rows(
    path: Path,
    separator: str | None = None,
    wanted: Callable[[str], bool] = lambda _line: True,
    maxsplit: int = -1,
) -> list[Row]:
    """Return the lines of a table, without empty ones and '#' comments; raises DatasetError if there are none.

    Fields are separated by `separator`, by default any white space, or commas where one follows the first field; white
    space and quotes around them are removed. Lines that are not `wanted` are not kept. `maxsplit` is that of str.split.
    """
    rows = []
    try:
        # A comment in another encoding does no harm.
        with path.open(encoding="utf-8-sig", errors="surrogateescape") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip() or line.lstrip().startswith("#") or not wanted(line):
                    continue
                if NOT_UTF_8.search(line):
                    raise DatasetError(f"{path} is not UTF-8 text; save it as UTF-8, or restore the file")
                by = "," if separator is None and FIRST_COMMA.match(line) else separator
                rows.append(Row(path, number, [field.strip().strip('"') for field in line.split(by, maxsplit)]))
    except OSError as error:
        raise DatasetError(f"{path} cannot be read ({error.strerror}); restore the file") from None
    if not rows:
        raise DatasetError(f"{path} is empty; restore the file")
    return rows


def read_columns(path: Path, names: Sequence[str]) -> tuple[list[Row], list[int]]:
    """Return the rows of a comma-separated table below its head, and where the columns `names` stand in them.

    Raises DatasetError if a column is missing, or a row has a field too few or too many.
    """
    head, *rows = read_rows(path, ",")
    columns = head.columns(names)
    for row in rows:
        row.expect_length_of(head)
    return rows, columns


def parse_rows(rows: Sequence[Row], parse: Callable[[Row], Entry]) -> list[Entry | None]:
    """Return what `parse` makes of each row, or None if it refuses the row: a download that was cut ends within a line.

    Raises the first DatasetError if all rows are refused.
    """
    entries: list[Entry | None] = []
    refused = []
    for row in rows:
        try:
            entries.append(parse(row))
        except DatasetError as error:
            entries.append(None)
            refused.append(error)
    if refused and len(refused) == len(rows):
        raise refused[0]
    return entries
