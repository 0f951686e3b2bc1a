"""Cut, empty, foreign, damaged and oversized files, at every way in: rows, or one named error, and never a traceback."""

from __future__ import annotations

import gzip
import io
import random
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import pytest
from corpora import corpus_files, read_corpus
from formats import meqsum

from staf.data.archives import members, sheet_rows
from staf.data.card import builtin_cards
from staf.data.json_files import json_items, json_lines, json_members, json_object
from staf.data.read_report import ReadReport
from staf.data.sources import csv_rows, paragraphs, xml_records
from staf.data.tables import tables
from staf.errors import BadData, StafError

FOREIGN = (
    b"", b"\0" * 5_000, b"\xff\xfe\x00", b"PK\x03\x04", b"\x1f\x8b\x08\x00", b"{", b"[[" * 3_000, b'{"a": ' * 3_000, b"<x",
    b'"', b"\n" * 50, b"a,b\n", b"[]", b"{}", b"null", b"<html/>", b"\xef\xbb\xbf", "\u2028\x85\x0b".encode(), b"x" * 300_000,
)  # fmt: skip

ODD = (b"\0", b"\xff", b'"', b"\n", b"\\", b"{", b"<", b"\\ud83d", b"|", b",")


def mutated(data: bytes, rng: random.Random) -> bytes:
    """The content cut, replaced, doubled, with other bytes in it, or with a part of it many times over."""
    kind, place = rng.randrange(6), rng.randrange(len(data) + 1)
    if kind == 0:
        return data[:place]
    if kind == 1:
        return rng.choice(FOREIGN)
    if kind == 2:
        return data + data
    if kind == 3:
        return data[:place] + rng.choice((*ODD, rng.randbytes(9))) + data[place:]
    if kind == 4:
        return data[:place] + bytes((data[place] ^ (1 << rng.randrange(8)),)) + data[place + 1 :] if place < len(data) else b""
    return data[:place] + data[place : place + 40] * 200 + data[place:]


def zipped(data: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/x.txt", data)
        archive.writestr("a/y.txt", data * 3)
    return stream.getvalue()


def tarred(data: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name in ("a/x.txt", "a/y.txt"):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return stream.getvalue()


def refusal(read: Callable[[], Iterable[object]]) -> str:
    """The message of the error that ends reading; '' where there is none. Any other error is a fault."""
    try:
        list(read())
    except StafError as error:
        return str(error)
    return ""


def load(path: Path, report: ReadReport, layout: tuple[str, ...] = ()) -> Iterable[object]:
    with tables(report) as database:
        database.load("t", path, ("a", "b"), {"a": "number"}, layout=layout)
        return list(database.rows("FROM t"))


TABLE = b"a,b\n" + b'1,"x, ""y""\nz"\n2,w\n' * 20
WAYS: dict[str, tuple[bytes, Callable[[Path, ReadReport], Iterable[object]]]] = {
    "x.csv": (TABLE, lambda path, report: csv_rows(path, report, ("a", "b"))),
    "x.csv.gz": (gzip.compress(TABLE), lambda path, report: csv_rows(path, report, ("a", "b"))),
    "table.csv": (TABLE, load),
    "table.csv.gz": (gzip.compress(TABLE), load),
    "X.RRF": (b"1|x y|\n2||\n" * 20, lambda path, report: load(path, report, ("a", "b"))),
    "x.jsonl": (b'{"a": "\\u00e4", "b": [1, {"c": null}]}\n' * 20, json_lines),
    "x.json": (b'{"a": {"b": [1, 2.5]}, "c": "\\ud83d\\ude00"}', lambda path, report: [json_object(path)]),
    "members.json": (b'{"a": {"b": [1, 2.5]}, "c": "d", "e": null}', lambda path, report: json_members(path)),
    "items.json": (b'[{"a": {"b": [1, 2.5]}}, "c", {}, 4]', json_items),
    "x.xml": (b"<x><p i='1'><q>a</q><r/></p><p>b</p></x>", lambda path, report: xml_records(path, "p")),
    "x.txt": (b"one\ntwo\n\nthree\n" * 9, paragraphs),
    "x.zip": (zipped(TABLE), lambda path, report: members(path, "*")),
    "x.tar.gz": (tarred(TABLE), lambda path, report: members(path, "*")),
}


@pytest.mark.parametrize("name", WAYS)
def test_a_damaged_file_gives_rows_or_one_named_error(tmp_path: Path, name: str) -> None:
    data, read = WAYS[name]
    path, rng, count = tmp_path / name, random.Random(name), 12 if "table" in name or "RRF" in name else 60
    refusals = []
    for _ in range(count):
        path.write_bytes(mutated(data, rng))
        refusals += [refusal(partial(read, path, ReadReport(skip))) for skip in (False, True)]
    assert all(name in message for message in refusals if message)
    assert 0 < len(list(filter(None, refusals))) < len(refusals)


def test_a_damaged_workbook_gives_rows_or_one_named_error(tmp_path: Path) -> None:
    meqsum.write(tmp_path)
    (path,) = corpus_files("meqsum", tmp_path)
    data, rng = path.read_bytes(), random.Random(0)
    for _ in range(40):
        path.write_bytes(mutated(data, rng))
        message = refusal(partial(sheet_rows, path, ReadReport(), "QS", ("CHQ",)))
        assert not message or path.name in message


@pytest.mark.parametrize("name", builtin_cards())
def test_a_reader_of_damaged_files_gives_examples_or_one_named_error(own: Path, tmp_path: Path, name: str) -> None:
    for folder in {name, "codiesp"} if name == "pharmaconer" else {name}:
        shutil.copytree(own / folder, tmp_path / folder)
    files, rng = corpus_files(name, tmp_path / name), random.Random(name)
    for path in rng.sample(files, min(2, len(files))):
        data = path.read_bytes()
        for skip in (False, True):
            path.write_bytes(mutated(data, rng))
            refusal(partial(read_corpus, name, tmp_path / name, ReadReport(skip)))
        path.write_bytes(data)


# ---- what archives may not hold --------------------------------------------------------------------------------------


def test_links_encrypted_and_repeated_members_refuse_a_zip_archive(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    link = zipfile.ZipInfo("a/x.txt")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(BadData, match="holds a symbolic link"):
        list(members(path, "*"))
    data = bytearray(zipped(TABLE))
    data[6] |= 1  # the first member's flags, here and in the directory
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(BadData, match="is encrypted"):
        list(members(path, "*"))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/x.txt", "1")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a/x.txt", "2")
    with pytest.raises(BadData, match="comes twice"):
        list(members(path, "*"))


def test_a_tar_member_of_two_gigabytes_is_refused_by_its_header(tmp_path: Path) -> None:
    entry = tarfile.TarInfo("a/x.txt")
    entry.size = 2 << 30
    path = tmp_path / "x.tar"
    path.write_bytes(entry.tobuf() + b"0" * 2_000)
    with pytest.raises(BadData, match="unpacks to more than"):
        list(members(path, "*"))
    with pytest.raises(BadData, match="is damaged"):
        list(members(path, "*/none"))


def test_a_sparse_file_of_200_gigabytes_is_refused_at_once(tmp_path: Path) -> None:
    for name in ("x.txt", "x.json", "x.zip", "x.csv", "x.tar"):
        with (tmp_path / name).open("wb") as stream:
            stream.truncate(200 << 30)
    for name in ("x.txt", "x.zip"):
        with pytest.raises(BadData):
            list(members(tmp_path / name, "*"))
    assert not list(members(tmp_path / "x.tar", "*"))  # blocks of zeros end a tar archive
    for read in (json_object, lambda path: list(json_members(path))):
        with pytest.raises(BadData, match=r"x\.json.*: not a? ?valid JSON"):
            read(tmp_path / "x.json")
    with pytest.raises(BadData, match=r"x\.csv, line 1"):
        load(tmp_path / "x.csv", ReadReport())
