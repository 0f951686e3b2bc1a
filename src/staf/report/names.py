"""Printed names of methods and metrics, in the order in which tables show them."""

from __future__ import annotations

_VARIANTS = {
    "_scaled": "with learned scale", "_unconstrained": "with unconstrained weights", "_l2": "with l2 weights",
    "_l2_scaled": "with l2 weights and learned scale",
}  # fmt: skip


def _router(method: str, title: str, short: str) -> dict[str, str]:
    """A router and its variants, which are not in the papers."""
    return {method: title, **{method + ending: f"{short} {words}" for ending, words in _VARIANTS.items()}}


BASELINES = {
    "prompt_tuning": "Prompt tuning", "prefix_tuning": "Prefix tuning", "p_tuning": "P-tuning", "lora": "LoRA", "ia3": "IA3",
    "full": "Full fine-tuning", "in_context": "In-context learning", "lorahub": "LoraHub", "majority": "Majority",
    "tfidf": "Logistic regression",
    "cnn": "CNN", "text_cnn": "TextCNN", "rnn": "RNN (bidirectional GRU)", "encoder": "Encoder, fine-tuned",
}  # fmt: skip
"""What routers are compared with."""

METHODS = {
    "original": "Base model",
    "single": "Best single expert",
    "average": "Average of experts",
    **_router("few_shot", "Few-shot router (CMA-ES, 32)", "Few-shot router (CMA-ES, 32)"),
    **_router("normal", "Normal router (gradient)", "Normal router"),
    **_router("zero_shot", "Zero-shot router", "Zero-shot router"),
    **_router("best_expert", "Router of the best expert", "Router of the best expert"),
    **BASELINES,
}
"""Methods in the order of rows; any other method prints its own name, after these."""

METRICS = {
    "accuracy": "Accuracy", "macro_f1": "Macro F1", "micro_f1": "Micro F1", "macro_auc": "Macro AUC", "micro_auc": "Micro AUC",
    "one_minus_hamming_loss": "1 - Hamming loss", "exact_match": "Exact match", "token_f1": "Token F1",
    "entity_f1": "Entity F1", "entity_f1_macro": "Entity F1, mean of types", "entity_f1_overlap": "Overlap F1",
    "entity_f1_overlap_macro": "Overlap F1, mean of types", "invented_rate": "Invented mentions", "rouge_l": "ROUGE-L",
    "rouge_1": "ROUGE-1", "rouge_2": "ROUGE-2", "micro_average_precision": "Micro average precision",
    "macro_average_precision": "Macro average precision", "ece": "ECE", "brier_score": "Brier score",
    "aurc": "AURC",
}  # fmt: skip
"""Metrics in the order of a task's columns."""


def method_title(method: str, adaptation_examples: float | None = None) -> str:
    """The printed name of a method; a few-shot router's has the number of its examples."""
    title = METHODS.get(method, method)
    if method.startswith("few_shot") and adaptation_examples is not None:
        title = title.replace("32", f"{adaptation_examples:.0f}")
    return title


def method_order(method: str) -> tuple[int, str]:
    """Sorts methods as `METHODS` lists them, unknown ones last."""
    return (list(METHODS).index(method) if method in METHODS else len(METHODS), method)


def metric_title(metric: str) -> str:
    """The printed name of a metric."""
    return METRICS.get(metric, metric.replace("_", " "))
