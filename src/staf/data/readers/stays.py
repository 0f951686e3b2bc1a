"""Examples of the three clinical tasks, whatever the records: a text of a stay, and what is to be said of it."""

from __future__ import annotations

from staf.data.example import Example
from staf.data.splits import SHARES, split_of
from staf.data.templates import query

YES_NO = ("yes", "no")
"""Labels of readmission."""


def stay_example(
    example_id: str,
    task_type: str,
    patient: str,
    text: str,
    answer: str,
    shares: tuple[int, int, int] = SHARES,
    minhash: tuple[str, ...] = (),
) -> Example:
    """One example; `patient` is its fingerprint and its group, `sketch` those of the text. Codes and drugs have open labels."""
    asked, labels = ("thirty_days", YES_NO) if task_type == "readmission" else ("all", ())
    return Example(
        id=example_id,
        task_type=task_type,
        query=query(task_type, asked, example_id, labels),
        context=text,
        answer=answer,
        labels=labels,
        split=split_of(patient, shares),
        dedup_keys=(patient, *minhash),
        output_type="multiple_choice" if labels else "multi_label",
        group=patient,
    )
