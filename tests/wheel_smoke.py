"""The installed package, from an empty folder: train, adapt, merge, predict and compare on a tiny model, then packaged tables.

Run it with the Python of an environment that holds the wheel: python tests/wheel_smoke.py. It imports the corpora of the
tests, but `staf` must come from the environment.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from formats import WRITERS
from tiny_model import write_tiny_model

import staf

TRAINING = ("steps=6", "batch_size=4", "tinit=1", "tfinal=2", "max_length=500")


def main() -> None:
    """Run every step; a step that fails ends the script with its output."""
    if not Path(staf.__file__).is_relative_to(sys.prefix):
        sys.exit(f"staf comes from {staf.__file__}, not from this environment ({sys.prefix}).")
    command = Path(sys.prefix) / "bin" / "staf"
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "STAF_CACHE": str(home / "cache"), "OMP_NUM_THREADS": "1"}
        environment.pop("PYTHONPATH", None)

        def run(*arguments: str) -> str:
            done = subprocess.run(
                [str(command), *arguments], cwd=home, env=environment, capture_output=True, text=True, check=False
            )
            if done.returncode:
                sys.exit(f"staf {' '.join(arguments)} failed with exit code {done.returncode}.\n{done.stdout}{done.stderr}")
            print(f"ok: staf {' '.join(arguments[:2])}", flush=True)
            return done.stdout

        write_tiny_model(home / "base")
        for corpus in ("hpo", "icd-10-cm"):
            WRITERS[corpus](home / "data" / corpus)
        base, data = ("--base", "base"), ("--data-dir", "data")
        task, experts = ("--task", "icd10_chapter"), ("--experts", "experts")
        changed = [part for setting in TRAINING for part in ("-o", setting)]
        assert run("--version").strip() == f"staf {staf.__version__}"
        run("train", "--data", "entity_relation,entity_synonymy", "--out", "experts", *base, *data, *changed)
        run("adapt", *task, *experts, "--out", "router", "--method", "cma", "-o", "max_evaluations=8", *base, *data)
        run("merge", "--router", "router", *experts, "--out", "merged", *base)
        (home / "notes.jsonl").write_text('{"context": "ailing hoof"}\n', encoding="utf-8")
        run("predict", "notes.jsonl", *task, *experts, "--router", "router", "--out", "answers.jsonl", *base, *data)
        answer = json.loads((home / "answers.jsonl").read_text(encoding="utf-8"))
        assert abs(sum(answer["probabilities"].values()) - 1) < 0.01
        assert (home / "merged" / "model.safetensors").is_file()
        beasts = [f"hoof {n} {'limps' if n % 3 else 'walks'},{'urgent' if n % 3 else 'routine'}" for n in range(40)]
        (home / "beasts.csv").write_text("\n".join(["note,outcome", *beasts]), encoding="utf-8")
        run("init", "beasts.csv", "--text", "note", "--label", "outcome", *base)
        quick = ("--minutes", "1", "--shots", "8", "--limit", "8", "--encoder", "./none")  # no encoder is fetched
        found = json.loads(run("compare", "--task", "beasts.yaml", *quick, "--json", *base))
        assert {"majority", "tfidf", "original", "in_context"} <= {row["name"] for row in found["rows"]}, found["left_out"]
        assert (home / "runs" / "compare" / "beasts" / "comparison.html").is_file()
        run("report", "--out", "report.html")
        run("data", "list")
        run("reproduce", "--help")
    print("The wheel works from an empty folder.")


if __name__ == "__main__":
    main()
