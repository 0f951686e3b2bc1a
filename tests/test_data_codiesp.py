"""CodiEsp and PharmaCoNER: codes, titles and drug classes of cases, one split, and no answer in the text."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
from corpora import corpus_files, read_corpus
from distributed import distributed
from formats import codiesp as fixture

from staf.data.answers import read_several
from staf.data.archives import members
from staf.data.example import Example, normalise
from staf.data.read_report import ReadReport
from staf.data.readers import codiesp
from staf.data.selection import task_examples
from staf.data.store import DataStore
from staf.data.task import builtin_tasks
from staf.errors import BadData, MissingData

TEXT = "A beast limps.\nIt was given Paracetamol at once.\nIt was on steroids.\nIt limps no more.\n"


def cases(tmp_path: Path, *rows: fixture.Case) -> dict[str, Example]:
    fixture.write_cases(tmp_path / "codiesp" / "codiesp.zip", {"dev": list(rows)})
    return {e.id: e for e in read_corpus("codiesp", tmp_path / "codiesp", ReadReport())}


def drugs(tmp_path: Path, *rows: tuple[str, str], report: ReadReport | None = None) -> list[Example]:
    cases(tmp_path, ("S1", TEXT, ["r52"]))
    fixture.write_mentions(tmp_path / "pharmaconer" / "dev-set.zip", {"S1": rows})
    return list(read_corpus("pharmaconer", tmp_path / "pharmaconer", report or ReadReport()))


def test_codes_are_written_as_icd_10_cm_prints_them_once_each_with_their_titles(tmp_path):
    (example,) = cases(tmp_path, ("S1", TEXT, ["r52", "e11.9", "r52", "z99.987"])).values()
    assert example.answer == ("R52 Pain, unspecified; E11.9 Type 2 diabetes mellitus without complications; Z99.987")
    assert (example.split, example.labels) == ("adaptation", ())
    assert example.context == "A beast limps. It was given Paracetamol at once. It was on steroids. It limps no more."


def test_the_labels_of_a_mention_are_drug_classes_and_laboratory_substances_give_none(tmp_path):
    rows = [("NORMALIZABLES", "Paracetamol"), ("NORMALIZABLES", "creatinina"), ("PROTEINAS", "insulina")]
    (example,) = drugs(tmp_path, *rows, ("NORMALIZABLES", "6-metilprednisolona"))
    assert read_several(example.answer) == ("antidiabetics", "corticosteroids", "non-opioid analgesics")


def test_sentences_that_name_a_drug_or_a_class_are_not_in_the_text(tmp_path):
    (example,) = drugs(tmp_path, ("NORMALIZABLES", "paracetamol"))
    assert example.context == "A beast limps. It limps no more."


def test_both_corpora_share_split_group_and_deduplication_keys(tmp_path):
    (medicated,) = drugs(tmp_path, ("NORMALIZABLES", "paracetamol"))
    (coded,) = read_corpus("codiesp", tmp_path / "codiesp", ReadReport())
    assert (medicated.split, medicated.group, medicated.dedup_keys) == (coded.split, coded.group, coded.dedup_keys)


def test_a_case_without_a_listed_drug_is_left_out_with_its_reason(tmp_path):
    report = ReadReport()
    assert not drugs(tmp_path, ("NORMALIZABLES", "calcio"), report=report)
    assert report.skipped == {"a case that names no drug of the list": 1}


def test_pharmaconer_without_codiesp_says_that_codiesp_is_missing(tmp_path):
    fixture.write_mentions(tmp_path / "pharmaconer" / "dev-set.zip", {"S1": []})
    with pytest.raises(MissingData, match="codiesp not found"):
        corpus_files("pharmaconer", tmp_path / "pharmaconer")


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([("S1", "", ["r52"])], "is empty"),
        ([("S1", TEXT, ["pain"])], "not an ICD-10-CM code"),
        ([("S1", TEXT, [" "])], "line 1: a case id, a tab and a code"),
    ],
)
def test_what_does_not_fit_is_refused_by_file(tmp_path, rows, problem):
    with pytest.raises(BadData, match=rf"codiesp\.zip, .*{problem}"):
        cases(tmp_path, *rows)


def test_codes_of_a_case_without_a_text_and_a_bad_annotation_are_refused(tmp_path):
    with pytest.raises(BadData, match="expected, TYPE one of"):
        drugs(tmp_path, ("DRUG", "paracetamol"))
    parts = {"train": [("S1", TEXT, ["r52"])], "background": [("S2", TEXT, ["r52"])]}
    fixture.write_cases(tmp_path / "codiesp" / "codiesp.zip", parts)
    with pytest.raises(BadData, match="1 cases have diagnosis codes but no text"):
        list(read_corpus("codiesp", tmp_path / "codiesp", ReadReport()))


def test_an_unpacked_folder_reads_as_the_archive_does(tmp_path):
    packed = cases(tmp_path, ("S1", TEXT, ["r52"]), ("S2", TEXT, ["i10"]))
    for _, name, content in members(tmp_path / "codiesp" / "codiesp.zip", "*"):
        path = tmp_path / "open" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    assert {e.id: e for e in read_corpus("codiesp", tmp_path / "open", ReadReport())} == packed


def test_tasks_list_their_labels_in_queries_of_icd_10_cm_and_of_drug_classes(own):
    store = DataStore(own, fetch=False)
    coded = task_examples(builtin_tasks()["icd_coding_top10_codiesp"], "test", store)
    assert coded[0].labels[0].startswith("E11.9 Type 2")
    assert all("ICD-9" not in e.query and "; ".join(e.labels) in e.query for e in coded)
    medicated = task_examples(builtin_tasks()["medication_codiesp"], "test", store)
    assert all("class" in e.query and "antibacterials" in e.labels for e in medicated)


def test_every_class_and_name_of_the_drug_list_is_unique():
    rows = codiesp.rows_of("drug_classes.tsv")
    names = Counter(normalise(name) for _, _, spanish in rows for name in set(spanish.split("|")))
    assert [name for name, count in names.items() if count > 1] == []


def test_the_distributed_files_give_the_counts_of_their_description():
    folder = distributed("codiesp")
    coded = list(read_corpus("codiesp", folder, ReadReport()))
    assert Counter(e.split for e in coded) == {"train": 500, "adaptation": 250, "test": 250}
    pairs = Counter[str]()
    for example in coded:
        pairs[example.split] += len(read_several(example.answer))
    assert pairs == {"train": 5639, "adaptation": 2677, "test": 2842}
    archives = [path for path in corpus_files("pharmaconer", distributed("pharmaconer")) if path.parent.name == "pharmaconer"]
    annotated = [content.decode() for path in archives for _, _, content in members(path, "*subtrack1/*.ann")]
    kinds = Counter(kind for content in annotated for kind in re.findall(r"^T\d+\t(\w+)", content, re.M))
    assert len(annotated) == 750
    assert kinds == {"NORMALIZABLES": 3425, "PROTEINAS": 2150, "UNCLEAR": 133, "NO_NORMALIZABLES": 40}
    report = ReadReport()
    medicated = list(read_corpus("pharmaconer", distributed("pharmaconer"), report))
    assert len(medicated) + sum(report.skipped.values()) == 750
    assert {e.group for e in medicated} <= {e.group for e in coded}
