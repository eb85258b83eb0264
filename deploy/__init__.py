"""Releases: the registry of live adapters, the gate, promotion and the periodic loop."""
