"""Laws that every reader keeps: on our own texts in the distributed formats, and on the distributed files where they are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed import DATA, distributed
from formats import WRITERS

from staf.data.answers import check_answer
from staf.data.catalog import DATASETS
from staf.data.dataset import CATEGORIES
from staf.data.example import KNOWLEDGE_TYPES, SPLITS, Example
from staf.data.intake import Intake
from staf.data.prepare import load, prepare
from staf.data.profiles import PROFILES
from staf.data.readers.draws import says
from staf.data.templates import TEMPLATES
from staf.errors import MissingData
from staf.tasks.rows import TASKS

HERE = [name for name in DATASETS if (DATA / name).is_dir()] or ["medmcqa"]
LARGE = ("uci-diabetes-130", "hpo", "medquad")
TERMS = ("entity_synonymy", "icd10_chapter")
"""Kinds whose answer is another name, which the context must not say."""


def checked(name: str, folder: Path) -> Iterator[Example]:
    """Every example of a data set, the laws checked one by one."""
    row, seen = DATASETS[name], set[str]()
    for example in row.read(folder, Intake()):
        assert example.id.startswith(f"{name}/")
        assert example.id not in seen
        seen.add(example.id)
        check_answer(example)
        assert example.kind in row.kinds
        assert example.split in SPLITS
        assert example.subjects
        assert all(len(s) == 16 and int(s, 16) >= 0 for s in example.subjects)
        assert example.query.strip() == example.query != ""
        assert example.context or example.form == "text"
        assert len(set(example.labels)) == len(example.labels)
        if example.form == "choice":
            assert len(example.labels) > 1
        if example.labels and example.form != "entities" and "abstract" not in example.query:
            assert "; ".join(example.labels) in example.query
        if example.kind in TERMS:
            assert not says(example.context, example.answer)
        yield example


@pytest.mark.parametrize("name", DATASETS)
def test_every_reader_keeps_the_laws_and_gives_the_same_again(own, name):
    examples = list(checked(name, own / name))
    assert examples
    assert examples == list(DATASETS[name].read(own / name, Intake()))
    assert {example.kind for example in examples} <= set(DATASETS[name].kinds)


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_is_prepared_under_both_profiles_and_loaded_as_it_was_read(own, name):
    read = {example.id: example for example in DATASETS[name].read(own / name, Intake())}
    for profile in PROFILES:
        found = prepare(name, own, profile=profile)
        loaded = [e for kind in found.counts for split in SPLITS for e in load(found, kind, split)]
        assert loaded
        for example in loaded:
            original = read[example.id]
            assert (example.query, example.context, example.answer) == (original.query, original.context, original.answer)
            assert (example.subjects, example.form, example.group) == (original.subjects, original.form, original.group)


@pytest.mark.parametrize("name", DATASETS)
def test_a_missing_source_names_what_was_looked_for(tmp_path, name):
    with pytest.raises(MissingData, match=rf"{name} not found in .* \(looked for "):
        list(DATASETS[name].read(tmp_path, Intake()))


@pytest.mark.parametrize("row", DATASETS.values(), ids=lambda row: row.name)
def test_every_row_is_complete(row):
    assert row.name in WRITERS
    assert row.category in CATEGORIES
    assert row.access in ("open", "package", "credentialed")
    assert (row.package is not None) == (row.access == "package")
    assert bool(row.steps) or row.access != "credentialed"
    assert all((row.licence, row.source, row.stands_in_for, row.size))
    assert set(row.kinds) <= KNOWLEDGE_TYPES.keys() | {task.kind for task in TASKS.values()}
    assert set(row.sizes) <= set(row.kinds)


def test_every_kind_has_phrasings_and_every_knowledge_type_is_fed():
    kinds = {kind for row in DATASETS.values() for kind in row.kinds}
    assert kinds == TEMPLATES.keys()
    assert KNOWLEDGE_TYPES.keys() <= kinds


def test_every_distributed_folder_has_a_reader():
    if not DATA.is_dir():
        pytest.skip("there is no data folder; set STAF_DATA to one")
    assert {folder.name for folder in DATA.iterdir() if folder.is_dir()} <= DATASETS.keys()


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in LARGE)) for n in HERE])
def test_the_distributed_files_keep_the_laws(name):
    assert sum(1 for _ in checked(name, distributed(name))) > 0
