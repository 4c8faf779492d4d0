# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from binvpr_ros.lab.evaluation.datasets.dataset import DatasetError
from binvpr_ros.lab.evaluation.datasets.tables import Row, parse_rows, read_columns, read_rows


def row(*fields: str) -> Row:
    return Row(Path("table.csv"), 7, list(fields))


def test_rows_keep_their_line_numbers(tmp_path: Path) -> None:
    path = tmp_path / "table.txt"
    path.write_text("\ufeff# stamp file\n\n1.5  a.png\n  # more\n2 b.png\r\n", "utf-8")
    assert [(row.line, row.fields) for row in read_rows(path)] == [(3, ["1.5", "a.png"]), (5, ["2", "b.png"])]


def test_commas_separate_where_one_follows_the_first_field(tmp_path: Path) -> None:
    path = tmp_path / "table.txt"
    path.write_text("1.5,2,,3\n1.5 , 2, 3\n1.5 a,b.png\n1 a  b.png\n")
    assert [row.fields for row in read_rows(path)] == [
        ["1.5", "2", "", "3"], ["1.5", "2", "3"], ["1.5", "a,b.png"], ["1", "a", "b.png"],
    ]  # fmt: skip
    assert [row.fields for row in read_rows(path, maxsplit=1)][3] == ["1", "a  b.png"]


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-16-le", "utf-16-be"])
def test_text_in_another_encoding_costs_a_comment_only(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "table.txt"
    path.write_bytes("# f\xfcr M\xfcnchen\n1 a.png\n".encode(encoding))
    if encoding == "latin-1":
        assert [row.fields for row in read_rows(path)] == [["1", "a.png"]]
        path.write_bytes("1 M\xfcnchen.png\n".encode(encoding))
    with pytest.raises(DatasetError, match=r"table.txt is not UTF-8 text; save it as UTF-8, or restore the file$"):
        read_rows(path)


def test_columns_are_found_by_name(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text('b, c ,"a"\n1, 2 ,"3"\n')
    rows, (first, second) = read_columns(path, ("a", "b"))
    assert [(row.text(first), row.text(second)) for row in rows] == [("3", "1")]
    with pytest.raises(DatasetError, match=r"table.csv, line 1: the columns x, y are missing \(needed: x, a, y\)"):
        read_columns(path, ("x", "a", "y"))


def test_files_that_are_no_tables_are_named(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("# nothing\n")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    for name, sentence in (
        ("away", "cannot be read"),
        ("empty", "is empty"),
        ("binary", "is not UTF-8 text; save it as UTF-8"),
    ):
        with pytest.raises(DatasetError, match=rf"{name}.txt {sentence}"):
            read_rows(tmp_path / f"{name}.txt")


def test_fields_are_what_they_say() -> None:
    assert row("", "3 0 2").integers(1, 4) == [3, 0, 2]
    assert row("").integers(0, 4) == []
    assert row("3").index(0, 4) == 3
    assert row("x", "-1.5", "2e3").numbers((2, 1)) == [2000, -1.5]
    assert row("1305031102.175304").stamp(0, 10**9) == 1305031102175304000
    assert row("1.036224e+00").stamp(0, 10**9) == 1036224000
    assert row("1403636579763555584").stamp(0, 1) == 1403636579763555584


@pytest.mark.parametrize("word", ["x", "-1", "1.0", "4", "٣", "9" * 5000])
def test_what_is_no_index_is_refused(word: str) -> None:
    with pytest.raises(DatasetError, match=r"table.csv, line 7: .* (is not an index|is out of range)"):
        row(word).integers(0, 4)


@pytest.mark.parametrize("text", ["", "1 2"])
def test_one_index_is_one(text: str) -> None:
    with pytest.raises(DatasetError, match=r"line 7: .* is not an index"):
        row(text).index(0, 4)


@pytest.mark.parametrize("text", ["", "x", "nan", "inf", "-inf"])
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(DatasetError, match=r"line 7: .* is not a number"):
        row(text).numbers((0,))
    with pytest.raises(DatasetError, match="line 7: it has 1 fields, not 2 or more"):
        row(text).numbers((1,))


@given(st.text() | st.sampled_from(["nan", "sNaN", "inf", "1e400", "1e999999999", "9999999999"]))
def test_a_stamp_is_64_bits_or_refused(text: str) -> None:
    try:
        assert abs(row(text).stamp(0, 10**9)) < 2**63
    except DatasetError as error:
        assert "is not a time" in str(error)  # noqa: PT017 - either is right


def test_rows_that_cannot_be_read_are_none_unless_all_are() -> None:
    rows = [row("1"), row("nan"), row("2")]
    assert parse_rows(rows, lambda found: found.numbers([0])) == [[1.0], None, [2.0]]
    assert parse_rows([], lambda found: found.numbers([0])) == []
    with pytest.raises(DatasetError, match="line 7: 'x' is not a number"):
        parse_rows([row("x"), row("nan")], lambda found: found.numbers([0]))


def test_a_table_that_a_spreadsheet_saved_with_semicolons_is_told(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("query;references\n0;1 2\n", encoding="utf-8")
    with pytest.raises(DatasetError, match=r"table.csv has semicolons between its fields; save it with commas"):
        read_columns(tmp_path / "table.csv", ("query", "references"))
