"""Settings of the text classifiers."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, model_validator

from staf.config import Settings


class ClassifierSettings(Settings):
    """Text classifiers beside the language model (Table 5); widths are those of TextCNN's and CAML's papers where given."""

    RENAMED: ClassVar[dict[str, str]] = {
        "include_query": "include_query", "c_values": "c_values", "min_count": "min_count",
        "vocabulary": "max_vocabulary", "embedding_dim": "embedding_dim", "filters": "num_filters",
        "kernel_sizes": "kernel_sizes", "kernel_size": "kernel_size", "hidden_size": "hidden_size",
    }  # fmt: skip

    val_fraction: float = Field(0.2, gt=0, lt=1)
    """part of the adaptation examples that chooses settings and the moment to stop, by whole groups"""
    include_query: bool = False
    """read the query before the context: where the label depends on it"""
    seed: int = Field(0, ge=0)

    c_values: tuple[float, ...] = Field((0.1, 1.0, 10.0, 100.0), min_length=1)
    """logistic: values of C that are tried"""

    min_count: int = Field(1, ge=1)
    """networks over words: times that a word must stand in what is fitted on"""
    max_vocabulary: int = Field(50_000, ge=1)
    """networks over words: the most frequent words, at most so many"""
    max_words: int = Field(2500, ge=1)
    """networks over words: words of a text, as CAML"""
    embedding_dim: int = Field(100, ge=1)
    """networks over words: numbers of a word"""
    num_filters: int = Field(100, ge=1)
    """cnn, text_cnn: filters of each width"""
    kernel_sizes: tuple[int, ...] = Field((3, 4, 5), min_length=1)
    """text_cnn: words that a filter spans, as Kim (2014)"""
    kernel_size: int = Field(4, ge=1)
    """cnn: words that a filter spans, as CAML's plain CNN"""
    hidden_size: int = Field(128, ge=1)
    """rnn: numbers of the state in each direction"""
    dropout: float = Field(0.5, ge=0, lt=1)
    """networks over words: rate before the last layer"""
    learning_rates: tuple[float, ...] = Field((3e-4, 1e-3, 3e-3), min_length=1)
    """networks over words: AdamW's rates that are tried"""
    epochs: int = Field(50, ge=1)
    """networks over words: passes over what is fitted on, at most"""

    encoder: str | None = None
    """encoder: hub id or folder"""
    encoder_learning_rates: tuple[float, ...] = Field((2e-5, 5e-5, 1e-4), min_length=1)
    """encoder: AdamW's rates that are tried"""
    encoder_epochs: int = Field(10, ge=1)
    """encoder: passes over what is fitted on, at most"""
    max_length: int = Field(512, ge=16)
    """encoder: tokens of a text"""

    batch_size: int = Field(16, ge=1)
    """all networks: examples a step"""
    weight_decay: float = Field(0.01, ge=0)
    """all networks: AdamW's"""
    patience: int = Field(5, ge=1)
    """all networks: epochs without a lower held-out loss before it stops"""

    @model_validator(mode="after")
    def _candidates(self) -> ClassifierSettings:
        for name in ("c_values", "kernel_sizes", "learning_rates", "encoder_learning_rates"):
            values = getattr(self, name)
            if min(values) <= 0 or len(set(values)) < len(values):
                raise ValueError(f"{name} = {values} must be above 0, each once")
        return self
