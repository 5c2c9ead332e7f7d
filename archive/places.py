"""Which store an address is."""

from __future__ import annotations

from pathlib import Path

from .bucket import BucketStore
from .store import FolderStore, Store


def store_at(out: str) -> Store:
    """The store for ``--out``: a folder, or a bucket's address.

    Raises
    ------
    InputError
        When what reaches the bucket is not installed.
    """
    return BucketStore(out) if "://" in out else FolderStore(Path(out))
