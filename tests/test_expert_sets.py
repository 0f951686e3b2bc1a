"""Experts plugged in and out: what fits comes in whole, nothing else is touched, and routers of the old set are refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import deltas_of, make_examples, random_expert
from typer.testing import CliRunner

from staf.cli import app
from staf.errors import BaseMismatch, DamagedFile, ExpertMismatch, MissingData, StafError, UnknownName
from staf.experts.sets import add_expert, describe, remove_expert, write_set
from staf.experts.store import Expert, ExpertSet, expert_names, load_expert, load_experts, save_expert
from staf.lm.base import Base
from staf.routing.adapt import adapt_router
from staf.routing.merge import Mixture
from staf.routing.recipe import RouterRecipe
from staf.routing.router import one_hot

Contents = tuple[tuple[str, bytes], ...]


def contents(folder: Path) -> Contents:
    """Every file below a folder, and its bytes."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return tuple((str(path.relative_to(folder)), path.read_bytes()) for path in files)


def wider(base: Base, name: str, rank: int) -> Expert:
    """An expert with another rank than those of the set, the same in every matrix."""
    generator = torch.Generator().manual_seed(rank)
    factors = {
        matrix: (torch.randn(d_out, rank, generator=generator), torch.randn(rank, d_in, generator=generator))
        for matrix, (d_out, d_in) in base.lora.shapes.items()
    }
    return Expert(name, base.identity, factors, frozenset(), {"run": f"run-{name}"})


@pytest.fixture
def folder(experts: ExpertSet, tmp_path: Path) -> Path:
    """A set of three experts on disk."""
    write_set(tmp_path / "set", experts.experts)
    return tmp_path / "set"


@pytest.fixture
def newcomer(base: Base, tmp_path: Path) -> Path:
    """A fourth expert, of another rank, on disk elsewhere."""
    save_expert(tmp_path / "elsewhere", wider(base, "news", rank=6))
    return tmp_path / "elsewhere"


def test_a_set_written_and_loaded_is_the_same_set(experts: ExpertSet, folder: Path) -> None:
    assert load_experts(folder).names == experts.names
    assert load_experts(folder).fingerprint == experts.fingerprint
    before = contents(folder)
    write_set(folder, experts.experts)  # there already
    assert add_expert(folder, folder / "relation").fingerprint == experts.fingerprint
    assert contents(folder) == before
    with pytest.raises(StafError, match="exists already"):
        write_set(folder, experts.experts[:2])


def test_an_expert_of_another_rank_comes_in_and_nothing_else_changes(folder: Path, newcomer: Path) -> None:
    before, fingerprint = contents(folder), load_experts(folder).fingerprint
    found = add_expert(folder, newcomer)
    assert found.names == ("attribute", "news", "relation", "synonymy")
    assert found.fingerprint != fingerprint
    assert load_expert(folder / "news").fingerprint == load_expert(newcomer).fingerprint
    assert load_expert(folder / "news").record == {"run": "run-news"}
    assert [entry for entry in contents(folder) if not entry[0].startswith("news/")] == list(before)
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_a_set_with_experts_of_several_ranks_routes(base: Base, folder: Path, newcomer: Path) -> None:
    found = add_expert(folder, newcomer)
    mixture = Mixture(base, found)
    single = Mixture(base, ExpertSet((load_expert(newcomer),)))
    together = deltas_of(mixture, one_hot(found.names.index("news"), 4))
    for name, delta in deltas_of(single, one_hot(0, 1)).items():
        assert torch.allclose(together[name], delta, atol=1e-6)


def test_out_and_in_again_is_the_set_as_it_was(folder: Path, experts: ExpertSet) -> None:
    before = contents(folder)
    kept = remove_expert(folder, "relation")
    assert load_experts(folder).names == ("attribute", "synonymy")
    assert load_experts(folder).fingerprint == ExpertSet((experts.experts[0], experts.experts[2])).fingerprint
    moved = [(f"relation/{path.name}", path.read_bytes()) for path in sorted(kept.iterdir())]
    assert [entry for entry in before if entry[0].startswith("relation/")] == moved  # none of its files is lost
    rest = [entry for entry in contents(folder) if not entry[0].startswith(".removed/")]
    assert rest == [entry for entry in before if not entry[0].startswith("relation/")]
    assert add_expert(folder, kept).fingerprint == experts.fingerprint
    assert remove_expert(folder, "relation") == kept.with_name("relation-2")  # the first one is still kept
    assert len(list(kept.parent.iterdir())) == 2


def test_a_set_may_begin_with_one_expert_and_end_with_none(newcomer: Path, tmp_path: Path) -> None:
    assert add_expert(tmp_path / "new", newcomer).names == ("news",)
    remove_expert(tmp_path / "new", "news")
    assert expert_names(tmp_path / "new") == ()
    with pytest.raises(MissingData, match="nothing to take 'news' out of"):
        remove_expert(tmp_path / "new", "news")


def refused(folder: Path, source: Path, error: type[StafError], message: str) -> None:
    before = contents(folder)
    with pytest.raises(error, match=message):
        add_expert(folder, source)
    assert contents(folder) == before


def test_an_expert_of_another_base_is_refused_and_both_are_named(base: Base, folder: Path, tmp_path: Path) -> None:
    other = replace(wider(base, "news", 2), base={"name": "other-base", "fingerprint": "0123456789abcdef"})
    save_expert(tmp_path / "other", other)
    message = r"expert 'news' was trained on other-base \(0123456789abcdef\), expert 'attribute' of the set on .*one base"
    refused(folder, tmp_path / "other", BaseMismatch, message)


def test_an_expert_of_another_tokenizer_is_refused_and_one_of_an_unknown_tokenizer_comes_in(
    base: Base, folder: Path, tmp_path: Path
) -> None:
    other = replace(wider(base, "news", 2), base={**base.identity, "tokenizer": "0123"})
    save_expert(tmp_path / "other", other)
    refused(folder, tmp_path / "other", BaseMismatch, "'news' was trained with another tokenizer than expert 'attribute'")
    old = {name: value for name, value in base.identity.items() if name != "tokenizer"}
    save_expert(tmp_path / "old", replace(other, base=old))
    assert "news" in add_expert(folder, tmp_path / "old").names


def test_an_expert_of_fewer_modules_comes_in(base: Base, folder: Path, tmp_path: Path) -> None:
    expert = wider(base, "news", 2)
    fewer = {name: parts for name, parts in expert.factors.items() if not name.endswith("gate_proj")}
    save_expert(tmp_path / "other", replace(expert, factors=fewer))
    found = add_expert(folder, tmp_path / "other")
    assert len(found.experts[1].factors) == 12
    Mixture(base, found)


def test_other_shapes_are_refused(base: Base, folder: Path, tmp_path: Path) -> None:
    expert = wider(base, "news", 2)
    name = "model.layers.1.self_attn.q_proj"
    b, a = expert.factors[name]
    save_expert(tmp_path / "other", replace(expert, factors={**expert.factors, name: (b[:16], a)}))
    message = rf"1 of which differ from expert 'attribute' of the set\. The first is {name}: 16 x 32 in 'news', 32 x 32 in"
    refused(folder, tmp_path / "other", ExpertMismatch, message)


def test_every_expert_of_the_set_is_compared_not_only_the_first(base: Base, folder: Path, newcomer: Path) -> None:
    odd = replace(wider(base, "zeta", 2), base={"name": "other-base", "fingerprint": "0123"})
    save_expert(folder / "zeta", odd)  # a set that was put together by hand
    refused(folder, newcomer, BaseMismatch, "expert 'zeta' of the set on other-base")


def test_a_name_that_is_taken_is_refused(folder: Path, tmp_path: Path, base: Base) -> None:
    save_expert(tmp_path / "twin", random_expert(base, "relation", seed=9))
    refused(folder, tmp_path / "twin", StafError, "has 'relation' already.*staf experts remove .* relation")
    (folder / "synonymy").rename(folder / "renamed")
    save_expert(tmp_path / "twin", random_expert(base, "synonymy", seed=9))
    refused(folder, tmp_path / "twin", StafError, "has 'synonymy' already")


def test_the_folder_of_a_training_that_was_stopped_is_not_written_over(folder: Path, newcomer: Path) -> None:
    (folder / "news" / "checkpoint").mkdir(parents=True)
    refused(folder, newcomer, StafError, "has 'news' already")


@pytest.mark.parametrize("name", ["../out", ".hidden", "a/b", "", ".."])
def test_a_name_cannot_lead_out_of_the_set(folder: Path, base: Base, tmp_path: Path, name: str) -> None:
    save_expert(tmp_path / "odd", replace(wider(base, "news", 1), name=name))
    refused(folder, tmp_path / "odd", DamagedFile, "cannot be the name of an expert")


def test_a_damaged_expert_does_not_come_in_but_can_be_taken_out(folder: Path, newcomer: Path) -> None:
    tensors = newcomer / "adapter_model.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-7])
    refused(folder, newcomer, DamagedFile, "is truncated")
    (folder / "relation" / "staf.json").write_text("{")
    with pytest.raises(DamagedFile):
        load_experts(folder)
    remove_expert(folder, "relation")
    assert load_experts(folder).names == ("attribute", "synonymy")


def test_a_failed_write_leaves_the_set_as_it_was(folder: Path, newcomer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(folder)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("staf.io.os.fsync", full)
    with pytest.raises(StafError, match="No space left on device"):
        add_expert(folder, newcomer)
    monkeypatch.undo()
    assert contents(folder) == before
    assert sorted(path.name for path in folder.iterdir()) == ["attribute", "relation", "synonymy"]


def test_a_copy_that_was_killed_half_way_is_not_seen(folder: Path, newcomer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed before the last rename, and with no time to tidy up."""

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("staf.io.os.replace", killed)
        patch.setattr("staf.io.shutil.rmtree", lambda *_, **__: None)
        with pytest.raises(KeyboardInterrupt):
            write_set(folder.parent / "copy", load_experts(folder).experts)
    assert not (folder.parent / "copy").exists()
    (left,) = folder.parent.glob(".copy.*")
    left.rename(folder / left.name)
    assert expert_names(folder) == ("attribute", "relation", "synonymy")
    assert add_expert(folder, newcomer).names == ("attribute", "news", "relation", "synonymy")


def test_a_wrong_name_is_answered_with_near_ones(folder: Path) -> None:
    with pytest.raises(UnknownName, match=r"no expert 'relatoin'.*'relation'"):
        remove_expert(folder, "relatoin")


def test_a_router_of_the_old_set_is_refused_until_it_is_adapted_again(base: Base, folder: Path, newcomer: Path) -> None:
    examples = make_examples(6, "adaptation")
    settings = RouterRecipe(method="cma", max_evaluations=8, max_length=128)
    old = adapt_router(Mixture(base, load_experts(folder)), "colour", examples, settings)
    grown = add_expert(folder, newcomer)
    with pytest.raises(ExpertMismatch, match=r"made for the experts attribute, relation, synonymy .* news, .*Adapt again"):
        old.check(base.identity, grown)
    kept = {name: load_expert(folder / name).fingerprint for name in old.experts}
    again = adapt_router(Mixture(base, grown), "colour", examples, settings)
    again.check(base.identity, grown)
    assert again.mean_weights["news"] > 0
    assert {name: load_expert(folder / name).fingerprint for name in old.experts} == kept  # nothing else was retrained
    remove_expert(folder, "news")
    old.check(base.identity, load_experts(folder))
    with pytest.raises(ExpertMismatch, match="Adapt again"):
        again.check(base.identity, load_experts(folder))


def test_the_rows_of_a_set_by_hand(base: Base, newcomer: Path, tmp_path: Path) -> None:
    add_expert(tmp_path / "new", newcomer)
    (row,) = describe(tmp_path / "new")
    numbers = sum(6 * (d_out + d_in) for d_out, d_in in base.lora.shapes.values())
    assert (row["expert"], row["modules"], row["average_rank"], row["num_params"]) == ("news", 14, 6.0, numbers)
    assert row["base_fingerprint"] == base.fingerprint
    assert row["set"] == load_experts(tmp_path / "new").fingerprint


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_commands(folder: Path, newcomer: Path) -> None:
    rows = json.loads(run("experts", "list", folder, "--json"))
    assert [row["expert"] for row in rows] == ["attribute", "relation", "synonymy"]
    added = json.loads(run("experts", "add", folder, newcomer, "--json"))
    assert added["experts"] == ["attribute", "news", "relation", "synonymy"]
    assert added["set"] != rows[0]["set"]
    text = run("experts", "list", folder)
    assert added["set"] in text
    removed = json.loads(run("experts", "remove", folder, "news", "--json"))
    assert removed["experts"] == ["attribute", "relation", "synonymy"]
    assert "adapt again" in run("experts", "add", folder, removed["kept_in"])
    assert f"staf experts add {folder}" in run("experts", "remove", folder, "relation")
    assert json.loads(run("experts", "list", folder, "--json"))[0]["set"] == load_experts(folder).fingerprint


@pytest.mark.parametrize("command", [[], ["list"], ["add"], ["remove"], ["reduce"]])
def test_every_help_ends_with_a_line_to_paste(command: list[str]) -> None:
    text = run("experts", *command, "--help")
    assert "staf " in text.split("Options")[0].replace("Usage: staf", "")
