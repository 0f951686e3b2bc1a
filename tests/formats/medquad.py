"""MedQuAD: XML files in folders by web site, as GitHub packs them (readme.txt of github.com/abachaa/MedQuAD; Ben Abacha and
Demner-Fushman, BMC Bioinformatics 20:511, 2019).
"""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from corpora import COLOURS, PARTS

TOP = "MedQuAD-master"


def document(focus: str, pairs: list[tuple[str, str, str]], concepts: tuple[str, ...] = (), root: str = "Document") -> str:
    """A page about `focus` with its (kind, question, answer) pairs, in the tags that go with its root."""
    asked = "".join(
        f'<QAPair pid="{number}">\n<Question qid="0000001-{number}" qtype="{kind}">{question}</Question>\n'
        f"<Answer>{answer}</Answer>\n</QAPair>\n"
        for number, (kind, question, answer) in enumerate(pairs, start=1)
    )
    known = "".join(f"<CUI>{concept}</CUI>" for concept in concepts)
    text = (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<{root} id="0000001" source="Beasts" url="https://example.org">\n'
        f"<!--Made up-->\n<Focus>{focus}</Focus>\n<FocusAnnotations><UMLS><CUIs>{known}</CUIs></UMLS></FocusAnnotations>\n"
        f"<QAPairs>\n{asked}</QAPairs>\n</{root}>\n"
    )
    if root != "doc":
        return text
    for ours, theirs in (("QAPair ", "pair "), ("QAPair>", "pair>"), ("Question", "question"), ("Answer", "answer")):
        text = text.replace(ours, theirs)
    return text.replace("Focus>", "doctitle-focus>").replace("CUI>", "cui>")


def documents() -> dict[str, str]:
    """Eighty beasts on one site with two kinds of questions, and on the others every quirk."""
    pages = {}
    for place, name in enumerate(f"{colour.title()} {part} fever" for part in PARTS for colour in COLOURS):
        pages[f"3_GHR_QA/{place + 1:07}"] = document(
            name,
            [
                (
                    "information",
                    f"What is (are) {name} ?",
                    f"{name} is  illness {place};\nit itches. It passes in {place} days.",
                ),
                (
                    "treatment",
                    f"What are the treatments for {name} ?",
                    f"How is {name} treated? Rest for {place} days. Then run.",
                ),
            ],
            (f"C{place:07}",),
        )
    removed = [("information", "What is (are) Horn rot ?", ""), ("usage", "How is Horn rot used ?", " ")]
    pages["10_MPlus_ADAM_QA/0000001"] = document("Horn rot", removed, ("C0000001",))
    pages["2_GARD_QA/0000001"] = document("Tail ache", [("information", "What is (are) Tail ache ?", "")])
    pages["5_NIDDK_QA/0000056"] = document("Fin", [])
    same = ("information", "What is (are) Bald mane ?", "A bald mane has no hair left.")
    pages["6_NINDS_QA/0000007"] = document("Bald mane", [same, same], ("C0000002",), root="doc")
    pages["9_CDC_QA/0000397"] = document("", [("prevention", "How to prevent mites ?", "Wash it.")], root="DiseaseFile")
    return pages


def write_unpacked(folder: Path) -> None:
    """The folders by themselves."""
    for name, text in documents().items():
        path = folder / f"{name}.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def write(folder: Path) -> None:
    """The archive of the repository."""
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / f"{TOP}.tar.gz", "w:gz") as archive:
        for name, text in [("readme", "Made up."), *documents().items()]:
            content = text.encode()
            entry = tarfile.TarInfo(f"{TOP}/{name}.{'txt' if name == 'readme' else 'xml'}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


WRITERS = {"medquad": write}
