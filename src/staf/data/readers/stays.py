"""Examples of the three clinical tasks, from any records."""

from __future__ import annotations

from staf.data.example import Example
from staf.data.readers.draws import Origin, example
from staf.data.splits import SHARES, split_of

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
    origin = Origin(split_of(patient, shares), (patient, *minhash), patient)
    return example(
        example_id, task_type, asked, text, answer, origin, labels, output_type="multiple_choice" if labels else "multi_label"
    )
