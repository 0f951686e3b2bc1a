"""From corpora to examples in the unified instruction format."""
