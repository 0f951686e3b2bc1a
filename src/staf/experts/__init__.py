"""Stage I: experts by AdaLoRA."""
