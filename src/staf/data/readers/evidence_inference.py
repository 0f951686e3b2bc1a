"""Evidence Inference 2.0 (DeYoung et al., 2020): the effect of an intervention on an outcome, and its evidence.

    v2_annotations.csv               PromptID, PMCID, Valid Label, Valid Reasoning, Label, Annotations (the evidence),
                                     Label Code (-1, 0, 1), Evidence Start, Evidence End (exclusive), ..
    prompts_merged.csv               PromptID, PMCID, Outcome, Intervention, Comparator
    splits/ev2_*_article_ids.txt     train, validation (adaptation) and test: one PMCID a line
    txt_files.tar.gz                 txt_files/PMC<id>.txt, the articles

    natural_language_inference   prompt and evidence -> effect
    reading_comprehension        prompt and a piece of the article -> evidence

A prompt gives two examples, from its first annotation with valid label and reasoning; none where its valid labels contradict
each other. The label is read from its code, since its text is spelt in two ways.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from staf.data.archives import members
from staf.data.dedup import minhash_keys
from staf.data.example import Example, dedup_key
from staf.data.read_report import ReadReport
from staf.data.readers.shapes import Origin, example, window
from staf.data.sources import csv_rows, find_one, single_spaced, text_field, text_lines
from staf.errors import BadData

NAME = "evidence-inference"
PARTS = {"train": "train", "validation": "adaptation", "test": "test"}
"""Our split of each of theirs."""
FILES = ("v2_annotations.csv", "prompts_merged.csv", *(f"splits/ev2_{part}_article_ids.txt" for part in PARTS))
ARTICLES = ("txt_files.tar.gz", "txt_files.zip")
EFFECTS = {"1": "significantly increased", "-1": "significantly decreased", "0": "no significant difference"}
"""By code."""
LABELS = tuple(EFFECTS.values())
PROMPT_COLUMNS = ("PromptID", "PMCID", "Outcome", "Intervention", "Comparator")
COLUMNS = (
    "PromptID", "PMCID", "Valid Label", "Valid Reasoning", "Label", "Annotations", "Label Code", "Evidence Start",
    "Evidence End",
)  # fmt: skip

_TRUTH = {"True": True, "False": False, "1": True, "0": False}
_MARK = "|"
"""Stands for the evidence while white space around it is made single."""


@dataclass(frozen=True, slots=True)
class Annotation:
    """One row of the annotations; `valid` where label and reasoning are, `start` to `end` (exclusive) count characters."""

    effect: str
    valid_label: bool
    valid: bool
    start: int
    end: int
    evidence: str


@dataclass(frozen=True, slots=True)
class Report:
    """One article, by its number in PubMed Central."""

    id: str
    split: str
    text: str

    @property
    def group(self) -> str:
        """What all prompts on it have in common."""
        return f"{NAME}/{self.id}"

    def dedup_keys(self, annotation: Annotation) -> tuple[str, ...]:
        """The article, and the wording of the evidence."""
        return (dedup_key(f"{NAME} document {self.id}"), *minhash_keys(annotation.evidence))


def files(folder: Path) -> list[Path]:
    """Annotations, prompts, splits and articles under `folder`; MissingData where one is not there."""
    return [*(find_one(folder, (name,), NAME) for name in FILES), find_one(folder, ARTICLES, NAME)]


def read(folder: Path, report: ReadReport) -> Iterator[Example]:
    """Evidence Inference as task types natural_language_inference and reading_comprehension."""
    annotations, prompts, *splits, archive = files(folder)
    parts = _parts(splits)
    asked = _asked(prompts, report)
    waiting = _annotations(annotations, asked, parts, report)
    for name, content in members(archive, "*.txt"):
        article_id = PurePosixPath(name).stem.removeprefix("PMC")
        if article_id not in waiting:
            continue
        annotated = waiting.pop(article_id)
        try:
            article = Report(article_id, PARTS[parts[article_id]], content.decode("utf-8"))
        except UnicodeDecodeError:
            report.reject(BadData(f"{archive}, {name}: not UTF-8 text."), content)
        else:
            yield from _prompts(article, annotated, asked, report)
    if waiting:
        raise BadData(f"{archive} does not hold {len(waiting)} of the articles that {annotations.name} names. Get it again.")


def _parts(paths: list[Path]) -> dict[str, str]:
    """The part of the corpus that each article belongs to, one of `PARTS`."""
    return {
        line.strip(): part
        for part, path in zip(PARTS, paths, strict=True)
        for _, line in text_lines(path, ReadReport())
        if line.strip()
    }


def _asked(path: Path, report: ReadReport) -> dict[str, str]:
    """Outcome, intervention and comparator of each prompt, in one text, by the prompt's id."""

    def make(place: str, row: dict[str, str]) -> Iterator[tuple[str, str]]:
        yield row["PromptID"], " ".join(f"{part}: {text_field(row, part, place)}" for part in PROMPT_COLUMNS[2:])

    return dict(report.each(csv_rows(path, PROMPT_COLUMNS, report), make))


def _annotations(
    path: Path, asked: dict[str, str], parts: dict[str, str], report: ReadReport
) -> dict[str, dict[str, list[Annotation]]]:
    """The annotations by article, then by prompt."""
    found: dict[str, dict[str, list[Annotation]]] = defaultdict(lambda: defaultdict(list))

    def make(place: str, row: dict[str, str]) -> Iterator[tuple[str, str, Annotation]]:
        if row["PromptID"] not in asked or row["PMCID"] not in parts:
            raise BadData(f"{place}: its prompt is not among the prompts, or its article in no split.")
        yield row["PMCID"], row["PromptID"], _annotation(row, place)

    for article, prompt, annotation in report.each(csv_rows(path, COLUMNS, report), make):
        found[article][prompt].append(annotation)
    return dict(found)


def _annotation(row: dict[str, str], place: str) -> Annotation:
    effect = EFFECTS.get(row["Label Code"])
    label, reasoning = _TRUTH.get(row["Valid Label"]), _TRUTH.get(row["Valid Reasoning"])
    if effect is None or label is None or reasoning is None:
        raise BadData(f"{place}: the label code must be -1, 0 or 1, and what is valid True or False.")
    if not row["Annotations"].strip():
        raise BadData(f"{place}: the evidence is empty.")
    try:
        start, end = int(row["Evidence Start"]), int(row["Evidence End"])
    except ValueError:
        raise BadData(f"{place}: the start or the end of the evidence is no number.") from None
    return Annotation(effect, label, label and reasoning, start, end, row["Annotations"])


def _prompts(
    article: Report, found: dict[str, list[Annotation]], asked: dict[str, str], report: ReadReport
) -> Iterator[Example]:
    """Two examples of each prompt on an article of which the annotators agree."""
    for prompt, given in found.items():
        standing = [a for a in given if article.text[a.start : a.end] == a.evidence]
        effects = {a.effect for a in given if a.valid_label}
        usable = [a for a in standing if a.valid]
        if not effects:
            report.skip("a prompt without a valid label")
        elif len(effects) > 1:
            report.skip("a prompt with contradicting labels")
        elif not usable:
            report.skip("a prompt without valid evidence that stands at its offsets")
        else:
            yield _effect(article, prompt, asked[prompt], usable[0])
            yield _evidence(article, prompt, asked[prompt], usable[0])


def _effect(article: Report, prompt: str, asked: str, annotation: Annotation) -> Example:
    example_id = f"{NAME}/effect/{prompt}"
    origin = Origin(article.split, article.dedup_keys(annotation), article.group)
    context = f"{asked} Evidence: {single_spaced(annotation.evidence)}"
    return example(example_id, "natural_language_inference", "effect", context, annotation.effect, origin, LABELS)


def _evidence(article: Report, prompt: str, asked: str, annotation: Annotation) -> Example:
    example_id, evidence = f"{NAME}/evidence/{prompt}", single_spaced(annotation.evidence)
    before = single_spaced(article.text[: annotation.start] + _MARK)[: -len(_MARK)]
    start = len(before)
    after = single_spaced(_MARK + article.text[annotation.end :])[len(_MARK) :]
    piece = window(example_id, before + evidence + after, start, start + len(evidence))
    origin = Origin(article.split, article.dedup_keys(annotation), article.group)
    return example(
        example_id, "reading_comprehension", "evidence", f"{asked} Report: {piece}", evidence, origin, output_type="span"
    )
