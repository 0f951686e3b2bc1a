"""Corpora of pairs, or single sentences, with one label each: entailment, causal claims and relations.

    mednli                  mli_{train,dev,test}_v1.jsonl   {"gold_label", "pairID", "sentence1", "sentence2"}
    rqe-amia2016            RQE_{Train,Test}_*.xml          <pair pid value="true|false"> <chq>question</chq> <faq>short</faq>
    pubmed-causal-language  sentence, label                 0 none, 1 direct, 2 conditional, 3 correlation
    mimicause               E1, E2, Text, Label             Florin,swelling,"Took <e1>Florin</e1> , ..","Cause(E1,E2)"
    pharmacotherapydb       doid_id, drugbank_id, disease, drug, category (tabs)   DM, SYM, or NOT: rejected by the physicians

MedNLI (Romanov and Shivade, 2018): pairs of one premise form a group. Question entailment (Ben Abacha and Demner-Fushman,
2016): left out of the training file are pairs of the same text (all but one are true), pairs without a question, repeated
pairs, and pairs with both labels; the rest is split 90/10 by the long question into train and adaptation. Causal language in
PubMed (Yu, Li and Wang, 2019): a repeated sentence is used once, and not at all where its labels contradict each other.
MIMICause (Khetan et al., 2022): the columns are those of its card (huggingface.co/datasets/pensieves/mimicause); the spelling
of its labels is not documented in public, so that a label is read by name in any case and spacing, or by its number 0 to 8.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from staf.data.dedup import minhash_keys
from staf.data.example import Example, dedup_key, normalise
from staf.data.json_files import json_lines
from staf.data.layouts import Files
from staf.data.read_report import ReadReport
from staf.data.readers.shapes import (
    Origin,
    Row,
    between,
    drawn,
    each_record,
    example,
    number_of,
    pair,
    vocabulary,
)
from staf.data.sources import csv_rows, one_of, single_spaced, text_field, xml_records
from staf.data.splits import split_of
from staf.errors import BadData

ENTAILMENT = ("entailment", "neutral", "contradiction")
ENTAILS = {"true": "yes", "false": "no"}
TRAINING_SHARES = (90, 10, 0)
CLAIM_SHARES = (65, 13, 22)
CLAIMS = {"0": "no causation", "1": "direct causation", "2": "conditional causation", "3": "correlation"}
EFFECTS: dict[str, str] = vocabulary("mimicause_relations")
EFFECT_LABELS = tuple(EFFECTS.values())
EFFECT_COLUMNS = ("E1", "E2", "Text", "Label")
INDICATIONS = {"DM": "disease modifying", "SYM": "symptomatic", "NOT": "not indicated"}
INDICATION_COLUMNS = ("doid_id", "drugbank_id", "disease", "drug", "category")

_MARK = re.compile(r"</?e[12]>", re.IGNORECASE)


@each_record(json_lines)
def mednli(place: str, record: Row, split: str, report: ReadReport) -> Iterator[Example]:
    """MedNLI as task type natural_language_inference."""
    premise, hypothesis, pair_id = (text_field(record, name) for name in ("sentence1", "sentence2", "pairID"))
    label = one_of(record, "gold_label", ENTAILMENT)
    context = f"Premise: {premise} Hypothesis: {hypothesis}"
    origin = Origin(split, (*minhash_keys(premise), dedup_key(context)), dedup_key(premise))
    yield example(f"mednli/{pair_id}", "natural_language_inference", "sentences", context, label, origin, ENTAILMENT)


def question_entailment(files: Files, report: ReadReport) -> Iterator[Example]:
    """Question entailment as task type natural_language_inference; the authors' test stays unchanged."""
    for part, path in files:
        yield from _entailments(path, part, report)


def _entailments(path: Path, part: str, report: ReadReport) -> Iterator[Example]:
    values: dict[tuple[str, str], set[str | None]] = defaultdict(set)
    for _, record in xml_records(path, "pair"):
        values[_wording(record)].add(record.get("value"))
    seen: set[tuple[str, str]] = set()

    def make(place: str, record: Row) -> Iterator[Example]:
        if not {"pid", "chq", "faq"} <= record.keys() or record.get("value") not in ENTAILS:
            raise BadData("pid, chq or faq is missing, or the value is neither true nor false.")
        wording = _wording(record)
        reasons = {
            "a pair with an empty question": not all(wording),
            "a pair of the same text": part != "test" and wording[0] == wording[1],
            "a pair with contradicting labels": part != "test" and len(values[wording]) > 1,
            "a repeated pair": part != "test" and wording in seen,
        }
        seen.add(wording)
        if reason := next((reason for reason, applies in reasons.items() if applies), ""):
            report.skip(reason)
            return
        chq, faq = single_spaced(record["chq"]), single_spaced(record["faq"])
        context = f"First question: {chq} Second question: {faq}"
        split = "test" if part == "test" else split_of(wording[0], TRAINING_SHARES)
        origin = Origin(split, (*minhash_keys(chq), dedup_key(context)), dedup_key(chq))
        name, answer = f"rqe-amia2016/{part}/{record['pid']}", ENTAILS[record["value"]]
        labels = tuple(ENTAILS.values())
        yield example(name, "natural_language_inference", "questions", context, answer, origin, labels)

    yield from report.each(xml_records(path, "pair"), make)


def _wording(record: Row) -> tuple[str, str]:
    """Both questions as compared for sameness."""
    return normalise(record.get("chq", "")), normalise(record.get("faq", ""))


def causal_language(files: Files, report: ReadReport) -> Iterator[Example]:
    """Sentences on causes as task type relation_extraction, split by sentence: 22 % are the test."""
    ((_, path),) = files
    columns, seen = ("sentence", "label"), set[str]()
    labels: dict[str, set[str]] = defaultdict(set)
    for _, row in csv_rows(path, ReadReport(skip_rejected=True), columns):
        labels[normalise(row["sentence"])].add(row["label"])

    def make(place: str, row: Row) -> Iterator[Example]:
        sentence, wording = text_field(row, "sentence"), normalise(row["sentence"])
        claim = CLAIMS[one_of(row, "label", CLAIMS)]
        if len(labels[wording]) > 1:
            report.skip("a sentence with contradicting labels")
        elif wording in seen:
            report.skip("a repeated sentence")
        else:
            seen.add(wording)
            name, origin = (
                f"pubmed-causal-language/{number_of(place)}",
                drawn(wording, *minhash_keys(sentence), shares=CLAIM_SHARES),
            )
            yield example(name, "relation_extraction", "sentence", sentence, claim, origin, tuple(CLAIMS.values()))

    yield from report.each(csv_rows(path, report, columns), make)


@each_record(partial(csv_rows, columns=EFFECT_COLUMNS))
def mimicause(place: str, row: Row, part: str, report: ReadReport) -> Iterator[Example]:
    """MIMICause as task type relation_extraction, split 80/10/10 by the hash of the text."""
    first, second, marked, label = (text_field(row, name) for name in EFFECT_COLUMNS)
    by_number = dict(zip(map(str, range(len(EFFECTS))), EFFECT_LABELS, strict=True))
    answer = EFFECTS.get(re.sub(r"\s", "", label).casefold()) or by_number.get(label)
    if answer is None:
        raise BadData("the label is none of Cause, Enable, Prevent or Hinder with (E1,E2) or (E2,E1), or Other.")
    if not all(f"<e{number}>" in marked.casefold() for number in (1, 2)):
        raise BadData("the text does not mark both entities, by <e1>..</e1> and <e2>..</e2>.")
    text = single_spaced(_MARK.sub("", marked))
    group = normalise(text)
    origin = Origin(split_of(group), minhash_keys(text), dedup_key(group))
    yield pair(f"mimicause/{number_of(place)}", (first, second), text, answer, EFFECT_LABELS, origin)


@each_record(partial(csv_rows, columns=INDICATION_COLUMNS, delimiter="\t", quoted=False))
def pharmacotherapydb(place: str, row: Row, part: str, report: ReadReport) -> Iterator[Example]:
    """What a drug does for a disease as task type entity_relation, split 80/10/10 by disease."""
    disease_id, drug_id, disease, drug = (text_field(row, name) for name in INDICATION_COLUMNS[:-1])
    answer = INDICATIONS[one_of(row, "category", INDICATIONS)]
    origin = drawn(f"pharmacotherapydb/{disease_id}", dedup_key(disease))
    name, labels = f"pharmacotherapydb/{disease_id}/{drug_id}", tuple(INDICATIONS.values())
    yield example(name, "entity_relation", "between", between(drug, disease), answer, origin, labels)
