"""Files that only their owner may read, since they hold what people wrote.

A process calls `make_new_files_private` before it creates anything, which covers the files of
libraries, too; homes and databases also get their mode explicitly, whatever the umask of the
process is. Knows nothing of the files' contents.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from pathlib import Path

from engine.errors import InvalidInput

OTHERS_RIGHTS = stat.S_IRWXG | stat.S_IRWXO
SETTINGS_FILE = "settings.toml"  # may be there before the first start


def make_new_files_private() -> None:
    """Set the umask: this process and its children create files with the modes 0700 and 0600."""
    os.umask(OTHERS_RIGHTS)


def create_private(path: Path) -> None:
    """Create an empty file with mode 0600; a file that exists becomes private.

    An existing file is not opened, since closing it would release SQLite's locks on it.
    """
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        _make_private(path)


def open_private_folder(folder: Path, *, marks: Collection[str]) -> str | None:
    """Create a folder with mode 0700, or revoke other accounts' rights to one that exists.

    A folder that has one of the files `marks` is one of ours, and everything in it becomes private,
    too. Returns a warning to show if other accounts had rights, else None. Raises `InvalidInput`
    for a path that is no folder, for a folder that everybody writes to, such as `/tmp`, and for one
    with other files that other accounts can read, such as `/srv`.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise InvalidInput(f"{folder} is not a folder; give another one") from None
    folder = folder.resolve()
    mode = folder.stat().st_mode
    if mode & stat.S_ISVTX:
        raise InvalidInput(f"{folder} is shared by everybody on this machine; give another one")
    if not mode & OTHERS_RIGHTS:
        return None
    others = {path.name for path in folder.iterdir()} - {SETTINGS_FILE}
    is_ours = not others.isdisjoint(marks)
    if others and not is_ours:
        raise InvalidInput(
            f"{folder} holds other files, and other accounts can read it: give another folder,"
            f" or make it private (chmod 700) first"
        )
    if not _make_private(folder):
        return f"other accounts can read {folder}, and this one may not change that"
    if is_ours:
        for parent, folders, files in os.walk(folder):
            for name in (*folders, *files):
                _make_private(Path(parent, name))
    return f"other accounts could read {folder}; from now on only this one can"


def _make_private(path: Path) -> bool:
    """Remove the permissions of group and others; returns whether they have none now.

    Devices and the targets of symbolic links are left alone.
    """
    try:
        mode = path.lstat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            return False
        if mode & OTHERS_RIGHTS:
            path.chmod(stat.S_IMODE(mode) & ~OTHERS_RIGHTS)
    except OSError:
        return False
    return True
