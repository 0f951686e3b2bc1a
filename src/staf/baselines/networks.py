"""Networks over words (CNN, TextCNN, GRU) and fine-tuned encoders, as text classifiers.

Several filter widths are TextCNN (Kim, 2014); one width with tanh is the plain CNN, and the recurrent network the bidirectional
GRU, that CAML is compared with (Mullenbach et al., 2018). An encoder is any BERT by hub id or folder; its weights are read from
safetensors only, since a pickle can run code, and no remote code is run. A text's scores do not depend on its batch.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence

from staf.baselines.classifiers import Problem, Scored, log_scores, loss_of
from staf.baselines.settings import ClassifierSettings
from staf.baselines.training import Trial, best_of, fit
from staf.errors import ConfigError, DamagedFile, MissingData
from staf.lm.base import default_device, fingerprint_of, from_hub, is_hub_id
from staf.lm.batches import epoch_order, plan_batches

PAD, UNKNOWN = 0, 1
"""Ids of padding, and of a word that is not in the vocabulary."""
TOKEN_BUDGET = 16384
"""Tokens of one batch that is only scored."""
_WORD = re.compile(r"[^\W_]+")
_FILES = ["*.safetensors", "*.json", "tokenizer*", "vocab.*", "merges.txt", "*.model"]
_CONVERT = (
    "import sys; from transformers import AutoModel, AutoTokenizer; "
    "[kind.from_pretrained(sys.argv[1]).save_pretrained(sys.argv[2]) for kind in (AutoTokenizer, AutoModel)]"
)
"""Saves an encoder anew, its weights as safetensors; docs/classifiers.md has the same command."""
_ROBERTA_OFFSET = 2
"""RoBERTa and its kin count positions from 2 on, and include these two in the length of their table."""


Forward = Callable[[Tensor, Tensor], Tensor]
"""Logits (B, L) of ids (B, T) and the mask (B, T) of what is not padding."""


class Convolutions(nn.Module):
    """Filters of given widths over word vectors, the maximum over time of each, then one linear layer."""

    def __init__(
        self, vocabulary: int, labels: int, widths: Sequence[int], activation: Callable[[Tensor], Tensor],
        settings: ClassifierSettings,
    ) -> None:  # fmt: skip
        super().__init__()
        self.activation, self.widths = activation, tuple(widths)
        self.vectors = word_vectors(vocabulary, settings.embedding_dim)
        self.filters = nn.ModuleList(nn.Conv1d(settings.embedding_dim, settings.num_filters, width) for width in self.widths)
        self.dropout = nn.Dropout(settings.dropout)
        self.output = nn.Linear(settings.num_filters * len(widths), labels)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Logits (B, L) of word ids (B, T); mask (B, T) is True where there is a word."""
        vectors = self.vectors(ids).transpose(1, 2)  # (B, d, T)
        highest = []
        for width, convolution in zip(self.widths, self.filters, strict=True):
            found = self.activation(convolution(functional.pad(vectors, (0, width - 1))))  # (B, f, T)
            highest.append(found.masked_fill(~mask[:, None], float("-inf")).amax(2))
        return torch.as_tensor(self.output(self.dropout(torch.cat(highest, 1))))


class Recurrent(nn.Module):
    """A bidirectional GRU over word vectors, its two last states, then one linear layer."""

    def __init__(self, vocabulary: int, labels: int, settings: ClassifierSettings) -> None:
        super().__init__()
        self.vectors = word_vectors(vocabulary, settings.embedding_dim)
        self.states = nn.GRU(settings.embedding_dim, settings.hidden_size, batch_first=True, bidirectional=True)
        self.dropout = nn.Dropout(settings.dropout)
        self.output = nn.Linear(2 * settings.hidden_size, labels)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Logits (B, L) of word ids (B, T); mask (B, T) is True where there is a word."""
        packed = pack_padded_sequence(self.vectors(ids), mask.sum(1).cpu(), batch_first=True, enforce_sorted=False)
        _, last = self.states(packed)  # (2, B, h)
        return torch.as_tensor(self.output(self.dropout(torch.cat([last[0], last[1]], 1))))


def word_vectors(vocabulary: int, width: int) -> nn.Embedding:
    """Random word vectors, 0 for padding and for unknown words."""
    vectors = nn.Embedding(vocabulary, width, padding_idx=PAD)
    with torch.no_grad():
        vectors.weight.normal_(std=0.1)
        vectors.weight[:2] = 0
    return vectors


def words_of(text: str) -> list[str]:
    """Runs of letters and digits, in lower case."""
    return _WORD.findall(text.casefold())


@dataclass(frozen=True)
class Vocabulary:
    """Ids of words, from 2 on."""

    ids: dict[str, int]
    max_words: int
    """of a text; what follows is not read"""

    @classmethod
    def of(cls, texts: Iterable[str], settings: ClassifierSettings) -> Vocabulary:
        """The most frequent words of the texts; equally frequent ones in alphabetical order."""
        counts = Counter(word for text in texts for word in words_of(text))
        ranked = sorted(counts, key=lambda word: (-counts[word], word))
        kept = [word for word in ranked if counts[word] >= settings.min_count][: settings.max_vocabulary]
        return cls({word: number for number, word in enumerate(kept, start=2)}, settings.max_words)

    def __len__(self) -> int:
        """Words, padding and the unknown word."""
        return len(self.ids) + 2

    def encode(self, text: str) -> list[int]:
        """Ids of the first words of a text; one unknown word where there is none."""
        return [self.ids.get(word, UNKNOWN) for word in words_of(text)[: self.max_words]] or [UNKNOWN]


WORD_NETWORKS: dict[str, Callable[[int, int, ClassifierSettings], nn.Module]] = {
    "cnn": lambda size, labels, s: Convolutions(size, labels, (s.kernel_size,), torch.tanh, s),
    "text_cnn": lambda size, labels, s: Convolutions(size, labels, s.kernel_sizes, torch.relu, s),
    "rnn": lambda size, labels, s: Recurrent(size, labels, s),
}
"""Networks over words by name, from the size of the vocabulary and the number of labels."""


def word_network(name: str, problem: Problem, texts: Sequence[str], settings: ClassifierSettings) -> Scored:
    """Scores (n, L) of texts (n) by one of `WORD_NETWORKS`."""
    vocabulary = Vocabulary.of(problem.train.texts, settings)

    def start() -> tuple[nn.Module, Forward]:
        module = WORD_NETWORKS[name](len(vocabulary), len(problem.labels), settings)
        return module, module

    truncated = [len(words_of(text)) > settings.max_words for text in texts]
    return _learn(
        start, problem, vocabulary.encode, PAD, texts, settings, settings.learning_rates, settings.epochs, truncated,
        {"vocabulary": len(vocabulary)},
    )  # fmt: skip


def encoder(problem: Problem, texts: Sequence[str], settings: ClassifierSettings) -> Scored:
    """Scores (n, L) of texts (n) by a fine-tuned encoder.

    Raises:
        ConfigError: no encoder is named. MissingData: it is not there. DamagedFile: it has no safetensors weights, or does not
            load as a text classifier. TrainingFailed: no loss was finite.
    """
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    if settings.encoder is None:
        raise ConfigError("the classifier 'encoder' needs its model: set encoder to a hub id (owner/name) or a folder.")
    folder = encoder_folder(settings.encoder)
    config, tokenizer = from_folder(AutoConfig, folder), from_folder(AutoTokenizer, folder)
    if tokenizer.pad_token_id is None:
        raise DamagedFile(f"the tokenizer of {folder} has no padding token. An encoder was expected, such as a BERT.")
    limit, tokenizer.truncation_side = token_limit(config, tokenizer, settings.max_length), "right"

    def start() -> tuple[nn.Module, Forward]:
        model, found = from_folder(
            AutoModelForSequenceClassification, folder, num_labels=len(problem.labels), dtype=torch.float32,
            use_safetensors=True, ignore_mismatched_sizes=True, output_loading_info=True,
        )  # fmt: skip
        if max(len(tokenizer), tokenizer.pad_token_id + 1) > model.get_input_embeddings().num_embeddings:
            raise DamagedFile(f"the tokenizer of {folder} has more tokens than its encoder. Give files that belong together.")
        random = {*found["missing_keys"], *(mismatched[0] for mismatched in found["mismatched_keys"])}
        if lacking := sorted(key for key in random if key.startswith(model.base_model_prefix) and ".pooler." not in key):
            raise DamagedFile(
                f"the weight files of {folder} lack {len(lacking)} tensors of its encoder, or their shapes differ, such as "
                f"{lacking[0]}: they would be random. Give a complete encoder."
            )
        return model, lambda ids, mask: torch.as_tensor(model(input_ids=ids, attention_mask=mask.long()).logits)

    truncated = [len(tokenizer(text)["input_ids"]) > limit for text in texts]
    return _learn(
        start, problem, lambda text: tokenizer(text, truncation=True, max_length=limit)["input_ids"], tokenizer.pad_token_id,
        texts, settings, settings.encoder_learning_rates, settings.encoder_epochs, truncated,
        {"encoder": {"name": settings.encoder, "fingerprint": fingerprint_of(folder)}, "max_length": limit},
    )  # fmt: skip


def token_limit(config: Any, tokenizer: Any, max_length: int) -> int:
    """Tokens of a text that an encoder reads, at most `max_length`."""
    positions = getattr(config, "max_position_embeddings", None) or max_length
    if "roberta" in config.model_type or config.model_type in ("camembert", "longformer"):
        positions -= _ROBERTA_OFFSET
    return int(min(max_length, tokenizer.model_max_length, positions))


def _learn(
    start: Callable[[], tuple[nn.Module, Forward]], problem: Problem, encode: Callable[[str], list[int]], pad: int,
    texts: Sequence[str], settings: ClassifierSettings, rates: Sequence[float], epochs: int, truncated: list[bool],
    details: dict[str, Any],
) -> Scored:  # fmt: skip
    """Train a network once at each rate from the same start, and score texts by the best of them at its best epoch.

    Raises:
        TrainingFailed: at no rate was a validation loss finite.
    """
    device, trials = default_device(), list[Trial]()
    train, val, asked = ([encode(text) for text in some] for some in (problem.train.texts, problem.val.texts, texts))
    lengths, targets, kind = (
        [len(row) for row in train],
        torch.from_numpy(problem.train.targets).to(device),
        problem.output_type,
    )

    def train_at(rate: float) -> tuple[float, nn.Module, Callable[[list[list[int]]], np.ndarray]]:
        torch.manual_seed(settings.seed)
        module, forward = start()
        module.to(device)

        def loss(group: list[int]) -> tuple[Tensor, int]:
            logits = forward(*padded([train[i] for i in group], pad, device)).float()
            if kind == "multiple_choice":
                return functional.cross_entropy(logits, targets[group]), len(group)
            return functional.binary_cross_entropy_with_logits(logits, targets[group]), len(group)

        @torch.no_grad()
        def score(rows: list[list[int]]) -> np.ndarray:
            groups = plan_batches([len(row) for row in rows], TOKEN_BUDGET)
            logits = [forward(*padded([rows[i] for i in group], pad, device)).float().cpu().numpy() for group in groups]
            return log_scores(np.concatenate(logits)[np.argsort(np.concatenate(groups))], kind)

        trial = fit(
            module, lambda epoch: epoch_order(lengths, settings.batch_size, settings.seed, epoch - 1), loss,
            lambda: loss_of(score(val), problem.val.targets, kind), learning_rate=rate, epochs=epochs,
            weight_decay=settings.weight_decay, patience=settings.patience, keep_best=True,
        )  # fmt: skip
        trials.append(trial)
        return trial.best, module, score

    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        _, module, score = min(map(train_at, rates), key=lambda found: found[0])
    best_of(trials, "classifier")
    parameters = sum(p.numel() for p in module.parameters() if p.requires_grad)
    records = [trial.as_dict() for trial in trials]
    return Scored(score(asked), score(val), problem.val.targets, records, parameters, truncated, details)


def padded(rows: Sequence[list[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids (B, T) padded on the right, and the mask (B, T) of what is not padding."""
    ids = pad_sequence([torch.tensor(row) for row in rows], batch_first=True, padding_value=pad)
    mask = torch.arange(ids.shape[1]) < torch.tensor([len(row) for row in rows])[:, None]
    return ids.to(device), mask.to(device)


def encoder_folder(name: str) -> Path:
    """The local folder of an encoder named by hub id or folder.

    Raises:
        MissingData: it is not there and cannot be fetched. DamagedFile: its weights are not there as safetensors.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir():
        if not is_hub_id(name):
            raise MissingData(f"no encoder at {name}: it is not a folder and not a hub id (owner/name). Give one of these.")
        folder = from_hub(name, "encoder", _FILES)
    if not any(folder.glob("[!.]*.safetensors")):
        raise DamagedFile(
            f"encoder {name} has no weights as safetensors; those of a pickle (pytorch_model.bin) are not read, as it can run "
            f'code. Where you trust it, convert it once and name the new folder: python -c "{_CONVERT}" {name} NEW-FOLDER'
        )
    return folder


def from_folder(kind: Any, folder: Path, **options: Any) -> Any:
    """A config, tokenizer or model of a folder by a loader of transformers."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        return kind.from_pretrained(str(folder), trust_remote_code=False, **options)
    except Exception as error:  # a damaged file fails in as many ways as there are libraries
        raise DamagedFile(
            f"{folder} does not load as an encoder by {kind.__name__}: {type(error).__name__}: {error}. Restore it, or name "
            "another encoder, such as a BERT."
        ) from error
    finally:
        logging.set_verbosity(verbosity)
