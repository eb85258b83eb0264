"""Tuning jobs: each a process of its own, with a folder for its state, progress and result."""
