"""A table or figure of the papers on the data that is here: its runs, compared, with the papers' numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from statistics import fmean
from typing import Any

from staf.baselines.in_context import FewShotPrompts, reserved_for, with_shots
from staf.baselines.networks import encoder_folder
from staf.data.selection import task_examples
from staf.data.task import find_task
from staf.errors import MissingData, StafError
from staf.evaluate.score import sample
from staf.experiments.plan import TUNED, Experiment, Row, find_experiment
from staf.experiments.profile import Profile
from staf.experiments.run import Outcomes, Runner, run_on_cluster
from staf.io import write_bytes
from staf.lm.base import resolve
from staf.lm.prompts import PLAIN
from staf.metrics.by_output_type import metric_of_runs
from staf.metrics.stats import Comparison, compare_seeds, measure_seeds, metric_family, outcome_of, over_seeds, over_tasks
from staf.report.reproduced import comparison_rows, cost_rows, first_columns, table_rows
from staf.report.results import Cell, Column, Evaluation, PairedTest, Table, TableRow, read_result
from staf.report.tables import csv_text, markdown_text, print_table
from staf.runs import Run, digest_of
from staf.stages.adaptation import drawn_examples
from staf.stages.context import RunContext
from staf.stages.evaluation import Scored

PACKAGES = {
    "peft": ({*TUNED, "language_model"} - {"full"}, "pip install 'staf-llm[bench]'"),
    "nevergrad": ({"lorahub"}, "pip install nevergrad bayesian-optimization==1.4.0"),
    "cma": ({"few_shot"}, "pip install cma"),
}
"""Optional packages, the methods that need each, and how to get it."""


def reproduce(
    name: str, profile_name: str, runner: Runner, run_context: RunContext | None = None, seeds: int | None = None
) -> tuple[Table, Run]:
    """Run what is not finished of a table or figure, and write its result.

    Args:
        run_context: of the context, where the runs are made on a Ray cluster first; None runs them here.
        seeds: the first seeds of the profile's; None runs all. A result of more seeds is not replaced by one of fewer.

    Raises:
        UnknownName, MissingData: as `find_experiment`; MissingData also where the profile is strict and anything is missing.
    """
    experiment, count = find_experiment(name, runner.profile), seeds or runner.profile.seeds
    if runner.profile.strict:
        refuse_missing(experiment, runner)
    run = Run.at(runner.context.runs, "reproduce", name, profile_name, 0, digest_of(runner.profile.digest()))
    if (kept := run.folder / "result.json").exists():
        before = read_result(kept, runner.context.runs, Table.model_validate)
        if before.seeds > count and before.base == runner.context.identity:
            return before.model_copy(update={"run": ""}), run
    if run_context is not None and not experiment.counts_tokens:
        run_on_cluster(experiment, runner, run_context, count)
    outcomes = runner.run_all(experiment, count)
    tests = [] if experiment.counts_tokens else compare(experiment, outcomes, runner, count)
    rows = [_row(experiment, row, outcomes, runner, count) for row in experiment.rows]
    counted = next((row.cells for row in rows if experiment.counts_tokens and row.method != "in_context"), ())
    table = Table(
        stage="reproduce", task=name, method=profile_name, seed=0, title=experiment.title, differs=experiment.differs,
        base=runner.context.identity, columns=list(experiment.columns), rows=rows, comparisons=tests,
        over_columns=over_columns(experiment.columns, tests), seeds=count,
        prompt_tokens={column.name: cell.mean for column, cell in zip(experiment.columns, counted, strict=False)},
        settings=runner.profile.model_dump(mode="json"),
    )  # fmt: skip
    run.finish({"profile": profile_name}, table.model_dump(mode="json"))
    return table, run


def run_shard(name: str, runner: Runner) -> tuple[int, int]:
    """Make this shard's runs of a table or figure, and no table; returns how many are finished, and of how many."""
    outcomes = runner.run_all(find_experiment(name, runner.profile), runner.profile.seeds)
    return sum(not isinstance(found, str) for found in outcomes.values()), len(outcomes)


def write_tables(table: Table, folder: Path) -> None:
    """Write NAME.csv and NAME.md."""
    rows, notes = table_rows(table)
    write_bytes(folder / f"{table.task}.csv", csv_text(rows).encode())
    notes_text = "".join(f"\nnote {number}: {reason}\n" for number, reason in enumerate(notes, 1))
    write_bytes(folder / f"{table.task}.md", f"# {table.title}\n\n{markdown_text(rows)}{notes_text}".encode())


def print_table_of(table: Table) -> None:
    """The table, why cells are empty, what differs from the papers, and the paired tests of our routers."""
    rows, notes = table_rows(table)
    print_table(rows, table.title)
    for number, reason in enumerate(notes, 1):
        print(f"note {number}: {reason}")
    unit = "tokens of a prompt" if table.prompt_tokens else "in percent, mean ± standard deviation over seeds"
    print(f"Ours: base {table.base.get('name')}, {unit}. Papers: Llama-2-7B. {table.differs}")
    title = "Differences in points, paired by item and seed; a win or a loss has p < 0.05, by Holm's correction where printed"
    print_table(comparison_rows(table), title)
    print_table(cost_rows(table), "Time of the runs, experts not included")


def seconds_left(table: Table, profile: Profile) -> float:
    """About what the seeds of a table take that are still to be run, by the mean of those that were."""
    experiment, left = find_experiment(table.task, profile), 0.0
    for row in experiment.rows:
        for column in first_columns(experiment.columns):
            cell, planned = table.cell(row.name, column.name), len([*experiment.cell(row, column, profile.seeds)])
            left += (planned - cell.seeds) * (cell.seconds or 0.0)
    return left


# ---- cells -----------------------------------------------------------------------------------------------------------


def _row(experiment: Experiment, row: Row, outcomes: Outcomes, runner: Runner, seeds: int) -> TableRow:
    cells = []
    for column in experiment.columns:
        if experiment.counts_tokens:
            cell = token_cell(runner, column.task, seeds if row.method == "in_context" else 0)
        else:
            cell = cell_of([outcomes[spec] for spec in experiment.cell(row, column, seeds)], column.metric, runner)
        for paper, numbers in experiment.printed.items():
            printed = dict(zip(numbers["columns"], numbers.get(row.name, ()), strict=False))
            if printed.get(column.name) is not None:
                cell.papers[paper] = printed[column.name]
        cells.append(cell)
    return TableRow(name=row.name, method=row.method, title=row.title, setting=row.setting, cells=cells)


def cell_of(outcomes: Sequence[Scored | str], metric: str, runner: Runner) -> Cell:
    """Mean and deviation over the seeds that there are; where one is missing, why.

    Raises:
        DamagedFile: what is kept of a run is not a result.
    """
    scored = [found for found in outcomes if not isinstance(found, str)]
    if len(scored) < len(outcomes):
        return Cell(missing=next(found for found in outcomes if isinstance(found, str)))
    results = [read_result(run.folder / "result.json", runner.context.runs, Evaluation.model_validate) for _, run in scored]
    scores = [score for result in results if (score := result.metrics.get(metric)) and score.value is not None]
    if not scores or len(scores) < len(results):
        return Cell(missing=f"{metric} is not defined here")
    first, of_one_seed = results[0], (scores[0].low, scores[0].high)
    seconds = [result.seconds for result in results if result.seconds is not None]
    rates = [result.metrics.get("invented_rate") for result in results]
    invented = [rate.value for rate in rates if rate is not None and rate.value is not None]
    return Cell(
        **asdict(over_seeds([score.value for score in scores if score.value is not None])),
        items=scores[0].examples or 0,
        interval_of_one_seed=of_one_seed,
        interval=of_one_seed if len(scored) == 1 else _interval(scored, metric, runner),
        runs=tuple(result.run for result in results),
        tunable_parameters=first.tunable_parameters,
        adaptation_examples=first.adaptation_examples,
        calibration_examples=first.calibration_examples,
        truncated_prompts=first.truncated_prompts,
        invented_rate=fmean(invented) if len(invented) == len(results) else None,
        prompt_tokens=first.details.prompt_tokens_mean,
        shots_shown=first.details.shots_shown_mean,
        weights=[result.weights for result in results if result.weights],
        seconds=fmean(seconds) if seconds else None,
    )


def _interval(scored: Sequence[Scored], metric: str, runner: Runner) -> tuple[float, float] | None:
    """95 % interval of the mean over test items and seeds."""
    task, resamples = find_task(scored[0][0]["task"]), runner.profile.evaluation.resamples
    predictions = [run.predictions() for _, run in scored]
    (seeds,) = metric_of_runs(task.output_type, metric, predictions, fixed_labels=task.fixed_labels)
    found = measure_seeds(seeds, resamples)
    return None if found is None else (found.low, found.high)


def token_cell(runner: Runner, task: str, seeds: int) -> Cell:
    """Tokens of a task's prompts, mean over prompts, then over seeds, each of which draws its own shots; no model answers.

    Args:
        seeds: 0 counts the prompts without shots.
    """
    try:
        shown = [prompts(runner, task, seed) for seed in (range(seeds) if seeds else [None])]
    except StafError as error:
        return Cell(missing=str(error))
    tokens = over_seeds([fmean(each.tokens) for each in shown])
    return Cell(
        **asdict(tokens), items=len(shown[0].examples), interval=(tokens.low, tokens.high), prompt_tokens=tokens.mean,
        shots_shown=fmean(fmean(each.counts) for each in shown) if seeds else None,
        adaptation_examples=shown[0].shots if seeds else None,
    )  # fmt: skip


def prompts(runner: Runner, name: str, seed: int | None) -> FewShotPrompts:
    """The prompts of a task's test items as in-context learning has them, with the shots of a seed; None shows none.

    Raises:
        MissingData: the task's data is not here. ConfigError: a query does not fit.
    """
    context, profile, task = runner.context, runner.profile.of_task(name), find_task(name)
    examples = sample(task_examples(task, "test", context.store), profile.evaluation.limit)
    shots = [] if seed is None else drawn_examples(context, task, profile.few_shot.shots, seed).learned
    limit = profile.baseline.get("max_prompt_tokens") or context.base.context_length
    return with_shots(
        examples, shots, context.base.tokenizer, limit, reserved_for(task.output_type, profile.evaluation),
        own_length=profile.evaluation.max_length, shown=profile.shown,
        prompt_format=PLAIN if seed is None else context.prompt_format(profile.evaluation.prompt_format),
    )  # fmt: skip


# ---- comparisons -----------------------------------------------------------------------------------------------------


def compare(experiment: Experiment, outcomes: Outcomes, runner: Runner, seeds: int) -> list[PairedTest]:
    """Pairs of rows by each column's metric, averaged over seeds, paired by item and seed; p-values cover items and seeds."""
    tests = []
    for ours, other in experiment.pairs():
        for column in experiment.columns:
            found = [[outcomes[spec] for spec in experiment.cell(row, column, seeds)] for row in (ours, other)]
            if any(isinstance(one, str) for own in found for one in own):
                continue
            both = [[one[1].predictions() for one in own if not isinstance(one, str)] for own in found]
            task, resamples = find_task(column.task), runner.profile.evaluation.resamples
            mine, their = metric_of_runs(task.output_type, column.metric, *both, fixed_labels=task.fixed_labels)
            compared = compare_seeds(mine, their, resamples)
            if compared:
                tests.append(_test(compared, ours.name, other.name, column=column.name))
    return tests


def over_columns(columns: Sequence[Column], tests: Sequence[PairedTest]) -> list[PairedTest]:
    """Each pair's mean difference over the columns of one family of metrics, where these are two or more.

    Of a task with several columns the first one counts: they have the same test items.
    """
    families = {column.name: metric_family(column.metric) for column in first_columns(columns)}
    found: dict[tuple[str, str, str], list[Comparison]] = {}
    for test in (test for test in tests if test.column in families):
        one = Comparison(test.difference, test.low, test.high, test.p_value, test.freedom)
        found.setdefault((test.ours, test.other, families[test.column]), []).append(one)
    several = {key: some for key, some in found.items() if len(some) > 1}
    return [_test(over_tasks(some), *pair, family=family, columns=len(some)) for (*pair, family), some in several.items()]


def _test(found: Comparison, ours: str, other: str, **more: Any) -> PairedTest:
    return PairedTest(ours=ours, other=other, outcome=outcome_of(found.difference, found.p_value), **asdict(found), **more)


# ---- what is missing -------------------------------------------------------------------------------------------------


def refuse_missing(experiment: Experiment, runner: Runner) -> None:
    """Check that base, data, packages and encoder are here before anything is computed.

    Raises:
        MissingData: naming all that is not.
    """
    missing = [*_missing_models(experiment, runner), *_missing_data(experiment, runner), *_missing_packages(experiment)]
    if missing:
        listed = "\n  ".join(missing)
        raise MissingData(f"{experiment.title} as printed cannot be run here, {len(missing)} things are missing:\n  {listed}")


def _missing_models(experiment: Experiment, runner: Runner) -> Iterator[str]:
    profile, methods = runner.profile, {row.method for row in experiment.rows}
    wanted: dict[str, tuple[Callable[[Any], Path], str | None]] = {f"base {profile.base}": (resolve, profile.base)}
    if "language_model" in methods:
        wanted[f"language model {profile.language_model}"] = (resolve, profile.language_model)
    if "encoder" in methods:
        if profile.encoder is None:
            yield "encoder: the profile names none. Add -o encoder= and a hub id or folder, such as ClinicalBERT's"
        else:
            wanted[f"encoder {profile.encoder}"] = (encoder_folder, profile.encoder)
    for title, (find, name) in wanted.items():
        try:
            find(name)
        except StafError as error:
            yield f"{title}: {error}"


def _missing_data(experiment: Experiment, runner: Runner) -> Iterator[str]:
    """Data sets that are not here: all of a task's, all of the papers' own for an expert, else one that feeds it."""
    profile, store, corpora = runner.profile, runner.context.store, runner.profile.corpora
    experts = sorted({name for spec in experiment.runs(profile.seeds) for name in spec.needs(profile)})
    wanted = {f"task {name}": find_task(name).datasets for name in dict.fromkeys(c.task for c in experiment.columns)}
    wanted |= {f"expert {name}": tuple(corpora[name]) for name in experts if name in corpora}
    for title, names in wanted.items():
        for name in names:
            if not store.can_have(name):
                yield f"{title}: {name} is not here (staf data fetch {name} gets it, or says how)"
    for expert in experts:
        sources = dict.fromkeys(dataset for dataset, _ in store.registry.expert_sources(expert))
        if expert not in corpora and not any(store.can_have(source) for source in sources):
            yield f"expert {expert}: none of {', '.join(sources)} is here (staf data list)"


def _missing_packages(experiment: Experiment) -> Iterator[str]:
    used = set() if experiment.counts_tokens else {row.method for row in experiment.rows}
    for package, (methods, how) in PACKAGES.items():
        if not used.isdisjoint(methods):
            try:
                import_module(package)
            except ImportError as error:
                yield f"package {package}: {error} ({how})"
