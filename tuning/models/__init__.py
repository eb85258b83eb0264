"""Base models as modules that can be trained: transformers' own, and ours where it has none."""
