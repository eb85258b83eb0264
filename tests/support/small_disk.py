"""Whether a test can have a small disk of its own."""

from __future__ import annotations

import subprocess


def can_mount() -> bool:
    """Whether this account can mount a file system in a namespace of its own."""
    try:
        mount = ["unshare", "-Urm", "sh", "-c", "mount -t tmpfs none /mnt"]
        return subprocess.run(mount, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False
