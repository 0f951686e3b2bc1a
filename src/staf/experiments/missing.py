"""What a table as printed needs and is not here: all of it told at once, before anything is computed."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module

from staf.baselines.classifiers.encoder import encoder_folder
from staf.data.selection import expert_sources
from staf.data.task import find_task
from staf.errors import MissingData, StafError
from staf.experiments.cells import Grid
from staf.experiments.comparing import TUNED
from staf.experiments.plans import Plan
from staf.experiments.profile import Profile
from staf.experiments.running import experts_of
from staf.lm.base import resolve

PACKAGES = {
    "peft": ({*TUNED, "causal"} - {"full"}, "pip install 'staf-llm[bench]'"),
    "nevergrad": ({"lorahub"}, "pip install nevergrad bayesian-optimization==1.4.0"),
    "cma": ({"few_shot"}, "pip install cma"),
}
"""Packages beside those that staf cannot do without, the methods that need each, and how to get it."""


def refuse_missing(plan: Plan, grid: Grid) -> None:
    """See that base, data, packages and encoder are here before anything is computed.

    Raises:
        MissingData: naming all that is not.
    """
    missing = [*_missing_models(plan, grid.profile), *_missing_data(plan, grid), *_missing_packages(plan)]
    if missing:
        listed = "\n  ".join(missing)
        raise MissingData(f"{plan.title} as printed cannot be run here, {len(missing)} things are missing:\n  {listed}")


def _missing_models(plan: Plan, profile: Profile) -> Iterator[str]:
    """Base and encoder that cannot be had."""
    try:
        resolve(profile.base)
    except StafError as error:
        yield f"base {profile.base}: {error}"
    methods = {line.method for line in plan.lines}
    if "causal" in methods:
        try:
            resolve(profile.causal)
        except StafError as error:
            yield f"language model {profile.causal}: {error}"
    if "encoder" not in methods:
        return
    if profile.encoder is None:
        yield "encoder: the profile names none. Add -o encoder= and a hub id or folder, of ClinicalBERT say"
        return
    try:
        encoder_folder(profile.encoder)
    except StafError as error:
        yield f"encoder {profile.encoder}: {error}"


def _missing_data(plan: Plan, grid: Grid) -> Iterator[str]:
    """Data sets that are not here: all of a task's, all of the papers' own for an expert, else one that feeds it."""
    store, corpora = grid.context.store, grid.profile.corpora
    wanted = {f"task {name}": find_task(name).datasets for name in dict.fromkeys(column.task for column in plan.columns)}
    wanted |= {f"expert {name}": tuple(corpora[name]) for name in experts_of(plan, grid.profile) if name in corpora}
    for title, names in wanted.items():
        for name in names:
            if not store.can_have(name):
                yield f"{title}: {name} is not here (staf data fetch {name} gets it, or says how)"
    for expert in experts_of(plan, grid.profile):
        sources = dict.fromkeys(dataset for dataset, _ in expert_sources(expert))
        if expert not in corpora and not any(store.can_have(source) for source in sources):
            yield f"expert {expert}: none of {', '.join(sources)} is here (staf data list)"


def _missing_packages(plan: Plan) -> Iterator[str]:
    """Packages that methods of the plan need and that do not load."""
    used = set() if plan.counted else {line.method for line in plan.lines}
    for package, (methods, how) in PACKAGES.items():
        if not used.isdisjoint(methods):
            try:
                import_module(package)
            except ImportError as error:
                yield f"package {package}: {error} ({how})"
