"""Adapters: the bundle on disk and the slots in a running engine."""
