"""Corpora as they circulate: other names and headers, other spellings of an empty cell, half characters, hidden files."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path

import pytest
from corpora import corpus_files, read_corpus
from formats import mimic
from formats import pubmedqa as abstracts

from staf.data.card import builtin_cards
from staf.data.json_files import json_lines
from staf.data.prepare import prepare
from staf.data.read_report import ReadReport
from staf.data.readers import ontology as obo
from staf.data.readers.mentions import CONLL_TYPES, NCBI_TYPES, chunks
from staf.data.sources import NULLS, csv_rows
from staf.data.tables import tables
from staf.errors import BadData, MissingData

# ---- empty cells and keys --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("null", NULLS)
def test_an_empty_cell_may_be_spelt_as_other_tools_write_it(tmp_path: Path, null: str) -> None:
    (tmp_path / "t.csv").write_text(f"a,b\n1,{null}\n2,x\n")
    with tables(ReadReport()) as database:
        database.load("t", tmp_path / "t.csv", ("a", "b"), {"a": "number"})
        assert list(database.rows("FROM t ORDER BY a")) == [{"a": "1", "b": None}, {"a": "2", "b": "x"}]


def admissions(folder: Path, old: str, new: str) -> Path:
    """MIMIC-III of three stays in plain files, one cell of ADMISSIONS changed."""
    mimic.write_full(folder, mimic.many(3))
    packed = folder / "ADMISSIONS.csv.gz"
    text = gzip.decompress(packed.read_bytes()).decode()
    assert old in text
    packed.unlink()
    (folder / "ADMISSIONS.csv").write_text(text.replace(old, new))
    return folder


def test_a_death_time_that_is_null_is_no_death_and_one_that_is_no_time_is_refused(tmp_path: Path) -> None:
    expected = list(read_corpus("mimic-iii", mimic.write_full(tmp_path / "plain", mimic.many(3))))
    header = '"DEATHTIME"'
    folder = admissions(tmp_path / "null", header, header)
    path = folder / "ADMISSIONS.csv"
    position = path.read_text().splitlines()[0].split(",").index(header)
    for cell in ("NULL", "soon"):
        rows = [line.split(",") for line in path.read_text().splitlines()]
        changed = [rows[0], *([*row[:position], cell, *row[position + 1 :]] for row in rows[1:])]
        path.write_text("".join(",".join(row) + "\n" for row in changed))
        if cell == "NULL":
            assert list(read_corpus("mimic-iii", folder)) == expected
    with pytest.raises(BadData, match=r"ADMISSIONS\.csv, line 2: column 'deathtime' is not a date and time"):
        list(read_corpus("mimic-iii", folder))


@pytest.mark.parametrize(("table", "key"), [("ADMISSIONS", "hadm_id"), ("PATIENTS", "subject_id"), ("NOTEEVENTS", "row_id")])
def test_a_table_that_holds_two_copies_of_its_rows_is_refused(tmp_path: Path, table: str, key: str) -> None:
    mimic.write_full(tmp_path, mimic.many(3))
    packed = tmp_path / f"{table}.csv.gz"
    header, _, rows = gzip.decompress(packed.read_bytes()).partition(b"\n")
    packed.write_bytes(gzip.compress(header + b"\n" + rows + rows))
    with pytest.raises(BadData, match=rf"{table}\.csv\.gz: \d+ rows have a {key} that another row has"):
        list(read_corpus("mimic-iii", tmp_path))


def test_a_header_is_known_in_any_case_and_spelling_but_not_twice(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("\ufeffPrompt ID,,x\n1,2,3\n")
    assert [row["prompt_id"] for _, row in csv_rows(tmp_path / "t.csv", ReadReport(), ("prompt_id",))] == ["1"]
    (tmp_path / "t.csv").write_text("PromptID,prompt_id\n1,2\n")
    with pytest.raises(BadData, match="line 1: column prompt_id occurs twice"):
        list(csv_rows(tmp_path / "t.csv", ReadReport(), ("prompt_id",)))


@pytest.mark.parametrize("name", ['a"; DROP TABLE t; --', "select", "b'", "", "place", "problem"])
def test_a_column_of_any_name_is_only_a_column(tmp_path: Path, name: str) -> None:
    quoted = '"' + name.replace('"', '""') + '"'
    (tmp_path / "t.csv").write_text(f"a,{quoted}\n1,2\nx,3\n")
    report = ReadReport(skip_rejected=True)
    with tables(report) as database:
        database.load("t", tmp_path / "t.csv", ("a",), {"a": "number"})
        assert list(database.rows("FROM t")) == [{"a": "1"}]
    assert [row.problem.rpartition(", ")[2] for row in report.rejected] == ["line 3: column 'a' is not an integer."]


def test_a_name_that_occurs_twice_in_a_json_object_is_refused(tmp_path: Path) -> None:
    abstracts.write_whole(tmp_path)
    path = tmp_path / "test_ground_truth.json"
    path.write_text(path.read_text().replace("{", '{"0": "no", "0": "yes", ', 1))
    with pytest.raises(BadData, match=r"test_ground_truth\.json: not valid JSON"):
        list(read_corpus("pubmedqa", tmp_path))


# ---- half characters -------------------------------------------------------------------------------------------------

JSON_CORPORA = (
    "medmcqa",
    "medqa-usmle",
    "pubmedqa",
    "wikimed",
    "mednli",
    "covid-qa",
    "emrqa",
    "clicr",
    "chatdoctor",
    "healthcaremagic",
)


@pytest.mark.parametrize("name", JSON_CORPORA)
def test_half_a_surrogate_pair_in_json_is_a_bad_row_of_any_reader(own: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    shutil.copytree(own / name, folder)
    path = max((p for p in corpus_files(name, folder) if p.suffix in (".json", ".jsonl")), key=lambda p: p.stat().st_size)
    text = path.read_text(encoding="utf-8")
    records = (
        [json.loads(text)] if path.suffix == ".json" and name not in ("wikimed",) else list(map(json.loads, text.splitlines()))
    )
    refusals = []
    for words in sorted(set(texts_of(records)), key=len)[-40:]:
        spelt = json.dumps(words)[1:-1]
        path.write_text(text.replace(f'"{spelt}"', f'"{spelt} \\ud83d owl"', 1), encoding="utf-8")
        try:
            list(read_corpus(name, folder))
        except BadData as error:
            refusals.append(str(error))
            if "half of a surrogate pair" in refusals[-1]:
                break
    assert "half of a surrogate pair" in refusals[-1]
    assert path.name in refusals[-1]
    report = ReadReport(skip_rejected=True)
    assert list(read_corpus(name, folder, report))
    assert prepare(name, tmp_path, skip_rejected=True).rejected == len(report.rejected) >= 1


def texts_of(value: object) -> list[str]:
    """All texts in a JSON value, names left out."""
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for item in inner for text in texts_of(item)]


# ---- shapes ----------------------------------------------------------------------------------------------------------


def test_ncbi_disease_may_be_tagged_b_and_i_only(own: Path, tmp_path: Path) -> None:
    for path in corpus_files("ncbi-disease", own / "ncbi-disease"):
        (tmp_path / path.name).write_text(path.read_text().replace("-Disease", ""))
    assert list(read_corpus("ncbi-disease", tmp_path)) == list(read_corpus("ncbi-disease", own / "ncbi-disease"))
    assert list(chunks([("hoof", "B-Disease"), ("rot", "I-Disease")], NCBI_TYPES))
    for path in corpus_files("conll-2003", own / "conll-2003"):
        (tmp_path / path.name).write_text(path.read_text().replace("I-PER", "I"))
    assert len(CONLL_TYPES) > 1
    with pytest.raises(BadData, match="a tag is neither O nor"):
        list(read_corpus("conll-2003", tmp_path))


def test_ncbi_disease_is_read_as_its_authors_distribute_it(tmp_path: Path) -> None:
    lines = [
        "{}|t|Hoof rot of beasts", "{}|a|No hoof rot. A horn.", "{}\t0\t8\tHoof rot\tSpecificDisease\tD1",
        "{}\t22\t30\thoof rot\tModifier\tD1|D2",
    ]  # fmt: skip
    for part in ("train", "develop", "test"):
        record = "".join(f"{line.format(part[0])}\n" for line in lines)
        (tmp_path / f"NCBI{part}set_corpus.txt").write_text(f"\n{record}\n{record if part == 'train' else ''}")
    report = ReadReport()
    found = {e.id: e for e in read_corpus("ncbi-disease", tmp_path, report)}
    assert {i: e.answer for i, e in found.items() if "/t/" in i} == {
        "ncbi-disease/mentions/t/0": "disease: Hoof rot",
        "ncbi-disease/mentions/t/1": "disease: hoof rot",
        "ncbi-disease/mentions/t/2": "none",
    }
    assert {e.labels for e in found.values()} == {("disease",)}
    assert report.skipped == {"an abstract that its file repeats": 1}


def test_annotations_of_before_2023_have_another_header(own: Path, tmp_path: Path) -> None:
    expected = list(read_corpus("hpo", own / "hpo"))
    (tmp_path / "hp.obo").write_bytes((own / "hpo" / "hp.obo").read_bytes())
    text = (own / "hpo" / "phenotype.hpoa").read_text()
    header = next(line for line in text.splitlines() if line.startswith("database_id"))
    old = (
        "#DatabaseID\tDiseaseName\tQualifier\tHPO_ID\tReference\tEvidence\tOnset\tFrequency\tSex\tModifier\tAspect\tBiocuration"
    )
    assert len(old.split("\t")) == len(header.split("\t"))
    for changed in (old, old[1:]):
        (tmp_path / "phenotype.hpoa").write_text(text.replace(header, changed))
        assert list(read_corpus("hpo", tmp_path)) == expected


@pytest.mark.parametrize("name", builtin_cards())
def test_line_ends_of_windows_and_a_byte_order_mark_change_nothing(own: Path, tmp_path: Path, name: str) -> None:
    for path in (own / name).rglob("*"):
        target = tmp_path / name / path.relative_to(own / name)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            data = path.read_bytes()
            is_text = b"\r" not in data and path.suffix not in (".gz", ".zip", ".xlsx") and path.name != "format_dataset.csv"
            target.write_bytes(b"\xef\xbb\xbf" + data.replace(b"\n", b"\r\n") if is_text else data)
    if name == "pharmaconer":
        shutil.copytree(own / "codiesp", tmp_path / "codiesp")
    found, expected = list(read_corpus(name, tmp_path / name)), list(read_corpus(name, own / name))
    assert [(e.id, e.answer) for e in found] == [(e.id, e.answer) for e in expected]


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ('name: Hoof {source="x ! y"} ! a comment', "Hoof"),
        ("name: Hoof! Now", "Hoof! Now"),
        ("name: Hoof \\{left\\}", "Hoof {left}"),
        ("name: Hoof", "Hoof"),
    ],
)
def test_modifiers_and_comments_of_obo_follow_any_value(tmp_path: Path, line: str, value: str) -> None:
    lines = [
        "format-version: 1.2", "", "[Term]", 'id: HP:1 {a="b"}', line, 'def: "It is ! {x}." [made:up] {c="d"} ! e',
        'synonym: "Foot ! {y}" EXACT layperson [] {f="g"}', 'is_a: HP:2 {h="i"} ! Beast', 'is_obsolete: true {j="k"}',
    ]  # fmt: skip
    (tmp_path / "x.obo").write_text("\n".join(lines) + "\n")
    (term,) = obo.terms(tmp_path / "x.obo")
    assert (term.id, term.name, term.definition, term.is_a, term.obsolete) == ("HP:1", value, "It is ! {x}.", ("HP:2",), True)
    assert [(s.text, s.scope, s.type) for s in term.synonyms] == [("Foot ! {y}", "EXACT", "layperson")]


# ---- hidden files, and nothing left ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", builtin_cards())
def test_hidden_files_are_passed_over(own: Path, tmp_path: Path, name: str) -> None:
    for folder in {name, "codiesp"} if name == "pharmaconer" else {name}:
        shutil.copytree(own / folder, tmp_path / folder)
    files = corpus_files(name, tmp_path / name)
    for path in files:
        path.with_name(f"._{path.name}").write_bytes(b"\x00\x05\x16\x07Mac OS X")
        hidden = path.parent / "__MACOSX" / path.name
        hidden.parent.mkdir(exist_ok=True)
        hidden.write_bytes(b"\x00")
    assert corpus_files(name, tmp_path / name) == files


def test_a_corpus_of_which_no_row_fits_is_refused(own: Path, tmp_path: Path) -> None:
    (tmp_path / "medqa-usmle").mkdir()
    (tmp_path / "medqa-usmle" / "test.jsonl").write_text('{"question": "secret"}\n' * 3)
    with pytest.raises(BadData, match=r"medqa-usmle: no example in .*: 3 rows do not fit; .*line 1: field"):
        prepare("medqa-usmle", tmp_path, skip_rejected=True)


def test_a_folder_in_the_place_of_a_file_is_no_file(tmp_path: Path) -> None:
    for name in ("train.tsv", "devel.tsv", "test.tsv"):
        (tmp_path / name).mkdir()
    with pytest.raises(MissingData, match=r"looked for train\.tsv"):
        list(read_corpus("ncbi-disease", tmp_path))


def test_deep_json_and_long_lines_are_bad_rows(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"a": ' + "[" * 100_000 + "]" * 100_000 + '}\n{"a": 1}\n')
    report = ReadReport(skip_rejected=True)
    assert [record for _, record in json_lines(path, report)] == [{"a": 1}]
    assert len(report.rejected) == 1
    with path.open("wb") as stream:
        stream.truncate(200 << 30)  # sparse: 200 GB of NUL bytes
    with pytest.raises(BadData, match="longer than"):
        list(json_lines(path, ReadReport()))
    with pytest.raises(BadData, match="This is no text file"):
        list(json_lines(path, ReadReport(skip_rejected=True)))
