"""Hallmarks of Cancer: sentences and label slots by PubMed id (README of github.com/sb895/Hallmarks-of-Cancer)."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from corpora import COLOURS, PARTS

ROOT = "Hallmarks-of-Cancer-master"
LABELS = (
    "< <Genomic instability and mutation--DNA damage--Adducts ANDResisting cell death--< ",
    "<Inducing angiogenesis--By deregulating angiogenesis--Angiogenic factors<Inducing angiogenesis--< ",
    "< < <NULL",
    "< < < ",
)
"""Of three sentences each: two hallmarks in one slot, an inner class, no hallmark by name, no label."""


def write_archive(folder: Path, abstracts: dict[str, tuple[str, str]]) -> None:
    """Text and label file of each PubMed id, in the archive that GitHub makes of the repository."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = {f"labels/{pubmed_id}.txt": labels for pubmed_id, (_, labels) in abstracts.items()}
    contents["README.md"] = "Beasts."
    contents |= {f"text/{pubmed_id}.txt": text for pubmed_id, (text, _) in abstracts.items()}
    with tarfile.open(folder / f"{ROOT}.tar.gz", "w:gz") as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(f"{ROOT}/{name}")
            member.size = len(content.encode())
            archive.addfile(member, io.BytesIO(content.encode()))


def write(folder: Path) -> None:
    """Eighty abstracts of three sentences, with the four kinds of labels in turn."""
    pairs = [(colour, part) for colour in COLOURS for part in PARTS]
    abstracts = {
        str(1000 + n): (f"The {c} {p} ( {n} ) grows .\nIt grew by {n} .\nAll {p}s are {c} .\n", LABELS[n % 4])
        for n, (c, p) in enumerate(pairs)
    }
    write_archive(folder, abstracts)


WRITERS = {"hallmarks-of-cancer": write}
