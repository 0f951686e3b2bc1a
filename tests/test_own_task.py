"""Tasks of one's own: a YAML file over local CSV, JSON or Parquet files."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import random_expert
from typer.testing import CliRunner

from staf.cli import app
from staf.data.registry import Registry
from staf.data.selection import expert_examples, prepare_task, protected_keys, task_examples
from staf.data.store import DataStore
from staf.data.task import builtin_tasks, find_task, load_task
from staf.errors import BadData, ConfigError, MissingData, TestLeak, UnknownName
from staf.experts.store import save_expert
from staf.lm.base import load_base
from staf.log import NullProgress
from staf.stages.context import Context, RunContext

WORDS = ("hoof", "wing", "tail", "horn", "beak", "fin", "mane", "claw")


def rows(count: int = 60) -> list[dict[str, str]]:
    return [
        {
            "note": f"The {WORDS[n % 8]} of beast {n} is {'broken and hurts' if n % 3 else 'fine'}.",
            "outcome": "urgent" if n % 3 else "routine",
            "patient": f"p{n // 2}",
        }
        for n in range(count)
    ]


def write(folder: Path, found: list[dict[str, Any]], **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "notes.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(found[0]))
        writer.writeheader()
        writer.writerows(found)
    values = {
        "task": "triage",
        "dataset_path": "csv",
        "dataset_kwargs": {"data_files": "notes.csv"},
        "output_type": "multiple_choice",
        "doc_to_text": "Is this note urgent or routine?",
        "doc_to_context": "{{note}}",
        "doc_to_target": "outcome",
        "doc_to_choice": ["routine", "urgent"],
        "group_column": "patient",
        "test_split": {"size": 0.3},
        "metric_list": ["macro_f1", "accuracy"],
        **changes,
    }
    path = folder / "triage.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in values.items() if v is not None}), encoding="utf-8")
    return path


def test_a_csv_becomes_a_task_whose_groups_stay_together(tmp_path: Path) -> None:
    task = find_task(str(write(tmp_path, rows())))
    store = DataStore(None, fetch=False)
    test, adaptation = (task_examples(task, split, store) for split in ("test", "adaptation"))
    assert (len(test), len(adaptation)) == (18, 42)
    assert {e.group for e in test}.isdisjoint(e.group for e in adaptation)
    first = adaptation[0]
    assert first.query == "Is this note urgent or routine?"
    assert first.context.startswith("The ")
    assert first.labels == ("routine", "urgent")
    assert (task.metric, task.fixed_labels, task.unseen, task.task_type) == ("macro_f1", True, True, "triage")
    assert prepare_task(task, store) == {"train": 0, "adaptation": 42, "test": 18}
    again = task_examples(find_task(str(tmp_path / "triage.yaml")), "test", DataStore(None, fetch=False))
    assert again == test


def test_its_test_items_are_kept_out_of_training_and_leaks_are_refused(tmp_path: Path) -> None:
    task = load_task(write(tmp_path, rows()))
    store = DataStore(None, fetch=False, registry=Registry(tasks={task.name: task}))
    item = task_examples(task, "test", store)[0]
    assert set(item.dedup_keys) <= protected_keys(store)
    with pytest.raises(TestLeak, match="1 of 18"):
        prepare_task(task, store, frozenset(item.dedup_keys[-1:]))


@pytest.mark.parametrize("file_format", ["json", "parquet"])
def test_other_formats_give_the_same_examples(tmp_path: Path, file_format: str) -> None:
    expected = task_examples(load_task(write(tmp_path / "a", rows())), "test", DataStore())
    path = write(tmp_path / "b", rows(), dataset_path=file_format, dataset_kwargs={"data_files": f"notes.{file_format}"})
    if file_format == "json":
        (path.parent / "notes.json").write_text("".join(json.dumps(row) + "\n" for row in rows()))
    else:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows()), path.parent / "notes.parquet")
    assert task_examples(load_task(path), "test", DataStore()) == expected


def test_a_task_of_lm_evaluation_harness_with_named_splits_and_an_index_as_target(tmp_path: Path) -> None:
    for split in ("train", "test"):
        found = [
            {"question": f"What is {w} of {split}?", "options": ["bone", "skin"], "gold": i & 1} for i, w in enumerate(WORDS)
        ]
        (tmp_path / f"{split}.json").write_text(json.dumps(found))
    path = tmp_path / "task.yaml"
    path.write_text(
        "task: quiz\ntag: [own]\ndataset_path: json\n"
        "dataset_kwargs: {data_files: {train: train.json, test: test.json}}\n"
        "training_split: train\ntest_split: test\noutput_type: multiple_choice\nnum_fewshot: 0\n"
        'doc_to_text: "Question: {{question}}"\ndoc_to_target: gold\ndoc_to_choice: "{{options}}"\n'
        "metric_list:\n  - metric: acc\n    aggregation: mean\n    higher_is_better: true\nmetadata: {version: 1.0}\n"
    )
    task, store = load_task(path), DataStore()
    test = task_examples(task, "test", store)
    assert [e.answer for e in test] == ["bone", "skin"] * 4
    assert test[0].query == "Question: What is hoof of test?"
    assert (task.metric, len(task_examples(task, "adaptation", store))) == ("accuracy", 8)


def test_a_corpus_for_an_expert_is_the_same_file_without_a_test_split(tmp_path: Path) -> None:
    path = write(tmp_path, rows(), output_type="generate_until", doc_to_choice=None, test_split=None, metric_list=None)
    found = task_examples(load_task(path), "train", DataStore())
    assert (len(found), found[0].answer, found[0].output_type) == (60, "routine", "generate_until")


def test_every_mistake_of_a_file_is_named_at_once(tmp_path: Path) -> None:
    path = write(tmp_path, rows(), doc_to_txt="x", test_split={"size": 3})
    with pytest.raises(ConfigError, match="problems") as caught:
        load_task(path)
    assert "did you mean 'doc_to_text'" in str(caught.value)
    with pytest.raises(ConfigError, match="doc_to_context is needed: span answers with its words"):
        load_task(write(tmp_path, rows(), output_type="span", doc_to_context=None, metric_list=None))


def test_a_metric_that_does_not_exist_is_refused_with_near_names(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no metric 'acuracy'; did you mean 'accuracy'"):
        load_task(write(tmp_path, rows(), metric_list=["acuracy"]))
    with pytest.raises(ConfigError, match="no metric 'zzz'; known: accuracy, "):
        load_task(write(tmp_path, rows(), metric_list=[{"metric": "zzz"}]))
    assert load_task(write(tmp_path, rows(), metric_list=["brier_score", "mcc", "macro_f1"])).metric == "macro_f1"


def test_a_metric_of_another_output_type_is_refused_with_those_that_fit(tmp_path: Path) -> None:
    fits = "is no metric of multiple_choice, which is judged by accuracy, macro_f1, macro_auc"
    for given in (["entity_f1"], "rouge_l", ["accuracy", "exact_match"], ["rougeL"]):
        with pytest.raises(ConfigError, match=fits):
            load_task(write(tmp_path, rows(), metric_list=given))
    with pytest.raises(ConfigError, match="'accuracy' is no metric of generate_until, which is judged by rouge_l, "):
        load_task(write(tmp_path, rows(), metric_list=["acc"], output_type="generate_until", doc_to_choice=None))
    harness = [{"metric": "exact_match", "aggregation": "mean"}]  # what it computes of written answers
    path = write(tmp_path, rows(), metric_list=harness, output_type="generate_until", doc_to_choice=None)
    assert load_task(path).metric == "rouge_l"


def test_no_code_runs_from_a_task_file(tmp_path: Path) -> None:
    path = write(tmp_path, rows())
    path.write_text(path.read_text() + "process_docs: !function utils.process\n")
    with pytest.raises(ConfigError, match=r"!function.*no code runs"):
        load_task(path)
    path = write(tmp_path, rows(), doc_to_context="{{ ''.__class__.__mro__[1].__subclasses__() }}")
    with pytest.raises(BadData, match=r"SecurityError"):
        task_examples(load_task(path), "test", DataStore())


def test_rows_that_do_not_fit_are_named_and_their_text_is_not(tmp_path: Path) -> None:
    found = rows()
    found[3]["outcome"], found[5]["note"] = "secret", ""
    with pytest.raises(BadData, match=r"1 of 60 rows do not fit.*\n.*notes\.csv, row 4: doc_to_target") as caught:
        task_examples(load_task(write(tmp_path, found)), "test", DataStore())
    assert "secret" not in str(caught.value)
    for key, template in (
        ("doc_to_context", "{{text}}"),
        ("doc_to_text", "Which of {{ text | upper }}?"),
        ("doc_to_target", "{{text}}"),
    ):
        with pytest.raises(BadData, match=rf"row 1: {key}: 'text' is no column; the columns are note, outcome, patient"):
            task_examples(load_task(write(tmp_path, rows(), **{key: template})), "test", DataStore())
    with pytest.raises(BadData, match=r"UndefinedError; the columns are") as caught:
        task_examples(load_task(write(tmp_path, rows(), doc_to_text="{{ {}[note] }}")), "test", DataStore())
    assert "beast" not in str(caught.value)
    with pytest.raises(BadData, match="doc_to_target 'outcom' is no column and no template; the columns are note, outcome"):
        task_examples(load_task(write(tmp_path, rows(), doc_to_target="outcom")), "test", DataStore())
    path = write(tmp_path, rows())
    (tmp_path / "notes.csv").write_text("note,outcome,patient\n")
    with pytest.raises(BadData, match="task 'triage': its data files hold no rows"):
        task_examples(load_task(path), "test", DataStore())


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("csv", b"note,note,outcome,patient\na,b,urgent,1\n", "column 'note' occurs twice"),
        ("csv", b"n\xffte,outcome,patient\na,urgent,1\n", "line 1: not UTF-8 text"),
        ("csv", b"note,outcome,patient\na,urgent\n", "line 2: 3 cells are expected, found 2"),
        ("csv", b"note,outcome,patient\na,urgent,1,more\n", "line 2: 3 cells are expected, found 4"),
        ("csv", b"note,outcome,patient\na,urgent,NaN\n", "no complete rows .1 without a text, answer or group."),
        ("csv", b"note,outcome\na,urgent\n", "'patient' .group_column. is missing; the columns are note, outcome"),
        ("csv", b"note,outcome,patient\nnull,urgent,1\n", "hold no complete rows .1 without a text, answer or group."),
        ("csv", b"note,outcome,patient\n\xff,urgent,1\n", "line 2: not UTF-8 text .*WINDOWS-1252"),
        ("json", b'{"note": "\\ud800", "outcome": "urgent", "patient": 1}', "line 1: a text holds half of a surrogate pair"),
        ("json", b"[" * 100_000, "record 1: not a valid JSON array"),
        ("json", b"[1]", "record 1: a JSON object is expected, found int"),
        ("parquet", b"PAR1", "is not a Parquet file .ArrowInvalid."),
    ],
)
def test_files_that_would_be_read_wrong_are_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = write(tmp_path, rows(), dataset_path=name, dataset_kwargs={"data_files": f"data.{name}"}, doc_to_text="")
    (tmp_path / f"data.{name}").write_bytes(content)
    with pytest.raises(BadData, match=message):
        task_examples(load_task(path), "test", DataStore())


def test_a_byte_order_mark_line_ends_of_windows_and_separators_within_a_text_are_read(tmp_path: Path) -> None:
    found = [{"note": f"a\u2028b\x85{n}", "outcome": "urgent", "patient": n} for n in range(10)]
    path = write(tmp_path, rows(), dataset_path="json", dataset_kwargs={"data_files": "data.json"})
    text = "\ufeff" + "\r\n".join(json.dumps(row, ensure_ascii=False) for row in found) + "\r\n"
    (tmp_path / "data.json").write_bytes(text.encode())
    examples = [e for split in ("adaptation", "test") for e in task_examples(load_task(path), split, DataStore())]
    assert sorted(e.context for e in examples) == [row["note"] for row in found]


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingData, match="no task file"):
        find_task(str(tmp_path / "none.yaml"))
    path = write(tmp_path, rows())
    (tmp_path / "notes.csv").unlink()
    with pytest.raises(MissingData, match=r"no data file .*notes\.csv"):
        task_examples(load_task(path), "test", DataStore())
    with pytest.raises(ConfigError, match="another task named 'pubmedqa'"):
        find_task(str(write(tmp_path, rows(), task="pubmedqa")))
    with pytest.raises(UnknownName, match="Did you mean 'test'"):
        task_examples(load_task(write(tmp_path / "named", rows())), "tests", DataStore())
    with pytest.raises(UnknownName, match="Did you mean 'pubmedqa'"):
        find_task("pubmed_qa")


@pytest.fixture
def experts(tmp_path: Path, tiny_folder: Path) -> Path:
    base = load_base(str(tiny_folder), dtype="float32", device="cpu")
    save_expert(tmp_path / "experts" / "a", random_expert(base, "a", 0))
    return tmp_path / "experts"


def command(*arguments: object) -> Any:
    result = CliRunner().invoke(app, [*map(str, arguments), "--json"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_the_commands_take_a_task_file_and_draw_no_more_shots_than_there_are(
    tmp_path: Path, tiny_folder: Path, experts: Path, own: Path
) -> None:
    path = write(tmp_path / "task", rows(30))
    common = ["--base", tiny_folder, "--data-dir", own, "--runs", tmp_path / "runs"]
    search = ["--method", "cma", "-o", "max_evaluations=4", "-o", "popsize=4"]
    adapted = command("adapt", "--task", path, "--experts", experts, *search, "--out", tmp_path / "router", *common)
    assert adapted["task"] == "triage"
    assert 1 <= len(adapted["example_ids"]) < 32
    scored = command("evaluate", "--task", path, "--experts", experts, "--router", tmp_path / "router", *common)
    assert (scored["task"], scored["primary_metric"]) == ("triage", "macro_f1")
    assert 0 <= scored["metrics"]["macro_f1"]["value"] <= 1


def test_an_expert_is_trained_on_a_file(tmp_path: Path, tiny_folder: Path, own: Path) -> None:
    keys: dict[str, Any] = {"task": "corpus", "output_type": "generate_until", "test_split": None}
    path = write(tmp_path / "task", rows(30), **keys, doc_to_choice=None, metric_list=None)
    common = ["--base", tiny_folder, "--data-dir", own, "--runs", tmp_path / "runs"]
    steps = ["-o", "steps=6", "-o", "tinit=1", "-o", "tfinal=1"]
    (trained,) = command("train", "--data", path, "--out", tmp_path / "experts", *steps, *common)
    assert (trained["expert"], trained["examples"]) == ("corpus", 30)
    other = write(tmp_path / "other", rows(30))
    with pytest.raises(ConfigError, match="leave test_split out"):
        expert_examples(str(other), DataStore(own, fetch=False))


def test_the_commands_keep_the_test_items_of_a_task_file_out_of_training(tmp_path: Path, tiny_folder: Path, own: Path) -> None:
    path = write(tmp_path / "task", rows(30))
    changes = {
        "task": "corpus",
        "output_type": "generate_until",
        "doc_to_choice": None,
        "test_split": None,
        "metric_list": None,
    }
    corpus = write(tmp_path / "corpus", rows(30), **changes)
    common = ["--base", tiny_folder, "--data-dir", own, "--runs", tmp_path / "runs"]
    train = ["train", "--data", corpus, "-o", "steps=8", "-o", "batch_size=4", "-o", "tinit=1", "-o", "tfinal=1", *common]
    evaluate = ["evaluate", "--task", path, "--method", "average", *common]
    command(*train, "--out", tmp_path / "leaking")
    with pytest.raises(TestLeak, match="8 of 8 test items of 'triage'"):
        command(*evaluate, "--experts", tmp_path / "leaking")
    (trained,) = command(*train, "--task", path, "--out", tmp_path / "experts")
    assert trained["examples"] == 22
    assert command(*evaluate, "--experts", tmp_path / "experts")["task"] == "triage"
    assert command("tasks", "validate", path, "--experts", tmp_path / "experts", *common[:4])["test"] == 8


def test_a_context_and_its_jobs_know_the_tasks_that_they_are_given(tmp_path: Path, own: Path) -> None:
    path = write(tmp_path, rows())
    context = Context(None, own, tmp_path / "runs")
    task = context.find_task(str(path))
    item = task_examples(task, "test", context.store)[0]
    assert set(item.dedup_keys) <= protected_keys(context.store)
    job = RunContext(None, own, tmp_path / "runs", "staf-llm", tasks=(str(path),))
    assert "triage" in job.context(NullProgress()).store.registry.tasks
    assert "triage" not in builtin_tasks()


def test_what_a_smaller_set_costs_an_own_task_needs_its_file(
    tmp_path: Path, tiny_folder: Path, experts: Path, own: Path
) -> None:
    path, common = write(tmp_path / "task", rows(30)), ["--base", tiny_folder, "--data-dir", own]
    adapt = ["adapt", "--task", path, "--experts", experts, "--method", "cma", "-o", "max_evaluations=4", "-o", "popsize=4"]
    command(*adapt, "--out", tmp_path / "router", "--runs", tmp_path / "runs", *common)
    reduce = ["experts", "reduce", experts, tmp_path / "small", "--rank", 1, "--router", tmp_path / "router", "--measure"]
    assert command(*reduce, "--task", path, *common)["loss"]["before"] > 0
    reduce[3] = tmp_path / "other"
    with pytest.raises(ConfigError, match="is of the task 'triage', not of 'pubmedqa'"):
        command(*reduce, "--task", "pubmedqa", *common)
    other = ["evaluate", "--task", "pubmedqa", "--router", tmp_path / "router", "--experts", experts, *common]
    with pytest.raises(ConfigError, match="is of the task 'triage', not of 'pubmedqa'"):
        command(*other, "--runs", tmp_path / "runs")
    assert not list((tmp_path / "runs").glob("evaluate/pubmedqa/*"))
    (tmp_path / "new.csv").write_text("id,note\nn1,The fin of beast 99 is fine.\n")
    (tmp_path / "asked.jsonl").write_text(
        json.dumps({"id": "n1", "context": "The fin of beast 99 is fine.", "query": "Is this note urgent or routine?"})
    )
    predict = ["--router", tmp_path / "router", "--experts", experts, *common]
    command("predict", tmp_path / "new.csv", "--out", tmp_path / "new.jsonl", *predict)
    command("predict", tmp_path / "asked.jsonl", "--out", tmp_path / "same.jsonl", *predict)
    assert (tmp_path / "new.jsonl").read_text() == (tmp_path / "same.jsonl").read_text()
