"""Routers and states of adaptations that were changed on disk: one named error, or the same content; never a traceback."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_examples, random_expert

from staf import checkpoint_io
from staf.checkpoint_io import read_checkpoint, write_checkpoint
from staf.errors import BaseMismatch, DamagedFile, ExpertMismatch, StafError
from staf.experts.checkpoint import Checkpoints
from staf.experts.store import ExpertSet
from staf.lm.base import Base
from staf.routing import cma, gradient
from staf.routing.adapt import adaptation_digest
from staf.routing.cma import fit_cma
from staf.routing.gradient import check_state, fit_gradient
from staf.routing.merge import Mixture
from staf.routing.recipe import RouterRecipe
from staf.routing.store import Router, load_router, save_router

ODD = (None, True, -1, 0, 1e308, 2**70, "", "x", "\ud800", [], [[]], {}, {"a": None}, ["a", 1], "../../x", [0.5] * 3)
JUNK = (b"", b"{}", b"[]", b"null", b"\x00" * 9, b"[" * 100_000, b"\xff\xfe{}", b'{"a": NaN}', b"\x80\x04K\x01.", b"{" * 7)


def a_router(base: Base, experts: ExpertSet) -> Router:
    weights, params = torch.tensor([[0.2, 0.3, 0.5]]), torch.arange(6.0)
    record = {"loss": 1.0, "stop_reason": "epochs=1", "tunable_parameters": 6, "seconds": 2.0}
    return Router.of(base, experts, "colour", make_examples(3, "adaptation"), RouterRecipe(), weights, params, record)


def changed_bytes(data: bytes, rng: random.Random) -> bytes:
    """The content with one kind of damage."""
    at = rng.randrange(len(data))
    flipped = data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]
    return rng.choice((data[:at], flipped, flipped, flipped, data[at:], data + data[:at], rng.choice(JUNK)))


def changed_value(values: Any, rng: random.Random) -> Any:
    """The content of a JSON file with one value, at any depth, of another kind or missing."""
    if not isinstance(values, (dict, list)) or not values or rng.random() < 0.1:
        return rng.choice(ODD)
    key = rng.choice(list(values) if isinstance(values, dict) else range(len(values)))
    if rng.random() < 0.2:
        return {k: v for k, v in values.items() if k != key} if isinstance(values, dict) else values[:key] + values[key + 1 :]
    changed = dict(values) if isinstance(values, dict) else list(values)
    changed[key] = changed_value(changed[key], rng)
    return changed


def test_a_damaged_router_is_one_named_error_or_loads_as_it_was(base: Base, experts: ExpertSet, tmp_path: Path) -> None:
    router, rng, refused = a_router(base, experts), random.Random(5), 0
    save_router(tmp_path / "good", router)
    for turn in range(300):
        folder = tmp_path / str(turn)
        shutil.copytree(tmp_path / "good", folder)
        path = rng.choice(sorted(p for p in folder.iterdir() if p.name != "cost.json"))
        if rng.random() < 0.1:
            path.unlink() if rng.random() < 0.5 else (path.unlink(), path.mkdir())
        else:
            path.write_bytes(changed_bytes(path.read_bytes(), rng))
        try:
            found = load_router(folder)
        except StafError as error:
            refused += 1
            assert ". " in str(error)  # noqa: PT017
        else:
            assert replace(found, weights=router.weights, params=router.params, record=router.record) == router
            assert torch.equal(found.weights, router.weights)
    assert refused > 250


def test_a_record_of_other_values_never_becomes_a_traceback(base: Base, experts: ExpertSet, tmp_path: Path) -> None:
    """Also where somebody made its checksum anew: what loads can be used, or is refused by name."""
    rng, mixture, used = random.Random(7), Mixture(base, experts), 0
    save_router(tmp_path, a_router(base, experts))
    _, record = read_checkpoint(tmp_path, "router")
    text, head = (tmp_path / "router.json").read_text(), {"format": "staf-router", "format_version": 1}
    for _ in range(300):
        changed = changed_value(record, rng)
        changed = changed if isinstance(changed, dict) else {}
        entry = {**json.loads(text)["tensors"], "record": checkpoint_io.record_digest(changed)}
        (tmp_path / "router.json").write_text(json.dumps({**head, **changed, "tensors": entry}))
        try:
            found = load_router(tmp_path)
            found.check(base.identity, experts)
            mixture.set_weights(found.weights, found.recipe.granularity)
        except StafError:
            continue
        used += 1
    assert used < 150


@pytest.mark.parametrize("content", [*JUNK, b'{"seconds": "long"}', b'{"seconds": null}'])
def test_a_cost_that_is_none_is_refused(base: Base, experts: ExpertSet, tmp_path: Path, content: bytes) -> None:
    save_router(tmp_path, a_router(base, experts))
    (tmp_path / "cost.json").write_bytes(content)
    if content == b"{}":
        assert "seconds" not in load_router(tmp_path).record
    else:
        with pytest.raises(DamagedFile):
            load_router(tmp_path)


@pytest.mark.parametrize(
    "tensors",
    [
        {"weights": torch.ones(1, 2)},
        {"weights": torch.ones(3)},
        {"weights": torch.ones(2, 3)},
        {"weights": torch.ones(1, 3, dtype=torch.float64)},
        {"params": torch.ones(5)},
        {"params": torch.ones(1)},
        {"params": torch.ones(6, dtype=torch.int64)},
        {"params": torch.full((6,), torch.nan)},
    ],
)
def test_tensors_of_another_shape_dtype_or_not_finite_are_refused(
    base: Base, experts: ExpertSet, tmp_path: Path, tensors: dict[str, torch.Tensor]
) -> None:
    save_router(tmp_path, a_router(base, experts))
    good, record = read_checkpoint(tmp_path, "router")
    write_checkpoint(tmp_path, "router", good | tensors, record)
    with pytest.raises(DamagedFile, match=rf"{next(iter(tensors))}|NaN"):
        load_router(tmp_path)


def test_a_changed_record_and_swapped_names_are_refused(base: Base, experts: ExpertSet, tmp_path: Path) -> None:
    save_router(tmp_path, a_router(base, experts))
    path = tmp_path / "router.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "experts": record["experts"][::-1]}))
    with pytest.raises(DamagedFile, match="was altered"):
        load_router(tmp_path)
    save_router(tmp_path, a_router(base, experts))
    tensors, record = read_checkpoint(tmp_path, "router")
    write_checkpoint(tmp_path, "router", tensors, {**record, "experts": record["experts"][::-1]})
    with pytest.raises(DamagedFile, match="names and fingerprints do not belong together"):
        load_router(tmp_path)


def test_no_number_of_a_patient_or_stay_is_in_a_router(base: Base, experts: ExpertSet, tmp_path: Path) -> None:
    examples = [
        replace(e, id=f"mimic-iii-demo/20011{i}", group=f"patient-7{i}") for i, e in enumerate(make_examples(3, "adaptation"))
    ]
    router = Router.of(base, experts, "colour", examples, RouterRecipe(), torch.ones(1, 3) / 3, torch.zeros(6), {"loss": 1.0})
    save_router(tmp_path, router)
    text = (tmp_path / "router.json").read_text()
    assert not any(number in text for e in examples for number in (e.id, str(e.group), "20011"))
    assert len({*router.record["example_ids"]}) == 3


def test_everything_that_decides_an_adaptation_is_in_its_name(base: Base, experts: ExpertSet) -> None:
    recipe, examples, identity = RouterRecipe(), make_examples(3, "adaptation"), dict(base.identity)
    other = ExpertSet((*experts.experts[:2], random_expert(base, "synonymy", 9)))
    start = a_router(base, experts)
    asked: dict[str, tuple[Any, ...]] = {"none": (identity, experts, "colour", examples, recipe)}
    for name in ("fingerprint", "tokenizer"):
        asked[name] = ({**identity, name: "another"}, *asked["none"][1:])
    asked |= {"experts": (identity, other, *asked["none"][2:]), "task": (identity, experts, "shade", examples, recipe)}
    for field, value in (("context", "x"), ("query", "x"), ("answer", "x"), ("labels", ("a", "b")), ("id", "x")):
        asked[field] = (identity, experts, "colour", [replace(examples[0], **{field: value}), *examples[1:]], recipe)
    changes = {"method": "cma", "seed": 1, "gamma_1": 0.5, "temperature": 2.0, "shots": 3, "objective": "label_ce"}
    for name, value in changes.items():
        asked[name] = (identity, experts, "colour", examples, recipe.model_copy(update={name: value}))
    asked["start"] = (*asked["none"], start)
    asked["other start"] = (*asked["none"], replace(start, params=start.params + 1))
    assert len({adaptation_digest(*arguments) for arguments in asked.values()}) == len(asked)


def fitted(method: str, states: Checkpoints) -> None:
    """A small fit of three parameters that resumes and saves as an adaptation does."""
    shapes = cma.STATE if method == "cma" else gradient.STATE
    found = states.load(shapes, ("seconds",))
    state = None if found is None else found[0]
    if state is not None:
        check_state(state, shapes, 3)

    def save(step: int, tensors: dict[str, torch.Tensor]) -> None:
        states.save(step, tensors, {"seconds": 1.0})

    if method == "cma":
        recipe = RouterRecipe(method="cma", max_evaluations=14, popsize=7)
        losses: Callable[[list[np.ndarray]], list[float]] = lambda some: [float((c**2).sum()) for c in some]  # noqa: E731
        fit_cma(losses, np.ones(3), recipe, resume_from=state, on_checkpoint=save)
    else:
        fit_gradient(
            lambda params, _: params.square().sum(), lambda params: float(params.square().sum()), torch.ones(3),
            RouterRecipe(epochs=2), lambda _: [[0]], resume_from=state, on_checkpoint=save,
        )  # fmt: skip


@pytest.mark.parametrize("method", ["cma", "gradient"])
def test_a_damaged_state_is_one_named_error_or_the_one_before_it_is_resumed(tmp_path: Path, method: str) -> None:
    rng, said = random.Random(3), list[str]()
    fitted(method, Checkpoints(tmp_path / "good", "run", said.append))
    for turn in range(100):
        folder = tmp_path / str(turn)
        shutil.copytree(tmp_path / "good", folder)
        path = rng.choice(sorted(p for p in folder.glob("step-*/*") if p.is_file()))
        path.unlink() if rng.random() < 0.1 else path.write_bytes(changed_bytes(path.read_bytes(), rng))
        try:
            fitted(method, Checkpoints(folder, "run", said.append))
        except StafError as error:
            assert ". " in str(error)  # noqa: PT017
    assert any("skipped" in line for line in said)


@pytest.mark.parametrize("method", ["cma", "gradient"])
def test_a_state_of_other_shapes_or_dtypes_is_refused(tmp_path: Path, method: str) -> None:
    """A one-element tensor would be broadcast, a short moment would end the process."""
    fitted(method, Checkpoints(tmp_path, "run", lambda _: None))
    newest = max(tmp_path.glob("step-*"))
    good, record = read_checkpoint(newest, "checkpoint")
    for name, tensor in good.items():
        for wrong in (
            tensor[:0],
            tensor.flatten()[:1],
            tensor[None],
            tensor.float(),
            tensor.double(),
            tensor.long(),
            tensor.repeat_interleave(2, -1),
        ):
            if wrong.shape == tensor.shape and wrong.dtype == tensor.dtype:
                continue
            write_checkpoint(newest, "checkpoint", good | {name: wrong}, record)
            if method == "gradient" and name == "history" and wrong.dtype == torch.float64 and wrong.dim() == 1 and len(wrong):
                continue  # its length says how far it came
            with pytest.raises(DamagedFile):
                fitted(method, Checkpoints(tmp_path, "run", lambda _: None))


def test_a_router_of_another_base_tokenizer_or_set_is_refused(base: Base, experts: ExpertSet) -> None:
    router = a_router(base, experts)
    for name in ("fingerprint", "tokenizer"):
        with pytest.raises(BaseMismatch):
            router.check({**base.identity, name: "another"}, experts)
    with pytest.raises(ExpertMismatch):
        router.check(base.identity, ExpertSet(experts.experts[::-1]))
