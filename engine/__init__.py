"""Tokens: prompts, weights, batching, adapters. Knows nothing of feedback or the web."""
