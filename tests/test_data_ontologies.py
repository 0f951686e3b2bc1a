"""Ontologies: the OBO format, and what is made of the Human Phenotype Ontology; on texts that we wrote."""

from __future__ import annotations

import gzip

import pytest
from corpora import read_corpus, separate

from staf.data.example import dedup_key, normalise
from staf.data.read_report import ReadReport
from staf.data.readers import ontology as obo
from staf.data.readers.ontologies import PHENOTYPES, system_label
from staf.errors import BadData

OBO = r"""format-version: 1.2
! a comment

[Term]
id: X:1
name: hoof\: bare
def: "A \"bare\" hoof,\nwith \[marks\]." [a:b, "c"] {x="y"}
synonym: "naked hoof" EXACT layperson [a:b]
synonym: "hoof [sic]" RELATED []
is_a: X:2 {source="z"} ! beast
is_a: X:3

[Typedef]
id: part_of

[Term]
id: X:2
name: old
is_obsolete: true
"""


@pytest.mark.parametrize("name", ["x.obo", "x.obo.gz"])
def test_terms_are_read_with_escapes_synonyms_parents_and_obsolete(tmp_path, name):
    data = OBO.encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    first, second = obo.terms(tmp_path / name)
    assert (first.id, first.name, first.definition) == ("X:1", "hoof: bare", 'A "bare" hoof, with [marks].')
    assert first.synonyms == (
        obo.Synonym("naked hoof", "EXACT", "layperson"),
        obo.Synonym("hoof [sic]", "RELATED", ""),
    )
    assert (first.is_a, first.obsolete) == (("X:2", "X:3"), False)
    assert (second.id, second.obsolete) == ("X:2", True)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("format-version: 1.2\n", "", "not an OBO file"),
        ("id: X:1\n", "", "line 4: the term has no id"),
        ("name: old", "name: old\nname: older", "line 19: 'name' is empty or given twice"),
        ('def: "A', "def: A", "line 7: a text in quotation marks"),
        ("EXACT", "EXACTLY", "line 8: a synonym needs a scope"),
        ("id: X:2\n", "id: X:1\n", "line 16: the id of this term was used before"),
        ("is_a: X:3", "is_a:", "no id, no name or an empty is_a"),
        ("is_obsolete: true", "is_obsolete", "line 19: 'tag: value'"),
    ],
)
def test_a_stanza_that_does_not_fit_is_named_by_line(tmp_path, old, new, message):
    assert old in OBO
    (tmp_path / "x.obo").write_text(OBO.replace(old, new, 1))
    with pytest.raises(BadData, match=message):
        list(obo.terms(tmp_path / "x.obo"))


def test_a_gzip_stream_that_stops_early_is_an_error(tmp_path):
    (tmp_path / "x.obo.gz").write_bytes(gzip.compress(OBO.encode())[:-20])
    with pytest.raises(BadData, match="cut short"):
        list(obo.terms(tmp_path / "x.obo.gz"))


def test_siblings_share_a_split_and_no_name_of_theirs_is_in_another(own):
    known = obo.below(own / "hpo" / "hp.obo", "hpo", PHENOTYPES, ReadReport())
    for term in known.terms:
        assert {known.origin(s).split for s in known.siblings(term)} <= {known.origin(term).split}
    examples = list(read_corpus("hpo", own / "hpo", ReadReport()))
    assert separate(examples) == (examples, 0)


def test_wrong_answers_are_wrong_and_the_right_one_is_a_parent(own):
    known = obo.below(own / "hpo" / "hp.obo", "hpo", PHENOTYPES, ReadReport())
    by_name = {term.name: i for i, term in known.terms.items()}
    relations = [e for e in read_corpus("hpo", own / "hpo", ReadReport()) if e.id.startswith("hpo/broader/")]
    for example in relations:
        term = by_name[example.context]
        assert by_name[example.answer] in known.parents[term]
        wrong = [by_name[label] for label in example.labels if label != example.answer]
        assert not any(known.related(term, w) for w in wrong)
        assert {s for w in wrong for s in known.branches(w)} == set(known.branches(term))


def test_a_synonym_belongs_to_the_answer_and_to_no_other_option(own):
    known = obo.below(own / "hpo" / "hp.obo", "hpo", PHENOTYPES, ReadReport())
    names = {t.name: {normalise(n) for n in (t.name, *(s.text for s in t.synonyms))} for t in known.terms.values()}
    items = [e for e in read_corpus("hpo", own / "hpo", ReadReport()) if e.task_type == "entity_synonymy"]
    assert items
    for example in items:
        assert [label for label in example.labels if normalise(example.context) in names[label]] == [example.answer]
        assert example.dedup_keys == (dedup_key(example.answer), dedup_key(example.context))


def test_organ_systems_are_named_without_their_opening_words():
    assert system_label("Abnormality of the nervous system") == "nervous system"
    assert system_label("Abnormality of limbs") == "limbs"
    assert system_label("Growth abnormality") == "growth"
    assert system_label("Neoplasm") == "neoplasm"


def test_a_term_below_itself_is_refused(tmp_path):
    text = "format-version: 1.2\n\n" + "\n\n".join(
        f"[Term]\nid: {i}\nname: n\n" + "\n".join(f"is_a: {p}" for p in parents)
        for i, parents in {PHENOTYPES: [], "HP:1": [PHENOTYPES, "HP:2"], "HP:2": ["HP:1"]}.items()
    )
    (tmp_path / "hp.obo").write_text(text)
    with pytest.raises(BadData, match="each other's ancestors"):
        obo.below(tmp_path / "hp.obo", "hpo", PHENOTYPES, ReadReport())


def test_an_ontology_without_phenotypes_is_refused(tmp_path):
    (tmp_path / "hp.obo").write_text(OBO)
    with pytest.raises(BadData, match="no current term HP:0000118"):
        obo.below(tmp_path / "hp.obo", "hpo", PHENOTYPES, ReadReport())
