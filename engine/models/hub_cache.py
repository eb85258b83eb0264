"""Share of a hub's model that lies on this disk. Reads no weight and asks no server."""

from __future__ import annotations

from pathlib import Path

from engine.models.catalogue import hub_folder


def is_fetched(hub_id: str, cache: Path) -> bool:
    """Return whether the whole model is in the cache: its settings and all of its weights."""
    folder = hub_folder(hub_id, cache)
    if any(folder.glob("blobs/*.incomplete")):
        return False
    snapshots = folder.glob("snapshots/*")
    return any(
        (each / "config.json").is_file() and any(each.glob("*.safetensors")) for each in snapshots
    )


def fetched_bytes(hub_id: str, cache: Path) -> int:
    """The bytes of the model on this disk, those of files that are half there too."""
    blobs = hub_folder(hub_id, cache).glob("blobs/*")
    return sum(blob.stat().st_size for blob in blobs if blob.is_file())
