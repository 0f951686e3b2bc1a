"""MeQSum and the workbooks that it comes in: on questions that we wrote, then on the distributed file."""

from __future__ import annotations

import contextlib
import random
import zipfile
from collections import Counter

import pytest
from corpora import read_corpus, separate
from distributed import distributed
from formats import meqsum as questions

from staf.data import archives
from staf.data.archives import sheet_rows
from staf.data.read_report import ReadReport
from staf.errors import BadData

SECRET = "zebrafever"
"""In every row that is made bad; never in a message."""
DAMAGED = r"is damaged or no Excel workbook|no sheet QS among its 0"


def read(folder, report=None):
    return list(read_corpus("meqsum", folder, report or ReadReport()))


def test_a_message_is_shortened_to_its_question(own):
    examples = {e.id: e for e in read(own / "meqsum")}
    example = examples["meqsum/3"]
    assert example.task_type == "summarization"
    assert example.context == "SUBJECT: unicorn 1\nMESSAGE: my unicorn eats 1 stones a day\nis that to much ?"
    assert example.answer == "How many stones, 1 or fewer, may a unicorn eat?"
    assert examples["meqsum/2"].context == "my griffin eats 0 stones a day\nis that to much ?"


def test_columns_without_a_name_are_passed_over(own):
    import openpyxl

    path = own / "meqsum" / questions.NAME
    assert openpyxl.load_workbook(path, read_only=True)["QS"].calculate_dimension() == "A1:AMI41"
    place, row = next(sheet_rows(path, ReadReport(), "QS", ("File", "CHQ", "Summary")))
    assert place.endswith("sheet QS, row 2")
    assert list(row) == ["File", "CHQ", "Summary"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (["1.txt", None, SECRET], "field 'CHQ' is missing, empty"),
        (["1.txt", SECRET, " "], "field 'Summary' is missing, empty"),
        (["1.txt", 3, SECRET], "field 'CHQ' is missing, empty or not text"),
        ([SECRET], "field 'CHQ' is missing"),
    ],
)
def test_a_bad_question_is_named_by_its_row(tmp_path, row, message):
    questions.write_parts(tmp_path / questions.NAME, questions.parts([*questions.questions()[:3], [], row]))
    with pytest.raises(BadData) as error:
        read(tmp_path)
    assert f"sheet QS, row 6: {message}" in str(error.value)
    assert SECRET not in str(error.value)
    lenient = ReadReport(skip_rejected=True)
    assert len(read(tmp_path, lenient)) == 3
    assert [bad.problem for bad in lenient.rejected] == [str(error.value)]


def test_a_workbook_without_the_sheet_or_a_column_is_refused(tmp_path):
    questions.write(tmp_path)
    path = tmp_path / questions.NAME
    with pytest.raises(BadData, match="no sheet Sheet1 among its 1"):
        next(sheet_rows(path, ReadReport(), "Sheet1", ("CHQ",)))
    with pytest.raises(BadData, match="sheet QS, row 1: column Answer is missing"):
        next(sheet_rows(path, ReadReport(), "QS", ("CHQ", "Answer")))


def test_a_damaged_workbook_is_refused(tmp_path):
    questions.write(tmp_path)
    path = tmp_path / questions.NAME
    whole = path.read_bytes()
    for content in (b"", b"File,CHQ,Summary\n", whole[: len(whole) // 2], whole.replace(b"PK\x01\x02", b"PK\x09\x09")):
        path.write_bytes(content)
        with pytest.raises(BadData, match="is damaged or no archive"):
            read(tmp_path)
    parts = questions.parts(questions.questions())
    for name in ("[Content_Types].xml", "xl/workbook.xml", "xl/_rels/workbook.xml.rels", "xl/worksheets/sheet1.xml"):
        questions.write_parts(path, {part: content for part, content in parts.items() if part != name})
        with pytest.raises(BadData, match=DAMAGED):
            read(tmp_path)
        questions.write_parts(path, parts | {name: parts[name][:-30]})
        with pytest.raises(BadData, match=DAMAGED):
            read(tmp_path)
    questions.write_parts(path, parts | {"xl/sharedStrings.xml": parts["xl/sharedStrings.xml"][:-300]})
    with pytest.raises(BadData, match=DAMAGED):
        read(tmp_path)
    many = parts["xl/worksheets/sheet1.xml"].replace("<v>9</v>", "<v>999999</v>")
    questions.write_parts(path, parts | {"xl/worksheets/sheet1.xml": many})
    with pytest.raises(BadData, match=r"is damaged or no Excel workbook \(IndexError\)"):
        read(tmp_path)


def test_a_row_beyond_all_sheets_is_refused(tmp_path):
    parts = questions.parts(questions.questions())
    name = "xl/worksheets/sheet1.xml"
    questions.write_parts(tmp_path / questions.NAME, parts | {name: parts[name].replace('r="41"', 'r="99999999999"')})
    with pytest.raises(BadData, match="more than 1,048,576 rows"):
        read(tmp_path)


def test_flipped_bytes_in_a_workbook_are_no_crash(tmp_path):
    questions.write(tmp_path)
    path = tmp_path / questions.NAME
    whole = path.read_bytes()
    rng = random.Random(5)
    for _ in range(60):
        content = bytearray(whole)
        for _ in range(rng.randint(1, 8)):
            content[rng.randrange(len(content))] = rng.randrange(256)
        path.write_bytes(content)
        with contextlib.suppress(BadData):
            read(tmp_path)


def test_a_workbook_that_unpacks_to_too_much_or_leads_outside_is_refused(tmp_path, monkeypatch):
    questions.write(tmp_path)
    path = tmp_path / questions.NAME
    monkeypatch.setattr(archives, "LARGEST_MEMBER", 1_000)
    with pytest.raises(BadData, match="unpacks to more than 1,000 bytes"):
        read(tmp_path)
    monkeypatch.undo()
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../outside.xml", "")
    with pytest.raises(BadData, match="leads outside"):
        read(tmp_path)


def test_meqsum_as_distributed():
    report = ReadReport()
    examples = read(distributed("meqsum"), report)
    assert len({e.context for e in examples}) == 1_000
    assert min(Counter(e.split for e in examples).values()) >= 70
    assert separate(examples)[1] == 0
