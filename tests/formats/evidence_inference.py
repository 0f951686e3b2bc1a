"""Evidence Inference 2.0: annotations, prompts and articles.

annotations/README.md of github.com/jayded/evidence-inference (DeYoung et al., 2020). Cells hold line ends, the text of a
label is written in two ways, and an annotation may not be valid.
"""

from __future__ import annotations

import csv
import io
import tarfile
from pathlib import Path

from corpora import COLOURS, PARTS

COLUMNS = (
    "UserID", "PromptID", "PMCID", "Valid Label", "Valid Reasoning", "Label", "Annotations", "Label Code", "In Abstract",
    "Evidence Start", "Evidence End",
)  # fmt: skip
EFFECTS = {"0": "no significant difference", "1": "significantly increase", "-1": "significantly decreased"}


class Corpus:
    """Rows as they are added, then written all at once."""

    def __init__(self) -> None:
        self.annotations: list[dict[str, object]] = []
        self.prompts: dict[str, tuple[str, str, str, str, str]] = {}
        self.articles: dict[str, str] = {}

    def article(self, article: str, text: str) -> None:
        """One article."""
        self.articles[article] = text

    def annotate(self, article: str, prompt: str, code: str, evidence: str, **changed: object) -> None:
        """One annotation, at the first place of the evidence, and its prompt."""
        start = self.articles[article].find(evidence)
        row: dict[str, object] = dict.fromkeys(COLUMNS, "UNK") | {"UserID": 0, "PromptID": prompt, "PMCID": article}
        row |= {"Valid Label": True, "Valid Reasoning": True, "Label": EFFECTS.get(code, ""), "Label Code": code}
        row |= {"Annotations": evidence, "Evidence Start": start, "Evidence End": start + len(evidence)}
        self.annotations.append(row | changed)
        self.prompts[prompt] = (prompt, article, f"weight of\nbeast {prompt}", "hay ", "straw")

    def write(self, folder: Path) -> None:
        """All files, nested as in the repository's folder `annotations`."""
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "v2_annotations.csv").open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, COLUMNS)
            writer.writeheader()
            writer.writerows(self.annotations)
        with (folder / "prompts_merged.csv").open("w", newline="", encoding="utf-8") as stream:
            prompts = csv.writer(stream)
            prompts.writerow(("PromptID", "PMCID", "Outcome", "Intervention", "Comparator"))
            prompts.writerows(self.prompts.values())
        with tarfile.open(folder / "txt_files.tar.gz", "w:gz") as archive:
            for article, text in self.articles.items():
                member = tarfile.TarInfo(f"txt_files/PMC{article}.txt")
                member.size = len(text.encode())
                archive.addfile(member, io.BytesIO(text.encode()))


def write(folder: Path) -> None:
    """Eight articles, in each split some; three prompts on each, of one effect each, the first one annotated twice."""
    corpus = Corpus()
    for number, colour in enumerate(COLOURS):
        text = f"TITLE: The {colour} beast\n\n ABSTRACT:  Hay made it heavier,\nby {number} pounds. " + "We fed it.\n" * 300
        text += f"Tails of {colour} beasts were as long. Of {PARTS[number]} it lost {number} inches."
        corpus.article(str(913 + number), text)
        evidence = (
            f"Hay made it heavier,\nby {number} pounds",
            f"Tails of {colour} beasts were as long",
            f"it lost {number} inches",
        )
        for place, (code, words) in enumerate(zip(("1", "0", "-1"), evidence, strict=True)):
            corpus.annotate(str(913 + number), f"{number}{place}", code, words)
        corpus.annotate(str(913 + number), f"{number}0", "1", evidence[0], UserID=1)
    corpus.write(folder)


WRITERS = {"evidence-inference": write}
