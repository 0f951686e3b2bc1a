"""Make the experts that come with the package: train each on one data set, then write them in bfloat16.

    python benchmarks/reference_experts.py train --out trained      # resumes; STAF_DATA names the folder of data sets
    python benchmarks/reference_experts.py pack trained src/staf/reference
    python benchmarks/reference_experts.py error trained src/staf/reference --task trial_effect

`error` prints by how many nats the log-likelihood of an answer differs. Settings not listed are those of `staf train`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import torch

from staf.data.selection import task_examples
from staf.evaluate.answer import Answerer
from staf.evaluate.score import sample
from staf.evaluate.settings import EvaluationSettings
from staf.experts.store import load_experts, save_expert
from staf.stages.context import Context

TRAINED = {"evidence-inference": (80, 256), "ncbi-disease": (120, 128), "rqe-amia2016": (80, 192)}
"""Steps and tokens of an example at most, by data set; batches of 8."""


def train(out: Path) -> None:
    """Train what is not trained yet."""
    for name, (steps, length) in TRAINED.items():
        settings = {"steps": steps, "batch_size": 8, "tinit": steps // 5, "tfinal": steps // 3, "max_length": length}
        options = [part for key, value in settings.items() for part in ("-o", f"{key}={value}")]
        subprocess.run([sys.executable, "-m", "staf.cli", "train", "--data", name, "--out", str(out), *options], check=True)


def pack(trained: Path, out: Path) -> None:
    """Write the trained experts compactly."""
    for expert in load_experts(trained, list(TRAINED)).experts:
        save_expert(out / expert.name, expert, compact=True)


def error(trained: Path, packed: Path, task: str) -> None:
    """Print the mean difference in nats of each expert on some items of a task with labels."""
    context = Context(None, None, Path("runs"))
    items = sample(task_examples(context.find_task(task), "test", context.store), 24)
    answerer = Answerer(context.base, EvaluationSettings(scoring="sum"))
    found = []
    for folder in (trained, packed):
        mixture, own = context.mixture(load_experts(folder, list(TRAINED))), []
        for index in range(len(TRAINED)):
            mixture.set_weights(torch.eye(len(TRAINED))[index : index + 1])
            own.append(torch.tensor([scores.tolist() for scores in answerer.scores(items)]))
        found.append(own)
    for name, one, other in zip(sorted(TRAINED), *found, strict=True):
        print(f"{name}: {(one - other).abs().mean():.4f} nats on average, {(one - other).abs().max():.4f} at most")


def main() -> None:
    """Train, pack, or measure the error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("train").add_argument("--out", type=Path, required=True)
    for name in ("pack", "error"):
        one = commands.add_parser(name)
        one.add_argument("trained", type=Path)
        one.add_argument("packed", type=Path)
        if name == "error":
            one.add_argument("--task", default="trial_effect")
    options = parser.parse_args()
    if options.command == "train":
        train(options.out)
    elif options.command == "pack":
        pack(options.trained, options.packed)
    else:
        error(options.trained, options.packed, options.task)


if __name__ == "__main__":
    main()
