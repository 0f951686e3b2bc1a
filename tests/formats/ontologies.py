"""OBO 1.2 (owlcollab.github.io/oboformat/doc/GO.format.obo-1_2.html), HPO's annotations, the ICD-10-CM tabular list in XML.

The columns of `phenotype.hpoa` are those of "HPO annotation format" (obophenotype.github.io/human-phenotype-ontology,
page "Annotations"); the tabular list's elements are those of its schema, `icd10cm-tabular.xsd`, which CDC/NCHS publishes
beside it.
"""

from __future__ import annotations

import re
from pathlib import Path

from corpora import COLOURS, PARTS, write_ontology, write_tabular

HPOA_COLUMNS = (
    "database_id", "disease_name", "qualifier", "hpo_id", "reference", "evidence", "onset", "frequency", "sex", "modifier",
    "aspect", "biocuration",
)  # fmt: skip
FREQUENCIES = ("", "HP:0040281", "3/7", "50%", "HP:0040284", "0/9")


def annotation(disease_id: str, name: str, term: str, frequency: str = "", qualifier: str = "", aspect: str = "P") -> str:
    """A line of phenotype.hpoa."""
    cells = (disease_id, name, qualifier, term, disease_id, "TAS", "", frequency, "", "", aspect, "HPO:made[2026-01-01]")
    return "\t".join(cells)


def write_hpo(folder: Path) -> None:
    """The ontology of made-up beasts, and beside it forty diseases of theirs, every fourth one under two ids."""
    write_ontology(folder)
    terms = re.findall(r"^id: (HP:1\d+)$", (folder / "hp.obo").read_text(encoding="utf-8"), re.MULTILINE)
    lines = ['#description: "made-up annotations"', "#version: 2026-01-01", "\t".join(HPOA_COLUMNS)]
    for index in range(40):
        name = f"{COLOURS[index % 8].title()} stable fever {index // 8}"
        shown = [terms[(11 * index + 17 * step) % len(terms)] for step in range(6)]
        lines += [annotation(f"OMIM:{index}", name, i, f) for i, f in zip(shown, FREQUENCIES, strict=True)]
        lines.append(annotation(f"OMIM:{index}", name, terms[(11 * index + 5) % len(terms)], "", "NOT"))
        lines.append(annotation(f"OMIM:{index}", name, "HP:0000007", "", "", "I"))
        if index % 4 == 0:
            lines.append(annotation(f"ORPHA:{index}", name.upper(), shown[0], "HP:0040282"))
    (folder / "phenotype.hpoa").write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_diseases(folder: Path) -> None:
    """Two branches of made-up diseases; in each ten parts with eight colours, defined, with synonyms as others wrote them."""
    lines = ["format-version: 1.2", "ontology: doid", "", "[Term]", "id: DOID:4", "name: disease", ""]
    number = 50000

    def term(name: str, parent: str, *more: str) -> str:
        nonlocal number
        number += 1
        alternative = f"alt_id: DOID:{number + 900000}"
        lines.extend(["[Term]", f"id: DOID:{number}", f"name: {name}", alternative, *more, f"is_a: {parent} ! broader", ""])
        return f"DOID:{number}"

    for branch in ("stable", "meadow"):
        top = term(f"{branch} disease", "DOID:4")
        for part in PARTS:
            middle = term(f"{branch} {part} trouble", top)
            for colour in COLOURS:
                term(
                    f"{colour} {part} of the {branch}",
                    middle,
                    f'def: "An illness that is located_in a {part}, has_symptom {colour} at {branch}s." [url:http\\://made.up]',
                    "subset: gram-negative_made_up",
                    f'synonym: "{part} gone {colour}, {branch} sort (disorder)" EXACT []',
                    f'synonym: "{colour.title()} {part.title()} of the {branch}" EXACT []',
                    f'synonym: "{part} thing" RELATED []',
                    f"xref: MSH:D{number}",
                )
    lines += ["[Term]", "id: DOID:9", "name: purple hoof", "is_obsolete: true"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "doid.obo").write_text("\n".join(lines) + "\n", encoding="utf-8")


WRITERS = {"hpo": write_hpo, "icd-10-cm": write_tabular, "disease-ontology": write_diseases}
