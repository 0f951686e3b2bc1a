"""Examples of the three clinical tasks from the records of a stay.

A text is composed of short mentions, or cut from a discharge summary to what describes the state on arrival: predicting at
admission needs what was known then, as in the admission notes of van Aken et al. (2021); the rules are ours.

    Patient: 71 years old; female. Admission: emergency; from emergency room. Service: cardiac surgery.

    Chief Complaint: ...              kept
    Major Surgical Procedure: ...     left out
    History of Present Illness: ...   kept
    Medications on Admission: ...     left out: they would give the answer away
    Physical Exam: ...                kept; a subheading such as 'Vitals:' stays with its section
    Brief Hospital Course: ...        the text ends here
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import lru_cache

from staf.data.answers import safe_label, write_several
from staf.data.example import Example, dedup_key, normalise
from staf.data.read_report import ReadReport
from staf.data.readers.shapes import Row, drawn, example
from staf.data.sources import single_spaced
from staf.data.splits import SHARES

LONGEST = 20_000
"""Characters of a text."""
YES_NO = ("yes", "no")
"""Labels of readmission."""

_HEADING = re.compile(r"^[ \t]*([A-Za-z][A-Za-z /&(),'-]{1,60}?)[ \t]*:", re.MULTILINE)
_END = re.compile(r"\bhospital course|^hospital stay|\bcourse in (?:the )?hospital|^course by|\bcourse of (?:the )?hospital")
_KEPT = re.compile(
    r"chief complaint|^cc$|^hpi\b|present(?:ing)? illness|presenting complaint|^history$|reason for (?:this |the )?admission"
    r"|(?:medical|surgical|social|family|psychiatric|obstetric|birth|maternal|past) history|history of past|^p[ms]hx?$"
    r"|^[fs]hx?$|^allerg|review of systems|^ros$"
    r"|physical exam|^exam(?:ination)?\b|admission exam|exam(?:ination)? (?:on|at|upon) (?:admission|presentation|arrival)"
)
_LEFT_OUT = re.compile(
    r"discharge|transfer|medication|\bmeds\b|procedure|pertinent results|\blabs?\b|laborator|radiolog|imaging|studies"
    r"|attending|^service$|date of birth|^sex$|admission date|follow|condition|disposition|dictated|^diagnos|^impression"
    r"|assessment|^plan$|operation|microbiolog|^ekg|^ecg|echo|x-ray|^cxr|^ct\b|^mri|^data$|^results|addendum"
)


def on_admission(note: str) -> str:
    """The sections on the state on arrival, under their headings, on one line; '' where the note has none."""
    kept: list[str] = []
    start, end, keeping = 0, len(note), False
    for heading in _HEADING.finditer(note):
        role = _role(heading[1].lower())
        if role == "end":
            end = heading.start()
            break
        if role:
            if keeping:
                kept.append(note[start : heading.start()])
            start, keeping = heading.start(), role == "kept"
    if keeping:
        kept.append(note[start:end])
    return single_spaced(" ".join(kept))


@lru_cache(maxsize=10_000)
def _role(heading: str) -> str:
    """Whether a section is 'kept', 'left out', or the 'end'; '' where the heading only divides its section."""
    if heading.startswith("allerg"):
        return "kept"
    if _END.search(heading):
        return "end"
    if _LEFT_OUT.search(heading):
        return "left out"
    return "kept" if _KEPT.search(heading) else ""


def stay_example(
    dataset: str,
    task_type: str,
    stay: Row,
    text: str,
    shares: tuple[int, int, int] = SHARES,
    minhash: tuple[str, ...] = (),
) -> Example:
    """One example, split by patient; a patient of MIMIC-III has the same key in its demo. Codes and drugs have open labels.

    Args:
        dataset: its name.
        task_type: one of the three tasks.
        stay: hadm_id and subject_id; codes and titles, drugs, or whether the patient returned ('yes', 'no').
        text: what is asked about.
        shares: of the splits.
        minhash: dedup keys of the text.
    """
    patient = dedup_key(f"{dataset.removesuffix('-demo')} patient {stay['subject_id']}")
    name, origin = f"{dataset}/{task_type}/{stay['hadm_id']}", drawn(patient, patient, *minhash, shares=shares)
    if task_type == "readmission":
        return example(name, task_type, "thirty_days", text, stay["returned"], origin, YES_NO)
    is_coding = task_type == "icd_coding"
    said = map("{} {}".format, stay["codes"], stay["titles"]) if is_coding else stay["drugs"]
    labels = [safe_label(label) for label in said]
    return example(name, task_type, "all", text, write_several(labels, labels), origin, output_type="multi_label")


def composed_examples(
    dataset: str,
    stay: Row,
    mentions: Mapping[str, Iterable[tuple[str, str]]],
    report: ReadReport,
    shares: tuple[int, int, int] = SHARES,
) -> Iterator[Example]:
    """The examples of a stay from (topic, mention) pairs by task; no text says a word of its answer."""
    codes, drugs = stay["codes"] or None, stay["drugs"]
    asked = {
        "icd_coding": (codes, [*(codes or ()), *filter(None, stay["titles"] or ())]),
        "medication_recommendation": (drugs, drugs or ()),
        "readmission": (stay["returned"], ()),
    }
    for task_type, (answer, forbidden) in asked.items():
        if answer is not None:
            text, left_out = compose(mentions[task_type], forbidden)
            report.skip(f"{task_type}: a mention that says an answer", left_out)
            yield stay_example(dataset, task_type, stay, text[:LONGEST], shares)


def compose(mentions: Iterable[tuple[str, str]], forbidden: Collection[str] = ()) -> tuple[str, int]:
    """Text of (topic, mention) pairs, one sentence for consecutive mentions of a topic, and how many are left out.

    A mention is left out where, with the text before it, it would contain a forbidden phrase.
    """
    phrases = [f" {phrase} " for phrase in map(normalise, forbidden) if phrase]
    sentences: list[str] = []
    said, topic, left_out = " ", "", 0
    for about, mention in mentions:
        opening = f"{_words(about)} " if about != topic else ""
        longer = f"{said}{opening}{_words(mention)} "
        if any(phrase in longer for phrase in phrases):
            left_out += 1
            continue
        if about != topic:
            sentences.append(f"{about}: {mention}")
        else:
            sentences[-1] += f"; {mention}"
        said, topic = longer, about
    return "".join(f"{sentence}. " for sentence in sentences).strip(), left_out


@lru_cache(maxsize=10_000)
def _words(text: str) -> str:
    return normalise(text)
