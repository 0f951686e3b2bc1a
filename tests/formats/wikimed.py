"""WikiMed: one page a line with linked mentions, and the UMLS's semantic types.

README of github.com/svjan5/medtype, "Formatting information" (Vashishth et al., 2021); MRSTY.RRF as in the UMLS Reference
Manual, chapter 3, "Semantic Types" (https://www.ncbi.nlm.nih.gov/books/NBK9685/).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from corpora import PARTS, write_lines

TYPES = {
    1: ("T023", "A1.2.3.1", "Body Part, Organ, or Organ Component"),
    2: ("T047", "B2.2.1.2.1", "Disease or Syndrome"),
    3: ("T121", "A1.4.1.1.1", "Pharmacologic Substance"),
}
"""Type id, tree number and name by number of the concept."""


def mention(text: str, words: str, link: str) -> dict[str, Any]:
    """The first place of the words in a text, linked."""
    start = text.index(words)
    return {"mention": words, "start_offset": start, "end_offset": start + len(words), "link_id": link}


def page(page_id: str, text: str, *mentions: dict[str, Any], split: str = "train") -> dict[str, Any]:
    """One line of WikiMed."""
    return {"_id": page_id, "title": f"Page {page_id}", "text": text, "split": split, "mentions": list(mentions)}


def write_types(folder: Path, *more: str) -> None:
    """Concepts 1 to 3 with one type each, concept 3 with a second one; further rows as they are given."""
    rows = [f"C{number:07}|{t}|{tree}|{name}|AT{number:08}|256|" for number, (t, tree, name) in TYPES.items()]
    rows.append("C0000003|T109|A1.4.1.2.1|Organic Chemical|AT00000004||")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "MRSTY.RRF").write_text("".join(f"{row}\n" for row in (*rows, *more)), encoding="utf-8")


def write(folder: Path) -> None:
    """Thirty pages, ten of each split."""
    pages: list[object] = []
    for number in range(30):
        text = f"{PARTS[number % 10].title()} {number}\n\nThe horn of beast {number} aches.  Give it salve {number} times."
        linked = [mention(text, "horn", "C0000001"), mention(text, "salve", "C0000003|C0000009")]
        pages.append(page(str(number), text, *linked[: number // 3 % 3], split=("train", "valid", "test")[number % 3]))
    write_lines(folder / "WikiMed.json", pages)
    write_types(folder)


WRITERS = {"wikimed": write}
