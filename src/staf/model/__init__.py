"""The Python face: a loaded base with experts, what is adapted from it, and a scikit-learn classifier."""
