"""Whether ledger, markers and contents agree."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from hilum.catalog.errors import OutputError
from hilum.results.folder import RESULT

from .ledger import Ledger, Study
from .store import Store, result_hash

_SHOWN = 20


@dataclass(slots=True)
class Verdict:
    """What was compared, and what does not agree.

    Attributes
    ----------
    problems
        The first of them, in words.
    """

    studies: int = 0
    done: int = 0
    markers: int = 0
    read: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def note(self, kind: str, name: str) -> None:
        """Note a problem."""
        self.counts[kind] += 1
        if len(self.problems) < _SHOWN:
            self.problems.append(f"{name}: {kind}")


def verify(ledger: Ledger, store: Store, share: float = 1.0, seed: int = 0) -> Verdict:
    """Compare every row with its marker, and of a share of them the contents with the checksums.

    Markers of no row of this ledger are of another one, and are not counted.
    """
    found, chosen = Verdict(), random.Random(seed)  # noqa: S311 - a sample
    for study, there in beside(ledger.studies(), store.names()):
        found.studies += 1
        found.done += study.state == "done"
        found.markers += there
        if study.state == "done" and not there:
            found.note("done, and there is no result", study.name)
        elif study.state != "done" and there:
            found.note(f"{study.state}, and there is a result", study.name)
        elif there and chosen.random() < share:
            found.read += 1
            _compare(found, store, study)
    return found


def beside(studies: Iterable[Study], names: Iterable[str]) -> Iterator[tuple[Study, bool]]:
    """Each study, and whether its name is among `names`; both in the order of names."""
    markers = iter(names)
    marker = next(markers, None)
    for study in studies:
        while marker is not None and marker < study.name:
            marker = next(markers, None)
        yield study, marker == study.name


def _compare(found: Verdict, store: Store, study: Study) -> None:
    marker = store.marker(study.name)
    if marker is None:
        found.note("its marker cannot be read", study.name)
        return
    if marker["sha256"] != study.sha256:
        found.note("ledger and marker have different checksums", study.name)
    contents: dict[str, str] = {}
    for file, sha256 in marker["files"].items():
        try:
            data = store.read(study.name, file)
        except OutputError:
            found.note(f"{file} is not there", study.name)
            return
        contents[file] = hashlib.sha256(data).hexdigest()
        if contents[file] != sha256:
            found.note(f"{file} has another content", study.name)
    result = json.loads(store.read(study.name, RESULT))
    if result_hash(result, contents) != study.sha256:
        found.note("the result is another one", study.name)
