"""Trained baselines of the language model: PEFT's methods and full fine-tuning, with a learning-rate search.

Each rate is a trial: a freshly loaded model learns from one part of the adaptation examples, and the other part selects the
epoch. With the best rate and number of epochs a last model learns from all of them. No test item is seen. All but full
fine-tuning are PEFT's with its defaults; LoRA adapts the modules that our experts adapt.

A trained model answers as every method does: what was trained is in the model (LoRA, IA3, full fine-tuning), or lies before
every prompt as keys and values (prompt, prefix and P-tuning).
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from pydantic.dataclasses import dataclass
from torch import Tensor
from torch.nn import functional

from staf.baselines.settings import BaselineSettings
from staf.baselines.training import Trial, best_of, fit
from staf.data.example import Example
from staf.data.splits import refuse_test, seeded_rng
from staf.errors import ConfigError, MissingData, TrainingFailed
from staf.lm.base import Base
from staf.lm.batches import Batch, Encoded, collate, encode, epoch_order, plan_batches
from staf.lm.model import KVCache, targets_of
from staf.lm.prefix_attention import register
from staf.lm.prefix_cache import kv_layers
from staf.metrics.methods import METHODS

_KEYS_AND_VALUES = frozenset({"k_proj", "v_proj", "qkv_proj", "query_key_value"})
_LAST_OF_FEED_FORWARD = frozenset({"down_proj", "dense_4h_to_h"})


def _peft_model(model: Any, settings: BaselineSettings) -> Any:
    """A model with PEFT's trainable parameters of the method; IA3 scales keys, values and what the feed-forward part expands.

    Raises:
        MissingData: peft is not installed.
    """
    try:
        peft: Any = importlib.import_module("peft")
    except ImportError as error:
        raise MissingData(
            f"this baseline is trained by peft, which does not load here ({error}). Install it: pip install "
            "'staf-llm[bench]'. The baselines full and in_context do without."
        ) from error
    virtual = {"task_type": "CAUSAL_LM", "num_virtual_tokens": settings.num_virtual_tokens}
    if settings.method == "prompt_tuning":  # Lester et al., 2021: from embeddings of sampled tokens, the best without labels
        config = peft.PromptTuningConfig(**virtual, prompt_tuning_init="SAMPLE_VOCAB")
    elif settings.method == "prefix_tuning":  # Li and Liang, 2021: keys and values of every layer
        config = peft.PrefixTuningConfig(**virtual)
    elif settings.method == "p_tuning":  # Liu et al., 2021: the vectors of a prompt come out of a small network
        config = peft.PromptEncoderConfig(**virtual, encoder_hidden_size=model.config.hidden_size)
    elif settings.method == "lora":  # Hu et al., 2021: every module that our experts adapt
        rank, modules = settings.rank, list(targets_of(model)[0])
        config = peft.LoraConfig(task_type="CAUSAL_LM", r=rank, lora_alpha=2 * rank, target_modules=modules)
    else:  # Liu et al., 2022
        inner = [name for name in targets_of(model)[0] if name.rpartition(".")[2] in _LAST_OF_FEED_FORWARD]
        outer = [name for name in targets_of(model)[0] if name.rpartition(".")[2] in _KEYS_AND_VALUES]
        config = peft.IA3Config(task_type="CAUSAL_LM", target_modules=outer + inner, feedforward_modules=inner)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers for a name that it is to lose
        return peft.get_peft_model(model, config)


@dataclass(frozen=True)  # of pydantic: what an earlier version kept besides is left out
class Choice:
    """What a search chose."""

    learning_rate: float
    epochs: int
    trials: list[dict[str, Any]]
    """every trial"""
    validation_examples: int | None = None
    """that selected"""


class Tuning:
    """The training of one baseline on the adaptation examples of one task.

    Args:
        max_length: tokens of one example, answer included; virtual tokens come on top. token_budget: of a validation batch.
        on_epoch: called with 0 before each batch, and with 1 after each pass over the examples.

    Raises:
        TestLeak: a test example is among those given.
        ConfigError: fewer than two examples, or a query that does not fit into max_length.
    """

    def __init__(
        self, base: Base, examples: Sequence[Example], settings: BaselineSettings, max_length: int, token_budget: int,
        on_epoch: Callable[[int], None] | None = None,
    ) -> None:  # fmt: skip
        refuse_test(examples)
        self.base, self.settings, self.token_budget = base, settings, token_budget
        self.on_epoch = on_epoch or (lambda passes: None)
        if len(examples) < 2:
            raise ConfigError(
                f"baseline {settings.method}: {len(examples)} adaptation examples cannot be split into a training and a "
                "validation part. Give at least 2."
            )
        held = max(int(len(examples) * settings.val_fraction), 1)
        ordered = sorted(examples, key=lambda example: example.id)
        order = seeded_rng(f"baseline:{settings.seed}").sample(range(len(ordered)), len(ordered))
        self.items = [encode(example, base.tokenizer, max_length, settings.label_end) for example in ordered]
        self.held = [self.items[i] for i in order[:held]]
        self.fitted = [self.items[i] for i in order[held:]]

    def choose(self) -> Choice:
        """Try the learning rates.

        Raises:
            TrainingFailed: no rate gave a finite loss.
        """
        rates = self.settings.learning_rates or METHODS[self.settings.method]["rates"]
        passes = self.settings.passes(len(self.items))
        trials = [self.fit(self.fitted, rate, passes, self.held)[1] for rate in rates]
        best, tried = best_of(trials, f"baseline {self.settings.method}"), [trial.as_dict() for trial in trials]
        return Choice(best.learning_rate, best.epochs, tried, len(self.held))

    def learn(self, choice: Choice) -> tuple[Any, dict[str, Any]]:
        """The model after learning from all examples with the learning rate and epochs of a search, and the record of how.

        Raises:
            TrainingFailed: the loss is not a finite number.
        """
        model, last = self.fit(self.items, choice.learning_rate, choice.epochs)
        if last.stop_reason == "diverged":
            raise TrainingFailed(
                f"baseline {self.settings.method}: with learning rate {choice.learning_rate}, the best on the validation part, "
                "the loss on all adaptation examples was not a finite number. Try lower ones (learning_rates)."
            )
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        return model, {**asdict(choice), "losses": last.losses, "tunable_parameters": trained}

    def fresh(self) -> Any:
        """The plain base with the baseline's trainable parameters in float32, initialised by the seed."""
        devices = [self.base.device] if self.base.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(self.settings.seed)
            plain = plain_model(self.base)
            model = plain.requires_grad_(True) if self.settings.method == "full" else _peft_model(plain, self.settings)
            model = model.to(self.base.device)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        return model

    def fit(self, items: Sequence[Encoded], rate: float, epochs: int, held: Sequence[Encoded] = ()) -> tuple[Any, Trial]:
        """A fresh model after training on items, and its losses; it ends early where a loss is not finite."""
        model, lengths = self.fresh(), [len(item.tokens) for item in items]
        held_out = [self._batch(held, group) for group in plan_batches([len(item.tokens) for item in held], self.token_budget)]

        def batches(epoch: int) -> Iterator[list[int]]:
            for group in epoch_order(lengths, self.settings.batch_size, self.settings.seed, epoch):
                self.on_epoch(0)
                yield group
            self.on_epoch(1)

        def loss_of(group: list[int]) -> tuple[Tensor, int]:
            with self._autocast():
                logprobs = model_logprobs(model, self._batch(items, group))
            return -logprobs.mean(), logprobs.shape[0]

        def validate() -> float:
            with self._autocast(), torch.no_grad():
                return -float(torch.cat([model_logprobs(model, batch) for batch in held_out]).mean())

        trial = fit(model, batches, loss_of, validate if held else None, learning_rate=rate, epochs=epochs)
        return model, trial

    def _autocast(self) -> torch.autocast:
        """Products in bfloat16 over trained float32, as trainers do it, where the base is in bfloat16."""
        return torch.autocast(self.base.device.type, torch.bfloat16, enabled=self.base.dtype == torch.bfloat16)

    def _batch(self, items: Sequence[Encoded], group: Sequence[int]) -> Batch:
        return collate([items[i] for i in group], self.base.device)


def plain_model(base: Base) -> Any:
    """The base as transformers loads it, anew from its folder, in its dtype, nothing trainable.

    Attention is the base's own, which is the same function and takes a sixth off a training step on a processor.
    """
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(
        str(base.folder), dtype=base.dtype, use_safetensors=True, attn_implementation=register(), trust_remote_code=False
    )
    return model.to(base.device).requires_grad_(False)


def model_logprobs(model: Any, batch: Batch) -> Tensor:
    """Log p of every answer token of a batch under a transformers or PEFT model, (N,) float32, row by row.

    Logits are computed in the columns in which some row has an answer. These are counted from the end, since prompt methods
    lengthen every row at its start.
    """
    asked = batch.answer[:, 1:]
    columns = asked.any(0).nonzero()[:, 0]
    logits = model(input_ids=batch.ids, logits_to_keep=columns - batch.ids.shape[1], use_cache=False).logits  # (B, C, V)
    targets = batch.ids[:, 1:][asked]
    logprobs = functional.log_softmax(logits[asked[:, columns]].float(), dim=-1)  # (N, V)
    return logprobs.gather(1, targets[:, None])[:, 0]


@torch.no_grad()
def tuned_base(base: Base, model: Any) -> Base:
    """The base with another model, of transformers or PEFT, trained; the base given is not changed."""
    model.eval()
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    dtype = inner.get_input_embeddings().weight.dtype  # float32 where all of it was trained
    return replace(base, model=inner, dtype=dtype, prefix_kv=_prefix_kv(base, model, inner))


def _prefix_kv(base: Base, model: Any, inner: Any) -> KVCache | None:
    """Keys and values that PEFT puts before every prompt, or None."""
    settings = getattr(model, "active_peft_config", None)
    if settings is None or not settings.is_prompt_learning:
        return None
    found = model.get_prompt(batch_size=1)
    if settings.peft_type != "PREFIX_TUNING":
        found = inner.get_decoder()(inputs_embeds=found.to(base.dtype), use_cache=True).past_key_values
    return tuple((keys.to(base.dtype), values.to(base.dtype)) for keys, values in kv_layers(found))
