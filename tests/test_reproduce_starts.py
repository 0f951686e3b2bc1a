"""A router of the profile that goes on from another one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError
from test_reproduce import TINY, runner_of

from staf.experiments.plan import RunSpec
from staf.experiments.profile import Profile, load_profile

ZERO = {"method": "zero_shot", "shots": 3, "temperature": 0.3, "max_length": 900}
BEST = {"method": "best_expert", "shots": 4, "temperature": 0.3, "max_length": 900}
SEARCH = {
    "method": "cma",
    "shots": 4,
    "max_evaluations": 6,
    "popsize": 2,
    "temperature": 0.3,
    "sigma0": 0.3,
    "max_length": 900,
}
BEYOND = {"zero": ZERO, "best": BEST, "informed": SEARCH, "plain": SEARCH}


@pytest.mark.parametrize("start", ["zero", "best"])
def test_a_search_begins_at_the_router_that_the_profile_names(tiny_folder: Path, own: Path, tmp_path: Path, start: str) -> None:
    runner = runner_of(tiny_folder, own, tmp_path, extra_routers=BEYOND, init_from={"informed": start})
    runner.run(RunSpec("icd10_chapter", "extra", 1, router="informed"))
    made = {file.parts[-3].split("-")[0]: file for file in tmp_path.glob("routers/icd10_chapter/*/seed-1/router.json")}
    assert set(made) == {start, "informed"}
    found = {name: json.loads(file.read_text()) for name, file in made.items()}
    assert found["informed"]["result"]["init_from"] == {"task": "icd10_chapter", "run": found[start]["result"]["run"]}
    runner.run(RunSpec("icd10_chapter", "extra", 1, router="plain"))
    plain = json.loads(next(tmp_path.glob("routers/icd10_chapter/plain-*/seed-1/router.json")).read_text())
    assert plain["result"]["init_from"] is None
    assert plain["result"]["history"] != found["informed"]["result"]["history"]


@pytest.mark.parametrize(
    "init_from",
    [
        {"zero": "informed"},
        {"best": "zero"},
        {"informed": "nobody"},
        {"few_shot": "zero"},
        {"informed": "plain", "plain": "zero"},
    ],
)
def test_a_start_that_makes_no_sense_is_refused(init_from: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match=f"init_from: {next(iter(init_from))}: .* expected an extra router that learns"):
        Profile.model_validate({**TINY, "extra_routers": BEYOND, "init_from": init_from})


def test_the_numbers_of_a_start_mean_the_same_as_those_that_are_searched() -> None:
    profile = load_profile("cpu")
    assert profile.init_from
    for name, start in profile.init_from.items():
        assert profile.extra_routers[name].temperature == profile.extra_routers[start].temperature
