"""Any encoder with a classification head, by hub id or folder: ClinicalBERT, Med-BERT, BioLinkBERT; fine-tuned.

Weights are read from safetensors only, since a pickle can run code; no remote code is run.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from staf.baselines.classifiers.problem import Found, Problem
from staf.baselines.classifiers.settings import ClassifierSettings
from staf.baselines.classifiers.training import Encoded, Network, learn
from staf.errors import ConfigError, DamagedFile, MissingData
from staf.lm.base import fingerprint_of

_FILES = ["*.safetensors", "*.json", "tokenizer*", "vocab.*", "merges.txt", "*.model"]
_CONVERT = (
    "import sys; from transformers import AutoModel, AutoTokenizer; "
    "[kind.from_pretrained(sys.argv[1]).save_pretrained(sys.argv[2]) for kind in (AutoTokenizer, AutoModel)]"
)
"""Writes an encoder anew, its weights as safetensors; what docs/classifiers.md says too."""
_POSITIONS_BEFORE_THE_FIRST = 2
"""RoBERTa and its kin count positions from 2 on, and count these two in the length of their table."""


def encoder(problem: Problem, texts: Sequence[str], settings: ClassifierSettings) -> Found:
    """Scores (n, L) of texts (n) by a fine-tuned encoder.

    Raises:
        ConfigError: no encoder is named. MissingData: it is not there. DamagedFile: it has no safetensors weights, or does not
            load as a text classifier. TrainingFailed: no loss was a number.
    """
    if settings.encoder is None:
        raise ConfigError("the classifier 'encoder' needs its model: set encoder to a hub id (owner/name) or a folder.")
    folder = encoder_folder(settings.encoder)
    fingerprint = fingerprint_of(folder)
    config, tokenizer = _config_and_tokenizer(folder)
    limit = _limit(config, tokenizer, settings)

    def encode(rows: Sequence[str]) -> list[list[int]]:
        return [tokenizer(text, truncation=True, max_length=limit)["input_ids"] for text in rows]

    def start() -> Network:
        model = _model(folder, len(problem.labels))

        def forward(ids: Tensor, mask: Tensor) -> Tensor:
            return torch.as_tensor(model(input_ids=ids, attention_mask=mask.long()).logits)

        return Network(model, forward, tokenizer.pad_token_id)

    fitted, held_out = (Encoded(encode(part.texts), part.targets) for part in (problem.fitted, problem.held_out))
    return learn(
        start, problem.output_type, fitted, held_out, encode(texts), settings,
        learning_rates=settings.encoder_learning_rates, epochs=settings.encoder_epochs,
        details={"encoder": {"name": settings.encoder, "fingerprint": fingerprint}, "max_length": limit},
    )  # fmt: skip


def encoder_folder(name: str) -> Path:
    """The local folder of an encoder named by hub id or folder.

    Raises:
        MissingData: it is not there and cannot be fetched. DamagedFile: its weights are not there as safetensors.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return _with_safetensors(path, name)
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise MissingData(f"no encoder at {name}: it is no folder and no hub id (owner/name). Give one of these.")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name, allow_patterns=_FILES))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise MissingData(
            f"encoder '{name}' is not in the local hub cache and the hub did not give it ({type(error).__name__}). "
            "Download it where there is a network and name its folder."
        ) from error
    return _with_safetensors(folder, name)


def _with_safetensors(folder: Path, name: str) -> Path:
    if not any(folder.glob("*.safetensors")):
        raise DamagedFile(
            f"encoder {name} has no weights as safetensors; those of a pickle (pytorch_model.bin) are not read, as it can run "
            f'code. Where you trust it, convert it once and name the new folder: python -c "{_CONVERT}" {name} NEW-FOLDER'
        )
    return folder


def _config_and_tokenizer(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoConfig, AutoTokenizer

    try:
        config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise DamagedFile(f"{folder} has no config or no tokenizer that can be loaded: {error}") from error
    if tokenizer.pad_token_id is None:
        raise DamagedFile(f"the tokenizer of {folder} has no padding token. An encoder was expected, such as a BERT.")
    return config, tokenizer


def _limit(config: Any, tokenizer: Any, settings: ClassifierSettings) -> int:
    """Tokens of a text: what the settings, the tokenizer and the table of positions allow."""
    positions = getattr(config, "max_position_embeddings", None) or settings.max_length
    if "roberta" in config.model_type or config.model_type in ("camembert", "longformer"):
        positions -= _POSITIONS_BEFORE_THE_FIRST
    return int(min(settings.max_length, tokenizer.model_max_length, positions))


def _model(folder: Path, labels: int) -> Any:
    from transformers import AutoModelForSequenceClassification
    from transformers.utils import logging

    logging.disable_progress_bar()
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        return AutoModelForSequenceClassification.from_pretrained(
            str(folder), num_labels=labels, dtype=torch.float32, use_safetensors=True, ignore_mismatched_sizes=True,
            trust_remote_code=False,
        )  # fmt: skip
    except (OSError, ValueError) as error:
        raise DamagedFile(f"{folder} does not load as an encoder with a classification head: {error}") from error
    finally:
        logging.set_verbosity(verbosity)
