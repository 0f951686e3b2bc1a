"""Recognizing question entailment (Ben Abacha and Demner-Fushman, 2016): does one question entail another?

    RQE_Train_8588_AMIA2016.xml      pairs of a clinician's question and a short question
    RQE_Test_302_pairs_AMIA2016.xml  pairs of a consumer's question and a frequent question: the authors' test, unchanged
    <pair pid type value="true|false"> <chq>the long question</chq> <faq>the short one</faq>

Left out of the training file are pairs of the same text (all but one are true), pairs without a question, repeated pairs, and
pairs with both labels. The rest is split 90/10 by the long question into train and adaptation.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from staf.data.dedup import minhash_keys
from staf.data.example import Example, dedup_key, normalise
from staf.data.read_report import ReadReport
from staf.data.readers.shapes import Origin, example
from staf.data.sources import find_one, opened, single_spaced
from staf.data.splits import split_of
from staf.errors import BadData

LAYOUTS = {"train": ("RQE_Train_*.xml",), "test": ("RQE_Test_*.xml",)}
ANSWERS = {"true": "yes", "false": "no"}
LABELS = tuple(ANSWERS.values())
SHARES = (90, 10, 0)


@dataclass(frozen=True, slots=True)
class Pair:
    """One `pair` element; None where it is missing."""

    pid: str | None
    value: str | None
    chq: str | None
    faq: str | None

    @property
    def wording(self) -> tuple[str, str]:
        """Both questions as compared for sameness."""
        return normalise(self.chq or ""), normalise(self.faq or "")


def files(folder: Path) -> list[Path]:
    """The training and the test file under `folder`; MissingData where one is not there."""
    return [find_one(folder, patterns, "rqe-amia2016") for patterns in LAYOUTS.values()]


def read(folder: Path, report: ReadReport) -> Iterator[Example]:
    """Question entailment as task type natural_language_inference."""
    for part, path in zip(LAYOUTS, files(folder), strict=True):
        yield from _part(path, part, report)


def _part(path: Path, part: str, report: ReadReport) -> Iterator[Example]:
    records = list(_pairs(path))
    values: dict[tuple[str, str], set[str | None]] = defaultdict(set)
    for _, pair in records:
        values[pair.wording].add(pair.value)
    seen: set[tuple[str, str]] = set()

    def make(place: str, pair: Pair) -> Iterator[Example]:
        if pair.pid is None or pair.chq is None or pair.faq is None or pair.value not in ANSWERS:
            raise BadData(f"{place}: pid, chq or faq is missing, or the value is neither true nor false.")
        chq, faq = pair.wording
        reasons = {
            "a pair with an empty question": not chq or not faq,
            "a pair of the same text": part != "test" and chq == faq,
            "a pair with contradicting labels": part != "test" and len(values[pair.wording]) > 1,
            "a repeated pair": part != "test" and pair.wording in seen,
        }
        seen.add(pair.wording)
        if reason := next((reason for reason, applies in reasons.items() if applies), ""):
            report.skip(reason)
        else:
            yield _example(f"rqe-amia2016/{part}/{pair.pid}", pair, part)

    yield from report.each(records, make)


def _pairs(path: Path) -> Iterator[tuple[str, Pair]]:
    """Each `pair` element with its place; numbers count pairs from 1."""
    number = 0
    with opened(path) as stream:
        try:
            for _, element in ET.iterparse(stream):
                if element.tag == "pair":
                    number += 1
                    pair = Pair(element.get("pid"), element.get("value"), element.findtext("chq"), element.findtext("faq"))
                    yield f"{path}, pair {number}", pair
                    element.clear()
        except ET.ParseError as error:
            raise BadData(f"{path}, line {error.position[0]}: not valid XML. Get it again.") from None


def _example(example_id: str, pair: Pair, part: str) -> Example:
    chq, faq = single_spaced(pair.chq or ""), single_spaced(pair.faq or "")
    context = f"First question: {chq} Second question: {faq}"
    origin = Origin(
        "test" if part == "test" else split_of(normalise(chq), SHARES), (*minhash_keys(chq), dedup_key(context)), dedup_key(chq)
    )
    return example(example_id, "natural_language_inference", "questions", context, ANSWERS[pair.value or ""], origin, LABELS)
