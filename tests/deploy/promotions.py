"""Releases by letters, promoted one after the other."""

from __future__ import annotations

from deploy.releases.registry import Registry

A, B, C = (f"sha256:{letter * 64}" for letter in "abc")


def promote(registry: Registry, *bundles: str) -> None:
    for bundle in bundles:
        registry.add(bundle, {"verdict": "better"})
        registry.promote(bundle, registry.live(), note=f"promote {bundle[7]}")
