"""lm-evaluation-harness reads a fused model as it is, and its log-likelihoods are ours."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import make_examples

from staf.experts.store import ExpertSet
from staf.export.hf import save_merged
from staf.lm.base import Base, load_base
from staf.lm.scoring import ScoringRequest, build_choices, loglikelihoods
from staf.routing.adapt import adapt_router
from staf.routing.merge import Mixture
from staf.routing.recipe import RouterRecipe

pytest.importorskip("lm_eval", reason="lm_eval is not installed (extra `bench`)")


@pytest.mark.filterwarnings("ignore")  # of lm_eval itself
def test_a_fused_folder_runs_in_the_harness_unchanged(base: Base, experts: ExpertSet, tmp_path: Path) -> None:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    mixture = Mixture(base, experts)
    router = adapt_router(mixture, "colour", make_examples(8, "adaptation"), RouterRecipe(epochs=1))
    save_merged(str(base.folder), experts, router, tmp_path / "fused")
    asked = [(f"The thing {i} is", choice) for i in range(6) for choice in (" blue", " a dark green", " red")]
    requests = [Instance("loglikelihood", {}, pair, index) for index, pair in enumerate(asked)]
    model = HFLM(pretrained=str(tmp_path / "fused"), dtype="float32", device="cpu", batch_size=4)
    theirs = torch.tensor([float(found[0]) for found in model.loglikelihood(requests, disable_tqdm=True)]).view(6, 3)
    own = load_base(str(tmp_path / "fused"), dtype="float32", device="cpu")
    questions = []
    for i in range(6):
        prompt = own.tokenizer(asked[3 * i][0])["input_ids"]
        answers = [own.tokenizer("".join(pair))["input_ids"][len(prompt) :] for pair in asked[3 * i : 3 * i + 3]]
        questions.append(ScoringRequest(tuple(prompt), build_choices(answers)))
    ours = torch.stack(loglikelihoods(own, questions, token_budget=512, length_normalised=False))
    assert torch.allclose(ours, theirs, atol=1e-4)
    original = torch.stack(loglikelihoods(base, questions, token_budget=512, length_normalised=False))
    assert not torch.allclose(original, ours, atol=1e-2)  # the experts are in it
