"""BC5CDR in PubTator text: title, abstract, mentions and relations of an abstract, then a blank line.

README.txt of CDR.Corpus.v010516, and https://www.ncbi.nlm.nih.gov/research/pubtator3/tutorial ('PubTator format'): offsets
count from the title's beginning, one character between title and abstract; a composite mention has the single names of its
ids in a seventh column; an id of -1 is unlinked.
"""

from __future__ import annotations

from pathlib import Path

from corpora import COLOURS, PARTS

FILES = ("CDR_TrainingSet.PubTator.txt", "CDR_DevelopmentSet.PubTator.txt", "CDR_TestSet.PubTator.txt")


def record(pubmed_id: int, title: str, abstract: str, mentions: list[tuple[str, str, str]], relations: list[str]) -> str:
    """A record; mentions as (words, type, ids and what may follow), each placed at its next occurrence."""
    text, at, lines = f"{title} {abstract}", 0, [f"{pubmed_id}|t|{title}", f"{pubmed_id}|a|{abstract}"]
    for words, kind, rest in mentions:
        at = text.index(words, at)
        lines.append(f"{pubmed_id}\t{at}\t{at + len(words)}\t{words}\t{kind}\t{rest}")
        at += len(words)
    return "\n".join([*lines, *(f"{pubmed_id}\tCID\t{pair}" for pair in relations)]) + "\n\n"


def beast(pubmed_id: int, name: str) -> str:
    """A made-up abstract with one relation, four pairs that are none, a composite and an unlinked mention."""
    title = f"{name} salve and hoof rot."
    abstract = f"{name} salve was put on. Hoof rot began, i.e. Hoof rot of beast {pubmed_id}; horn and tail ache came. No dust."
    return record(
        pubmed_id,
        title,
        abstract,
        [
            (f"{name} salve", "Chemical", "C1"),
            ("hoof rot", "Disease", "D1"),
            (f"{name} salve", "Chemical", "C1"),
            ("Hoof rot", "Disease", "D1"),
            ("i.e. Hoof rot", "Disease", "D1"),
            ("horn and tail ache", "Disease", "D2|D3\thorn ache|tail ache"),
            ("dust", "Chemical", "-1"),
        ],
        ["C1\tD1"],
    )


def write(folder: Path) -> None:
    """Eight abstracts a file."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, file in enumerate(FILES):
        names = [f"{colour.title()} {PARTS[(3 * number + index) % 10]}" for index, colour in enumerate(COLOURS)]
        text = "".join(beast(100 * number + index, name) for index, name in enumerate(names, 1))
        (folder / file).write_text(text, encoding="utf-8")


WRITERS = {"bc5cdr": write}
