"""Tables of fields, settings, metrics and exit codes, from the code that has them."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import griffe
import msgspec
from prometheus_client.metrics import MetricWrapperBase

from hilum.archive.metrics import BatchMetrics
from hilum.cli.console import Exit
from hilum.client.metrics import Metrics
from hilum.gateway.config import Settings

Row = tuple[str, ...]


def table(heads: Row, rows: Iterator[Row]) -> str:
    """A table in Markdown."""
    lines = [heads, ("---",) * len(heads), *rows]
    return "\n".join(f"| {' | '.join(_cell(c) for c in line)} |" for line in lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.replace("``", "`").split()).replace("|", "\\|")


@cache
def _loaded(module: str) -> Any:
    path = Path(str(import_module(module).__file__))
    return griffe.visit(module, filepath=path, code=path.read_text())


def _class(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return _loaded(module)[name]


def fields(path: str) -> str:
    """Fields of a `TypedDict` or dataclass: name, type, what its docstring says."""
    found = _class(path)
    said = _attributes(found)
    rows = [
        (f"`{name}`", f"`{_type(one)}`", one.docstring.value if one.docstring else said[name])
        for name, one in found.members.items()
        if one.is_attribute and one.annotation is not None and "ClassVar" not in _type(one)
    ]
    if silent := [name for name, _, meaning in rows if not meaning]:
        raise LookupError(f"{path}: what do {', '.join(silent)} mean?")
    return table(("field", "type", "meaning"), rows)


def _type(attribute: Any) -> str:
    text = re.sub(r"NotRequired\[(.*)\]", r"\1, sometimes", str(attribute.annotation))
    return text.replace("dict[str, Any]", "dict")


def _attributes(found: Any) -> Mapping[str, str]:
    """What the section "Attributes" of a class says, by name; empty where it says nothing."""
    sections = found.docstring.parse("numpy") if found.docstring else []
    listed = [one for s in sections if s.kind.value == "attributes" for one in s.value]
    said = {name: one.description for one in listed for name in one.name.split(", ")}
    return dict.fromkeys(found.members, "") | said


def settings() -> str:
    """Tables of `gateway.toml`."""
    parts: list[str] = []
    for field in msgspec.structs.fields(Settings):
        kind = _table_of(field.type)
        head = f"[[{field.name}]]" if field.name == "rule" else f"[{field.name}]"
        summary = inspect.cleandoc(kind.__doc__ or "").partition("\n\nAttributes")[0]
        said = dict(_inherited(kind))
        rows = (
            (f"`{one.name}`", f"`{_name(one.type)}`", _default(one), said[one.name])
            for one in msgspec.structs.fields(kind)
        )
        parts += [f"### `{head}`", summary, table(("name", "type", "default", "meaning"), rows)]
    return "\n\n".join(parts)


def _table_of(kind: Any) -> type:
    return next(iter(getattr(kind, "__args__", (kind,))))


def _inherited(kind: type) -> Iterator[tuple[str, str]]:
    for base in reversed(kind.__mro__):
        if base.__module__ == kind.__module__:
            said = _attributes(_class(f"{base.__module__}.{base.__name__}"))
            yield from ((name, text) for name, text in said.items() if text)


def _name(kind: Any) -> str:
    return kind.__name__ if type(kind) is type else str(kind).replace("typing.", "")


def _default(field: Any) -> str:
    if field.required:
        return "required"
    value = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    return f"`{msgspec.json.encode(value).decode()}`"


def metrics() -> str:
    """Counters of the client and of `hilum batch`."""
    parts = []
    for title, owner in (("Clients", Metrics()), ("`hilum batch`", BatchMetrics())):
        found = (v for v in vars(owner).values() if isinstance(v, MetricWrapperBase))
        heads = ("name", "type", "labels", "meaning")
        parts += [f"## {title}", table(heads, map(_metric, found))]
    return "\n\n".join(parts)


def _metric(one: MetricWrapperBase) -> Row:
    (described,) = one.describe()
    name = described.name + ("_total" if described.type == "counter" else "")
    labels = ", ".join(f"`{label}`" for label in one._labelnames)
    return f"`{name}`", described.type, labels, described.documentation


def exit_codes() -> str:
    """Exit codes of the command line."""
    said = {n: one.docstring.value for n, one in _class("hilum.cli.console.Exit").members.items()}
    return table(("code", "meaning"), ((f"`{int(code)}`", said[code.name]) for code in Exit))


def options(path: str) -> str:
    """Options of a system in Python: the fields of its dataclass with their help."""
    kind = import_module(path).Options
    hints = inspect.get_annotations(kind)
    rows = (
        (f"`{f.name}`", f"`{hints[f.name]}`", f"`{f.default!r}`", f.metadata.get("help", ""))
        for f in dataclasses.fields(kind)
    )
    return table(("option", "type", "default", "meaning"), rows)
