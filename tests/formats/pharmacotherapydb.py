"""PharmacotherapyDB: the columns of `catalog/indications.tsv` (catalog/README.md of github.com/dhimmel/indications)."""

from __future__ import annotations

from pathlib import Path

from corpora import COLOURS, PARTS

COLUMNS = ("doid_id", "drugbank_id", "disease", "drug", "category", "n_curators", "n_resources")


def write(folder: Path) -> None:
    """Thirty made-up diseases of four drugs each."""
    lines = ["\t".join(COLUMNS)]
    for index in range(30):
        disease = f"{PARTS[index % 10]}'s {COLOURS[index // 10]} ail"
        for drug in range(4):
            category = ("DM", "SYM", "NOT")[(index + drug) % 3]
            cells = (f"DOID:{index}", f"DB{index + drug:05}", disease, f"Salve {index + drug}", category, "2", "1")
            lines.append("\t".join(cells))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "indications.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


WRITERS = {"pharmacotherapydb": write}
