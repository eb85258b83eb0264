"""Frozen training data, content-addressed."""
