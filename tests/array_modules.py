"""One test body for NumPy, array-api-strict and CuPy: a function gives the same on each of them.

NumPy's own arrays are given as read-only views with other strides, so that a function that needs
contiguous input, or changes what it was given, is caught as well.
"""

from __future__ import annotations

import importlib
import inspect
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import array_api_compat
import numpy as np
import pytest

from hilum.preprocessing.arrays import to_host

STRICT, CUPY = "array_api_strict", "cupy"

_LARGE = 1_000_000
"""Elements above which an array keeps its strides, for the sake of time."""

REFUSED = (AttributeError, IndexError, TypeError, ValueError, RuntimeError)
"""How array-api-strict says that something is not in the standard."""


@dataclass(frozen=True)
class Case:
    """A function and NumPy arguments for it.

    Attributes
    ----------
    beyond
        What it needs beyond the standard, so that array-api-strict cannot run it; None: nothing.
    rtol, atol
        Of floating-point results on CuPy and array-api-strict; 0: the same bits.
    on_host
        Its answer is small and lies on the host by its definition.
    """

    name: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    beyond: str | None = None
    rtol: float = 0.0
    atol: float = 0.0
    on_host: bool = False
    options: dict[str, Any] = field(default_factory=dict)


def parameters(cases: Iterable[Case]) -> list[Any]:
    """Each case on each module that can run it; those on CuPy carry the mark ``gpu``."""
    found = []
    for case in cases:
        modules = ["numpy", *([] if case.beyond else [STRICT]), CUPY]
        for module in modules:
            marks = [pytest.mark.gpu] if module == CUPY else []
            found.append(pytest.param(case, module, marks=marks, id=f"{case.name}-{module}"))
    return found


def only_beyond(cases: Iterable[Case]) -> list[Any]:
    """Cases that array-api-strict cannot run."""
    return [pytest.param(case, id=case.name) for case in cases if case.beyond]


def check(case: Case, module: str) -> None:
    """Run a case on NumPy's plain arrays and on a module, and compare."""
    expected = case.function(*case.arguments, **case.options)
    found = case.function(*on(imported(module), case.arguments), **case.options)
    _same(found, expected, module, case)


def check_refused(case: Case) -> None:
    """A function that needs more than the standard is refused; if not, `beyond` is out of date."""
    with warnings.catch_warnings(), pytest.raises(REFUSED):
        warnings.simplefilter("ignore", UserWarning)  # that a type is not the standard's
        case.function(*on(imported(STRICT), case.arguments), **case.options)


class CupySignatures:
    """NumPy's functions, called only as CuPy's can be: it must be installed, a GPU is not needed.

    Attributes
    ----------
    called
        Names of the functions.
    """

    __name__ = "array_api_compat.numpy"

    def __init__(self) -> None:
        self._numpy = importlib.import_module("array_api_compat.numpy")
        self._cupy = importlib.import_module("array_api_compat.cupy")
        self.called = set[str]()

    def __getattr__(self, name: str) -> Any:
        ours, theirs = getattr(self._numpy, name), getattr(self._cupy, name)
        if isinstance(ours, type) or not callable(ours):
            return ours

        def call(*arguments: Any, **options: Any) -> Any:
            self.called.add(name)
            if isinstance(theirs, importlib.import_module("cupy").ufunc):
                assert set(options) <= {"out", "dtype", "casting"}, name
            else:
                inspect.signature(theirs).bind(*arguments, **options)
            return ours(*arguments, **options)

        return call


def check_cupy_signatures(cases: Iterable[Case], monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Run cases on NumPy's arrays; fails where CuPy has no such function or argument.

    Returns the names of the functions that were called.
    """
    pytest.importorskip("cupy")
    module = CupySignatures()
    monkeypatch.setattr(array_api_compat, "array_namespace", lambda *_arrays: module)
    for case in cases:
        case.function(*case.arguments, **case.options)
    return module.called


def imported(module: str) -> Any:
    """A module by name; skips without CuPy, or without a GPU."""
    if module != CUPY:
        return importlib.import_module(module)
    cupy = pytest.importorskip("cupy")
    try:
        cupy.zeros(1)
    except cupy.cuda.runtime.CUDARuntimeError as error:
        pytest.skip(f"CuPy finds no GPU ({error})")
    return cupy


def on(xp: Any, value: Any) -> Any:
    """Arguments with their arrays as arrays of a module."""
    if isinstance(value, np.ndarray):
        return _strided(value) if xp is np else xp.asarray(value.copy())
    if isinstance(value, tuple | list):
        return type(value)(on(xp, item) for item in value)
    return value


def _strided(array: np.ndarray) -> np.ndarray:
    """A read-only view of every other element of a larger array, its axes stored in reverse."""
    if array.size > _LARGE:
        view = array.view()
    else:
        *rest, first = array.shape[::-1]
        view = np.zeros([*rest, 2 * first], array.dtype).T[::2]
        view[...] = array
    view.flags.writeable = False
    return view


def _same(found: Any, expected: Any, module: str, case: Case) -> None:
    if isinstance(expected, tuple | list):
        assert len(found) == len(expected)
        for one, wanted in zip(found, expected, strict=True):
            _same(one, wanted, module, case)
        return
    if not isinstance(expected, np.ndarray):
        if isinstance(expected, float):
            assert found == pytest.approx(expected, rel=case.rtol, abs=case.atol)
        else:
            assert type(found) is type(expected)
            assert found == expected
        return
    own = np.ndarray if case.on_host else type(imported(module).asarray(np.zeros(1)))
    assert isinstance(found, own)
    host = to_host(found)
    assert host.dtype == expected.dtype
    if case.rtol or case.atol:
        np.testing.assert_allclose(host, expected, case.rtol, case.atol)
    else:
        np.testing.assert_array_equal(host, expected)
