"""Preparing: read once, checked, whole on disk, the same again on load."""

from __future__ import annotations

import json
import os

import pytest
from corpora import read_corpus

from staf.data.card import builtin_cards
from staf.data.fetch import cache_folder, data_folder
from staf.data.prepare import load, prepare
from staf.data.read_report import ReadReport
from staf.data.readers import multiple_choice
from staf.data.sources import NOT_UTF8
from staf.errors import BadData, DamagedFile, MissingData, UnknownName


def question(number: int) -> dict[str, str]:
    options = "\n".join(f"{letter}. thing {number}{letter}" for letter in "ABCD")
    return {"question": f"Which is made-up thing {number}?", "options": options, "answer": f"C. thing {number}C"}


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A data folder with 60 questions in two files, and a cache of the test's own."""
    monkeypatch.setenv("STAF_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("STAF_DATA", raising=False)
    folder = tmp_path / "data" / "medmcqa"
    folder.mkdir(parents=True)
    for part, numbers in {"One": range(30), "Two": range(30, 60)}.items():
        lines = [json.dumps(question(n)) for n in numbers]
        (folder / f"{part}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path / "data"


def all_of(prepared, task_type="multiple_choice"):
    return [e for split in ("train", "adaptation", "test") for e in load(prepared, task_type, split)]


def test_what_is_loaded_is_what_the_reader_gave(data):
    prepared = prepare("medmcqa", data)
    read = list(read_corpus("medmcqa", data / "medmcqa", ReadReport()))
    assert sorted(all_of(prepared), key=lambda e: e.id) == sorted(read, key=lambda e: e.id)
    assert sum(prepared.counts["multiple_choice"].values()) == 60
    assert {split: len(load(prepared, "multiple_choice", split)) for split in ("train", "adaptation", "test")} == (
        prepared.counts["multiple_choice"]
    )


def test_the_second_call_does_not_read_the_source_again(data):
    first = prepare("medmcqa", data)
    path = data / "medmcqa" / "One.jsonl"
    state = path.stat()
    path.write_bytes(b"!" * state.st_size)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert prepare("medmcqa", data) == first
    assert len(all_of(first)) == 60


def test_a_changed_source_is_read_again_under_another_fingerprint(data):
    first = prepare("medmcqa", data)
    with (data / "medmcqa" / "Two.jsonl").open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(question(60)) + "\n")
    second = prepare("medmcqa", data)
    assert sum(second.counts["multiple_choice"].values()) == 61
    assert second.fingerprint != first.fingerprint
    assert second.folder != first.folder


def test_the_fingerprint_says_what_the_data_is_and_not_where(data, tmp_path):
    first = prepare("medmcqa", data)
    (tmp_path / "elsewhere").mkdir()
    (data / "medmcqa").rename(tmp_path / "elsewhere" / "medmcqa")
    second = prepare("medmcqa", tmp_path / "elsewhere")
    assert second.fingerprint == first.fingerprint
    assert second.folder != first.folder


@pytest.mark.parametrize("harm", ["table cut", "record gone", "record replaced", "record altered"])
def test_a_folder_that_is_not_whole_is_made_again(data, harm):
    first = prepare("medmcqa", data)
    if harm == "table cut":
        table = first.folder / "examples.parquet"
        table.write_bytes(table.read_bytes()[:100])
    elif harm == "record gone":
        (first.folder / "record.json").unlink()
    elif harm == "record replaced":
        (first.folder / "record.json").write_text("[]")
    else:
        record = json.loads((first.folder / "record.json").read_text())
        record["counts"]["multiple_choice"]["test"] += 1
        (first.folder / "record.json").write_text(json.dumps(record))
    assert prepare("medmcqa", data) == first
    assert len(all_of(first)) == 60


def test_a_damaged_table_of_the_right_size_is_an_error_that_says_what_to_do(data):
    prepared = prepare("medmcqa", data)
    table = prepared.folder / "examples.parquet"
    table.write_bytes(b"?" * table.stat().st_size)
    with pytest.raises(DamagedFile, match="staf data prepare medmcqa"):
        load(prepared, "multiple_choice", "test")


def test_nothing_is_left_behind_where_a_record_is_bad(data):
    with (data / "medmcqa" / "Two.jsonl").open("a", encoding="utf-8") as stream:
        stream.write('{"question": "What of it?"}\n')
    with pytest.raises(BadData, match=r"Two\.jsonl, line 31: field 'options'") as caught:
        prepare("medmcqa", data)
    assert "What of it" not in str(caught.value)
    home = cache_folder() / "prepared"
    assert not home.exists() or list(home.iterdir()) == []


def test_only_the_owner_can_read_what_is_kept_and_a_killed_run_leaves_nothing_for_good(data):
    home = cache_folder() / "prepared"
    left, other = home / ".medmcqa-0123456789abcdef.01234567.tmp", home / ".medmcqa-x-0123456789abcdef.01234567.tmp"
    for folder in (left, other):
        folder.mkdir(parents=True)
        (folder / "spool.parquet").write_text("text")
    prepared = prepare("medmcqa", data)
    assert {p.name for p in home.iterdir()} == {prepared.folder.name, other.name}
    assert prepared.folder.stat().st_mode & 0o077 == 0
    assert all(path.stat().st_mode & 0o077 == 0 for path in prepared.folder.iterdir())


def test_a_table_that_was_altered_after_its_checksum_was_taken_is_refused(data):
    prepared = prepare("medmcqa", data)
    table = prepared.folder / "examples.parquet"
    content = bytearray(table.read_bytes())
    content[len(content) // 3] ^= 1
    table.write_bytes(content)
    with pytest.raises(DamagedFile, match="staf data prepare medmcqa"):
        load(prepared, "multiple_choice", "test")


def test_an_id_that_occurs_twice_is_refused(data, monkeypatch):
    read = multiple_choice.medmcqa

    def twice(files, report):
        return [*read(files, report), *read(files, report)]

    monkeypatch.setattr(multiple_choice, "medmcqa", twice)
    with pytest.raises(BadData, match="medmcqa/One/1 occurs twice"):
        prepare("medmcqa", data)


def test_unknown_names_are_answered_with_the_near_ones(data):
    with pytest.raises(UnknownName, match="Did you mean 'medmcqa'"):
        prepare("medmcq", data)
    prepared = prepare("medmcqa", data)
    with pytest.raises(UnknownName, match="multiple_choice"):
        load(prepared, "multiple_choices", "test")
    with pytest.raises(UnknownName, match="adaptation"):
        load(prepared, "multiple_choice", "validation")


def test_without_data_and_without_fetching_the_message_says_how_to_get_it(data):
    with pytest.raises(MissingData, match="staf data fetch hpo"):
        prepare("hpo", data, fetch=False)


def test_a_data_folder_that_is_named_must_be_there(tmp_path, monkeypatch):
    monkeypatch.setenv("STAF_DATA", str(tmp_path / "none"))
    with pytest.raises(MissingData, match="STAF_DATA"):
        data_folder()
    with pytest.raises(MissingData, match="no data folder"):
        data_folder(tmp_path / "neither")
    monkeypatch.delenv("STAF_DATA")
    assert data_folder() is None
    assert data_folder(tmp_path) == tmp_path


def test_the_users_folder_comes_before_packages(data):
    assert builtin_cards()["medmcqa"].locate(data) == data / "medmcqa"
    assert builtin_cards()["hpo"].locate(data) is None
    available = {row["name"]: row["available"] for row in [card.row(data) for card in builtin_cards().values()]}
    assert available == {**dict.fromkeys(builtin_cards(), False), "medmcqa": True}


def test_the_catalogue_is_written_as_plain_json(data):
    rows = json.loads(json.dumps([card.row(data) for card in builtin_cards().values()]))
    expected = {"name", "knowledge_types", "category", "licence", "access", "proxy_for", "available"}
    assert all(expected <= row.keys() for row in rows)


def test_bad_rows_are_counted_and_kept_where_only_their_owner_reads_them(data):
    with (data / "medmcqa" / "Two.jsonl").open("ab") as stream:
        stream.write(b'{"question": "What of it?"}\n\xff\xfe\n')
    found = prepare("medmcqa", data, skip_rejected=True)
    assert (found.rejected, sum(found.counts["multiple_choice"].values())) == (2, 60)
    assert found.rejected_rows.stat().st_mode & 0o077 == 0
    first, second = (json.loads(line) for line in found.rejected_rows.read_text(encoding="utf-8").splitlines())
    assert "line 31" in first["problem"]
    assert "What of it?" in first["content"]
    assert second["problem"].endswith(f"line 32: {NOT_UTF8}.")
    with pytest.raises(BadData):
        prepare("medmcqa", data)
    assert prepare("medmcqa", data, skip_rejected=True) == found


def test_the_table_is_opened_by_duckdb_and_by_datasets_as_it_is(data):
    import duckdb
    from datasets import Dataset

    found = prepare("medmcqa", data)
    table = found.folder / "examples.parquet"
    counted = duckdb.sql(f"SELECT split, count(*) FROM '{table}' WHERE len(labels) = 4 GROUP BY split").fetchall()
    assert dict(counted) == {split: count for split, count in found.counts["multiple_choice"].items() if count}
    opened = Dataset.from_parquet(str(table), cache_dir=str(data / "cache"))
    assert set(opened.column_names) >= {"query", "context", "answer", "labels", "split"}
    assert len(opened) == 60


def test_the_split_scheme_is_part_of_what_is_asked_for(data):
    one, other = (prepare("medmcqa", data, split_scheme=scheme) for scheme in ("staf-llm", "sa-mdkif"))
    assert one.fingerprint != other.fingerprint
    assert other.counts["multiple_choice"]["train"] == 0
    assert other.counts["multiple_choice"]["adaptation"] + other.counts["multiple_choice"]["test"] == 60


@pytest.mark.parametrize("change", ["content", "path", "split scheme", "skipping", "code"])
def test_what_is_prepared_is_named_by_everything_that_it_depends_on(data, tmp_path, monkeypatch, change):
    first = prepare("medmcqa", data)
    scheme, skip = "sa-mdkif" if change == "split scheme" else "staf-llm", change == "skipping"
    if change == "content":
        with (data / "medmcqa" / "Two.jsonl").open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(question(60)) + "\n")
    elif change == "path":
        (tmp_path / "elsewhere").mkdir()
        data = data.rename(tmp_path / "elsewhere" / "data")
    elif change == "code":
        monkeypatch.setattr("staf.data.prepare._code", lambda: "another release")
    assert prepare("medmcqa", data, split_scheme=scheme, skip_rejected=skip).folder != first.folder


def test_a_reader_keeps_its_temporary_files_where_the_next_run_removes_them(own, monkeypatch, tmp_path):
    monkeypatch.setenv("STAF_CACHE", str(tmp_path / "cache"))
    seen = []

    def killed(folder, report):
        seen.append(report.scratch)
        (report.scratch / "rows").write_text("text")
        os._exit(9)

    monkeypatch.setattr(multiple_choice, "medmcqa", killed)
    if (child := os.fork()) == 0:
        try:
            prepare("medmcqa", own)
        finally:
            os._exit(1)
    os.waitpid(child, 0)
    home = cache_folder() / "prepared"
    (left,) = home.glob(".medmcqa-*.tmp")
    assert {path.name for path in left.iterdir()} == {"rows"}
    monkeypatch.undo()
    monkeypatch.setenv("STAF_CACHE", str(tmp_path / "cache"))
    prepared = prepare("medmcqa", own)
    assert [path.name for path in home.iterdir() if not path.name.endswith(".lock")] == [prepared.folder.name]
