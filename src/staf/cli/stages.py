"""staf train, adapt, evaluate, predict, merge, export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from staf.cli.options import RUNS, SPLITS, overrides
from staf.cli.printing import Terminal, emit, emit_table, say
from staf.errors import ConfigError


def train(
    *, out: Path, data: str | None = None, source: Path | None = None, name: str | None = None, group: str | None = None,
    text: str | None = None, label: str | None = None, licence: str | None = None, task: list[str] | None = None,
    recipe: str | None = None, base: str | None = None, data_dir: Path | None = None, splits: str = SPLITS, runs: Path = RUNS,
    override: list[str] | None = None, report_to: str | None = None, dry_run: bool = False, launcher: str = "local",
    dtype: str | None = None, fsdp: bool = False, as_json: bool = False, list_options: bool = False,
) -> None:  # fmt: skip
    """Stage I: train one expert per knowledge type or data set, or one on a file of your own. Re-run the command to resume.

    A file of texts, questions with answers, or conversations: --name NAME --from FILE (docs/own-expert.md).
    """
    from staf.compute import ComputeOptions, split_options
    from staf.config import find_recipe, load_values, parse
    from staf.data.own_corpus import write_corpus
    from staf.experts.recipe import ExpertRecipe
    from staf.log import check_reporter
    from staf.stages.context import RunContext
    from staf.stages.training import TrainingJob

    own, rest = split_options({**({} if recipe is None else load_values(find_recipe(recipe))), **overrides(override)})
    compute = parse(ComputeOptions, own if dtype is None else {**own, "dtype": dtype}, "staf train")
    settings = parse(ExpertRecipe, rest, "staf train")
    if (data is None) == (source is None) or (source is None) != (name is None):
        raise ConfigError("staf train needs --data, or --name and --from for a file of your own.")
    if source is not None and name is not None:
        path, said = write_corpus(source, out, name, text=text, label=label, group=group, licence=licence)
        Terminal().log(f"{said}; its task file is {path}")
        data = str(path)
    elif given := [n for n, value in (("group", group), ("text", text), ("label", label), ("licence", licence)) if value]:
        raise ConfigError(f"--{given[0]} is for a file of your own: use it with --from.")
    names = expert_names(data or "")
    run_context = RunContext(base, data_dir, runs, splits, compute, fsdp, tuple(task or ()))
    if report_to is not None:
        check_reporter(report_to)
    jobs = [TrainingJob(name, settings, out, run_context, report_to) for name in names]
    print_estimates(jobs, as_json) if dry_run else run_jobs(jobs, launcher, as_json)


def expert_names(data: str) -> list[str]:
    """The names in a comma-separated list, each once.

    Raises:
        ConfigError: it is a folder. UnknownName: there is no such knowledge type or data set.
    """
    from staf.data.registry import Registry
    from staf.data.selection import expert_name

    if Path(data).is_dir():
        raise ConfigError(
            f"--data {data} is a folder; names were expected. Give the folder of your data sets as --data-dir {data}."
        )
    names = list(dict.fromkeys(name.strip() for name in data.split(",") if name.strip()))
    if not names:
        raise ConfigError("--data names no expert. Give a knowledge type, a data set or a YAML file; see: staf data list")
    for name in names:
        expert_name(name), Registry().expert_sources(name)  # reject a misspelt name before any training
    return names


def print_estimates(jobs: Sequence[Any], as_json: bool) -> None:
    """The memory and time of trainings in one process, with the base and device that the estimate is for."""
    from staf.report.formatting import count_text, memory_text, time_text
    from staf.stages.training import estimate_stage

    context = replace(jobs[0].run_context, fsdp=False).context(Terminal())
    estimates = [estimate_stage(context, job.name, job.recipe) for job in jobs]
    if as_json:
        emit(True, [found.record() for found in estimates])
        return
    columns = {}
    for found in estimates:
        columns[found.expert] = {part: memory_text(size) for part, size in found.memory.items()} | {
            "in all": memory_text(found.total_bytes), "steps": count_text(found.steps), "tokens": count_text(found.tokens),
            "time": "not measured" if found.seconds is None else time_text(found.seconds),
        }  # fmt: skip
    lines = next(iter(columns.values()))
    emit_table(
        False, [{"": line, **{name: own[line] for name, own in columns.items()}} for line in lines], (), "Memory and time"
    )
    one = estimates[0]
    free = memory_text(one.free_bytes)
    say(f"{one.base}: {count_text(one.parameters)} parameters, {one.dtype} on {one.device}, {free} free.")
    if not one.tokens_counted:
        say("It has no tokenizer here: tokens are a quarter of the characters.")
    say("Time is that of three measured steps." if one.seconds is not None else "Time is measured where the weights are.")


def run_jobs(jobs: Sequence[Any], launcher: str, as_json: bool) -> None:
    """Train experts and print a row for each; of the processes of torchrun only the first prints."""
    from staf.data.selection import expert_name
    from staf.experts.distributed import init_distributed
    from staf.experts.store import load_expert
    from staf.log import NullProgress
    from staf.stages.training import train_experts

    with init_distributed() as world:
        train_experts(jobs, launcher, Terminal() if world.is_main_process else NullProgress(), world)
        if not world.is_main_process:
            return
    folders = [job.out / expert_name(job.name) for job in jobs]
    rows = [
        {
            "expert": expert.name, "steps": expert.record["steps"], "examples": expert.record["examples"],
            "fingerprint": expert.fingerprint, "average_rank": round(expert.average_rank, 2),
            "folder": str(folder),
        }
        for folder, expert in ((folder, load_expert(folder)) for folder in folders)
    ]  # fmt: skip
    emit_table(as_json, rows)


def adapt(
    *, task: str, experts: Path, out: Path, method: str = "gradient", shots: int | None = None, base: str | None = None,
    data_dir: Path | None = None, splits: str = SPLITS, runs: Path = RUNS, override: list[str] | None = None,
    init_from: Path | None = None, seeds: int = 1, tune: bool = False, tune_arg: list[str] | None = None, probe: bool = False,
    dtype: str | None = None, as_json: bool = False, list_options: bool = False,
) -> None:  # fmt: skip
    """Stage II: learn a task's router over trained experts; print and plot its weights. Re-run to resume."""
    from staf.config import parse
    from staf.data.selection import default_shots
    from staf.experts.store import load_experts
    from staf.routing.recipe import SEARCHLESS, RouterRecipe, TuneRecipe, usual_settings
    from staf.routing.summary import record_of
    from staf.stages.adaptation import adapt_stage
    from staf.stages.context import Context
    from staf.stages.probing import probe_stage
    from staf.stages.tuning import tune_stage

    tuning = parse(TuneRecipe, overrides(tune_arg, "--tune-arg"), "staf adapt --tune") if tune or tune_arg else None
    given = {**({} if shots is None else {"shots": shots}), **overrides(override)}
    recipe = parse(RouterRecipe, {**usual_settings(method), **given}, "staf adapt")
    context = Context(base, data_dir, runs, Terminal(), dtype=dtype, split_scheme=splits)
    found = context.find_task(task)
    if "shots" not in given and recipe.shots is not None:
        recipe = recipe.model_copy(update={"shots": default_shots(found, context.store, recipe.shots)})
    if method in SEARCHLESS and (seeds > 1 or init_from is not None):
        name = method.replace("_", "-")
        raise ConfigError(f"a {name} router is computed, not searched for: leave --seeds and --init-from out.")
    loaded, routers, tuned, probed = load_experts(experts), {}, {}, {}
    for seed in range(recipe.seed, recipe.seed + seeds):  # each has its own draw of the shots
        folder, one = out / f"seed-{seed}" if seeds > 1 else out, recipe.model_copy(update={"seed": seed})
        routers[folder] = adapt_stage(context, found, loaded, one, folder, init_from, experts)
        if tuning is not None:
            tuned[folder / "tuned"] = tune_stage(context, found, routers[folder], loaded, tuning, folder / "tuned")[0]
        if probe:
            probed[folder / "probe"] = probe_stage(context, found, routers[folder], loaded, folder / "probe")
    if as_json:
        more = {"tuned": [{"folder": str(folder), **one.record["tuned"]} for folder, one in tuned.items()]}
        read = {"probed": [{"folder": str(folder), **(one.probe or {})} for folder, one in probed.items()]}
        emit(True, record_of(routers) | (more if tuned else {}) | (read if probed else {}))
        return
    print_routers(routers, found.name, out)
    print_tuned(tuned)
    for folder, router in probed.items():
        losses = (router.probe or {})["losses"]
        best = min(losses, key=losses.__getitem__)
        say(f"{folder}: a linear probe reads {best}; held-out loss {losses[best]:.3f}")


def print_tuned(routers: Mapping[Path, Any]) -> None:
    """Print what tuning did to each router: its held-out loss before and after, and whether it was kept."""
    for folder, router in routers.items():
        found = router.record["tuned"]
        before, after, held = found["router_loss"], min(found["losses"]), f"held-out loss in {len(found['folds'])} folds"
        what = f"tuned for {found['steps']} steps" if found["kept"] else "not tuned, which would not have helped"
        say(f"{folder}: {what}; {held} {before:.3f} of the router, {after:.3f} tuned")


def print_routers(routers: Mapping[Path, Any], task: str, out: Path) -> None:
    """Print and plot the weights of a task's routers (Fig. 7 of one task, in weights.svg), with the cost of the adaptation."""
    from staf.io import write_bytes
    from staf.report.figures import weight_bars
    from staf.report.formatting import SEARCHES, method_title
    from staf.routing.summary import seed_rows, summarize_weights

    found, heading = summarize_weights(list(routers.values())), f"Weights of the experts for {task}"
    recipe = next(iter(routers.values())).recipe
    emit_table(False, found.rows(), (), heading)
    setting, search = "Normal" if recipe.shots is None else "Few-shot", SEARCHES.get(recipe.method)
    title = f"{setting} router ({search})" if search else method_title(recipe.method)
    drawn = weight_bars({title: (found.weights, found.spread or {})}, heading)
    write_bytes(out / "weights.svg", drawn.svg.encode() if drawn else b"")
    say(f"figure: {out / 'weights.svg'}")
    if len(routers) > 1:
        emit_table(False, seed_rows(routers), (), "Routers by seed")
        return
    if len(found.weights) == 1 and set(found.weights.values()) == {1.0}:
        say("With one expert its weight is always 1, whatever is learned: add experts, or use -o null_expert=true.")
    record = routers[out].record
    if record["loss"] is None:
        say(f"{record['unlabelled']} unlabelled inputs in {record['seconds']:.0f} s; no label was used")
        return
    say(f"{record['tunable_parameters']} parameters from {record['examples']} examples in {record['seconds']:.0f} s; "
          f"loss {record['loss']:.3f}; stop reason: {record['stop_reason']}")  # fmt: skip


def evaluate(
    *, task: str, experts: Path | None = None, router: Path | None = None, method: str = "original", expert: str | None = None,
    limit: int | None = None, shots: int | None = None, method_arg: list[str] | None = None, predictions: Path | None = None,
    base: str | None = None, data_dir: Path | None = None, splits: str = SPLITS, runs: Path = RUNS,
    override: list[str] | None = None, dtype: str | None = None, as_json: bool = False, list_options: bool = False,
) -> None:  # fmt: skip
    """Score a router, a baseline or another method on a task's test set, with confidence intervals."""
    from staf.config import parse
    from staf.evaluate.settings import EvaluationSettings
    from staf.report.formatting import result_lines
    from staf.stages.context import Context
    from staf.stages.named import evaluate_named

    settings = parse(EvaluationSettings, {"limit": limit, **overrides(override)}, "staf evaluate")
    context = Context(base, data_dir, runs, Terminal(), dtype=dtype, split_scheme=splits)
    result, run = evaluate_named(
        context, context.find_task(task), settings, method, experts=experts, router=router, expert=expert, shots=shots,
        method_args=overrides(method_arg, "--method-arg"), predictions=predictions,
    )  # fmt: skip
    emit(as_json, {**result, "run": str(run.folder)}, *result_lines(result), f"run: {run.folder}")


def predict(
    file: Path, *, out: Path, task: str | None = None, experts: Path | None = None, router: Path | None = None,
    base: str | None = None, data_dir: Path | None = None, splits: str = SPLITS, override: list[str] | None = None,
    dtype: str | None = None, threshold: float | None = None, skip_invalid: bool = False, as_json: bool = False,
    list_options: bool = False,
) -> None:  # fmt: skip
    """Answer a router's task for every row of a file, with a probability per label; only the router is needed.

    A task with many labels has a long prompt: raise its limit, as in -o max_length=1024.
    """
    from staf.config import parse
    from staf.evaluate.settings import EvaluationSettings
    from staf.predict import predict_file
    from staf.stages.context import Context

    changed = overrides(override)
    settings = parse(EvaluationSettings, changed, "staf predict") if changed else None
    context = Context(base, data_dir, RUNS, Terminal(), dtype=dtype, split_scheme=splits)
    asked = None if task is None else context.find_task(task)
    found = predict_file(
        context, file, out, router=router, experts=experts, task=asked, settings=settings, threshold=threshold,
        skip_invalid=skip_invalid,
    )  # fmt: skip
    answered = found.rows - found.abstained
    left = "" if threshold is None else f"; {found.abstained} rows abstained, below --threshold {threshold:g}"
    emit(as_json, {"answers": answered, "abstained": found.abstained, "out": str(out)}, f"{answered} answers in {out}{left}")


def merge(
    *, router: Path, out: Path, experts: Path | None = None, base: str | None = None, dtype: str = "float32",
    as_json: bool = False,
) -> None:  # fmt: skip
    """Merge the routed experts into the base weights and save an ordinary transformers model."""
    from staf.export.hf import save_merged
    from staf.routing.store import load_router

    found = load_router(router)
    card = save_merged(base, found.load_experts(experts), found, out, dtype)
    emit(as_json, card, f"merged model for '{found.task}' in {out}")


def export(
    router: Path, *, out: Path, format: str = "hf", rank: int | None = None, dtype: str | None = None,
    experts: Path | None = None, base: str | None = None, runs: Path = RUNS, as_json: bool = False,
) -> None:  # fmt: skip
    """Export a router or tuned adapter for other tools: a merged model or an adapter, with task, probes and a card."""
    from staf.lm.base import default_device
    from staf.routing.store import load_router
    from staf.stages.context import Context
    from staf.stages.exporting import export_stage

    found = load_router(router)
    exact = "float32" if default_device().type == "cpu" else None  # of the probes
    context = Context(base or found.base["name"], None, runs, Terminal(), dtype=exact)
    dtype = dtype or ("bfloat16" if format == "hf" else None)
    record = export_stage(context, found, found.load_experts(experts), out, format, rank=rank, dtype=dtype)
    what = f"weights in {dtype}" if dtype else f"{len(record['experts'])} adapters"
    if record["rank"] is not None:
        what = f"rank {record['rank']}, relative error {record['error']:.4f}"
    moved = f"the probes are {record['probes_distance']:.3f} nats from the base"
    emit(as_json, {**record, "out": str(out)}, f"{format} of '{found.task}' in {out}: {what}; {moved}")
