"""MedQuAD: questions and answers of twelve web sites of the US National Institutes of Health.

    Document(id, source, url)
      Focus                                   the disease, drug or test that it is about
      FocusAnnotations .. CUI                 the focus as UMLS concepts
      QAPairs/QAPair(pid)                     Question(qid, qtype), Answer

    question_answering   question -> answer
    multiple_choice      question -> the first sentences of its answer, of five answers to questions of the same qtype

Answers of collections 10, 11 and 12 are removed for copyright (restored ones are read). Four files of 6_NINDS_QA have other
tags (doc, pair), one of 9_CDC_QA has the root DiseaseFile.

Foci that share a UMLS concept form one group, which is in one split; a concept of more than `GENERAL` foci joins nothing.
Questions and answers are compared exactly, not by MinHash: many answers are one form with other words filled in.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from xml.etree import ElementTree

from staf.data.answers import safe_label
from staf.data.archives import members
from staf.data.example import Example, dedup_key, normalise
from staf.data.layouts import Files
from staf.data.read_report import ReadReport
from staf.data.readers.shapes import Origin, choice, draw, example
from staf.data.sources import single_spaced
from staf.data.splits import split_of
from staf.errors import BadData

REMOVED = ("10_MPlus_ADAM_QA", "11_MPlusDrugs_QA", "12_MPlusHerbsSupplements_QA")
"""Collections without answers, for copyright."""
WRONG = 4
"""Wrong options of a question."""
LONGEST_OPTION = 200
"""Characters that an option shows of an answer."""
SHORTEST_OPTION = 40
"""A sentence that ends before is no option by itself: it may be a heading, or end in an abbreviation."""
GENERAL = 5
"""Foci of a UMLS concept; with more it is cancer or the like, which says little of any of them."""

_SENTENCE_END = re.compile(r"[.?!](?=\s)")
_HEADINGS = re.compile(r"^([^.?!]+\?\s+)+")


@dataclass(frozen=True, slots=True)
class _Tags:
    """What the elements of a document are called, by its root."""

    focus: str = "Focus"
    concept: str = "CUI"
    pair: str = "QAPair"
    question: str = "Question"
    answer: str = "Answer"


_TAGS = {"Document": _Tags(), "DiseaseFile": _Tags(), "doc": _Tags("doctitle-focus", "cui", "pair", "question", "answer")}


@dataclass(frozen=True, slots=True)
class Pair:
    """A question and its answer ('' where there is none); `focus` is the normalised topic of its document."""

    id: str
    collection: str
    question_type: str
    question: str
    answer: str
    focus: str


def read(files: Files, report: ReadReport) -> Iterator[Example]:
    """MedQuAD as task types question_answering and multiple_choice, split 80/10/10 by groups of foci."""
    foci: dict[str, set[str]] = defaultdict(set)
    seen: set[str] = set()

    def wanted(place: str, page: tuple[str, bytes]) -> Iterator[Pair]:
        focus, concepts, found = parse(*page)
        for concept in concepts:
            foci[concept].add(focus)
        yield from (pair for pair in found if _is_wanted(pair, seen, report))

    pages = ((place, (name, text)) for _, path in files for place, name, text in members(path, "*_QA*/*.xml"))
    pairs = list(report.each(pages, wanted))
    groups = _joined(foci)
    for pair in pairs:
        yield _question(pair, groups.get(pair.focus, pair.focus))
    yield from _choices(pairs, groups, report)


def parse(name: str, content: bytes) -> tuple[str, set[str], list[Pair]]:
    """Focus, UMLS concepts and pairs of one XML file; `name` is its path, which ends in 'collection/document.xml'."""
    name = "/".join(name.removesuffix(".xml").split("/")[-2:])
    try:
        root = ElementTree.fromstring(content)
    except ElementTree.ParseError as error:
        raise BadData(f"line {error.position[0]} is not valid XML. Get it again.") from None
    if (tags := _TAGS.get(root.tag)) is None:
        raise BadData(f"the root must be one of {', '.join(_TAGS)}.")
    focus = normalise(_text(root.find(tags.focus))) or name
    concepts = set(filter(None, map(_text, root.iter(tags.concept))))
    return focus, concepts, [_pair(element, tags, name, focus) for element in root.iter(tags.pair)]


def _pair(element: ElementTree.Element, tags: _Tags, name: str, focus: str) -> Pair:
    number, question, answer = element.get("pid", ""), element.find(tags.question), element.find(tags.answer)
    if not number.isdecimal() or question is None or answer is None:
        raise BadData(f"a pair has no number 'pid', no {tags.question} or no {tags.answer}.")
    asked, question_type = _text(question), single_spaced(question.get("qtype", ""))
    if not asked or not question_type:
        raise BadData(f"the question of pair {number} is empty or has no 'qtype'.")
    return Pair(f"{name}/{number}", name.partition("/")[0], question_type, asked, _text(answer), focus)


def _text(element: ElementTree.Element | None) -> str:
    return "" if element is None else single_spaced("".join(element.itertext()))


def _is_wanted(pair: Pair, seen: set[str], report: ReadReport) -> bool:
    """False, with the reason noted, for a pair without an answer and for one that is there already."""
    if not pair.answer:
        removed = pair.collection in REMOVED
        report.skip("the answer is removed for copyright" if removed else "the answer is empty")
        return False
    key = dedup_key(f"{pair.question} {pair.answer}")
    if key in seen:
        report.skip("the same question with the same answer is there already")
        return False
    seen.add(key)
    return True


def _joined(foci: Mapping[str, AbstractSet[str]]) -> dict[str, str]:
    """The group of each focus: the first, by name, of all that a chain of shared concepts joins it to."""
    first: dict[str, str] = {}

    def leader(focus: str) -> str:
        while first.get(focus, focus) != focus:
            focus = first[focus]
        return focus

    for concept in sorted(foci):
        if len(foci[concept]) <= GENERAL:
            leaders = sorted(leader(focus) for focus in foci[concept])
            first.update(dict.fromkeys(leaders, leaders[0]))
    return {focus: leader(focus) for focus in sorted(first)}


def _question(pair: Pair, group: str) -> Example:
    """The example with the complete answer."""
    return example(f"medquad/{pair.id}", "question_answering", "open", pair.question, pair.answer, _origin(pair, group))


def _origin(pair: Pair, group: str) -> Origin:
    keys = (dedup_key(pair.question), dedup_key(pair.answer), dedup_key(f"medquad focus {pair.focus}"))
    return Origin(split_of(f"medquad/{group}"), keys, dedup_key(f"medquad {group}"))


@dataclass(slots=True)
class _Pool:
    """Options from answers to one type of question by normalised text, the groups of each, and the texts of each group."""

    options: dict[str, str] = field(default_factory=dict)
    givers: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    given: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def add(self, option: str, group: str) -> None:
        """Put an option of a group's answer in."""
        key = normalise(option)
        self.options.setdefault(key, option)
        self.givers[key].add(group)
        self.given[group].add(key)

    def wrong(self, key: str, group: str) -> list[str]:
        """Up to `WRONG` options, drawn by `key`, that no answer about the group gives."""
        drawn = draw(key, self.options, WRONG + len(self.given[group]))
        return [self.options[name] for name in drawn if group not in self.givers[name]][:WRONG]


def _choices(pairs: Sequence[Pair], groups: Mapping[str, str], report: ReadReport) -> Iterator[Example]:
    """The examples with five options; wrong ones from the same collection where it has enough."""
    asked = [(pair, groups.get(pair.focus, pair.focus), opening(pair.answer)) for pair in pairs]
    pools: dict[tuple[str, str, str], _Pool] = defaultdict(_Pool)
    for pair, group, option in sorted(asked, key=lambda item: item[0].id):
        for collection in (pair.collection, ""):
            pools[_origin(pair, group).split, pair.question_type, collection].add(option, group)
    for pair, group, option in asked:
        example_id, origin = f"medquad/{pair.id}/choice", _origin(pair, group)
        near, far = (pools[origin.split, pair.question_type, collection] for collection in (pair.collection, ""))
        different: dict[str, str] = {}
        for other in (*near.wrong(example_id, group), *far.wrong(f"{example_id} far", group)):
            different.setdefault(normalise(other), other)
        wrong = list(different.values())
        if len(wrong) < WRONG:
            report.skip("fewer than four other answers to the same kind of question in its split")
        else:
            yield choice(example_id, "multiple_choice", "passage", pair.question, option, wrong[:WRONG], origin)


def opening(answer: str) -> str:
    """The first sentences of an answer that fit into `LONGEST_OPTION`, else its first words.

    Leading questions are headings of the page, which repeat what is asked; they are left out.
    """
    text = _HEADINGS.sub("", safe_label(answer))
    if len(text) > LONGEST_OPTION:
        ends = [match.end() for match in _SENTENCE_END.finditer(text, 0, LONGEST_OPTION + 1)]
        end = ends[-1] if ends and ends[-1] >= SHORTEST_OPTION else text.rfind(" ", 0, LONGEST_OPTION + 1)
        text = text[: end if end > 0 else LONGEST_OPTION]
    return text.rstrip(" .,:-") or text
