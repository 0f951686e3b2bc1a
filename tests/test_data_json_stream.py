"""A JSON object that is read in pieces: the same members wherever the pieces end, and what is no such object is refused."""

from __future__ import annotations

import gzip
import json

import pytest

from staf.data.formats import json_stream
from staf.errors import BadData

MEMBERS = {"a": {"x": "long " * 30, "y": [1, {"z": None}]}, "b": '\u00e4 \u2028\\"}', "": 12345678901234567890, "c": -1.5e3}


@pytest.mark.parametrize("piece", [1, 2, 7, 1 << 20])
@pytest.mark.parametrize("indent", [None, 4])
def test_members_are_read_as_they_are_wherever_the_pieces_end(tmp_path, monkeypatch, piece, indent):
    monkeypatch.setattr(json_stream, "PIECE", piece)
    path = tmp_path / "x.json"
    path.write_text("\ufeff " + json.dumps(MEMBERS, indent=indent, ensure_ascii=False) + "\r\n ", encoding="utf-8")
    assert list(json_stream.json_members(path)) == [
        (f"{path}, record {number}", member) for number, member in enumerate(MEMBERS.items(), start=1)
    ]


def test_a_gzipped_object_and_an_empty_one(tmp_path):
    (tmp_path / "x.json.gz").write_bytes(gzip.compress(json.dumps(MEMBERS).encode()))
    assert dict(member for _, member in json_stream.json_members(tmp_path / "x.json.gz")) == MEMBERS
    (tmp_path / "y.json").write_text(" { } ")
    assert list(json_stream.json_members(tmp_path / "y.json")) == []


@pytest.mark.parametrize(
    ("text", "number", "before"),
    [
        ("", 0, 0),
        ("[]", 0, 0),
        ("{", 1, 0),
        ('{"a": 1,', 2, 1),
        ('{"a": 1', 1, 1),
        ('{"a": 1}}', 1, 1),
        ('{"a": 1, }', 2, 1),
        ('{"a": 1 "secret": 2}', 1, 1),
        ('{"a": 1, 2: 3}', 2, 1),
        ('{"a" 1}', 1, 0),
        ('{"a": "secret', 1, 0),
        ('{"a": 1, "b": {"secret": ]}}', 2, 1),
        ('{"a": ' + "[" * 200_000, 1, 0),
    ],
)
def test_what_is_no_json_object_is_refused_at_the_record_where_it_ends_to_be_one(tmp_path, text, number, before):
    path = tmp_path / "x.json"
    path.write_text(text)
    found = []
    with pytest.raises(BadData, match=rf"x\.json, record {number}: not valid JSON, cut short, or too long") as caught:
        found.extend(member for _, member in json_stream.json_members(path))
    assert "secret" not in str(caught.value)
    assert len(found) <= before


def test_a_member_that_never_ends_and_bytes_that_are_no_text_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    monkeypatch.setattr(json_stream, "LONGEST_LINE", 100)
    monkeypatch.setattr(json_stream, "PIECE", 50)
    path.write_text(json.dumps({"a": 1, "b": "b" * 1000}))
    with pytest.raises(BadData, match=r"record 2: .* too long"):
        list(json_stream.json_members(path))
    path.write_bytes(b'{"a": "\xff"}')
    with pytest.raises(BadData, match="near record 0: not UTF-8"):
        list(json_stream.json_members(path))
