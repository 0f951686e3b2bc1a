"""Does a task say anything? TF-IDF with logistic regression on its training set has to beat the majority by 5 points.

    python benchmarks/task_gate.py causal_language trial_effect ...     a row of Markdown each; no language model

Fitted on the training and adaptation examples, at most 4,000 of them by the draw of test samples; scored on at most 1,000
test items by the task's own metric.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from staf.baselines.classifiers import classify
from staf.baselines.settings import ClassifierSettings
from staf.data.selection import task_examples
from staf.data.store import DataStore
from staf.data.task import find_task
from staf.evaluate.score import sample
from staf.metrics.by_output_type import measures_of

FITTED, TESTED, POINTS = 4_000, 1_000, 5.0


def row(name: str, store: DataStore) -> str:
    """Task, metric, majority, TF-IDF, verdict, and how many examples were fitted on and tested."""
    task = find_task(name)
    known = [example for split in ("train", "adaptation") for example in task_examples(task, split, store)]
    fitted, test = sample(known, FITTED), sample(task_examples(task, "test", store), TESTED)
    scores = []
    for method in ("majority", "tfidf"):
        predictions, _ = classify(method, fitted, test, ClassifierSettings(c_values=(1.0, 10.0), folds=3))
        found = measures_of(task.output_type, predictions, fixed_labels=task.fixed_labels)
        scores.append(100 * found.statistics[task.metric].value)
    verdict = "passes" if scores[1] - scores[0] >= POINTS else "says nothing"
    cells = (f"`{name}`", task.metric, *(f"{score:.1f}" for score in scores), verdict, f"{len(fitted):,}", f"{len(test):,}")
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="+")
    parser.add_argument("--data-dir", type=Path, default=None, help="the data folder; else the one that STAF_DATA names")
    options = parser.parse_args()
    store = DataStore(options.data_dir)
    print("| task | metric | majority | TF-IDF | gate | fitted on | test items |\n|---|---|---|---|---|---|---|")
    for name in options.tasks:
        print(row(name, store), flush=True)


if __name__ == "__main__":
    main()
