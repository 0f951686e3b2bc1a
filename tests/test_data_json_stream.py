"""A JSON object that is read in pieces: the same members wherever the pieces end, and what is no such object is refused."""

from __future__ import annotations

import gzip
import json

import pytest

from staf.data import json_files
from staf.data.read_report import ReadReport
from staf.errors import BadData

MEMBERS = {"a": {"x": "long " * 30, "y": [1, {"z": None}]}, "b": '\u00e4 \u2028\\"}', "": 12345678901234567890, "c": -1.5e3}


@pytest.mark.parametrize("indent", [None, 4])
def test_members_are_read_as_they_are(tmp_path, indent):
    path = tmp_path / "x.json"
    path.write_text("\ufeff " + json.dumps(MEMBERS, indent=indent, ensure_ascii=False) + "\r\n ", encoding="utf-8")
    assert list(json_files.json_members(path)) == [
        (f"{path}, record {number}", member) for number, member in enumerate(MEMBERS.items(), start=1)
    ]


def test_a_gzipped_object_and_an_empty_one(tmp_path):
    (tmp_path / "x.json.gz").write_bytes(gzip.compress(json.dumps(MEMBERS).encode()))
    assert dict(member for _, member in json_files.json_members(tmp_path / "x.json.gz")) == MEMBERS
    (tmp_path / "y.json").write_text(" { } ")
    assert list(json_files.json_members(tmp_path / "y.json")) == []


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("", 1),
        ("[]", 1),
        ("3", 1),
        ("{", 1),
        ('{"a": 1,', 2),
        ('{"a": 1', 2),
        ('{"a": 1}}', 2),
        ('{"a": 1, }', 2),
        ('{"a": 1 "secret": 2}', 2),
        ('{"a": 1, 2: 3}', 2),
        ('{"a" 1}', 1),
        ('{"a": "secret', 1),
        ('{"a": NaN}', 1),
        ('{"a": 1, "b": {"secret": ]}}', 2),
        ('{"a": ' + "[" * 200_000, 1),
    ],
)
def test_what_is_no_json_object_is_refused_at_the_record_where_it_stops_being_one(tmp_path, text, number):
    path = tmp_path / "x.json"
    path.write_text(text)
    found = []
    with pytest.raises(BadData, match=r"x\.json, record \d: not a valid JSON object, cut short, or too long") as caught:
        found.extend(member for _, member in json_files.json_members(path))
    assert "secret" not in str(caught.value)
    assert len(found) <= number - 1
    assert f"record {len(found) + 1}" in str(caught.value)


def test_an_array_is_read_item_by_item(tmp_path):
    (tmp_path / "x.json").write_text(json.dumps([[1, {"a": []}], {}, "b"]))
    assert [item for _, item in json_files.json_items(tmp_path / "x.json", ReadReport())] == [[1, {"a": []}], {}, "b"]
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(BadData, match="not a valid JSON array"):
        list(json_files.json_items(tmp_path / "x.json", ReadReport()))


def test_a_member_that_never_ends_and_bytes_that_are_no_text_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    monkeypatch.setattr(json_files, "LONGEST_LINE", 100_000)
    path.write_text(json.dumps({"a": 1, "b": "b" * 300_000}))
    with pytest.raises(BadData, match=r"record 2: .* too long"):
        list(json_files.json_members(path))
    path.write_bytes(b'{"a": "\xff"}')
    with pytest.raises(BadData, match="record 1: not a valid JSON"):
        list(json_files.json_members(path))
