"""Tasks of lm-evaluation-harness on local files load unchanged: its shapes, written anew over questions of our own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from staf.data.selection import task_examples
from staf.data.store import DataStore
from staf.data.task import load_task
from staf.errors import ConfigError

SPLITS = "dataset_kwargs: {data_files: {train: train.json, validation: validation.json, test: test.json}}\n"
COMMON = """\
dataset_path: json
training_split: train
validation_split: validation
test_split: test
should_decontaminate: true
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
  - metric: acc_norm
    aggregation: mean
    higher_is_better: true
"""
BEASTS = {
    "train": ("cow in the long wet grass", "tired old owl"),
    "validation": ("red hen of next door", "goat"),
    "test": ("ant", "mare"),
}
FORMS: dict[str, tuple[str, dict[str, Any], str, str, tuple[str, ...]]] = {
    "science exam, options as an object": (
        'group: [exams]\ntask: exam\noutput_type: multiple_choice\ndoc_to_text: "Question: {{question}}\\nAnswer:"\n'
        'doc_to_target: "{{choices.label.index(answerKey)}}"\ndoc_to_choice: "{{choices.text}}"\n'
        'doc_to_decontamination_query: "Question: {{question}}"\nmetadata: {version: 1.0}\n',
        {"question": "Legs of a {}?", "choices": {"text": ["4", "1", "2"], "label": ["A", "B", "C"]}, "answerKey": "B"},
        "Question: Legs of a {}?\nAnswer:",
        "1",
        ("4", "1", "2"),
    ),
    "yes or no by number": (
        "group:\n  - reading\ntask: reading\noutput_type: multiple_choice\n"
        'doc_to_text: "{{passage}}\\nQuestion: {{question}}?\\nAnswer:"\ndoc_to_target: label\ndoc_to_choice: ["no", "yes"]\n'
        "doc_to_decontamination_query: passage\nmetadata:\n  - version: 2.0\n",
        {"passage": "The {} flies.", "question": "does it fly", "label": 1},
        "The {} flies.\nQuestion: does it fly?\nAnswer:",
        "yes",
        ("no", "yes"),
    ),
    "a list made of two columns": (
        'task: goals\ndataset_name: null\noutput_type: multiple_choice\ndoc_to_text: "Question: {{goal}}\\nAnswer:"\n'
        'doc_to_target: label\ndoc_to_choice: "{{[sol1, sol2]}}"\ndoc_to_decontamination_query: goal\n',
        {"goal": "Feed the {}.", "sol1": 'Say "eat", don\'t push.', "sol2": "It's hay.", "label": 1},
        "Question: Feed the {}.\nAnswer:",
        "It's hay.",
        ('Say "eat", don\'t push.', "It's hay."),
    ),
    "free text with filters": (
        "tag: math\ntask: sums\ndataset_name: main\noutput_type: generate_until\nfewshot_split: train\n"
        'doc_to_text: "Question: {{question}}\\nAnswer:"\ndoc_to_target: "{{answer}}"\nrepeats: 1\nnum_fewshot: 5\n'
        'generation_kwargs:\n  until: ["\\n\\n", "Question:"]\n  do_sample: false\n  temperature: 0.0\n'
        'filter_list:\n  - name: get-answer\n    filter:\n      - {function: regex, regex_pattern: "#### ([0-9]+)"}\n',
        {"question": "Two hooves of a {} and two more?", "answer": "2 + 2 = 4\n#### 4"},
        "Question: Two hooves of a {} and two more?\nAnswer:",
        "2 + 2 = 4\n#### 4",
        (),
    ),
    "medical exam, letters": (
        "task: vet\noutput_type: multiple_choice\n"
        'doc_to_text: "Question: {{sent1}}\\nA. {{ending0}}\\nB. {{ending1}}\\nAnswer:"\n'
        'doc_to_target: answer_idx\ndoc_to_choice: ["A", "B"]\n',
        {"sent1": "The {} limps. What now?", "ending0": "Rest.", "ending1": "Race.", "answer_idx": "A"},
        "Question: The {} limps. What now?\nA. Rest.\nB. Race.\nAnswer:",
        "A",
        ("A", "B"),
    ),
    "the right one comes last, with a passage": (
        'task: support\noutput_type: multiple_choice\ndoc_to_text: "{{support.lstrip()}}\\nQuestion: {{question}}\\nAnswer:"\n'
        'doc_to_target: 3\ndoc_to_choice: "{{[distractor1, distractor2, distractor3, correct_answer]}}"\n',
        {
            "support": "  Wings lift the {}.",
            "question": "What lifts it?",
            "distractor1": "Hope.",
            "distractor2": "Hay.",
            "distractor3": "Rain.",
            "correct_answer": "Wings.",
        },
        "Wings lift the {}.\nQuestion: What lifts it?\nAnswer:",
        "Wings.",
        ("Hope.", "Hay.", "Rain.", "Wings."),
    ),
    "a column of options, a template that gives a number": (
        'task: endings\noutput_type: multiple_choice\ndoc_to_text: "{{query}}"\n'
        'doc_to_target: "{{label}}"\ndoc_to_choice: "choices"\n',
        {"query": "The {} went", "label": "1", "choices": ["0", "home"]},
        "The {} went",
        "home",
        ("0", "home"),
    ),
    "four options by letter and number, few-shot examples of dev": (
        "task: subject\noutput_type: multiple_choice\nfewshot_split: dev\nfewshot_config: {sampler: first_n}\n"
        'doc_to_text: "{{question.strip()}}\\nA. {{choices[0]}}\\nB. {{choices[1]}}\\nAnswer:"\n'
        'doc_to_choice: ["A", "B"]\ndoc_to_target: answer\n',
        {"question": " Is a {} a beast? ", "choices": ["it is", "it is not"], "answer": 0},
        "Is a {} a beast?\nA. it is\nB. it is not\nAnswer:",
        "A",
        ("A", "B"),
    ),
}


def filled(row: dict[str, Any], word: str) -> dict[str, Any]:
    return json.loads(json.dumps(row).replace("{}", word))


@pytest.mark.parametrize("form", FORMS)
def test_a_task_of_the_harness_loads_unchanged(tmp_path: Path, form: str) -> None:
    keys, row, query, answer, labels = FORMS[form]
    for split in ("train", "validation", "test"):
        rows = [filled(row, name) for name in BEASTS[split]]
        (tmp_path / f"{split}.json").write_text("".join(json.dumps(each) + "\n" for each in rows))
    (tmp_path / "task.yaml").write_text(keys + COMMON + SPLITS)
    task = load_task(tmp_path / "task.yaml")
    test = task_examples(task, "test", DataStore())
    assert [(e.query, e.context, e.answer, e.labels) for e in test] == [
        (query.format(name), "", answer, labels) for name in BEASTS["test"]
    ]
    assert len(task_examples(task, "adaptation", DataStore())) == 4


def test_where_no_test_split_is_named_the_validation_split_is_the_test(tmp_path: Path) -> None:
    keys, row, *_ = FORMS["a list made of two columns"]
    for split in ("train", "validation", "test"):
        (tmp_path / f"{split}.json").write_text(json.dumps([filled(row, split)]))
    (tmp_path / "task.yaml").write_text(keys + COMMON.replace("test_split: test", "test_split: null") + SPLITS)
    task, store = load_task(tmp_path / "task.yaml"), DataStore()
    assert "validation" in task_examples(task, "test", store)[0].query
    assert [e.query for e in task_examples(task, "adaptation", store)] == ["Question: Feed the train.\nAnswer:"]


@pytest.mark.parametrize("key", ["process_docs", "doc_to_text", "process_results", "doc_to_target"])
def test_functions_are_refused(tmp_path: Path, key: str) -> None:
    keys = "\n".join(line for line in FORMS["a list made of two columns"][0].splitlines() if not line.startswith(f"{key}:"))
    (tmp_path / "task.yaml").write_text(f"{keys}\n{COMMON}{SPLITS}{key}: !function own.run\n")
    with pytest.raises(ConfigError, match=r"!function.*no code runs"):
        load_task(tmp_path / "task.yaml")
