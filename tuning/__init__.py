"""Tuning: a snapshot in, an adapter bundle out; and the evaluation that a bundle is judged by."""
