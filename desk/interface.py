"""The description of the interface, in OpenAPI's terms, made from its operations."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from starlette.requests import Request

_REFUSALS = {
    "401": "without the token", "403": "the studies are a gateway's", "404": "there is none",
    "408": "the body stopped coming", "409": "not in this state", "410": "its files are gone",
    "413": "too large", "415": "an archive", "422": "wrong input", "429": "too many",
    "503": "no server answers", "507": "no room on the disk",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation, as it is routed and described.

    Attributes
    ----------
    path
        ``{name}`` is a parameter; ``{file}`` may hold slashes.
    handler
        Gives an answer, or what becomes JSON.
    fields
        Of a JSON body.
    """

    method: str
    at: str
    summary: str
    handler: Callable[[Request], Awaitable[Any]]
    status: int = 200
    answer: str = "application/json"
    body: str = ""
    body_needed: bool = True
    fields: tuple[str, ...] = ()

    @property
    def path(self) -> str:
        """The path as Starlette has it."""
        return self.at.replace("{file}", "{file:path}")


def description(operations: Sequence[Operation]) -> dict[str, Any]:
    """The interface as an OpenAPI 3.1 document."""
    paths: dict[str, Any] = {}
    for one in operations:
        paths.setdefault(one.at, {})[one.method.lower()] = _described(one)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Hilum desk", "version": version("hilum"),
                 "description": "Not a medical device. For research only."},
        "paths": paths,
        "components": {"securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
        "security": [{"token": []}],
    }  # fmt: skip


def _described(one: Operation) -> dict[str, Any]:
    error = {"application/json": {"schema": {
        "type": "object", "required": ["error", "code"],
        "properties": {"error": {"type": "string"}, "code": {"type": "string"}},
    }}}  # fmt: skip
    refusals = {code: {"description": text, "content": error} for code, text in _REFUSALS.items()}
    found: dict[str, Any] = {
        "summary": one.summary,
        "operationId": one.handler.__name__.strip("_"),
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in re.findall(r"{(\w+)}", one.at)
        ],
        "responses": {str(one.status): {"description": "done", "content": {one.answer: {}}}}
        | refusals,
    }
    if one.body:
        schema: dict[str, Any] = {"type": "object", "properties": {f: {} for f in one.fields}}
        content = {one.body: {"schema": schema} if one.fields else {}}
        found["requestBody"] = {"required": one.body_needed, "content": content}
    return found
