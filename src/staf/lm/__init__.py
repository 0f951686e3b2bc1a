"""The frozen base model, the routed layer in it, and scoring with it."""
