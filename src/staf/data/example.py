"""The unified instruction format (STAF-LLM, section 3.2.2): query and context in, answer out.

    Query: Determine the relationship between the two sentences: entailment, neutral or contradiction.
    Context: ...
    Answer: entailment

An example also has an output type, says which answers are valid (`labels`), which split it belongs to, and what it is
about (`dedup_keys`), so that a test item can be recognised in training data without keeping its text.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from dataclasses import dataclass

KNOWLEDGE_TYPES = {
    "question_answering": "QA",
    "multiple_choice": "MCQA",
    "medical_conversation": "MC",
    "document_classification": "MLDC",
    "reading_comprehension": "MRC",
    "natural_language_inference": "NLI",
    "summarization": "TS",
    "named_entity_recognition": "NER",
    "relation_extraction": "RE",
    "entity_attribute": "EA",
    "entity_synonymy": "ES",
    "entity_relation": "ER",
}
"""The twelve knowledge types of section 3.2.1 under full names, and the papers' short ones."""

SPLITS = ("train", "adaptation", "test")

OUTPUT_TYPES = ("multiple_choice", "multi_label", "span", "ner", "generate_until")
"""One label; any number of labels; words of the context; a list of typed mentions; free text."""
LABEL_TYPES = OUTPUT_TYPES[:2]
"""Output types whose labels are scored; answers of the others are generated."""

ANSWER = "Answer:"
"""The end of every prompt."""

_BETWEEN_WORDS = re.compile(r"[\W_]+")


@dataclass(frozen=True, slots=True)
class Example:
    """One item of the unified format."""

    id: str
    """Unique within its data set; never made of patient text."""
    task_type: str
    """A knowledge type, or the name of a downstream task that is none of the twelve."""
    query: str
    """What is asked, with all valid labels where the answer is one of a list."""
    context: str
    """What it is asked about; may be empty."""
    answer: str
    """The canonical text of the right answer, by its output type (`staf.data.answers`)."""
    labels: tuple[str, ...]
    """Every valid label, in the order of the query; types of entities; empty where any text may be the answer."""
    split: str
    """train, adaptation or test."""
    dedup_keys: tuple[str, ...]
    """Fingerprints of what this example is about: texts, documents, patients."""
    output_type: str = "multiple_choice"
    """One of `FORMS`."""
    group: str = ""
    """What must not be torn apart when splits are drawn again: a patient, a document, a term; '' is the id."""


def normalise(text: str) -> str:
    """Text as compared for sameness: NFKC, lower case, letters and digits only, single spaces."""
    return _BETWEEN_WORDS.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()


def dedup_key(text: str) -> str:
    """Sixteen hexadecimal digits that stand for the normalised text (64 bits of its SHA-256)."""
    return hashlib.sha256(normalise(text).encode()).hexdigest()[:16]


def prompt_of(query: str, context: str) -> str:
    """What the model reads. It ends in 'Answer:'; every answer follows after one space."""
    body = f"Query: {query}\n" + (f"Context: {context}\n" if context else "")
    return body + ANSWER
