"""Adapters: bundles on disk, the kinds of adapters, and the slots of a running engine."""
