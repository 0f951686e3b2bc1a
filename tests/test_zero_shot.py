"""The zero-shot router: no answer is read, a task like the training of one expert goes to it, nothing is computed twice."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import make_examples, random_expert
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from staf.checkpoint_io import write_checkpoint
from staf.config import parse
from staf.data.example import Example, prompt_of
from staf.errors import BaseMismatch, ConfigError, DamagedFile, ExpertMismatch, MissingData, TestLeak
from staf.experts.sets import write_set
from staf.experts.store import ExpertSet, expert_names
from staf.lm.base import Base
from staf.lm.batches import encode_prompt
from staf.routing import searchless
from staf.routing.merge import Mixture
from staf.routing.recipe import RouterRecipe
from staf.routing.router import expert_weights, one_hot, uniform
from staf.routing.searchless import expert_centroid, expert_centroids, prompt_mean, similarities, zero_shot_router
from staf.routing.store import load_router, save_router


def chosen(**changes: Any) -> RouterRecipe:
    return RouterRecipe(**{"method": "zero_shot", "max_length": 128, **changes})


def taught(name: str, split: str = "train", count: int = 12) -> list[Example]:
    """Examples that look like the name of an expert: its own query and contexts."""
    queries = {"attribute": "WHAT HAS IT?", "relation": "which is broader, 1 or 2", "synonymy": "zzz == zzz ?"}
    changes = {"query": queries[name], "labels": ("yes", "no"), "answer": "yes"}
    return [replace(example, id=f"{name}-{example.id}", **changes) for example in make_examples(count, split)]


@pytest.fixture
def centroids(base: Base, experts: ExpertSet) -> torch.Tensor:
    return torch.stack([expert_centroid(base, taught(name), 128) for name in experts.names])


def test_the_mean_is_that_of_plain_forwards_of_the_original_model(base: Base, experts: ExpertSet, tiny_folder: Path) -> None:
    from transformers import AutoModelForCausalLM

    examples = [*make_examples(5), *taught("relation", count=4)]
    plain: Any = AutoModelForCausalLM.from_pretrained(str(tiny_folder), dtype=torch.float32)
    means = []
    for example in examples:
        ids = base.tokenizer(prompt_of(example.query, example.context), return_tensors="pt")["input_ids"]
        with torch.no_grad():
            means.append(plain.model(input_ids=ids).last_hidden_state[0].mean(0))
    expected = torch.stack(means).mean(0)
    assert torch.allclose(prompt_mean(base, examples, 128), expected, atol=1e-5)
    Mixture(base, experts).set_weights(torch.ones(1, 3))
    assert torch.allclose(prompt_mean(base, examples, 128), expected, atol=1e-5)  # whatever is attached


def test_a_long_context_is_cut_and_the_query_kept(base: Base) -> None:
    long = replace(make_examples(1)[0], context="sky " * 200)
    cut = replace(long, context=("sky " * 200)[: len(base.tokenizer.decode(encode_prompt(long, base.tokenizer, 100)))])
    assert torch.equal(prompt_mean(base, [long], 100), prompt_mean(base, [cut], 100))
    with pytest.raises(ConfigError, match="Raise max_length"):
        prompt_mean(base, [long], 20)


def test_no_answer_is_read_and_the_order_does_not_matter(base: Base, experts: ExpertSet, centroids: torch.Tensor) -> None:
    inputs = make_examples(8, "adaptation")
    answered = [replace(e, answer="blue and " * 300, labels=(e.answer, f"a secret of {e.id}")) for e in reversed(inputs)]
    first, again = (zero_shot_router(base, experts, "colour", given, centroids, chosen()) for given in (inputs, answered))
    assert first.weights.numpy().tobytes() == again.weights.numpy().tobytes()
    assert first.params.numpy().tobytes() == again.params.numpy().tobytes()
    assert {k: v for k, v in first.record.items() if k != "seconds"} == {
        k: v for k, v in again.record.items() if k != "seconds"
    }
    assert "secret" not in json.dumps(again.record)


@pytest.mark.parametrize("name", ["attribute", "relation", "synonymy"])
def test_a_task_like_the_training_of_one_expert_goes_to_it(
    base: Base, experts: ExpertSet, centroids: torch.Tensor, name: str
) -> None:
    inputs = taught(name, "adaptation", 5)
    router = zero_shot_router(base, experts, "like", inputs, centroids, chosen(temperature=0.1))
    assert max(router.mean_weights, key=lambda key: router.mean_weights[key]) == name
    assert router.mean_weights[name] > 0.9
    assert router.record["similarities"][name] > 0.9
    same = similarities(expert_centroid(base, taught(name), 128), centroids)
    assert same[experts.names.index(name)].item() == pytest.approx(1.0, abs=1e-5)


@settings(max_examples=40)
@given(experts=st.integers(1, 6), shift=st.floats(-50, 50), stretch=st.floats(0.1, 10), seed=st.integers(0, 99))
def test_similarities_do_not_see_where_the_cone_lies_nor_its_width(
    experts: int, shift: float, stretch: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    task, centroids = (torch.randn(n, 8, generator=generator, dtype=torch.float64) for n in (1, experts))
    found = similarities(task[0], centroids)
    assert bool((found.abs() <= 1 + 1e-9).all())
    assert torch.allclose(similarities(task[0] * stretch + shift, centroids * stretch + shift), found, atol=1e-6)


def test_similarities_by_hand() -> None:
    centroids = torch.tensor([[101.0, 100.0], [99.0, 100.0]])  # all cosines are 1 to four places until the mean is taken away
    found = similarities(torch.tensor([103.0, 104.0]), centroids)
    assert found.tolist() == pytest.approx([0.6, -0.6])


def test_the_weights_are_a_softmax_of_the_similarities_and_the_numbers_give_them_again(
    base: Base, experts: ExpertSet, centroids: torch.Tensor
) -> None:
    inputs = make_examples(6, "adaptation")
    router = zero_shot_router(base, experts, "colour", inputs, centroids, chosen(temperature=0.5))
    similar = torch.tensor(list(router.record["similarities"].values()))
    assert router.weights.shape == (1, 3)
    assert torch.allclose(router.weights[0], torch.softmax(similar / 0.5, 0))
    descriptor = Mixture(base, experts).descriptor("task")
    assert torch.allclose(expert_weights(router.params, descriptor, router.recipe), router.weights)
    for temperature, limit in ((1e4, uniform(3)), (1e-4, one_hot(int(similar.argmax()), 3))):
        found = zero_shot_router(base, experts, "colour", inputs, centroids, chosen(temperature=temperature))
        assert torch.allclose(found.weights, limit, atol=1e-3)
    assert (router.recipe.method, router.record["examples"], router.record["unlabelled"]) == ("zero_shot", 0, 6)
    assert router.record["tunable_parameters"] == 0
    router.check(base.identity, experts)


def test_a_set_of_one_expert_gets_all_the_weight(base: Base, experts: ExpertSet, centroids: torch.Tensor) -> None:
    single = ExpertSet(experts.experts[:1])
    router = zero_shot_router(base, single, "colour", make_examples(2, "adaptation"), centroids[:1], chosen())
    assert router.weights.tolist() == [[1.0]]


def test_a_test_example_is_refused_and_so_is_nothing(base: Base, experts: ExpertSet, centroids: torch.Tensor) -> None:
    with pytest.raises(TestLeak, match="test-0"):
        zero_shot_router(base, experts, "colour", make_examples(3, "test"), centroids, chosen())
    with pytest.raises(TestLeak, match="test-0"):
        expert_centroid(base, make_examples(3, "test"))
    with pytest.raises(MissingData, match="no inputs of 'colour'"):
        zero_shot_router(base, experts, "colour", [], centroids, chosen())
    with pytest.raises(MissingData, match="no training examples"):
        expert_centroid(base, [])


def test_what_cannot_go_together_is_refused(base: Base, experts: ExpertSet, centroids: torch.Tensor) -> None:
    inputs = make_examples(2, "adaptation")
    with pytest.raises(ConfigError, match=r"granularity = layer, null_expert = True needs learning: a zero-shot router"):
        parse(RouterRecipe, {"method": "zero_shot", "granularity": "layer", "null_expert": True}, "a test")
    with pytest.raises(ExpertMismatch, match="2 centroids for 3 experts"):
        zero_shot_router(base, experts, "colour", inputs, centroids[:2], chosen())
    stranger = ExpertSet((replace(experts.experts[0], base={"name": "other", "fingerprint": "0"}), *experts.experts[1:]))
    with pytest.raises(BaseMismatch, match="expert 'attribute' was trained on other"):
        zero_shot_router(base, stranger, "colour", inputs, centroids, chosen())


class Shelf:
    """Training examples by expert, which notes what was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, name: str) -> Sequence[Example]:
        self.asked.append(name)
        return taught(name)


def test_centroids_are_kept_beside_the_set_and_computed_once(
    base: Base, experts: ExpertSet, centroids: torch.Tensor, tmp_path: Path
) -> None:
    folder, shelf = tmp_path / "set", Shelf()
    write_set(folder, experts.experts)
    first = expert_centroids(base, experts, folder, shelf, 128)
    assert torch.equal(first, centroids)
    assert shelf.asked == list(experts.names)
    assert torch.equal(expert_centroids(base, experts, folder, shelf, 128), first)
    assert len(shelf.asked) == 3  # none was asked for again
    assert expert_names(folder) == experts.names  # they are not taken for an expert
    fewer = ExpertSet(experts.experts[1:])
    assert torch.equal(expert_centroids(base, fewer, folder, shelf, 128), first[1:])
    retrained = ExpertSet((*experts.experts[:2], random_expert(base, "synonymy", seed=8)))
    assert torch.equal(expert_centroids(base, retrained, folder, shelf, 128), first)
    assert shelf.asked[3:] == ["synonymy"]
    elsewhere = replace(base, identity={**base.identity, "fingerprint": "of other weights"})
    expert_centroids(elsewhere, retrained, folder, shelf, 128)
    assert shelf.asked[4:] == list(experts.names)


def test_centroids_of_experts_that_are_not_in_the_set_just_now_stay(
    base: Base, experts: ExpertSet, centroids: torch.Tensor, tmp_path: Path
) -> None:
    shelf = Shelf()
    for members in (experts.experts[:2], experts.experts[1:], experts.experts):
        some = ExpertSet(members)
        expected = centroids[[experts.names.index(name) for name in some.names]]
        assert torch.equal(expert_centroids(base, some, tmp_path, shelf, 128), expected)
    assert shelf.asked == list(experts.names)


def test_a_stop_loses_no_centroid_that_was_computed(base: Base, experts: ExpertSet, tmp_path: Path) -> None:
    done: list[str] = []

    def stopped(name: str) -> Sequence[Example]:
        if name == experts.names[2]:
            raise KeyboardInterrupt
        return taught(name)

    with pytest.raises(KeyboardInterrupt):
        expert_centroids(base, experts, tmp_path, stopped, 128, done.append)
    assert done == list(experts.names[:2])
    shelf = Shelf()
    expert_centroids(base, experts, tmp_path, shelf, 128, done.append)
    assert shelf.asked == [experts.names[2]]
    assert done[2:] == list(experts.names)


def test_kept_centroids_that_do_not_fit_their_record_are_refused(base: Base, experts: ExpertSet, tmp_path: Path) -> None:
    expert_centroids(base, experts, tmp_path, taught, 128)
    path = tmp_path / "centroids.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "experts": 3}))
    with pytest.raises(DamagedFile, match=r"centroids\.json was altered"):
        expert_centroids(base, experts, tmp_path, taught, 128)
    saved = load_file(next(tmp_path.glob("*.safetensors")))
    short = {name: mean[:3] for name, mean in saved.items()}
    for tensors, changed in (
        (saved, 3),
        (saved, ["abc"]),
        (saved, None),
        ({}, experts.fingerprints),
        (short, experts.fingerprints),
    ):
        write_checkpoint(tmp_path, "centroids", tensors, {"base": base.identity, "experts": changed})
        with pytest.raises(DamagedFile, match=r"centroids\.json.*Delete it; it is computed again"):
            expert_centroids(base, experts, tmp_path, taught, 128)
    (tensors,) = tmp_path.glob("*.safetensors")
    tensors.write_bytes(tensors.read_bytes()[:-1])
    with pytest.raises(DamagedFile, match="is truncated"):
        expert_centroids(base, experts, tmp_path, taught, 128)


def test_a_centroid_is_made_of_so_many_prompts_and_no_more(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searchless, "PROMPTS", 4)
    examples = taught("relation", count=12)
    drawn: list[int] = []
    whole = searchless.prompt_mean

    def noted(model: Base, given: Sequence[Example], limit: int) -> torch.Tensor:
        drawn.append(len(given))
        return whole(model, given, limit)

    monkeypatch.setattr(searchless, "prompt_mean", noted)
    first = expert_centroid(base, examples, 128)
    assert torch.equal(expert_centroid(base, examples[::-1], 128), first)
    assert drawn == [4, 4]


def test_it_is_saved_and_loaded_as_any_router(base: Base, experts: ExpertSet, centroids: torch.Tensor, tmp_path: Path) -> None:
    router = zero_shot_router(base, experts, "colour", make_examples(3, "adaptation"), centroids, chosen())
    save_router(tmp_path, router)
    loaded = load_router(tmp_path)
    assert torch.equal(loaded.weights, router.weights)
    assert (loaded.recipe, loaded.record) == (router.recipe, router.record)
