"""Laws that every reader keeps: on our own texts in the distributed formats, and on the distributed files where they are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed import DATA, distributed
from formats import WRITERS

from staf.data.answers import check_answer
from staf.data.card import CATEGORIES, builtin_cards
from staf.data.example import KNOWLEDGE_TYPES, SPLITS, Example
from staf.data.prepare import load, prepare
from staf.data.read_report import ReadReport
from staf.data.readers.shapes import says
from staf.data.splits import SPLIT_SCHEMES
from staf.data.task import builtin_tasks
from staf.data.templates import templates
from staf.errors import MissingData

HERE = [name for name in builtin_cards() if (DATA / name).is_dir()] or ["medmcqa"]
TERMS = ("entity_synonymy", "icd10_chapter")
"""Kinds whose answer is another name, which the context must not say."""


def checked(name: str, folder: Path) -> Iterator[Example]:
    """Every example of a data set, the laws checked one by one."""
    row, seen = builtin_cards()[name], set[str]()
    for example in row.read(folder, ReadReport()):
        assert example.id.startswith(f"{name}/")
        assert example.id not in seen
        seen.add(example.id)
        check_answer(example)
        assert example.task_type in row.task_types
        assert example.split in SPLITS
        assert example.dedup_keys
        assert all(len(s) == 16 and int(s, 16) >= 0 for s in example.dedup_keys)
        assert example.query.strip() == example.query != ""
        assert example.context or example.output_type == "generate_until"
        assert len(set(example.labels)) == len(example.labels)
        if example.output_type == "multiple_choice":
            assert len(example.labels) != 1  # without any they are open: a task lists the most frequent
        if example.labels and example.output_type != "ner" and "abstract" not in example.query:
            assert "; ".join(example.labels) in example.query
        if example.task_type in TERMS:
            assert not says(example.context, example.answer)
        yield example


@pytest.mark.parametrize("name", builtin_cards())
def test_every_reader_keeps_the_laws_and_gives_the_same_again(own, name):
    examples = list(checked(name, own / name))
    assert examples
    assert examples == list(builtin_cards()[name].read(own / name, ReadReport()))
    assert {example.task_type for example in examples} <= set(builtin_cards()[name].task_types)


@pytest.mark.parametrize("name", builtin_cards())
def test_every_data_set_is_prepared_under_both_split_schemes_and_loaded_as_it_was_read(own, name):
    read = {example.id: example for example in builtin_cards()[name].read(own / name, ReadReport())}
    for split_scheme in SPLIT_SCHEMES:
        found = prepare(name, own, split_scheme=split_scheme)
        loaded = [e for task_type in found.counts for split in SPLITS for e in load(found, task_type, split)]
        assert loaded
        for example in loaded:
            original = read[example.id]
            assert (example.query, example.context, example.answer) == (original.query, original.context, original.answer)
            assert (example.dedup_keys, example.output_type, example.group) == (
                original.dedup_keys,
                original.output_type,
                original.group,
            )


@pytest.mark.parametrize("name", builtin_cards())
def test_a_missing_source_names_what_was_looked_for(tmp_path, name):
    with pytest.raises(MissingData, match=rf"{name} not found in .* \(looked for "):
        list(builtin_cards()[name].read(tmp_path, ReadReport()))


@pytest.mark.parametrize("row", builtin_cards().values(), ids=lambda card: card.name)
def test_every_row_is_complete(row):
    assert row.name in WRITERS
    assert row.category in CATEGORIES
    assert row.access in ("open", "package", "credentialed")
    assert (row.package is not None) == (row.access == "package")
    assert bool(row.steps) or row.access != "credentialed"
    assert all((row.licence, row.source, row.proxy_for, row.size))
    assert set(row.task_types) <= KNOWLEDGE_TYPES.keys() | {task.task_type for task in builtin_tasks().values()}
    assert set(row.sizes) <= set(row.task_types)


def test_every_kind_has_phrasings_and_every_knowledge_type_is_fed():
    task_types = {task_type for row in builtin_cards().values() for task_type in row.task_types}
    assert task_types == templates().keys()
    assert KNOWLEDGE_TYPES.keys() <= task_types


def test_every_distributed_folder_has_a_reader():
    if not DATA.is_dir():
        pytest.skip("there is no data folder; set STAF_DATA to one")
    assert {folder.name for folder in DATA.iterdir() if folder.is_dir()} <= builtin_cards().keys()


TEXTS = [path.read_text() for path in Path(__file__).parent.glob("test_data_*.py")]
READ_BY_OTHERS = set(re.findall(r'distributed\("([^"]+)"\)', "".join(TEXTS)))
"""Corpora that a test of their own reads: here they are read again, which takes minutes."""


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in READ_BY_OTHERS)) for n in HERE])
def test_the_distributed_files_keep_the_laws(name):
    assert sum(1 for _ in checked(name, distributed(name))) > 0
