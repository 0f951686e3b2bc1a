"""staf train, adapt, evaluate, fuse, predict: the two stages and what comes of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from staf.cli.data import Data, Json, Splits

if TYPE_CHECKING:
    from staf.experts.store import Expert
    from staf.routing.store import Router

Base = Annotated[
    str | None, typer.Option("--base", help="Hub id, folder or GGUF file of the base; default SmolLM2-135M-Instruct.")
]
Experts = Annotated[Path, typer.Option("--experts", help="Folder of trained experts.")]
Runs = Annotated[Path, typer.Option("--runs", help="Folder that results are written to.")]
Dtype = Annotated[
    str | None, typer.Option(help="bfloat16, float16, float32, or nf4: base in four bits. Default: the fastest measured.")
]
Change = Annotated[
    list[str] | None, typer.Option("--override", "-o", help="A setting as name=value; may be given several times.")
]
USUAL: dict[str, dict[str, Any]] = {
    "cma": {"shots": 32},
    "best_expert": {"shots": 32},
    "zero_shot": {"shots": 32, "temperature": 0.3},
}
"""Settings of a method of adapting that differ from the general ones."""
COMPUTED = {"zero_shot": "zero-shot", "best_expert": "best-expert"}
"""Methods that learn nothing, with their names in messages."""
TaskName = Annotated[str, typer.Option("--task", help="Name of a task; staf tasks list prints them.")]


def changes(pairs: list[str] | None) -> dict[str, Any]:
    """name=value pairs as plain values; numbers, true, false and null as in YAML."""
    import yaml

    from staf.errors import ConfigError

    values = {}
    for pair in pairs or []:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"--set {pair}: a setting is written name=value, such as -o seed=1.")
        values[name.strip()] = yaml.safe_load(value)
    return values


def train(
    experts: Annotated[str, typer.Option("--experts", help="Knowledge types or data sets, parted by commas.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the experts.")],
    recipe: Annotated[str | None, typer.Option(help="YAML file of expert settings, or paper (section 4.2.2).")] = None,
    base: Base = None,
    data: Data = None,
    splits: Splits = "staf-llm",
    runs: Runs = Path("runs"),
    change: Change = None,
    track: Annotated[
        str | None, typer.Option(help="tensorboard, mlflow or wandb: also gets the numbers of each step, and the settings.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Load no weights, train nothing: print the memory by part and the time.")
    ] = False,
    engine: Annotated[str, typer.Option(help="local, or ray: experts spread over the machines of a Ray cluster.")] = "local",
    dtype: Dtype = None,
    fsdp: Annotated[bool, typer.Option("--fsdp", help="Under torchrun: spread the base over all devices.")] = False,
    as_json: Json = False,
) -> None:
    """Stage I: train an expert for each knowledge type; the same command resumes what was stopped.

    Try:  staf train --experts entity_synonymy --out experts -o steps=80 -o warmup_steps=16 -o final_steps=26
    """
    from staf.cli.show import Terminal, print_estimates, print_json, print_table
    from staf.config import find_recipe, load_values, parse
    from staf.data.selection import expert_sources
    from staf.engines import Job, RunContext, find_engine
    from staf.experts.parallel import joined
    from staf.experts.recipe import ExpertRecipe
    from staf.experts.store import load_expert
    from staf.log import NullProgress, check_reporter
    from staf.stages import estimate_stage

    values = {} if recipe is None else load_values(find_recipe(recipe))
    settings = parse(ExpertRecipe, {**values, **changes(change)}, "staf train")
    names = list(dict.fromkeys(name.strip() for name in experts.split(",") if name.strip()))
    for name in names:
        expert_sources(name)  # a misspelt one is told before the others are trained
    run_context = RunContext(base, data, runs, splits, dtype, fsdp)
    if track is not None:
        check_reporter(track)
    if dry_run:
        context = replace(run_context, fsdp=False).context(Terminal())
        estimates = [estimate_stage(context, name, settings) for name in names]
        print_json([found.record() for found in estimates]) if as_json else print_estimates(estimates)
        return
    with joined() as world:
        progress = Terminal() if world.leads else NullProgress()
        find_engine(engine)([Job(name, settings, out, run_context, track) for name in names], progress, world)
        if not world.leads:
            return
    rows = [trained_row(load_expert(out / name), out) for name in names]
    print_json(rows) if as_json else print_table(rows, list(rows[0]))


def trained_row(expert: Expert, out: Path) -> dict[str, Any]:
    """What is printed of a trained expert."""
    return {
        "expert": expert.name, "steps": expert.record["steps"], "examples": expert.record["examples"],
        "fingerprint": expert.fingerprint, "average_rank": round(sum(expert.ranks.values()) / len(expert.ranks), 2),
        "folder": str(out / expert.name),
    }  # fmt: skip


def adapt(
    task: TaskName,
    experts: Experts,
    out: Annotated[Path, typer.Option("--out", help="Folder for the router.")],
    method: Annotated[
        str, typer.Option(help="gradient (normal setting), cma (few-shot setting), zero_shot, or best_expert.")
    ] = "gradient",
    shots: Annotated[int | None, typer.Option(help="Adaptation examples drawn; all for gradient, else 32.")] = None,
    base: Base = None,
    data: Data = None,
    splits: Splits = "staf-llm",
    runs: Runs = Path("runs"),
    change: Change = None,
    start: Annotated[
        Path | None, typer.Option(help="Folder of another router over the same experts, such as best_expert's, to start from.")
    ] = None,
    seeds: Annotated[
        int, typer.Option(min=1, help="Routers with this many seeds, in OUT/seed-0 and so on: mean and standard deviation.")
    ] = 1,
    dtype: Dtype = None,
    as_json: Json = False,
) -> None:
    """Stage II: learn the router of a task over trained experts; print and draw the weights. The same command resumes it.

    Try:  staf adapt --task icd10_chapter --experts experts --method cma --shots 32 --out routers/icd10_chapter-cma
    """
    from staf.cli.show import Terminal, print_json
    from staf.config import parse
    from staf.data.task import find_task
    from staf.errors import ConfigError
    from staf.experts.store import load_experts
    from staf.routing.recipe import RouterRecipe
    from staf.routing.summary import record_of
    from staf.stages import Context, adapt_seeds, adapt_stage, best_expert_stage, zero_shot_stage

    usual = USUAL.get(method, {})
    given = {"shots": shots} if shots is not None else {}
    settings = parse(RouterRecipe, {"method": method, **usual, **given, **changes(change)}, "staf adapt")
    context = Context(base, data, runs, Terminal(), dtype=dtype, profile=splits)
    row, loaded = find_task(task), load_experts(experts)
    if method in COMPUTED and (seeds > 1 or start is not None):
        raise ConfigError(f"a {COMPUTED[method]} router is computed, not searched for: leave --seeds and --init-from out.")
    if method == "zero_shot":
        routers = {out: zero_shot_stage(context, row, loaded, experts, settings, out)}
    elif method == "best_expert":
        routers = {out: best_expert_stage(context, row, loaded, settings, out)}
    elif seeds > 1:
        routers = adapt_seeds(context, row, loaded, settings, out, seeds, start)
    else:
        routers = {out: adapt_stage(context, row, loaded, settings, out, start)}
    if as_json:
        print_json(record_of(routers))
        return
    print_routers(routers, task, out)


def print_routers(routers: dict[Path, Router], task: str, out: Path) -> None:
    """Print the weights of a task's routers, draw them, and say how the adaptation went."""
    from staf.cli.show import draw_weights, print_table
    from staf.routing.summary import seed_rows, weighing

    found = weighing(list(routers.values()))
    settings, weights = next(iter(routers.values())).settings, found.rows()
    print_table(weights, list(weights[0]), f"Weights of the experts for {task}")
    figure = draw_weights(out / "weights.svg", task, settings, found.weights, found.spread)
    print(f"figure: {figure}")
    if len(routers) > 1:
        rows = seed_rows(routers)
        print_table(rows, list(rows[0]), "Routers by seed")
        return
    record = routers[out].record
    if record["loss"] is None:
        print(f"no label was read: {record['unlabelled']} inputs in {record['seconds']:.0f} s")
        return
    print(f"{record['tunable_parameters']} numbers from {record['examples']} examples in {record['seconds']:.0f} s; "
          f"loss {record['loss']:.3f}; stopped because {record['stop_reason']}")  # fmt: skip


def evaluate(
    task: TaskName,
    experts: Annotated[Path | None, typer.Option("--experts", help="Folder of trained experts.")] = None,
    router: Annotated[Path | None, typer.Option(help="Folder of a router.")] = None,
    method: Annotated[
        str, typer.Option(help="Where there is no router: original, single, average, lorahub, a baseline or a classifier.")
    ] = "original",
    expert: Annotated[str | None, typer.Option(help="With --method single: which; else the best on adaptation data.")] = None,
    limit: Annotated[int | None, typer.Option(help="At most so many test examples.")] = None,
    shots: Annotated[int | None, typer.Option(help="Of a baseline or classifier: adaptation examples drawn; else all.")] = None,
    learn: Annotated[
        list[str] | None,
        typer.Option("--method-arg", help="A setting of a baseline or classifier as name=value, such as seed=1."),
    ] = None,
    predictions: Annotated[
        Path | None, typer.Option(help="JSON lines of another system, which --method names; see docs/classifiers.md.")
    ] = None,
    base: Base = None,
    data: Data = None,
    splits: Splits = "staf-llm",
    runs: Runs = Path("runs"),
    change: Change = None,
    dtype: Dtype = None,
    as_json: Json = False,
) -> None:
    """Score a router, a baseline or any other method on a task's held-out test set, with intervals, from saved predictions.

    Try:  staf evaluate --task icd10_chapter --experts experts --router routers/icd10_chapter-cma
    """
    from staf.cli.show import Terminal, method_label, print_json, print_table
    from staf.config import parse
    from staf.data.task import TASKS, find_task
    from staf.evaluate.settings import EvaluationSettings
    from staf.stages import Context, EvaluationRequest, evaluate_request

    if task == "list":
        columns = ("name", "title", "task_type", "output_type", "metric", "unseen", "proxy_for")
        rows = [{column: getattr(t, column) for column in columns} for t in TASKS.values()]
        print_json(rows) if as_json else print_table(rows, list(rows[0]))
        return
    settings = parse(EvaluationSettings, {"limit": limit, **changes(change)}, "staf evaluate")
    context = Context(base, data, runs, Terminal(), dtype=dtype, profile=splits)
    wanted = EvaluationRequest(method, experts, router, expert, shots, changes(learn), predictions)
    result, run = evaluate_request(context, find_task(task), settings, wanted)
    if as_json:
        print_json({**result, "run": str(run.folder)})
        return
    for name, metric in result["metrics"].items():
        if metric is not None:
            between = f" ({metric['low']:.3f} to {metric['high']:.3f})" if "low" in metric else ""
            print(f"{method_label(result)} on {task}: {name} {metric['value']:.3f}{between}, {metric['examples']} examples")
    print(f"run: {run.folder}")


def fuse(
    router: Annotated[Path, typer.Option("--router", help="Folder of the router.")],
    experts: Experts,
    out: Annotated[Path, typer.Option("--out", help="Folder for the fused model; it must not exist.")],
    base: Base = None,
    as_json: Json = False,
) -> None:
    """Add the routed experts into the weights and save one ordinary model: inference then costs nothing extra.

    Try:  staf fuse --router routers/icd10_chapter-cma --experts experts --out fused/icd10_chapter
    """
    from staf.cli.show import Terminal, print_json
    from staf.export import save_fused
    from staf.stages import Context, router_and_mixture

    found, mixture = router_and_mixture(Context(base, None, Path("runs"), Terminal(), dtype="float32"), router, experts)
    card = save_fused(mixture, found, out)
    print_json(card) if as_json else print(f"fused model for '{found.task}' in {out}")


def predict(
    file: Annotated[Path, typer.Argument(help='JSON lines, each with "context" and, if you like, "id".')],
    task: TaskName,
    out: Annotated[
        Path, typer.Option("--out", help="JSON lines with answer and probabilities; a stopped file is gone on with.")
    ],
    experts: Annotated[Path | None, typer.Option("--experts", help="Folder of trained experts.")] = None,
    router: Annotated[Path | None, typer.Option(help="Folder of the router; the original model without.")] = None,
    base: Base = None,
    data: Data = None,
    splits: Splits = "staf-llm",
    change: Change = None,
    dtype: Dtype = None,
    as_json: Json = False,
) -> None:
    """Answer a task for every line of a file, with a probability for each label.

    A task with many labels has a long query: give it more tokens, as in -o max_length=1024.

    Try:  staf predict titles.jsonl --task icd10_chapter --experts experts --router routers/chapter --out answers.jsonl
    """
    from staf.cli.show import Terminal, print_json
    from staf.config import parse
    from staf.data.task import find_task
    from staf.evaluate.settings import EvaluationSettings
    from staf.predict import predict_file
    from staf.stages import Context

    settings = parse(EvaluationSettings, changes(change), "staf predict")
    context = Context(base, data, Path("runs"), Terminal(), dtype=dtype, profile=splits)
    count = predict_file(context, find_task(task), file, out, experts, router, settings)
    print_json({"answers": count, "out": str(out)}) if as_json else print(f"{count} answers in {out}")
