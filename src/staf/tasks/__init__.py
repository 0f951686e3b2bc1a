"""Tasks: what an expert trains on, and what a router adapts to and is judged by."""
