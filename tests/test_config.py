"""Settings: the papers' defaults, and every mistake at once."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest
from pydantic import ValidationError

from staf.compute import ComputeOptions, split_options
from staf.config import Settings, find_recipe, former_names, load_values, parse
from staf.errors import ConfigError, MissingData
from staf.experiments.demo import DemoSettings
from staf.experiments.profile import load_profile
from staf.experts.recipe import ExpertRecipe
from staf.routing.recipe import RouterRecipe


def test_the_defaults_are_those_of_section_4_2_2_but_for_what_measured_better() -> None:
    settings = ExpertRecipe()
    assert (settings.initial_rank, settings.target_rank, settings.orth_reg_weight, settings.init) == (6, 4, 0.0, "lora")
    assert (settings.tinit, settings.tfinal, settings.dropout, settings.epochs) == (200, 1000, 0.1, 10)
    router = RouterRecipe()
    assert (router.penalty, router.null_expert, router.learned_scale) == ("weights", False, False)


def test_every_mistake_is_reported_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse(RouterRecipe, {"temperature": 0, "popsze": 4, "granularity": "word"}, "recipes/few_shot.yaml")
    text = str(caught.value)
    assert "settings in recipes/few_shot.yaml: 3 problems" in text
    assert "temperature = 0: Input should be greater than 0" in text
    assert "popsze is not a setting; did you mean 'popsize'?" in text
    assert "granularity = 'word'" in text


def test_contradictions_are_found() -> None:
    with pytest.raises(ConfigError, match="target_rank = 9 must not be above initial_rank = 4"):
        parse(ExpertRecipe, {"initial_rank": 4, "target_rank": 9}, "a test")


def test_settings_are_frozen_and_named_by_a_digest() -> None:
    settings = ExpertRecipe()
    with pytest.raises(ValidationError):
        settings.lora_scaling = 2.0
    assert settings.digest() == ExpertRecipe().digest() != ExpertRecipe(seed=1).digest()


def test_a_recipe_that_is_not_there_or_not_yaml(tmp_path: Path) -> None:
    with pytest.raises(MissingData, match="no recipe"):
        load_values(tmp_path / "none.yaml")
    for content in ("a: [", "- 1", "\xff"):
        (tmp_path / "bad.yaml").write_text(content, encoding="latin-1")
        with pytest.raises(ConfigError, match=r"bad\.yaml"):
            load_values(tmp_path / "bad.yaml")
    assert load_values(None) == {}


def test_every_recipe_that_comes_with_staf_is_valid() -> None:
    folder = resources.files("staf") / "recipes"
    assert sorted(p.name for p in folder.iterdir() if p.name.endswith(".yaml")) == [
        "demo.yaml", "paper.yaml", "reproduce-cpu.yaml", "reproduce-paper.yaml",
    ]  # fmt: skip
    own, rest = split_options(load_values(Path(str(folder / "paper.yaml"))))
    profile = load_profile("paper")
    assert (profile.expert, profile.compute) == (parse(ExpertRecipe, rest, "paper"), parse(ComputeOptions, own, "paper"))
    settings = parse(DemoSettings, load_values(Path(str(folder / "demo.yaml"))), "demo")
    assert settings.few_shot.method == "cma"
    assert settings.few_shot.shots == 32


def test_the_papers_recipe_is_what_section_4_2_2_prints_and_how_it_is_computed() -> None:
    settings = parse(ExpertRecipe, split_options(load_values(find_recipe("paper")))[1], "paper")
    assert (settings.initial_rank, settings.target_rank, settings.orth_reg_weight) == (12, 4, 0.5)
    assert (settings.tinit, settings.tfinal, settings.dropout, settings.epochs) == (200, 1000, 0.1, 10)
    assert (settings.init, settings.importance) == ("svd", "smoothed")


def test_a_recipe_is_found_by_path_or_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_recipe("paper").name == "paper.yaml"
    for wrong in ("papers", "../recipes/paper", "none.yaml", ""):
        with pytest.raises(MissingData, match=f"no recipe {wrong}: .* come with staf are demo, paper"):
            find_recipe(wrong)
    (tmp_path / "paper").write_text("seed: 1\n")
    assert find_recipe("paper") == Path("paper")  # one's own comes first


def test_how_it_is_computed_is_not_what_it_is() -> None:
    with pytest.raises(ConfigError, match="accumulation is now gradient_accumulation_steps"):
        parse(ExpertRecipe, {"accumulation": 5}, "a test")
    own, rest = split_options({"seed": 1, "gradient_accumulation_steps": 5, "dtype": "float32"})
    assert (own, rest) == ({"gradient_accumulation_steps": 5, "dtype": "float32"}, {"seed": 1})


def test_a_wrong_nested_setting_is_named_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("few_shot:\n  metod: cma\n")
    with pytest.raises(ConfigError, match=r"few_shot\.metod is not a setting; did you mean 'method'"):
        parse(DemoSettings, load_values(tmp_path / "r.yaml"), "r.yaml")


@pytest.mark.parametrize(
    ("setting", "former", "now"),
    [("weighting", "free", "unconstrained"), ("weighting", "unit", "l2"), ("objective", "answer", "lm"),
     ("objective", "labels", "label_ce")],
)  # fmt: skip
def test_a_former_value_is_answered_with_the_value_of_today(setting: str, former: str, now: str) -> None:
    with pytest.raises(ConfigError, match=f"{setting} = {former} is now {setting} = {now}"):
        parse(RouterRecipe, {setting: former}, "a test")
    assert getattr(parse(RouterRecipe, {setting: now}, "a test"), setting) == now


def test_a_former_name_is_answered_with_the_name_of_today(monkeypatch: pytest.MonkeyPatch) -> None:
    class Inner(Settings):
        new: int = 1

    monkeypatch.setitem(former_names(), "Inner", {"old": "new"})

    class Outer(Settings):
        expert: Inner = Inner()

    with pytest.raises(ConfigError, match=r"old is now new\."):
        parse(Inner, {"old": 3}, "a test")
    with pytest.raises(ConfigError, match=r"expert\.old is now new\."):
        parse(Outer, {"expert": {"old": 3}}, "a test")
