"""Stage II: a router over the experts, and their fusion."""
