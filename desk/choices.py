"""The systems with their options as the catalog has them, and options from what a page sends."""

from __future__ import annotations

import dataclasses
import inspect
import types
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Literal, Union, get_args, get_origin

from hilum.catalog.errors import BadOption, HilumError
from hilum.client.protocols import AnySystem
from hilum.client.registry import INSTALLED
from hilum.results.provenance import weights_entries, weights_note

_PLAIN = {bool: "boolean", int: "integer", float: "number", str: "string"}

_LETTERS = 1000
"""Of a text: a UID has 64."""


def describe(served: Collection[str], about: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Every system with its options, ready for JSON.

    Parameters
    ----------
    served
        The models that are ready: a system whose models are not says so in ``missing``.
    about
        What the client says about the weights that are served, for ``note``.
    """
    return [_described(INSTALLED[name], served, about) for name in INSTALLED]


def options_from(system: AnySystem, given: Mapping[str, Any]) -> Any:
    """Options from JSON.

    Raises
    ------
    InputError
        For an option that does not exist, or a value of another kind.
    """
    kinds = dict(_kinds(system))
    for name, value in given.items():
        if name not in kinds:
            raise BadOption(f"{system.name} has no option {name!r}")
        kind, optional, choices = kinds[name]
        fits = (value is None and optional) or _fits(value, kind, choices)
        if not fits:
            raise BadOption(f"{name} {value!r}: give {' or '.join(map(str, choices)) or kind}")
    # Objects of DICOM need what the command line keeps for them.
    filled = {
        field.name: True
        for field in dataclasses.fields(system.options_type)
        if field.metadata.get("from") == "dicom"
    }
    return system.options_type(**given, **filled)


def _described(
    system: AnySystem, served: Collection[str], about: Mapping[str, Any] | None
) -> dict[str, Any]:
    declared = system.declared
    choices = {name: (kind, optional, some) for name, (kind, optional, some) in _kinds(system)}
    options = []
    for field in dataclasses.fields(system.options_type):
        if field.name not in choices:
            continue
        kind, optional, some = choices[field.name]
        default = field.default
        if some and isinstance(default, str):
            some = tuple(c for c in some if not _missing(system, served, {field.name: c})) or some
            default = default if default in some else some[0]
        options.append({
            "name": field.name, "help": field.metadata.get("help", ""), "kind": kind,
            "default": default, "optional": optional, "choices": list(some),
            "sent": default != field.default,
            "changes_result": field.metadata.get("changes_result", True),
        })  # fmt: skip
    best = {o["name"]: o["default"] for o in options if o["choices"]}
    missing = _missing(system, served, best)
    networks = () if missing else system.networks(system.options_type(**best))
    return {
        "name": system.name, "title": declared.title, "summary": declared.summary,
        "paper": declared.paper, "study": system.study_label, "options": options,
        "missing": missing, "note": weights_note(weights_entries(networks, about)),
    }  # fmt: skip


def _missing(system: AnySystem, served: Collection[str], given: Mapping[str, Any]) -> list[str]:
    """Models that are not served and that the system needs with these options."""
    try:
        options = system.options_type(**given)
        models = system.models(options)
        less = system.fallback(options)
    except HilumError as failure:  # a library of an extra
        return [str(failure)]
    lacking = [model for model in models if model not in served]
    if lacking and less is not None:
        return [model for model in system.models(less) if model not in served]
    return lacking


def _kinds(system: AnySystem) -> Iterator[tuple[str, tuple[str, bool, tuple[Any, ...]]]]:
    """Name of each option that a page may set, its kind, whether it may be None, its choices."""
    hints = inspect.get_annotations(system.options_type, eval_str=True)
    for field in dataclasses.fields(system.options_type):
        if "from" in field.metadata:
            continue
        hint, optional = hints[field.name], False
        if get_origin(hint) in (Union, types.UnionType):
            (hint,) = (one for one in get_args(hint) if one is not type(None))
            optional = True
        if get_origin(hint) is Literal:
            yield field.name, ("string", optional, get_args(hint))
        elif hint in _PLAIN:
            yield field.name, (_PLAIN[hint], optional, _networks(system, field.name))


def _networks(system: AnySystem, name: str) -> tuple[Any, ...]:
    """The choices of an option that names one of the system's networks."""
    if name not in ("network", "profile"):
        return ()
    found = []
    for network in system.declared.networks:
        try:
            system.options_type(**{name: network.name})
        except HilumError:
            continue
        found.append(network.name)
    return tuple(found)


def _fits(value: Any, kind: str, choices: tuple[Any, ...]) -> bool:
    if choices:
        return value in choices
    if kind == "number":
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind == "string":
        return isinstance(value, str) and len(value) <= _LETTERS
    return type(value) is {v: k for k, v in _PLAIN.items()}[kind]
