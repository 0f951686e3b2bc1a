"""Does lm-evaluation-harness agree? A fused model runs in lm_eval unchanged; its accuracy there beside ours.

    pip install lm_eval && python benchmarks/lm_eval_agreement.py --model demo/fused/icd10_chapter --limit 100

lm_eval's own medical multiple-choice tasks (their prompts, their choices, their metric), with the documents given as local
files in the fields that they have on the hub. lm_eval loads the fused folder as any model; ours loads it as a base and scores
the same prompts and choices by its trees of answers. A line for each task: both accuracies, the difference in points, and the
largest difference of a log-likelihood, in float32.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from staf.data.example import Example
from staf.data.prepare import load, prepare
from staf.data.splits import seeded_rng
from staf.lm.base import Base, load_base
from staf.lm.scoring import ScoringRequest, build_choices, loglikelihoods

TASKS = {
    "medmcqa": ("medmcqa", "multiple_choice"),
    "medqa_4options": ("medqa-usmle", "multiple_choice"),
    "pubmedqa": ("pubmedqa", "question_answering"),
}
"""lm_eval's task, our data set and kind."""


def document(task: str, example: Example) -> dict[str, Any]:
    """An example in the fields that lm_eval's task reads."""
    right = example.labels.index(example.answer)
    if task == "medmcqa":
        return {
            "question": example.context,
            **dict(zip(("opa", "opb", "opc", "opd"), example.labels, strict=True)),
            "cop": right,
        }
    if task == "medqa_4options":
        return {"sent1": example.context, **{f"ending{i}": label for i, label in enumerate(example.labels)}, "label": right}
    question, mark, abstract = example.context.partition("? ")
    return {"QUESTION": question + mark.strip(), "CONTEXTS": [abstract], "final_decision": example.answer}


def documents(task: str, limit: int, data: Path | None) -> list[dict[str, Any]]:
    """Test documents, drawn by a fixed draw; those with four options where the task has four."""
    name, kind = TASKS[task]
    pool = [
        e
        for e in load(prepare(name, data), kind, "test", output_type="multiple_choice")
        if task == "pubmedqa" or len(e.labels) == 4
    ]
    if not pool:
        raise SystemExit(f"{task}: no test questions with four options in {name}. Give the data folder with --data.")
    return [document(task, example) for example in seeded_rng("harness").sample(pool, min(limit, len(pool)))]


def task_of(name: str, file: Path) -> Any:
    """lm_eval's own task, its documents in a local file."""
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks.medmcqa.utils_medmcqa import doc_to_text as medmcqa_text
    from lm_eval.tasks.medqa.preprocess_medqa import doc_to_target as medqa_target
    from lm_eval.tasks.medqa.preprocess_medqa import doc_to_text as medqa_text
    from lm_eval.tasks.pubmedqa.preprocess_pubmedqa import doc_to_text as pubmedqa_text

    own: dict[str, dict[str, Any]] = {
        "medmcqa": {"doc_to_text": medmcqa_text, "doc_to_target": "cop", "doc_to_choice": list("ABCD")},
        "medqa_4options": {"doc_to_text": medqa_text, "doc_to_target": medqa_target, "doc_to_choice": list("ABCD")},
        "pubmedqa": {"doc_to_text": pubmedqa_text, "doc_to_target": "final_decision", "doc_to_choice": ["yes", "no", "maybe"]},
    }
    common = {
        "task": f"{name}_local", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(file)}},
        "test_split": "test", "output_type": "multiple_choice",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }  # fmt: skip
    return ConfigurableTask(config={**common, **own[name]})


def asked(base: Base, sample: dict[str, Any]) -> ScoringRequest:
    """The prompt and choices of a document as lm_eval tokenizes them: together, cut where the prompt alone ends."""
    pairs = [(str(one[0]), str(one[1])) for one in sample["arguments"]]
    prompt = base.tokenizer(pairs[0][0])["input_ids"]
    answers = [base.tokenizer(context + choice)["input_ids"][len(prompt) :] for context, choice in pairs]
    return ScoringRequest(tuple(prompt), build_choices(answers))


def target_of(sample: dict[str, Any]) -> int:
    """Index of the right choice, which a task gives as it is or by its text."""
    target = str(sample["target"])
    return int(target) if target.isdigit() else [str(one[1]).strip() for one in sample["arguments"]].index(target)


def compare(base: Base, task: str, result: dict[str, Any]) -> dict[str, Any]:
    """Both accuracies of a task."""
    samples = result["samples"][f"{task}_local"]
    scores = loglikelihoods(base, [asked(base, sample) for sample in samples], token_budget=4096, length_normalised=False)
    theirs = [torch.tensor([float(found[0]) for found in sample["filtered_resps"]]) for sample in samples]
    right = [float(int(own.argmax()) == target_of(sample)) for own, sample in zip(scores, samples, strict=True)]
    ours, peer = sum(right) / len(right), result["results"][f"{task}_local"]["acc,none"]
    largest = max(float((a - b).abs().max()) for a, b in zip(scores, theirs, strict=True))
    return {
        "case": f"{task}, {len(samples)} documents", "ours": round(100 * ours, 2), "peer": round(100 * peer, 2),
        "unit": "accuracy, %", "difference_in_points": round(100 * (ours - peer), 2),
        "same_answers": sum(int(a.argmax()) == int(b.argmax()) for a, b in zip(scores, theirs, strict=True)),
        "largest_difference": largest,
    }  # fmt: skip


def lines(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One task after the other."""
    try:
        from lm_eval import simple_evaluate
    except ImportError as error:
        raise SystemExit(f"lm_eval is not here ({error}); it is the peer of this benchmark: pip install lm_eval") from error
    base = load_base(str(options.model), dtype="float32")
    with tempfile.TemporaryDirectory() as folder:
        for task in options.tasks:
            file = Path(folder) / f"{task}.jsonl"
            file.write_text(
                "".join(json.dumps(row) + "\n" for row in documents(task, options.limit, options.data)), encoding="utf-8"
            )
            arguments = f"pretrained={options.model},dtype=float32"
            result = simple_evaluate(
                "hf", arguments, tasks=[task_of(task, file)], batch_size=8, device=base.device.type, log_samples=True,
                bootstrap_iters=0,
            )  # fmt: skip
            yield compare(base, task, result)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder of a fused model")
    parser.add_argument("--limit", type=int, default=100, help="documents of a task")
    parser.add_argument("--data", type=Path, default=None, help="folder of data sets; else what comes by package")
    parser.add_argument("--tasks", choices=tuple(TASKS), nargs="+", default=tuple(TASKS))
    options = parser.parse_args()
    for line in lines(options):
        common = {
            "bench": "harness",
            "peer_name": "lm_eval",
            "machine": platform.machine(),
            "ratio": None,
            "share_of_limit": None,
        }
        print(json.dumps(common | line), flush=True)


if __name__ == "__main__":
    main()
