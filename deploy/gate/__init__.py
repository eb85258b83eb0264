"""The gate: whether a candidate is better than the incumbent. Pure."""
