"""UMLS: what is picked from the four files, which way a relation reads, and rows that do not fit."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from corpora import corpus_files, read_corpus, separate
from formats.umls import TYPES, definition, name, relation, row, semantic_type, write

from staf.data.example import dedup_key, prompt_of
from staf.data.read_report import ReadReport
from staf.data.readers import umls
from staf.data.splits import split_of
from staf.errors import BadData, MissingData

META = Path("2026AA") / "META"


def add(folder: Path, **lines: list[str]) -> Path:
    """The made-up files with more lines at their ends."""
    write(folder)
    for title, more in lines.items():
        with (folder / META / f"{title}.RRF").open("a", encoding="utf-8") as stream:
            stream.writelines(more)
    return folder


def by_id(folder: Path, report: ReadReport | None = None):
    return {e.id: e for e in read_corpus("umls", folder, report or ReadReport())}


# ---- examples --------------------------------------------------------------------------------------------------------


def test_a_concept_is_asked_for_by_type_definition_and_name(own):
    examples = by_id(own / "umls")
    kind, defined, define = (examples[f"umls/{asked}/C0001010"] for asked in ("type", "definition", "define"))
    assert (kind.context, kind.answer) == ("green hoof ache", "Disease or Syndrome")
    assert set(kind.labels) == {title for _, _, title in TYPES.values()}
    assert defined.context == "What a hoof keeper calls a pain in green, number 1."
    assert (defined.answer, len(defined.labels)) == ("green hoof ache", 4)
    assert all(label.endswith(" ache") for label in defined.labels)
    assert (define.context, define.answer, define.output_type) == (defined.answer, defined.context, "generate_until")
    (same,) = [e for i, e in examples.items() if i.startswith("umls/same/C0001010/")]
    assert (same.context, same.answer) == ('hoof pain of "green" hue', "green hoof ache")
    assert same.dedup_keys == (dedup_key("green hoof ache"), dedup_key(same.context))
    assert {e.split for e in (kind, defined, define, same)} == {split_of("umls/C0001010")}


def test_a_row_of_mrrel_is_read_from_right_to_left(own):
    """C0001010|..|C0002010|..|may_treat: the second concept of the row treats the first."""
    examples = by_id(own / "umls")
    found = examples["umls/relation/C0002010/C0001010"]
    assert found.context == "First concept: green hoof balm. Second concept: green hoof ache."
    assert found.answer == "may treat"
    assert found.labels == tuple(umls.RELATIONS.values())
    assert "; ".join(found.labels) in found.query
    assert "umls/relation/C0001010/C0002010" not in examples  # may_be_treated_by says nothing new
    assert examples["umls/relation/C0003010/C0001010"].answer == "is the causative agent of"


def test_splits_share_no_concept_and_prompts_are_short(own):
    examples = list(read_corpus("umls", own / "umls", ReadReport()))
    assert separate(examples) == (examples, 0)
    splits: dict[str, set[str]] = {}
    for example in examples:
        splits.setdefault(example.group, set()).add(example.split)
        if example.labels and example.task_type != "entity_relation" and "/type/" not in example.id:
            options = {label.split()[0] + label.split()[1]: label for label in example.labels}
            assert len(options) == 4
    assert all(len(found) == 1 for found in splits.values())
    assert max(len(prompt_of(e.query, e.context)) for e in examples) < 1200


def test_only_english_unsuppressed_names_with_an_english_definition_are_used(tmp_path):
    lines = [
        name("C0009001", 9001, "plain ache", rank="S PF N"),
        name("C0009001", 9002, "ache; proper", rank="P PF N"),  # TS comes before ISPREF
        name("C0009001", 9003, "ache by a synonym", rank="S VO Y"),
        name("C0009001", 9004, "douleur", language="FRE"),
        name("C0009001", 9005, "withdrawn ache", rank="P PF Y", suppress="Y"),
        name("C0009002", 9006, "ache in French"),
        name("C0009002", 9007, "mal", language="FRE"),
        name("C0009003", 9008, "ache of a suppressed definition"),
        name("C0009004", 9009, "ache of no type"),
        name("C0009005", 9010, "long ache " * 12),
    ]
    definitions = [
        definition("C0009001", 9001, "Told with <p>markup</p> where p < 0.5."),
        definition("C0009002", 9007, "En mots."),
        definition("C0009003", 9008, "Withdrawn.", suppress="O"),
        definition("C0009004", 9009, "Typeless."),
        definition("C0009005", 9010, "Long of name."),
    ]
    types = [semantic_type(f"C000900{n}", "ache") for n in (1, 2, 3, 5)]
    examples = by_id(add(tmp_path, MRCONSO=lines, MRDEF=definitions, MRSTY=types))
    assert {i.split("/")[2] for i in examples if "/C00090" in i} == {"C0009001"}
    define = examples["umls/define/C0009001"]
    assert (define.context, define.answer) == ("ache, proper", "Told with markup where p < 0.5.")
    others = {e.context for i, e in examples.items() if i.startswith("umls/same/C0009001/")}
    assert others <= {"plain ache", "ache by a synonym"}


def test_a_wrong_type_is_neither_broader_nor_narrower_than_a_right_one(tmp_path):
    """C0004010 is a body part and now also a pathologic function, of which a disease is a kind."""
    also = row("C0004010", "T046", "B2.2.1.2", "Pathologic Function", "AT1", "")
    examples = [e for e in read_corpus("umls", add(tmp_path, MRSTY=[also]), ReadReport()) if e.id.startswith("umls/type/")]
    assert any("Pathologic Function" in e.labels for e in examples)
    assert not any("Pathologic Function" in e.labels for e in examples if e.answer == "Disease or Syndrome")
    assert "umls/type/C0004010" not in {e.id for e in examples}  # two other types are left where three are wanted
    assert umls._above("B", "B2.2")
    assert not umls._above("B2.2", "B2.21")


def test_pairs_of_two_relations_or_with_itself_are_left_out(tmp_path):
    more = [
        relation("C0001010", "may_prevent", "C0002010"),
        relation("C0001020", "may_treat", "C0002020"),
        relation("C0001030", "isa", "C0001030"),
        relation("C0001040", "isa", "C0001050", suppress="O"),
        relation("C0001060", "isa", "C0009999"),
    ]
    found = {i: e for i, e in by_id(add(tmp_path, MRREL=more)).items() if i.startswith("umls/relation/")}
    assert "umls/relation/C0002010/C0001010" not in found
    assert found["umls/relation/C0002020/C0001020"].answer == "may treat"
    assert not any(e.answer == "is a kind of" for e in found.values())


def test_concepts_and_pairs_are_drawn_by_hash_up_to_a_number(own, monkeypatch):
    every = by_id(own / "umls")
    monkeypatch.setattr(umls, "CONCEPTS", 40)
    monkeypatch.setattr(umls, "PAIRS_PER_RELATION", 3)
    report = ReadReport()
    few = by_id(own / "umls", report)
    kept = [e for i, e in few.items() if i.startswith("umls/define/")]
    assert all(every[e.id] == e for e in kept)
    pairs = [e.answer for i, e in few.items() if i.startswith("umls/relation/")]
    assert pairs
    assert max(pairs.count(label) for label in pairs) <= 3
    assert few == by_id(own / "umls")


# ---- files -----------------------------------------------------------------------------------------------------------


def test_files_lie_by_themselves_or_as_released_plain_or_gzipped(own, tmp_path):
    source = own / "umls" / META
    for path in source.iterdir():
        (tmp_path / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert [path.name for path in corpus_files("umls", tmp_path)] == [f"{title}.RRF.gz" for title in umls.LAYOUTS]
    assert by_id(tmp_path) == by_id(source) == by_id(own / "umls")
    (tmp_path / "MRREL.RRF.gz").unlink()
    with pytest.raises(MissingData, match=r"umls not found .* MRREL\.RRF"):
        corpus_files("umls", tmp_path)


def test_a_folder_may_have_any_name_and_lines_any_end(own, tmp_path):
    folder = tmp_path / "it's [1]*"
    folder.mkdir()
    for path in (own / "umls" / META).iterdir():
        (folder / path.name).write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert by_id(folder) == by_id(own / "umls")


GOOD = {
    "MRCONSO": name("C0001010", 1, "secret"),
    "MRDEF": definition("C0001010", 1011, "secret"),
    "MRREL": relation("C0001010", "isa", "C0001020"),
    "MRSTY": semantic_type("C0001010", "ache"),
}


@pytest.mark.parametrize("title", GOOD)
@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda line: line.replace("|\n", "\n"), "[0-9]+ cells are expected"),
        (lambda line: line.replace("|", "", 1), "[0-9]+ cells are expected"),
        (lambda line: line.replace("\n", "secret|secret|\n"), "(more cells than columns|[0-9]+ cells are expected)"),
        (lambda line: line.replace("\n", "secret|\n"), "(more cells than columns|[0-9]+ cells are expected)"),
        (lambda line: line.replace("C0001010", "secret"), "column 'CUI1?' is empty or malformed"),
        (lambda line: line.replace("C0001010", ""), "column 'CUI1?' is empty or malformed"),
    ],
)
def test_a_row_that_does_not_fit_is_named_by_line_never_quoted_and_can_be_skipped(tmp_path, title, spoil, problem):
    expected = list(read_corpus("umls", add(tmp_path / "good"), ReadReport()))
    bad = spoil(GOOD[title])
    folder = add(tmp_path / "bad", **{title: [bad]})
    lines = (folder / META / f"{title}.RRF").read_text().count("\n")
    with pytest.raises(BadData, match=rf"{title}\.RRF, line {lines}: {problem}") as caught:
        list(read_corpus("umls", folder, ReadReport()))
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None
    report = ReadReport(skip_rejected=True)
    assert list(read_corpus("umls", folder, report)) == expected
    assert [bad_row.content for bad_row in report.rejected] == [bad.rstrip("\n")]


@pytest.mark.parametrize(
    ("title", "line", "problem"),
    [
        ("MRCONSO", name("C0001010", 1, ""), "column 'STR' is empty"),
        ("MRCONSO", name("C0001010", 1, " "), "column 'STR' is empty"),
        ("MRCONSO", name("C0001010", 1, "sec\0ret"), "holds a NUL byte"),
        ("MRCONSO", name("C0001010", 1, "secret|secret"), "(more cells than columns|[0-9]+ cells are expected)"),
        ("MRDEF", definition("C0001010", 1, ""), "column 'DEF' is empty"),
        ("MRDEF", definition("C0001010", 1, "secret", suppress="?"), "column 'SUPPRESS' is empty or malformed"),
        ("MRREL", relation("C0001010", "isa", "secret"), "column 'CUI2' is empty or malformed"),
        ("MRSTY", row("C0001010", "secret", "A1", "Thing", "", ""), "column 'TUI' is empty or malformed"),
        ("MRSTY", row("C0001010", "T001", "A1", "", "", ""), "column 'STY' is empty"),
    ],
)
def test_a_cell_that_does_not_fit_is_named_by_line_and_column(tmp_path, title, line, problem):
    folder = add(tmp_path, **{title: [GOOD[title], line, GOOD[title]]})
    lines = (folder / META / f"{title}.RRF").read_text().count("\n")
    with pytest.raises(BadData, match=rf"{title}\.RRF, line {lines - 1}: ({problem})") as caught:
        list(read_corpus("umls", folder, ReadReport()))
    assert "secret" not in str(caught.value)
    report = ReadReport(skip_rejected=True)
    list(read_corpus("umls", folder, report))
    assert len(report.rejected) == 1


def test_bytes_that_are_no_text_are_named_by_line(tmp_path):
    folder = add(tmp_path)
    path = folder / META / "MRDEF.RRF"
    path.write_bytes(path.read_bytes() + GOOD["MRDEF"].encode().replace(b"secret", b"secret\xff"))
    with pytest.raises(BadData, match=r"MRDEF\.RRF, line 641: not UTF-8 text"):
        list(read_corpus("umls", folder, ReadReport()))


@pytest.mark.parametrize(
    "spoil", [lambda data: data[: len(data) // 2], lambda data: b"no gzip"], ids=["cut short", "not gzipped"]
)
def test_a_damaged_file_is_named_without_its_text(tmp_path, spoil):
    source = add(tmp_path / "good") / META
    for path in source.iterdir():
        data = gzip.compress(path.read_bytes())
        (tmp_path / f"{path.name}.gz").write_bytes(spoil(data) if path.stem == "MRREL" else data)
    with pytest.raises(BadData, match=r"MRREL\.RRF\.gz is damaged or cut short \(\w+\)"):
        list(read_corpus("umls", tmp_path, ReadReport(skip_rejected=True)))


def test_another_file_under_the_name_is_refused_at_its_first_line(tmp_path):
    folder = add(tmp_path)
    (folder / META / "MRSTY.RRF").write_text((folder / META / "MRDEF.RRF").read_text())
    with pytest.raises(BadData, match=r"MRSTY\.RRF, line 1: "):
        list(read_corpus("umls", folder, ReadReport()))


def test_columns_are_those_of_the_reference_manual():
    """Their number, and the positions of the cells that are read."""
    layouts = {title: layout.split() for title, layout in umls.LAYOUTS.items()}
    assert {title: len(layout) for title, layout in layouts.items()} == {"MRCONSO": 18, "MRDEF": 8, "MRREL": 16, "MRSTY": 6}
    positions = {title: [place for place, c in enumerate(layout) if c in umls.FORMS] for title, layout in layouts.items()}
    assert positions == {"MRCONSO": [0, 14, 16], "MRDEF": [0, 5, 6], "MRREL": [0, 4, 14], "MRSTY": [0, 1, 2, 3]}
    assert [layouts["MRREL"][i] for i in (3, 7)] == ["REL", "RELA"]
