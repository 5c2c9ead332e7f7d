"""The reference of the Python interface: every public name, and what each docstring must say."""

from __future__ import annotations

import dataclasses
import inspect
import re
import zlib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import hilum
from hilum import client
from hilum.catalog import SYSTEMS
from hilum.systems import base

ROOMS = [f"hilum.systems.{name.replace('-', '_')}" for name in SYSTEMS]
RAISED = re.compile(r"^\s+raise (\w+Error|ConnectionFailed)\(", re.MULTILINE)


def _public(module: ModuleType) -> Iterator[tuple[str, type]]:
    """The classes that a module offers: those it lists, else those that are made in it."""
    for name in getattr(module, "__all__", dir(module)):
        found = getattr(module, name)
        own = hasattr(module, "__all__") or getattr(found, "__module__", "") == module.__name__
        if inspect.isclass(found) and own and not name.startswith("_"):
            yield f"{module.__name__}.{name}", found


CLASSES = {
    path: kind
    for module in (hilum, client, base, *(import_module(f"{room}.result") for room in ROOMS))
    for path, kind in _public(module)
}


def _said(thing: Any, *headings: str) -> set[str]:
    """Names that a docstring explains under some headings."""
    text = inspect.cleandoc(thing.__doc__ or "")
    parts = re.split(r"^(\w[\w ]*)\n-{3,}\n", text, flags=re.MULTILINE)
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    lines = [line for heading in headings for line in sections.get(heading, "").splitlines()]
    return {
        name.strip("* ")
        for line in lines
        if line and not line[0].isspace()
        for name in line.partition(" : ")[0].split(",")
    }


def _parameters(thing: Any) -> set[str]:
    return set(inspect.signature(thing).parameters) - {"self", "cls"}


def _methods(kind: type) -> Iterator[tuple[str, Any]]:
    for name in dir(kind):
        found = inspect.getattr_static(kind, name)
        function = getattr(found, "__func__", found)
        ours = inspect.isfunction(function) and function.__module__.startswith("hilum.")
        if ours and not name.startswith("_"):
            yield name, function


@pytest.mark.parametrize("path", CLASSES)
def test_each_method_explains_its_parameters(path: str) -> None:
    for name, function in _methods(CLASSES[path]):
        assert not _parameters(function) - _said(function, "Parameters"), name


@pytest.mark.parametrize("path", CLASSES)
def test_each_method_names_the_errors_that_it_raises(path: str) -> None:
    for name, function in _methods(CLASSES[path]):
        raised = set(RAISED.findall(inspect.getsource(function))) - {"NotImplementedError"}
        assert raised <= _said(function, "Raises"), name


@pytest.mark.parametrize("path", CLASSES)
def test_each_class_explains_its_fields_and_arguments(path: str) -> None:
    kind = CLASSES[path]
    assert kind.__doc__
    said = {name for one in kind.__mro__ for name in _said(one, "Attributes", "Parameters")}
    if dataclasses.is_dataclass(kind):
        wanted = {field.name for field in dataclasses.fields(kind) if field.init}
    elif issubclass(kind, Exception | dict):
        wanted = set(kind.__annotations__)
    else:
        wanted = _parameters(kind) - {"args", "kwargs"}
    assert not wanted - said


def test_every_public_name_is_in_the_reference(site: Path) -> None:
    packed = (site / "objects.inv").read_bytes().split(b"\n", 4)[4]
    listed = [line.split()[0] for line in zlib.decompress(packed).decode().splitlines()]
    wanted = {f"{m.__name__}.{name}" for m in (hilum, client) for name in m.__all__}
    wanted |= {*CLASSES, *(f"{room}.options.Options" for room in ROOMS)}
    assert not wanted - {*listed, "hilum.__version__"}
