"""Printed names of methods and metrics, in the order in which tables show them."""

from __future__ import annotations

_VARIANTS = {
    "_scaled": "with learned scale",
    "_unconstrained": "with free weights",
    "_l2": "with weights of length 1",
    "_unit_scaled": "with weights of length 1 and learned scale",
}


def _router(method: str, title: str, short: str) -> dict[str, str]:
    """A router and its variants, which are not in the papers."""
    return {method: title, **{method + ending: f"{short} {words}" for ending, words in _VARIANTS.items()}}


PEERS = {
    "prompt_tuning": "Prompt tuning",
    "prefix_tuning": "Prefix tuning",
    "p_tuning": "P-tuning",
    "lora": "LoRA",
    "ia3": "IA3",
    "full": "Full fine-tuning",
    "in_context": "In-context learning",
    "lorahub": "LoraHub",
    "tfidf": "Logistic regression",
    "cnn": "CNN",
    "text_cnn": "TextCNN",
    "rnn": "RNN (bidirectional GRU)",
    "encoder": "Encoder, fine-tuned",
}
"""What our methods are compared with."""

METHODS = {
    "original": "Original model",
    "single": "Single best expert",
    "average": "Average",
    **_router("few_shot", "Few-shot router (CMA-ES, 32)", "Few-shot router (CMA-ES, 32)"),
    **_router("normal", "Normal router (gradient)", "Normal router"),
    **_router("zero_shot", "Zero-shot router", "Zero-shot router"),
    **_router("best_expert", "Router of the best expert", "Router of the best expert"),
    **PEERS,
}
"""Printed names of the methods, in the order of the rows; any other method prints its own name, after these."""

METRICS = {
    "accuracy": "Accuracy", "macro_f1": "Macro F1", "micro_f1": "Micro F1", "macro_auc": "Macro AUC",
    "ece": "Calibration error",
}  # fmt: skip
"""Printed names of the metrics that a task's table shows, in the order of the columns."""

MORE_METRICS = {
    "one_minus_hamming_loss": "Accuracy over labels", "micro_auc": "Micro AUC",
    "exact_match": "Exact match", "token_f1": "Token F1", "entity_f1": "Entity F1",
    "entity_f1_macro": "Entity F1, mean of types", "entity_f1_overlap": "Overlap F1",
    "entity_f1_overlap_macro": "Overlap F1, mean of types", "rouge_l": "ROUGE-L",
    "micro_average_precision": "Micro average precision", "macro_average_precision": "Macro average precision",
    "brier_score": "Brier score", "aurc": "Area under risk and coverage",
}  # fmt: skip
"""Printed names of the metrics of a task's details; its table shows them only where they are the task's own."""


def method_title(method: str, adaptation_examples: int | None = None) -> str:
    """The printed name of a method; a few-shot router's tells how many examples it really had."""
    title = METHODS.get(method, method)
    if method.startswith("few_shot") and adaptation_examples is not None:
        title = title.replace("32", str(adaptation_examples))
    return title


def metric_title(metric: str) -> str:
    """The printed name of a metric."""
    return METRICS.get(metric) or MORE_METRICS.get(metric) or metric.replace("_", " ")


def mid_sentence(title: str) -> str:
    """A method's title as a sentence says it: "the normal router (gradient)", "LoRA", "'zebra'"."""
    if any(title.startswith(name) for name in PEERS.values()):
        return title
    known = any(title.startswith(name.split(" (")[0]) for name in METHODS.values())
    return f"the {title[0].lower()}{title[1:]}" if known else f"'{title}'"
