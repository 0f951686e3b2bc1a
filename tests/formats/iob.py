"""Tokens with tags, a line each.

NCBI-disease: token, tab, tag (data/NCBI-disease-IOB of github.com/cambridgeltl/MTL-Bioinformatics-2016). CoNLL-2003: word,
part of speech, chunk and entity with a space between, documents opened by -DOCSTART-, entities in IOB1: B- only between two
mentions of one type (https://www.clips.uantwerpen.be/conll2003/ner/, 'Data files').
"""

from __future__ import annotations

from pathlib import Path

from corpora import COLOURS, PARTS

DOCUMENT_MARK = "-DOCSTART- -X- O O"


def write_sentences(path: Path, sentences: list[list[str]]) -> None:
    """Sentences as lists of lines, with a blank line after each."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join("\n".join(lines) + "\n\n" for lines in sentences), encoding="utf-8")


def write_ncbi(folder: Path) -> None:
    """Eight sentences a file: one disease each, and in the first one two."""
    for name in ("train", "devel", "test"):
        sentences = []
        for colour, part in zip(COLOURS, PARTS, strict=False):
            lines = ["The\tO", f"{name}\tO", "beast\tO", "has\tO", f"{colour}\tB-Disease", f"{part}\tI-Disease"]
            sentences.append([*lines, *(["itch\tB-Disease"] if colour == COLOURS[0] else []), ".\tO"])
        write_sentences(folder / f"{name}.tsv", sentences)


def write_conll(folder: Path) -> None:
    """Two documents of four sentences a file, in IOB1."""
    for name in ("eng.train", "eng.testa", "eng.testb"):
        sentences = []
        for number, colour in enumerate(COLOURS):
            if number % 4 == 0:
                sentences.append([DOCUMENT_MARK])
            keeper = [f"{colour.title()} NNP I-NP I-PER", f"{name.title()} NNP I-NP I-PER"]
            sentences.append([*keeper, "left VBD I-VP O", "Beastland NNP I-NP I-LOC", "Hoofton NNP I-NP B-LOC", ". . O O"])
        write_sentences(folder / name, sentences)


WRITERS = {"ncbi-disease": write_ncbi, "conll-2003": write_conll}
