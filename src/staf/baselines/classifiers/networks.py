"""Networks over words: convolutions of one or several widths with the maximum over time, and a gated recurrent network.

Several widths are TextCNN (Kim, 2014); one width with tanh is the plain CNN, and the recurrent network the bidirectional GRU,
that CAML is compared with (Mullenbach et al., 2018). What a text scores does not depend on the texts beside it in a batch:
padding takes no part in any maximum or state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence

from staf.baselines.classifiers.problem import Found, Problem
from staf.baselines.classifiers.settings import ClassifierSettings
from staf.baselines.classifiers.training import Encoded, Network, learn
from staf.baselines.classifiers.words import PAD, Vocabulary


def word_vectors(vocabulary: int, width: int) -> nn.Embedding:
    """Vectors of words: at random, but 0 for padding and for unknown words."""
    vectors = nn.Embedding(vocabulary, width, padding_idx=PAD)
    with torch.no_grad():
        vectors.weight.normal_(std=0.1)
        vectors.weight[:2] = 0
    return vectors


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
        """Logits (B, L) of word numbers (B, T); mask (B, T) is True where there is a word."""
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
        """Logits (B, L) of word numbers (B, T); mask (B, T) is True where there is a word."""
        packed = pack_padded_sequence(self.vectors(ids), mask.sum(1).cpu(), batch_first=True, enforce_sorted=False)
        _, last = self.states(packed)  # (2, B, h)
        return torch.as_tensor(self.output(self.dropout(torch.cat([last[0], last[1]], 1))))


def text_cnn(problem: Problem, texts: Sequence[str], settings: ClassifierSettings) -> Found:
    """Scores (n, L) of texts (n) by TextCNN: several filter widths and the rectifier."""
    return _with_words(
        lambda size: Convolutions(size, len(problem.labels), settings.kernel_sizes, torch.relu, settings),
        problem, texts, settings,
    )  # fmt: skip


def plain_cnn(problem: Problem, texts: Sequence[str], settings: ClassifierSettings) -> Found:
    """Scores (n, L) of texts (n) by a CNN of one filter width and tanh."""
    return _with_words(
        lambda size: Convolutions(size, len(problem.labels), (settings.kernel_size,), torch.tanh, settings),
        problem, texts, settings,
    )  # fmt: skip


def recurrent(problem: Problem, texts: Sequence[str], settings: ClassifierSettings) -> Found:
    """Scores (n, L) of texts (n) by a bidirectional GRU."""
    return _with_words(lambda size: Recurrent(size, len(problem.labels), settings), problem, texts, settings)


def _with_words(
    make: Callable[[int], nn.Module], problem: Problem, texts: Sequence[str], settings: ClassifierSettings
) -> Found:
    """A network over words, for the number of words in the vocabulary."""
    vocabulary = Vocabulary.of(problem.fitted.texts, settings)
    fitted, held_out = (
        Encoded([vocabulary.encode(text) for text in part.texts], part.targets) for part in (problem.fitted, problem.held_out)
    )

    def start() -> Network:
        module = make(len(vocabulary))
        return Network(module, module, PAD)

    asked = [vocabulary.encode(text) for text in texts]
    return learn(
        start, problem.output_type, fitted, held_out, asked, settings,
        learning_rates=settings.learning_rates, epochs=settings.epochs, details={"vocabulary": len(vocabulary)},
    )  # fmt: skip
