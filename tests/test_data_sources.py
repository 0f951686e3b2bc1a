"""Files as they come: bad rows are named by file and line, kept aside where that is wanted, and never quoted."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import zipfile

import pytest

from staf.data import json_files, sources
from staf.data.archives import members
from staf.data.example import Example
from staf.data.read_report import MAX_REJECTED, ReadReport
from staf.data.sources import csv_rows
from staf.errors import BadData

SECRET = "beast of Mr Brown"


def lines(path, data: bytes, report: ReadReport | None = None):
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return list(sources.text_lines(path, report or ReadReport()))


@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_lines_come_numbered_without_their_ends_and_without_a_byte_order_mark(tmp_path, name):
    assert lines(tmp_path / name, b"\xef\xbb\xbfone\r\ntwo\n\nfour") == [(1, "one"), (2, "two"), (3, ""), (4, "four")]


@pytest.mark.parametrize(
    ("bad", "problem"),
    [(b"\xff " + SECRET.encode(), "not UTF-8"), (SECRET.encode() + b"\0", "NUL byte"), (b"x" * 300, "longer than 256 bytes")],
)
def test_a_bad_line_stops_or_is_kept_aside(tmp_path, monkeypatch, bad, problem):
    monkeypatch.setattr(sources, "LONGEST_LINE", 256)
    data = b"one\n" + bad + b"\nthree\n"
    with pytest.raises(BadData, match=rf"a\.txt, line 2: .*{problem}") as caught:
        lines(tmp_path / "a.txt", data)
    assert SECRET not in str(caught.value)
    report = ReadReport(skip_rejected=True)
    assert lines(tmp_path / "a.txt", data, report) == [(1, "one"), (3, "three")]
    (row,) = report.rejected
    assert "line 2" in row.problem
    assert SECRET not in row.problem


def test_a_gzip_file_that_is_cut_short_is_damaged(tmp_path):
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(bytes(range(65, 91)) * 2000)[:-20])
    with pytest.raises(BadData, match=r"a\.txt\.gz is damaged or cut short"):
        list(sources.text_lines(path, ReadReport()))


def test_a_gzip_bomb_is_refused_before_it_unpacks(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "SMALL", 1 << 16)
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(b"0" * 79 + b"\n") * 1 + gzip.compress(b"\n" * (1 << 21)))
    with pytest.raises(BadData, match="unpacks to more than 200 times its size"):
        list(sources.text_lines(path, ReadReport()))


@pytest.mark.parametrize("content", ["[1", "3", '{"a": [[[', '{"a": NaN'])
def test_a_json_file_must_hold_what_is_expected(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(BadData, match=r"a\.json"):
        json_files.json_object(tmp_path / "a.json")


def test_a_json_line_that_is_no_object_is_a_bad_row(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n[2]\n{"a": 3\n\n{"a": 4}\n')
    report = ReadReport(skip_rejected=True)
    assert [r["a"] for _, r in json_files.json_lines(tmp_path / "a.jsonl", report)] == [1, 4]
    assert [row.problem.partition(", ")[2][:6] for row in report.rejected] == ["line 2", "line 3"]


# ---- delimited -------------------------------------------------------------------------------------------------------


def table(path, text: str, *columns: str, report: ReadReport | None = None, **options):
    path.write_text(text, encoding="utf-8")
    return [(place.rpartition(" ")[2], row) for place, row in csv_rows(path, report or ReadReport(), columns, **options)]


def test_cells_may_hold_quotes_commas_and_line_ends_and_the_place_is_where_a_row_begins(tmp_path):
    found = table(tmp_path / "a.csv", 'a,b\n1,"x, ""y""\nz"\n2,w\n', "a", "b")
    assert found == [("2", {"a": "1", "b": 'x, "y"\nz'}), ("4", {"a": "2", "b": "w"})]


def test_columns_are_found_in_any_case_and_order_and_others_may_be_there(tmp_path):
    assert table(tmp_path / "a.csv", "B,c,A\n1,2,3\n", "a", "b") == [("2", {"b": "1", "c": "2", "a": "3"})]


def test_a_missing_column_is_named_with_the_file(tmp_path):
    with pytest.raises(BadData, match=r"a\.csv, line 1: column b is missing; the header has 2 columns"):
        table(tmp_path / "a.csv", "a,c\n1,2\n", "a", "b")


def test_without_a_header_and_without_quotes(tmp_path):
    found = table(tmp_path / "a.tsv", 'x"y\t2\n', "a", "b", delimiter="\t", quoted=False, header=False)
    assert found == [("1", {"a": 'x"y', "b": "2"})]


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        (f"{SECRET}", "2 cells are expected, found 1"),
        (f"1,{SECRET},3", "2 cells are expected, found 3"),
        (f'1,"{SECRET}"x', "not a row of this format"),
        ("1," + "y" * 300, "not a row of this format .field larger than field limit .256"),
    ],
)
def test_a_bad_row_stops_or_is_kept_aside(tmp_path, monkeypatch, bad, problem):
    monkeypatch.setattr(sources, "LONGEST_CELL", 256)
    text = f"a,b\n0,0\n{bad}\n2,2\n"
    with pytest.raises(BadData, match=rf"a\.csv, line 3: .*{problem}") as caught:
        table(tmp_path / "a.csv", text, "a", "b")
    assert SECRET not in str(caught.value)
    report = ReadReport(skip_rejected=True)
    assert [row["a"] for _, row in table(tmp_path / "a.csv", text, "a", "b", report=report)] == ["0", "2"]
    assert [row.content for row in report.rejected] == [bad[:100_000]]


def test_a_quote_that_is_never_closed_is_a_bad_row(tmp_path):
    with pytest.raises(BadData, match="line 2: not a row of this format"):
        table(tmp_path / "a.csv", f'a,b\n1,"{SECRET}\n2,3\n', "a", "b")


def test_too_many_bad_rows_are_another_format(tmp_path):
    report = ReadReport(skip_rejected=True)
    for _ in range(MAX_REJECTED):
        report.reject(BadData("x"), "y")
    with pytest.raises(BadData, match="another format"):
        report.reject(BadData("x"), "y")


# ---- archives --------------------------------------------------------------------------------------------------------


def pack(path, *names: str, link: bool = False) -> None:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(name, name[-5:])
        return
    with tarfile.open(path, "w:gz") as archive:
        for name in names:
            entry = tarfile.TarInfo(name)
            if link:
                entry.type, entry.linkname = tarfile.SYMTYPE, "/etc"
                archive.addfile(entry)
            else:
                entry.size = 5
                archive.addfile(entry, io.BytesIO(name[-5:].encode()))


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_members_come_by_pattern(tmp_path, name):
    pack(tmp_path / name, "top/one/a.xml", "top/b.txt", "top/one/c.xml")
    found = {inside: (place, content) for place, inside, content in members(tmp_path / name, "*.xml")}
    assert found == {
        inside: (f"{tmp_path / name}, {inside}", inside[-5:].encode()) for inside in ("top/one/a.xml", "top/one/c.xml")
    }


def test_the_same_files_unpacked_are_read_alike(tmp_path):
    path = tmp_path / "one" / "a.xml"
    path.parent.mkdir()
    path.write_text("x")
    assert list(members(path, "*/one/*.xml")) == [(str(path), path.as_posix(), b"x")]
    assert not list(members(path, "*/two/*.xml"))


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
@pytest.mark.parametrize("inside", ["../a.xml", "/etc/a.xml", "x/../../a.xml", "..\\a.xml"])
def test_a_path_that_leads_outside_refuses_the_archive(tmp_path, name, inside):
    pack(tmp_path / name, "good.xml", inside)
    with pytest.raises(BadData, match="leads outside"):
        list(members(tmp_path / name, "*.xml"))


def test_a_link_refuses_the_archive(tmp_path):
    pack(tmp_path / "a.tar.gz", "a.xml", link=True)
    with pytest.raises(BadData, match="link"):
        list(members(tmp_path / "a.tar.gz", "*.xml"))


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_an_archive_that_is_cut_or_none_is_damaged(tmp_path, name):
    pack(tmp_path / name, *(f"{n}/{'x' * 50}{n}.xml" for n in range(50)))
    data = (tmp_path / name).read_bytes()
    for piece in (data[: len(data) // 2], b"no archive"):
        (tmp_path / name).write_bytes(piece)
        with pytest.raises(BadData, match="damaged or"):
            list(members(tmp_path / name, "*.xml"))


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch, name):
    pack(tmp_path / name, "a.xml", "b.xml")
    monkeypatch.setattr("staf.data.archives.LARGEST_TOTAL", 8)
    with pytest.raises(BadData, match="unpacks to more than"):
        list(members(tmp_path / name, "*.xml"))


# ---- intake ----------------------------------------------------------------------------------------------------------


def test_a_record_that_is_refused_half_way_gives_no_example_at_all():
    def make(place: str, record: int):
        yield Example(f"x/{record}", "k", "q", "", "a", ("a",), "train", ())
        if record == 2:
            raise BadData("odd")

    report = ReadReport(skip_rejected=True)
    records = [(f"file, line {n}", n) for n in (1, 2, 3)]
    assert [e.id for e in report.each(records, make)] == ["x/1", "x/3"]
    assert [(row.problem, json.loads(row.content)) for row in report.rejected] == [("file, line 2: odd", 2)]
    with pytest.raises(BadData, match="line 2: odd"):
        list(ReadReport().each(records, make))
