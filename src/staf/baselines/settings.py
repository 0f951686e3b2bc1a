"""Settings of the baselines."""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt

from staf.config import Settings

T = TypeVar("T")


def _each_once(values: tuple[T, ...]) -> tuple[T, ...]:
    if len(set(values)) < len(values):
        raise ValueError("give each value once")
    return values


Values = Annotated[tuple[PositiveFloat, ...], Field(min_length=1), AfterValidator(_each_once)]


class BaselineSettings(Settings):
    """A baseline of the language model, trained on the adaptation examples or shown them."""

    method: Literal["prompt_tuning", "prefix_tuning", "p_tuning", "lora", "ia3", "full", "in_context"] = "lora"
    """a row of `staf.baselines.BASELINES`"""
    learning_rates: Values | None = None
    """AdamW's rates that are tried; None takes the three of the method's row"""
    epochs: int = Field(5, ge=1)
    """maximum passes over the examples: the validation part selects how many"""
    min_steps: int = Field(0, ge=0)
    """more passes than `epochs` where the examples are so few that these take fewer steps"""
    batch_size: int = Field(16, ge=1)
    """examples per step"""
    num_virtual_tokens: int = Field(20, ge=1)
    """prompt, prefix and P-tuning: vectors before the first token"""
    rank: int = Field(8, ge=1)
    """LoRA: of every adapted module"""
    label_end: bool = True
    """predict the end token after a label too; generated answers always end in it"""
    shots: int | None = Field(None, ge=1)
    """adaptation examples drawn; None takes all"""
    shown: int | None = Field(None, ge=1)
    """in_context: examples of the draw that are shown, each answer in turn; None shows as many as fit"""
    max_prompt_tokens: int | None = Field(None, ge=16)
    """in_context: tokens of a prompt with its shots and its answer; None takes the base's context length"""
    val_fraction: float = Field(0.2, gt=0, lt=1)
    """part of the adaptation examples that selects rate and epochs"""
    seed: int = Field(0, ge=0)

    def passes(self, examples: int) -> int:
        """Maximum passes over this many examples."""
        return max(self.epochs, -(-self.min_steps // -(-examples // self.batch_size)))


class ClassifierSettings(Settings):
    """Text classifiers (Table 5); sizes are those of TextCNN's and CAML's papers where given."""

    val_fraction: float = Field(0.2, gt=0, lt=1)
    """networks: part of the adaptation examples that selects rate and epoch, in groups"""
    include_query: bool = False
    """read the query before the context: where the label depends on it"""
    seed: int = Field(0, ge=0)

    c_values: Values = (0.1, 1.0, 10.0, 100.0)
    """tfidf, embedding: values of C that are tried by cross-validation"""
    folds: int = Field(5, ge=2)
    """tfidf, embedding: folds of the cross-validation, by group"""

    min_count: int = Field(1, ge=1)
    """word networks: occurrences that a word needs in the training part"""
    max_vocabulary: int = Field(50_000, ge=1)
    """word networks: maximum number of words, the most frequent"""
    max_words: int = Field(2500, ge=1)
    """word networks: words of a text, as CAML"""
    embedding_dim: int = Field(100, ge=1)
    """word networks: size of a word vector"""
    num_filters: int = Field(100, ge=1)
    """cnn, text_cnn: filters of each width"""
    kernel_sizes: Annotated[tuple[PositiveInt, ...], Field(min_length=1), AfterValidator(_each_once)] = (3, 4, 5)
    """text_cnn: words that a filter spans, as Kim (2014)"""
    kernel_size: int = Field(4, ge=1)
    """cnn: words that a filter spans, as CAML's plain CNN"""
    hidden_size: int = Field(128, ge=1)
    """rnn: size of the state in each direction"""
    dropout: float = Field(0.5, ge=0, lt=1)
    """word networks: rate before the last layer"""
    learning_rates: Values = (3e-4, 1e-3, 3e-3)
    """word networks: AdamW's rates that are tried"""
    epochs: int = Field(50, ge=1)
    """word networks: maximum passes over the training part"""

    encoder: str | None = None
    """encoder, embedding, nearest_label: hub id or folder; None of the last two is all-MiniLM-L6-v2, from a package"""
    label_names: bool | None = None
    """embedding: label names as further examples; None chooses by cross-validation"""
    label_texts: dict[str, str] = Field(default_factory=dict)
    """embedding, nearest_label: a text that stands for a label, by label; None of one is its name"""
    encoder_learning_rates: Values = (2e-5, 5e-5, 1e-4)
    """encoder: AdamW's rates that are tried"""
    encoder_epochs: int = Field(10, ge=1)
    """encoder: maximum passes over the training part"""
    max_length: int = Field(512, ge=16)
    """encoder, embedding, nearest_label: tokens of a text, at most those that the encoder takes"""

    batch_size: int = Field(16, ge=1)
    """all networks: examples per step"""
    weight_decay: float = Field(0.01, ge=0)
    """all networks: AdamW's"""
    patience: int = Field(5, ge=1)
    """all networks: epochs without a lower validation loss before training stops"""
