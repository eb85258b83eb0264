"""Serving: the engine's loop, its scheduler and cache, and the tasks it computes."""
