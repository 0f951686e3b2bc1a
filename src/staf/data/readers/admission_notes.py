"""The sections of a discharge summary that describe the state on arrival, without drugs.

Predicting at admission needs a text cut back to what was known then, as in the admission notes of van Aken et al. (2021);
the rules are ours.

    Chief Complaint: ...              kept
    Major Surgical Procedure: ...     left out
    History of Present Illness: ...   kept
    Medications on Admission: ...     left out: they would give the answer away
    Physical Exam: ...                kept; a subheading such as 'Vitals:' stays with its section
    Brief Hospital Course: ...        the text ends here
"""

from __future__ import annotations

import re
from functools import lru_cache

from staf.data.sources import single_spaced

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
