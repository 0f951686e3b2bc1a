"""The baselines for causal models: what of the plain model is trained, and the learning rates that are tried.

All but full fine-tuning are those of PEFT with its defaults. LoRA adapts the same matrices as our experts; IA3 scales keys,
values and what goes into the last feed-forward matrix, as its paper does.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from staf.baselines.settings import BaselineSettings
from staf.errors import MissingData
from staf.lm.base import TARGET_MODULES

_KEYS_AND_VALUES = frozenset({"k_proj", "v_proj", "qkv_proj", "query_key_value"})
_LAST_OF_FEED_FORWARD = frozenset({"down_proj", "dense_4h_to_h"})

Wrap = Callable[[Any, BaselineSettings], Any]
"""from a model of transformers to one in which exactly the baseline's parameters are trainable"""


@dataclass(frozen=True)
class Baseline:
    """One baseline."""

    title: str
    """as tables print it"""
    wrap: Wrap | None
    """None where nothing is trained"""
    learning_rates: tuple[float, ...]
    """AdamW's, tried unless the settings name others"""


def load_peft() -> Any:
    """The module peft.

    Raises:
        MissingData: it is not installed.
    """
    try:
        return importlib.import_module("peft")
    except ImportError as error:
        raise MissingData(
            f"this baseline is trained by peft, which does not load here ({error}). Install it: pip install "
            "'staf-llm[bench]'. The baselines full and in_context do without."
        ) from error


def matrices_of(model: Any) -> tuple[str, ...]:
    """The adapted matrices of one layer of a model, as our experts have them."""
    return TARGET_MODULES[model.config.model_type][1]


def _prompt(model: Any, settings: BaselineSettings) -> Any:
    """Prompt tuning (Lester et al., 2021), from embeddings of drawn tokens, as they found best without labels."""
    peft = load_peft()
    config = peft.PromptTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=settings.num_virtual_tokens, prompt_tuning_init="SAMPLE_VOCAB"
    )
    return peft.get_peft_model(model, config)


def _prefix(model: Any, settings: BaselineSettings) -> Any:
    """Prefix tuning (Li and Liang, 2021): keys and values of every layer."""
    peft = load_peft()
    return peft.get_peft_model(
        model, peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=settings.num_virtual_tokens)
    )


def _p_tuning(model: Any, settings: BaselineSettings) -> Any:
    """P-tuning (Liu et al., 2021): the vectors of a prompt come out of a small network."""
    peft = load_peft()
    config = peft.PromptEncoderConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=settings.num_virtual_tokens, encoder_hidden_size=model.config.hidden_size
    )
    return peft.get_peft_model(model, config)


def _lora(model: Any, settings: BaselineSettings) -> Any:
    """LoRA (Hu et al., 2021) of every matrix that our experts adapt, alpha twice the rank."""
    peft = load_peft()
    config = peft.LoraConfig(
        task_type="CAUSAL_LM", r=settings.rank, lora_alpha=2 * settings.rank, target_modules=list(matrices_of(model))
    )
    return peft.get_peft_model(model, config)


def _ia3(model: Any, settings: BaselineSettings) -> Any:
    """IA3 (Liu et al., 2022): factors of keys, values and the inner activations of the feed-forward part."""
    peft = load_peft()
    matrices = [(name, name.rpartition(".")[2]) for name in matrices_of(model)]
    inner = [name for name, last in matrices if last in _LAST_OF_FEED_FORWARD]
    outer = [name for name, last in matrices if last in _KEYS_AND_VALUES]
    config = peft.IA3Config(task_type="CAUSAL_LM", target_modules=outer + inner, feedforward_modules=inner)
    return peft.get_peft_model(model, config)


def _full(model: Any, settings: BaselineSettings) -> Any:
    """Full fine-tuning: every parameter."""
    return model.requires_grad_(True)


BASELINES: dict[str, Baseline] = {
    "prompt_tuning": Baseline("Prompt tuning", _prompt, (3e-3, 3e-2, 3e-1)),
    "prefix_tuning": Baseline("Prefix tuning", _prefix, (1e-3, 1e-2, 1e-1)),
    "p_tuning": Baseline("P-tuning", _p_tuning, (1e-4, 1e-3, 1e-2)),
    "lora": Baseline("LoRA", _lora, (1e-4, 5e-4, 2e-3)),
    "ia3": Baseline("IA3", _ia3, (1e-3, 1e-2, 5e-2)),
    "full": Baseline("Full fine-tuning", _full, (5e-6, 2e-5, 1e-4)),
    "in_context": Baseline("In-context learning", None, ()),
}
"""By the name that `BaselineSettings.method` gives."""
