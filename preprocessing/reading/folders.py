"""Folders of inputs: every file once, whatever links lead to it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def walk(root: Path) -> Iterator[tuple[Path, list[Path]]]:
    """Yield each folder below `root`, itself first, with its files in the order of their names.

    Hidden files and folders are left out, and so is what is neither file nor folder (a pipe or a
    device would never end). Links to folders are followed, but never to `root`, above it, or to a
    folder that is visited anyway. A folder that may not be read counts as empty.
    """
    top = root.resolve()
    seen: set[Path] = set()
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        real = folder.resolve()
        if real in seen:
            continue
        seen.add(real)
        files, folders = _entries(folder, top)
        yield folder, files
        waiting += reversed(folders)


def _entries(folder: Path, top: Path) -> tuple[list[Path], list[Path]]:
    files, folders = [], []
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError:
        return [], []
    for entry in found:
        if entry.name.startswith("."):
            continue
        path = folder / entry.name
        try:
            if entry.is_file():
                files.append(path)
            elif entry.is_dir() and not (entry.is_symlink() and _leads_back(path, top)):
                folders.append(path)
        except OSError:
            continue  # a circle of links
    return files, folders


def _leads_back(link: Path, top: Path) -> bool:
    """Whether a link leads to where the walk goes or comes from anyway."""
    target = link.resolve()
    return target.is_relative_to(top) or top.is_relative_to(target)
