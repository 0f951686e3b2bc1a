"""Tasks: label sets counted on what is not test, and what keeps test items out of training."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from formats import WRITERS

from staf.config import parse
from staf.data.card import builtin_cards
from staf.data.example import KNOWLEDGE_TYPES, Example
from staf.data.open_labels import frequent_labels, narrowed
from staf.data.paper_tables import corpus_rows, paper_tables, task_rows
from staf.data.registry import Registry
from staf.data.selection import expert_examples, label_set, prepare_task, protected_keys, task_counts, task_examples
from staf.data.store import DataStore
from staf.data.task import Task, builtin_tasks, find_task
from staf.errors import ConfigError, MissingData, TestLeak, UnknownName
from staf.evaluate.score import is_unseen
from staf.experts.store import Expert, ExpertSet


@pytest.fixture
def store(own, monkeypatch):
    monkeypatch.delenv("STAF_DATA", raising=False)
    return DataStore(own, fetch=False)


def test_the_nine_tasks_of_the_papers_are_there_with_stand_ins_for_those_that_need_credentials():
    assert len(paper_tables()["tasks"]) == 9
    for name in paper_tables()["tasks"]:
        rows = [task for task in builtin_tasks().values() if task.proxy_for == name]
        assert any(builtin_cards()[d].access != "credentialed" for task in rows for d in task.datasets), name
    for task in builtin_tasks().values():
        assert all(task.task_type in builtin_cards()[name].task_types for name in task.datasets), task.name
        assert task.unseen == (task.task_type not in KNOWLEDGE_TYPES)
    assert {
        task.top_labels for task in builtin_tasks().values() if task.name.startswith("icd_coding") and "_" not in task.name[11:]
    } == {
        *(10, 20, 30, 40, 50, 200),
        None,
    }


def test_every_knowledge_type_is_fed_by_open_data():
    for name in KNOWLEDGE_TYPES:
        assert any(builtin_cards()[dataset].access != "credentialed" for dataset, _ in Registry().expert_sources(name)), name


def test_a_data_set_of_another_domain_feeds_only_the_expert_of_its_own_name():
    assert not any(dataset == "conll-2003" for name in KNOWLEDGE_TYPES for dataset, _ in Registry().expert_sources(name))
    assert Registry().expert_sources("conll-2003") == (("conll-2003", "named_entity_recognition"),)
    with pytest.raises(UnknownName, match="knowledge type or a data set"):
        Registry().expert_sources("conll")


def test_records_without_a_knowledge_type_feed_an_expert_of_their_own_name_with_the_labels_that_tasks_ask_for(store):
    assert ("uci-diabetes-130", "readmission") in Registry().expert_sources("uci-diabetes-130")
    examples, _ = expert_examples("uci-diabetes-130", store)
    coded = [example for example in examples if example.task_type == "icd_coding"]
    assert coded
    assert all(0 < len(example.labels) <= 50 for example in coded)
    tested = protected_keys(store)
    assert all(tested.isdisjoint(example.dedup_keys) for example in examples)


def test_labels_are_ranked_by_how_often_they_occur_then_by_name():
    answers = ["b; a", "b; c", "a", "none", "c", "d"]
    assert frequent_labels(answers, 2) == ("a", "b")
    assert frequent_labels(answers, 3) == ("a", "b", "c")
    assert frequent_labels(answers, 9) == ("a", "b", "c", "d")


def test_examples_are_narrowed_to_the_labels_and_those_without_any_are_left_out():
    def stay(number: int, answer: str) -> Example:
        return Example(f"x/{number}", "icd_coding", "All?", "Hoof.", answer, (), "train", (), output_type="multi_label")

    first, second = narrowed([stay(1, "b; z; a"), stay(2, "z"), stay(3, "b")], ("a", "b"))
    assert (first.answer, first.labels, second.answer) == ("a; b", ("a", "b"), "b")
    assert "a; b" in first.query


def test_the_label_set_is_counted_on_what_is_not_test(store):
    task = find_task("icd_coding_top10_uci")
    labels = label_set(task, store)
    name, task_type = task.datasets[0], task.task_type
    fitted = [answer for split in ("train", "adaptation") for answer in store.column(name, "answer", task_type, split)]
    assert labels == frequent_labels(fitted, 10)
    assert all(set(e.answer.split("; ")) <= set(labels) for e in task_examples(task, "train", store))


def test_a_section_is_chosen_among_the_most_frequent_which_the_query_lists(store):
    task = find_task("icd10_section_top10").model_copy(update={"top_labels": 2})
    labels = label_set(task, store)
    for split in ("train", "adaptation", "test"):
        found = task_examples(task, split, store)
        assert {e.labels for e in found} == {labels}
        assert {e.query for e in found} == {
            f"Name the section of the classification of diseases that the diagnosis belongs to: {'; '.join(labels)}."
        }
        assert {e.answer for e in found} <= set(labels)
        assert len(found) == task_counts(task, store)[split]
    assert len(labels) == 2


def test_a_rare_label_may_have_as_many_test_items_as_a_frequent_one(store):
    task = find_task("readmission_even_uci").model_copy(update={"test_per_label": 2})
    whole = task_examples(find_task("readmission_uci"), "test", store)
    found = task_examples(task, "test", store)
    assert Counter(e.answer for e in found) == {answer: min(2, n) for answer, n in Counter(e.answer for e in whole).items()}
    assert found == [e for e in whole if e in found] == task_examples(task, "test", store)
    assert task_counts(task, store)["test"] == len(found) < len(whole)
    assert task_examples(task, "adaptation", store) == task_examples(find_task("readmission_uci"), "adaptation", store)


def test_a_task_reads_its_data_with_the_options_that_it_names(store):
    planned = task_examples(find_task("readmission_demo"), "train", store)
    unplanned = task_examples(find_task("readmission_unplanned_demo"), "train", store)
    assert [e.id for e in planned] == [e.id for e in unplanned]
    assert {e.answer for e in unplanned} <= {"yes", "no"}
    wrong = find_task("readmission_uci").model_copy(update={"reader_options": {"exclude_planned": True}})
    with pytest.raises(ConfigError, match=r"'uci-diabetes-130' cannot be read with exclude_planned: its reader has no such"):
        task_examples(wrong, "test", store)
    with pytest.raises(ConfigError, match="reader_options are for a data set of the cards"):
        parse(Task, {"task": "x", "dataset_path": "csv", "reader_options": {"a": True}}, "x.yaml")


def test_nothing_that_a_task_tests_is_in_the_training_of_any_expert(store):
    tested = protected_keys(store)
    assert tested
    for name in KNOWLEDGE_TYPES:
        examples, _ = expert_examples(name, store)
        assert examples, name
        assert all(tested.isdisjoint(example.dedup_keys) for example in examples)
        assert all(example.split == "train" for example in examples)


def test_under_the_other_split_scheme_experts_train_on_all_that_is_not_test(own):
    store = DataStore(own, "sa-mdkif", fetch=False)
    examples, _ = expert_examples("multiple_choice", store)
    assert {example.split for example in examples} == {"adaptation"}


def test_an_expert_without_data_says_what_would_feed_it(tmp_path):
    with pytest.raises(MissingData, match=r"expert 'summarization' has no data here; it is fed by .*meqsum"):
        expert_examples("summarization", DataStore(tmp_path, fetch=False))


def test_a_question_of_a_test_in_another_corpus_is_left_out_of_training(tmp_path, monkeypatch):
    monkeypatch.setenv("STAF_CACHE", str(tmp_path / "cache"))
    WRITERS["medmcqa"](tmp_path / "medmcqa")
    WRITERS["medqa-usmle"](tmp_path / "medqa-usmle")
    store = DataStore(tmp_path, fetch=False)
    examples, before = expert_examples("multiple_choice", store)
    question = {"question": examples[0].context, "options": {"A": "x", "B": "y"}, "answer_idx": "A"}
    with (tmp_path / "medqa-usmle" / "test.jsonl").open("a") as stream:
        stream.write(json.dumps(question) + "\n")
    without, after = expert_examples("multiple_choice", store)
    assert after > before
    assert examples[0].id not in {example.id for example in without}


def test_a_task_is_refused_where_an_expert_was_trained_on_a_test_item(store):
    task = find_task("medmcqa")
    assert prepare_task(task, store)["test"] > 0
    item = task_examples(task, "test", store)[0]
    with pytest.raises(TestLeak, match=f"1 of .* test items of 'medmcqa'.*{item.id}"):
        prepare_task(task, store, frozenset(item.dedup_keys[:1]))


def test_both_tables_have_every_row_of_the_paper_and_counts_only_of_what_is_here(store, tmp_path):
    corpora, tasks = corpus_rows(store), task_rows(store)
    assert {row["paper"] for row in corpora} == {row["corpus"] for row in paper_tables()["corpora"]}
    assert {row["paper"] for row in tasks} == {row["title"] for row in paper_tables()["tasks"].values()}
    assert sum(row["size"] for row in paper_tables()["corpora"]) == 677_050
    assert all(row["examples"] for row in corpora if row["access"] != "package")
    empty = DataStore(tmp_path, fetch=False)
    assert {row["examples"] for row in corpus_rows(empty)} == {None}
    assert {row["test"] for row in task_rows(empty)} == {None}


def test_a_task_is_unseen_where_no_record_of_an_expert_names_its_type_or_data() -> None:
    task = find_task("pubmedqa")

    def expert(name: str, **record: object) -> Expert:
        return Expert(name, {}, {}, frozenset(), record)

    def found(*experts: Expert) -> bool | None:
        return is_unseen(task, ExpertSet(experts))

    other, own = expert("summarization", licences={"mts-dialog": "x"}), expert("question_answering", licences={})
    assert found(other) is True
    assert found(other, own) is False
    assert found(expert("mine", licences={task.datasets[0]: "x"})) is False
    assert found(other, expert("from-a-hub")) is None
    assert found(own, expert("from-a-hub")) is False
    assert is_unseen(task, None) is None
