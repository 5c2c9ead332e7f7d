"""List the licences of installed packages, and refuse those that are not allowed.

    python constraints/licences.py            # checks; exit code 1 with one line for each fault
    python constraints/licences.py --write    # writes docs/background/licences.md, too

Looks at the environment that runs it. What belongs to the base install and to each extra follows
from Hilum's own metadata.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution, distributions
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs/background/licences.md"
SHIPPED = ("base", "radiomics", "dicom", "desk", "image")
"""What users and the image get: permissive licences only."""
INSIDE = "Shared libraries inside the wheels of the base install, the image and their extras:"


def members(name: str, extra: str, found: set[tuple[str, str]]) -> set[str]:
    """A package with one of its extras, and all that it needs in this environment."""
    if (name, extra) in found:
        return set()
    found.add((name, extra))
    try:
        requirements = distribution(name).requires or []
    except PackageNotFoundError:
        return set()
    names = {name}
    for text in requirements:
        needed = Requirement(text)
        if needed.marker is None or needed.marker.evaluate({"extra": extra}):
            for wanted in needed.extras | {""}:
                names |= members(canonicalize_name(needed.name), wanted, found)
    return names


def extras() -> dict[str, set[str]]:
    """The packages of the base install and of each extra, each without those of the base."""
    base = members("hilum", "", set()) - {"hilum"}
    names = distribution("hilum").metadata.get_all("Provides-Extra") or []
    found = {"base": base} | {n: members("hilum", n, set()) - base - {"hilum"} for n in names}
    return found | {"image": image() - base}


def image() -> set[str]:
    """The packages of the image, as they are locked."""
    lines = (HERE / "hashes-image.txt").read_text().splitlines()
    return {canonicalize_name(line.partition("==")[0]) for line in lines if re.match(r"\w", line)}


def licence(package: Distribution, stated: dict[str, str]) -> str:
    """The licence as an SPDX expression: as the table states it, or as the package does."""
    meta = package.metadata
    name = canonicalize_name(meta["Name"])
    if name in stated:
        return stated[name]
    if meta.get("License-Expression"):
        return meta["License-Expression"]
    classifiers = meta.get_all("Classifier") or []
    known = [c.rpartition(" :: ")[2] for c in classifiers if c.startswith("License :: ")]
    known = [k for k in known if k != "OSI Approved"]
    return " AND ".join(known) or (meta.get("License") or "unknown").splitlines()[0][:60]


def allowed(expression: str, names: set[str]) -> bool:
    """Whether every licence of an expression is allowed, or one side of each OR."""
    terms = expression.removeprefix("(").removesuffix(")") if " OR " in expression else expression
    return expression in names or all(
        any(part.strip("() ") in names or part.strip() in names for part in term.split(" OR "))
        for term in terms.split(" AND ")
    )


def rows(rules: dict[str, dict[str, str]]) -> Iterator[tuple[str, str, str, str]]:
    """Name, version, licence and sets of every installed package."""
    sets = extras()
    for package in sorted(distributions(), key=lambda d: canonicalize_name(d.metadata["Name"])):
        name = canonicalize_name(package.metadata["Name"])
        where = [key for key, those in sets.items() if name in those] or ["development"]
        if name != "hilum":
            yield name, package.version, licence(package, rules["stated"]), ", ".join(where)


def bundled() -> Iterator[tuple[str, str, str]]:
    """Package, name and file of each shared library inside the wheels of what is shipped.

    The name ends where digits of a checksum or the version begin.
    """
    sets = extras()
    shipped = set().union(*(sets[key] for key in SHIPPED))
    for package in sorted(distributions(), key=lambda d: canonicalize_name(d.metadata["Name"])):
        name = canonicalize_name(package.metadata["Name"])
        for file in sorted(package.files or [] if name in shipped else []):
            if file.parent.name.endswith(".libs") and ".so" in file.name:
                yield name, re.split(r"[-.]", file.name)[0], file.name


def inside(rules: dict[str, dict[str, Any]]) -> tuple[list[tuple[str, str, str]], list[str]]:
    """Package, licence and names of its libraries; and what is not allowed."""
    names = set(rules["permissive"]["names"]) | set(rules["inside"]["names"])
    names |= set(rules["inside"]["copyleft"])
    found: dict[tuple[str, str], list[str]] = {}
    faults: list[str] = []
    for package, library, file in bundled():
        stated = rules["bundled"].get(library, "unknown")
        if not allowed(stated, names):
            faults.append(f"{package} ships {file}: {stated!r}; state it in licences.toml")
        libraries = found.setdefault((package, stated), [])
        if library not in libraries:
            libraries.append(library)
    table = [(package, stated, ", ".join(those)) for (package, stated), those in found.items()]
    return table, faults


def main() -> int:
    """Check, and write the page where that is asked for."""
    rules = tomllib.loads((HERE / "licences.toml").read_text())
    permissive, weak = set(rules["permissive"]["names"]), set(rules["weak"]["names"])
    table = list(rows(rules))
    faults = []
    for name, _, found, where in table:
        shipped = bool(set(SHIPPED) & set(where.split(", ")))
        if not allowed(found, permissive if shipped else permissive | weak):
            faults.append(
                f"{name} ({where}): {found!r} is not allowed by constraints/licences.toml"
            )
    libraries, unknown = inside(rules)
    faults += unknown
    for fault in faults:
        print(fault, file=sys.stderr)  # noqa: T201
    if "--write" in sys.argv:
        lines = [
            f"| {name} | {version} | {found} | {where} |" for name, version, found, where in table
        ]
        lines += ["", INSIDE, "", "| package | licence | libraries |", "|---|---|---|"]
        lines += [f"| {package} | {stated} | {those} |" for package, stated, those in libraries]
        head = (HERE / "licences.head.md").read_text()
        PAGE.write_text(head + "\n".join(lines) + "\n")
    print(f"{len(table)} packages, {len(faults)} with a licence that is not allowed")  # noqa: T201
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
