"""Made-up files of the UMLS Metathesaurus, of any size, in Rich Release Format.

    python benchmarks/generate_umls.py FOLDER --rows 10000000

MRCONSO, MRDEF, MRREL and MRSTY in the proportions of a real release (17 : 0.4 : 60 : 4 million rows), with the columns of the
Reference Manual and words of no language: no text of the UMLS is in them. One release of DuckDB makes the same files of the
same number of rows.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import duckdb

PARTS = {"MRCONSO": 17.0, "MRDEF": 0.4, "MRREL": 60.0, "MRSTY": 4.0}
"""Million rows of each file in a release."""
NAMES_PER_CONCEPT = 5
SYLLABLES = ("ba", "do", "ki", "lu", "me", "no", "pra", "ri", "su", "ta", "vo", "ze", "chi", "gra", "ple", "sto")
TYPES = tuple((f"T{t:03}", f"{'AB'[t % 2]}{1 + t % 2}.{1 + t % 5}.{1 + t % 7}.{t}", f"Sort {t}") for t in range(1, 60))
RELATIONS = ("isa", "part_of", "may_treat", "causative_agent_of", "finding_site_of", "inverse_isa", "may_be_treated_by", "")

WORD = """
CREATE MACRO word(n) AS (
    SELECT string_agg(list_extract({syllables}, (1 + (hash(n + 7919 * i) % 16))::INTEGER), '' ORDER BY i) FROM range(4) AS t(i)
)
"""
WORDS = "CREATE TABLE words AS SELECT list(word(n) ORDER BY n) AS list FROM range(5000) AS t(n)"

STATEMENTS = {
    # Row i is name i % 5 of concept i // 5: the first is the preferred one, every fifth is French, every 40th is suppressed.
    "MRCONSO": """
        SELECT concat(
            'C', lpad((i // 5)::VARCHAR, 7, '0'), if(i % 5 = 4, '|FRE|', '|ENG|'), if(i % 5 = 0, 'P', 'S'), '|L', i, '|PF|S', i,
            '|Y|A', i, '||||MADE|PT|', i, '|',
            list_extract(list, (1 + hash(i) % 5000)::INTEGER), ' ', list_extract(list, (1 + hash(i + 1) % 5000)::INTEGER), ' ',
            i // 5, '|0|', if(i % 40 = 1, 'O', 'N'), '|256|')
        FROM range({rows}) AS t(i), words
    """,
    # Every definition is of the preferred name of a concept, and of every third it is of the French one.
    "MRDEF": """
        SELECT concat(
            'C', lpad((i * {step})::VARCHAR, 7, '0'), '|A', i * {step} * 5 + if(i % 3 = 2, 4, 0), '|AT', i, '||MADE|',
            array_to_string([list_extract(list, (1 + hash(i * 31 + n) % 5000)::INTEGER) for n in range(25)], ' '), '|N||')
        FROM range({rows}) AS t(i), words
    """,
    "MRREL": """
        SELECT concat(
            'C', lpad((hash(i) % {concepts})::VARCHAR, 7, '0'), '|A', i, '|AUI|RO|C',
            lpad((hash(i // 3 + 5) % {concepts})::VARCHAR, 7, '0'), '|A', i, '|AUI|',
            list_extract({relations}, (1 + hash(i + 2) % 8)::INTEGER), '|R', i, '||MADE|MADE||N|',
            if(i % 50 = 0, 'O', 'N'), '||')
        FROM range({rows}) AS t(i)
    """,
    "MRSTY": """
        SELECT concat('C', lpad((i % {concepts})::VARCHAR, 7, '0'), '|', list_extract({types}, (1 + hash(i) % 59)::INTEGER),
                      '|AT', i, '|256|')
        FROM range({rows}) AS t(i)
    """,
}


def generate(folder: Path, rows: int) -> int:
    """Write the four files with about `rows` rows in all; returns how many there are."""
    folder.mkdir(parents=True, exist_ok=True)
    count = {name: max(60, round(rows * part / sum(PARTS.values()))) for name, part in PARTS.items()}
    concepts = -(-count["MRCONSO"] // NAMES_PER_CONCEPT)
    with duckdb.connect(":memory:", config={"memory_limit": "1GB", "threads": 2}) as tables:
        tables.execute("SET enable_progress_bar = false")
        tables.execute(WORD.format(syllables=list(SYLLABLES)))
        tables.execute(WORDS)
        for name, statement in STATEMENTS.items():
            select = statement.format(
                rows=count[name],
                concepts=concepts,
                step=max(1, concepts // count["MRDEF"]),
                relations=list(RELATIONS),
                types=["|".join(kind) for kind in TYPES],
            )
            target = str(folder / f"{name}.RRF").replace("'", "''")
            tables.execute(f"COPY ({select}) TO '{target}' (FORMAT csv, HEADER false, DELIMITER '\t', QUOTE '', ESCAPE '')")
    return sum(count.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=10_000_000)
    options = parser.parse_args()
    print(f"{generate(options.folder, options.rows):,} rows in {options.folder}")


if __name__ == "__main__":
    main()
