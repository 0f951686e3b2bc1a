"""What leaves the machine with an expert or router tells no number of a patient, and leaks are still found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from staf.data.card import builtin_cards
from staf.data.example import Example, dedup_key
from staf.data.fetch import cache_folder
from staf.data.privacy import compared_keys, kept_ids, trained_keys
from staf.data.read_report import ReadReport
from staf.data.selection import refuse_leak
from staf.data.task import find_task
from staf.errors import TestLeak


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAF_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("name", [card.name for card in builtin_cards().values() if card.patients])
def test_numbers_of_patients_and_stays_are_salted_and_a_leak_is_still_found(own: Path, name: str) -> None:
    examples = list(builtin_cards()[name].read(own / name, ReadReport()))
    patients = {example.group for example in examples}
    kept = trained_keys(examples)
    assert patients.isdisjoint(kept)
    assert {key for example in examples for key in example.dedup_keys} - patients <= kept
    assert (cache_folder() / "secret").stat().st_mode & 0o777 == 0o600
    stays = {example.id.rpartition("/")[2] for example in examples}
    assert stays.isdisjoint(found.rpartition("/")[2] for found in kept_ids(examples))
    assert len(set(kept_ids(examples))) == len(examples)
    for example in examples:
        other = replace(example, id=f"{name}/other", dedup_keys=(example.group,))
        assert not kept.isdisjoint(compared_keys(other))
        with pytest.raises(TestLeak, match="1 of 1"):
            refuse_leak(find_task("pubmedqa"), [other], kept)


def test_the_secret_decides_what_is_kept_and_texts_are_recognised_anywhere(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    examples = list(builtin_cards()["mimic-iii-demo"].read(own / "mimic-iii-demo", ReadReport()))
    here = trained_keys(examples)
    assert trained_keys(examples) == here
    monkeypatch.setenv("STAF_CACHE", str(tmp_path / "other"))
    assert trained_keys(examples) & here == {k for e in examples for k in e.dedup_keys} - {e.group for e in examples}


def test_a_group_of_a_task_file_is_salted_and_public_keys_stay() -> None:
    group = dedup_key("triage group 7")
    own = Example("triage/1", "triage", "Urgent?", "a", "no", ("no", "yes"), "train", (group, dedup_key("a")), group=group)
    public = replace(own, id="pubmedqa/1")
    assert compared_keys(own) == set(own.dedup_keys)
    assert not (cache_folder() / "secret").exists()  # a check writes nothing
    assert group not in trained_keys([own])
    assert compared_keys(own) > set(own.dedup_keys)
    assert dedup_key("a") in trained_keys([own])
    assert trained_keys([public]) == {group, dedup_key("a")} == compared_keys(public)
    assert kept_ids([own, public]) == ["pubmedqa/1", "triage/1"]
