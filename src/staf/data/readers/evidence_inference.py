"""Evidence Inference 2.0 (DeYoung et al., 2020): the effect of an intervention on an outcome, and its evidence.

    v2_annotations.csv               PromptID, PMCID, Valid Label, Valid Reasoning, Label, Annotations (the evidence),
                                     Label Code (-1, 0, 1), Evidence Start, Evidence End (exclusive), ..
    prompts_merged.csv               PromptID, PMCID, Outcome, Intervention, Comparator
    txt_files.tar.gz                 txt_files/PMC<id>.txt, the articles

    natural_language_inference   prompt and evidence -> effect
    reading_comprehension        prompt and a piece of the article -> evidence

A prompt gives two examples, from its first annotation with valid label and reasoning; none where its valid labels contradict
each other. The label is read from its code, since its text is spelt in two ways. Split by article, by hash: the authors' test
has 247 prompts, too few to tell methods apart.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from staf.data.archives import members
from staf.data.dedup import minhash_keys
from staf.data.example import Example, dedup_key
from staf.data.layouts import Files
from staf.data.read_report import ReadReport
from staf.data.readers.shapes import Origin, Row, drawn, example, window
from staf.data.sources import csv_rows, decoded, single_spaced, text_field
from staf.errors import BadData

SHARES = (57, 15, 28)
EFFECTS = {"1": "significantly increased", "-1": "significantly decreased", "0": "no significant difference"}
"""By code."""
PROMPT_COLUMNS = ("PromptID", "PMCID", "Outcome", "Intervention", "Comparator")
COLUMNS = (
    "PromptID", "PMCID", "Valid Label", "Valid Reasoning", "Label", "Annotations", "Label Code", "Evidence Start",
    "Evidence End",
)  # fmt: skip

Asked = dict[tuple[str, str], str]
"""Outcome, intervention and comparator in one text, by article and prompt."""

_TRUTH = {"True": True, "False": False, "1": True, "0": False}
_MARK = "|"
"""Stands for the evidence while white space around it is made single."""


class Annotation(NamedTuple):
    """One row of the annotations; `valid` where label and reasoning are, `start` to `end` (exclusive) count characters."""

    prompt: str
    effect: str
    valid_label: bool
    valid: bool
    start: int
    end: int
    evidence: str


def read(files: Files, report: ReadReport) -> Iterator[Example]:
    """Evidence Inference as task types natural_language_inference and reading_comprehension."""
    paths = dict(files)
    asked = _asked(paths["prompts"], report)
    waiting = _annotations(paths["annotations"], asked, report)

    def article(place: str, found: tuple[str, bytes]) -> Iterator[Example]:
        yield from _prompts(*found, waiting.pop(found[0]), asked, report)

    texts = (
        (place, (PurePosixPath(name).stem.removeprefix("PMC"), text))
        for place, name, text in members(paths["articles"], "*.txt")
    )
    yield from report.each(((place, found) for place, found in texts if found[0] in waiting), article)
    if waiting:
        raise BadData(
            f"{paths['articles']} does not hold {len(waiting)} of the articles that the annotations name. Get it again."
        )


def _asked(path: Path, report: ReadReport) -> Asked:
    found: Asked = {}

    def make(place: str, row: Row) -> Iterator[tuple[tuple[str, str], str]]:
        asked = " ".join(f"{part}: {text_field(row, part)}" for part in PROMPT_COLUMNS[2:])
        if found.setdefault((row["PMCID"], row["PromptID"]), asked) != asked:
            raise BadData("its prompt is listed before, with other words.")
        yield (row["PMCID"], row["PromptID"]), asked

    return dict(report.each(csv_rows(path, report, PROMPT_COLUMNS), make))


def _annotations(path: Path, asked: Asked, report: ReadReport) -> dict[str, dict[str, list[Annotation]]]:
    """The annotations by article, then by prompt."""
    found: dict[str, dict[str, list[Annotation]]] = defaultdict(lambda: defaultdict(list))

    def make(place: str, row: Row) -> Iterator[tuple[str, Annotation]]:
        if (row["PMCID"], row["PromptID"]) not in asked:
            raise BadData("its prompt is not among the prompts on its article.")
        yield row["PMCID"], _annotation(row)

    for article, annotation in report.each(csv_rows(path, report, COLUMNS), make):
        found[article][annotation.prompt].append(annotation)
    return dict(found)


def _annotation(row: Row) -> Annotation:
    effect = EFFECTS.get(row["Label Code"])
    label, reasoning = _TRUTH.get(row["Valid Label"]), _TRUTH.get(row["Valid Reasoning"])
    if effect is None or label is None or reasoning is None:
        raise BadData("the label code must be -1, 0 or 1, and what is valid True or False.")
    if not row["Annotations"].strip():
        raise BadData("the evidence is empty.")
    try:
        start, end = int(row["Evidence Start"]), int(row["Evidence End"])
    except ValueError:
        raise BadData("the start or the end of the evidence is no number.") from None
    return Annotation(row["PromptID"], effect, label, label and reasoning, start, end, row["Annotations"])


def _prompts(
    article_id: str, content: bytes, found: dict[str, list[Annotation]], asked: Asked, report: ReadReport
) -> Iterator[Example]:
    """Two examples of each prompt on an article of which the annotators agree."""
    text = decoded(content).replace("\r\n", "\n")
    for prompt, given in found.items():
        effects = {a.effect for a in given if a.valid_label}
        usable = [a for a in given if a.valid and text[a.start : a.end] == a.evidence]
        if not effects:
            report.skip("a prompt without a valid label")
        elif len(effects) > 1:
            report.skip("a prompt with contradicting labels")
        elif not usable:
            report.skip("a prompt without valid evidence that stands at its offsets")
        else:
            keys = (dedup_key(f"evidence-inference document {article_id}"), *minhash_keys(usable[0].evidence))
            origin = drawn(f"evidence-inference/{article_id}", *keys, shares=SHARES)
            yield from _examples(text, asked[article_id, prompt], usable[0], origin)


def _examples(text: str, asked: str, annotation: Annotation, origin: Origin) -> Iterator[Example]:
    evidence, labels = single_spaced(annotation.evidence), tuple(EFFECTS.values())
    name, context = f"evidence-inference/effect/{annotation.prompt}", f"{asked} Evidence: {evidence}"
    yield example(name, "natural_language_inference", "effect", context, annotation.effect, origin, labels)
    before = single_spaced(text[: annotation.start] + _MARK)[: -len(_MARK)]
    after = single_spaced(_MARK + text[annotation.end :])[len(_MARK) :]
    name = f"evidence-inference/evidence/{annotation.prompt}"
    piece = window(name, before + evidence + after, len(before), len(before) + len(evidence))
    yield example(name, "reading_comprehension", "evidence", f"{asked} Report: {piece}", evidence, origin, output_type="span")
