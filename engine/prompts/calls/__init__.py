"""Calls of functions: how models are shown functions, and how they write and read calls."""
