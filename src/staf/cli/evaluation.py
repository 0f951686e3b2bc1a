"""staf evaluate, predict, merge."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from staf.cli.options import (
    Base,
    DataDir,
    Dtype,
    Experts,
    Json,
    ListOptions,
    OptionalExperts,
    Override,
    Runs,
    Splits,
    TaskName,
    overrides,
)  # fmt: skip


def evaluate(
    task: TaskName,
    experts: OptionalExperts = None,
    router: Annotated[Path | None, typer.Option(help="Folder of a router.")] = None,
    method: Annotated[
        str, typer.Option(help="Without a router: original, single, average, lorahub, a baseline or a classifier.")
    ] = "original",
    expert: Annotated[
        str | None, typer.Option(help="Expert for --method single; default: the best on adaptation data.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="Maximum number of test examples.")] = None,
    shots: Annotated[int | None, typer.Option(help="Adaptation examples for a baseline or classifier; default: all.")] = None,
    method_arg: Annotated[
        list[str] | None,
        typer.Option("--method-arg", help="A setting of a baseline or classifier as name=value, such as seed=1; repeatable."),
    ] = None,
    predictions: Annotated[
        Path | None, typer.Option(help="JSON lines of an external system, named by --method; see docs/classifiers.md.")
    ] = None,
    base: Base = None,
    data_dir: DataDir = None,
    splits: Splits = "staf-llm",
    runs: Runs = Path("runs"),
    override: Override = None,
    dtype: Dtype = None,
    as_json: Json = False,
    list_options: ListOptions = False,
) -> None:
    """Score a router, a baseline or another method on a task's test set, with confidence intervals.

    Try:  staf evaluate --task icd10_chapter --experts experts --router routers/icd10_chapter-cma
    """
    from staf.cli.printing import Terminal, method_label, print_json
    from staf.config import parse
    from staf.evaluate.settings import EvaluationSettings
    from staf.stages import Context, EvaluationRequest, evaluate_request

    settings = parse(EvaluationSettings, {"limit": limit, **overrides(override)}, "staf evaluate")
    context = Context(base, data_dir, runs, Terminal(), dtype=dtype, profile=splits)
    wanted = EvaluationRequest(method, experts, router, expert, shots, overrides(method_arg, "--method-arg"), predictions)
    result, run = evaluate_request(context, context.find_task(task), settings, wanted)
    if as_json:
        print_json({**result, "run": str(run.folder)})
        return
    title = f"{method_label(result)} on {result['task']}"
    for name, metric in result["metrics"].items():
        if metric is not None:
            between = f" ({metric['low']:.3f} to {metric['high']:.3f})" if "low" in metric else ""
            print(f"{title}: {name} {metric['value']:.3f}{between}, {metric['examples']} examples")
    print(f"run: {run.folder}")


def predict(
    file: Annotated[Path, typer.Argument(help='JSON lines, CSV or Parquet with "context" and optionally "id".')],
    out: Annotated[Path, typer.Option("--out", help="JSON lines, CSV or Parquet of answers; an interrupted run resumes.")],
    task: Annotated[str | None, typer.Option("--task", help="Without --router: what the base model answers.")] = None,
    experts: OptionalExperts = None,
    router: Annotated[Path | None, typer.Option(help="Folder of the router; default: the base model without experts.")] = None,
    base: Base = None,
    data_dir: DataDir = None,
    splits: Splits = "staf-llm",
    override: Override = None,
    dtype: Dtype = None,
    as_json: Json = False,
    list_options: ListOptions = False,
) -> None:
    """Answer a router's task for every line of a file, with a probability per label; no data of the task is needed.

    A task with many labels has a long prompt: raise its limit, as in -o max_length=1024.

    Try:  staf predict titles.jsonl --router routers/chapter --experts experts --out answers.jsonl
    """
    from staf.cli.printing import Terminal, emit
    from staf.config import parse
    from staf.evaluate.settings import EvaluationSettings
    from staf.predict import predict_file
    from staf.stages import Context

    changed = overrides(override)
    settings = parse(EvaluationSettings, changed, "staf predict") if changed else None
    context = Context(base, data_dir, Path("runs"), Terminal(), dtype=dtype, profile=splits)
    asked = None if task is None else context.find_task(task)
    count = predict_file(context, file, out, router=router, experts=experts, task=asked, settings=settings)
    emit(as_json, {"answers": count, "out": str(out)}, f"{count} answers in {out}")


def merge(
    router: Annotated[Path, typer.Option("--router", help="Folder of the router.")],
    experts: Experts,
    out: Annotated[Path, typer.Option("--out", help="Folder for the merged model; it must not exist.")],
    base: Base = None,
    dtype: Annotated[str, typer.Option(help="Of the saved weights: float32, bfloat16 or float16.")] = "float32",
    as_json: Json = False,
) -> None:
    """Merge the routed experts into the base weights and save an ordinary transformers model.

    Try:  staf merge --router routers/icd10_chapter-cma --experts experts --out merged/icd10_chapter
    """
    from staf.cli.printing import emit
    from staf.experts.store import load_experts
    from staf.export import save_merged
    from staf.routing.store import load_router

    found = load_router(router)
    card = save_merged(base, load_experts(experts), found, out, dtype)
    emit(as_json, card, f"merged model for '{found.task}' in {out}")
