"""The preparation of a model for serving, in a process of its own: `python -m engine.preparation`.

At its first start a model is fetched or converted, its tokenizer read by transformers, and the
kernels are compiled. All that comes of it lies in the model cache. Done apart, it leaves neither
transformers nor the weights' dense copy in the server's memory, and the server can import its other
libraries meanwhile. A start without it, or after one that failed, does the same in its own process.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from importlib.metadata import version
from pathlib import Path

from engine.errors import BurnishError, StorageFull
from engine.storage import digest_json, write_atomically

PREPARED_FORMAT = "burnish-prepared/1"
PREPARED_FOLDER = "prepared"  # of the model cache: an empty file for each model that was


def prepare_apart(model: str, model_cache: Path) -> None:
    """Prepare a model in a process of its own, unless that was done before.

    An error is no concern of this function: the start that follows meets it, too, and raises it.
    """
    done = model_cache / PREPARED_FOLDER / _key(model)
    with contextlib.suppress(OSError):
        done.parent.mkdir(parents=True, exist_ok=True)
    # In a cache that cannot be written nothing would be left of it
    if not done.is_file() and os.access(done.parent, os.W_OK):
        arguments = [sys.executable, "-m", __name__, json.dumps([model, str(model_cache)])]
        subprocess.run(arguments, stdout=subprocess.DEVNULL, check=False)  # noqa: S603 - ourselves


def _prepare(model: str, model_cache: Path) -> None:
    """Put into the cache what a start of the model needs; raises `BurnishError`."""
    from engine.hardware import detect
    from engine.models.catalogue import resolve
    from engine.models.kernel_selection import select_kernels
    from engine.prompts.load import load_serving_renderer
    from engine.start import kernel_cache

    compiling = threading.Thread(
        target=lambda: select_kernels(detect().device, kernel_cache(model_cache))
    )
    compiling.start()
    base = resolve(model, model_cache)
    load_serving_renderer(base.folder, base.digest, model_cache)
    compiling.join()
    done = model_cache / PREPARED_FOLDER / _key(model)
    with contextlib.suppress(OSError, StorageFull):  # then the next start prepares it again
        write_atomically(done, b"")


def _key(model: str) -> str:
    """The name of the file that says that a model was prepared, by these libraries."""
    libraries = {name: version(name) for name in ("transformers", "tokenizers")}
    return digest_json({"format": PREPARED_FORMAT, "model": model, **libraries})[7:]


if __name__ == "__main__":
    with contextlib.suppress(BurnishError):
        _prepare((given := json.loads(sys.argv[1]))[0], Path(given[1]))
