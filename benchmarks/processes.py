"""Objects that live in processes of their own, so that what they hold is their own memory."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.managers import BaseManager
from typing import Any

from ..preprocessing.workers import follow_parent


class _Manager(BaseManager):
    """The process."""


@contextmanager
def apart(kind: Callable[..., Any], *arguments: object) -> Iterator[Any]:
    """Make an object in a fresh process; it ends with the context.

    Parameters
    ----------
    kind
        A class of a module. What its public methods take and return is copied between the
        processes, and so are their exceptions.

    Yields
    ------
    A stand-in for the object, with its methods.
    """
    name = kind.__name__
    _Manager.register(name, kind)
    process = _Manager(ctx=multiprocessing.get_context("spawn"))
    process.start(follow_parent)
    with process as manager:
        yield getattr(manager, name)(*arguments)
