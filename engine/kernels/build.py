"""The compilation of a C++ source for this processor, once, into a cache.

A wheel cannot hold the result, which uses the instructions that this very processor has. The name
of a library ends in the digest of its bytes, since loading a truncated one would end the process.
Knows compilers; knows nothing of what they compile.
"""

from __future__ import annotations

import hashlib
import logging
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

COMPILER_FLAGS = ("-O3", "-march=native", "-std=c++17", "-fPIC")
NEEDED_INSTRUCTIONS = ("avx2", "fma", "f16c")
COMPILERS = ("c++", "g++", "clang++")
BUILD_SECONDS = 120

log = logging.getLogger(__name__)


class NotBuilt(Exception):
    """The kernels cannot be compiled or run here; `str(error)` says why."""


def build(cache: Path, source: Path, threads: str) -> Path:
    """The compiled library in `cache`; compiles it if it is not there (about five seconds).

    `threads`: the compiler's flag for the threads of the source. The linker does not get it: the
    process has loaded a library of threads already. Raises `NotBuilt`.
    """
    processor = _processor()
    missing = [flag for flag in NEEDED_INSTRUCTIONS if flag not in processor.split()]
    if missing:
        raise NotBuilt(f"this processor lacks {', '.join(missing)}")
    read = b"".join(file.read_bytes() for file in (source, *sorted(source.parent.glob("*.h"))))
    key = hashlib.sha256(read + f"{COMPILER_FLAGS}{threads}{processor}".encode()).hexdigest()[:16]
    for library in sorted(cache.glob(f"kernels-{key}-*.so")):
        if library.name == _library_name(key, library):
            return library
        log.warning("the compiled kernels in %s were damaged; they are compiled anew", library)
        library.unlink(missing_ok=True)
    return _compile(source, threads, cache, key)


def _library_name(key: str, library: Path) -> str:
    digest = hashlib.sha256(library.read_bytes()).hexdigest()[:16]
    return f"kernels-{key}-{digest}.so"


def _processor() -> str:
    """The processor's instruction set extensions, as Linux names them."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith("flags")), "")


def _compile(source: Path, threads: str, cache: Path, key: str) -> Path:
    compiler = next((found for name in COMPILERS if (found := shutil.which(name))), None)
    if compiler is None:
        raise NotBuilt(f"no C++ compiler ({', '.join(COMPILERS)}) is installed")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        compiled, made = Path(folder) / "compiled.o", Path(folder) / "kernels.so"
        _run(compiler, *COMPILER_FLAGS, threads, "-c", str(source), "-o", str(compiled))
        _run(compiler, "-shared", str(compiled), "-o", str(made))
        return made.replace(cache / _library_name(key, made))


def _run(compiler: str, *arguments: str) -> None:
    try:
        done = subprocess.run(  # noqa: S603 - fixed arguments, a compiler found on PATH
            [compiler, *arguments],
            capture_output=True,
            text=True,
            timeout=BUILD_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotBuilt(f"{compiler} did not finish: {error}") from error
    if done.returncode:
        raise NotBuilt(f"{compiler} refused the kernels: {done.stderr.strip()[:300]}")
