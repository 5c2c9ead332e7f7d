"""What a batch computes: the system, its options and files; and the key of each study."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

from hilum.catalog.errors import InputError
from hilum.client.protocols import AnySystem
from hilum.client.registry import find_system
from hilum.systems.given import options_from


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is done with every study of a ledger.

    Attributes
    ----------
    options
        The system's options as they were given.
    files
        Which files are written: ``pictures``, ``arrays``, ``dicom``.
    hashed
        What a local study is recognised by: ``stat`` (names, sizes, times) or ``content``.
    """

    system: str
    options: Mapping[str, Any]
    files: Mapping[str, bool]
    hashed: str = "stat"
    hilum_version: str = version("hilum")

    def found_system(self) -> AnySystem:
        """The system."""
        return find_system(self.system)

    def chosen_options(self) -> Any:
        """The options as the system's own object."""
        return options_from(self.found_system(), self.options)

    def check(self) -> None:
        """Refuse what cannot run.

        Raises
        ------
        InputError
            For an unknown system or option, or another way to recognise studies.
        """
        self.chosen_options()
        if self.hashed not in ("stat", "content"):
            raise InputError(f"--hash {self.hashed}: choose stat or content")

    def as_json(self) -> str:
        """For the ledger."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def of_json(cls, text: str) -> Plan:
        """From the ledger."""
        return cls(**json.loads(text))


class Keys:
    """The key of a study: the same source, content, plan and program have the same.

    Weights are not in it, as no server runs yet: the ledger keeps those of its first run.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = hashlib.sha256(plan.as_json().encode())

    def key(self, source: str, identity: str) -> bytes:
        """16 bytes."""
        found = self._plan.copy()
        found.update(f"\0{source}\0{identity}".encode("utf-8", "surrogateescape"))
        return found.digest()[:16]
