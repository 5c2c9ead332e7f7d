"""A user's table of radiomic features with labels, read and split (spec covid_mtl §2.2, §7.3).

The published table is a pandas pickle, which runs code when it is opened, so it is not read here;
written as CSV it is.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..catalog.covid_mtl import HEADS
from ..catalog.covid_mtl_features import FEATURES
from ..catalog.errors import InputError

SPLIT = "split"
"""Column with the part of each case, `PARTS`; without it the parts are drawn."""

PARTS = ("train", "test")

TEST_SHARE, SEED, STRATUM = 0.30, 11, "nat"
"""Share of the cases that the published split keeps for the test, its seed, and the label whose
classes it spreads evenly."""

_NAMED = 5
"""Missing columns that are named; more are counted."""


@dataclass(frozen=True, slots=True)
class Cohort:
    """Cases of a table, in its order.

    Attributes
    ----------
    features
        float64 [n, 375] in the order of `FEATURES`.
    labels
        By head, int64 [n].
    test
        bool [n]: for the test, the others for training; None when the table does not say.
    """

    features: NDArray[np.float64]
    labels: dict[str, NDArray[np.int64]]
    test: NDArray[np.bool_] | None


@dataclass(frozen=True, slots=True)
class Part:
    """Cases for training, or for the test."""

    features: NDArray[np.float64]
    labels: NDArray[np.int64]


def read_cohort(path: Path, heads: Sequence[str] = tuple(HEADS)) -> Cohort:
    """Read a CSV file with a column for every feature and one for the label of each head.

    Parameters
    ----------
    path
        Columns may come in any order, and there may be others. Labels are whole numbers, those of
        `HEADS`.
    heads
        Whose labels are wanted.

    Raises
    ------
    InputError
        For a file that cannot be read, columns that are missing, and cells that hold no number or
        no class.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows, columns = list(reader), set(reader.fieldnames or ())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"the table cannot be read ({error}); give a CSV file") from error
    _check_columns(columns, (*FEATURES, *heads))
    if not rows:
        raise InputError("the table has no cases; give one line for each below the names")
    labels = {h: _labels(h, [row[h] for row in rows]) for h in heads}
    test = _parts([row[SPLIT] for row in rows]) if SPLIT in columns else None
    features = np.array([_numbers(k, row) for k, row in enumerate(rows, 1)])
    return Cohort(features, labels, test)


def divide(cohort: Cohort, head: str) -> tuple[Part, Part]:
    """Cases for training and for the test: as the table says, else by the published split.

    Raises
    ------
    InputError
        When a class has no case, or too few to be split.
    """
    labels = cohort.labels[head]
    test = cohort.test if cohort.test is not None else _drawn(cohort, head)
    parts = [Part(cohort.features[chosen], labels[chosen]) for chosen in (~test, test)]
    for part, name in zip(parts, PARTS, strict=True):
        counts = np.bincount(part.labels, minlength=len(HEADS[head].classes))
        if missing := np.flatnonzero(counts == 0).tolist():
            classes = ", ".join(f"{c} ({HEADS[head].classes[c]})" for c in missing)
            raise InputError(
                f"{head}: no case of class {classes} for {_purpose(name)}; give a table with cases "
                "of every class, or leave the question out"
            )
    return parts[0], parts[1]


def _drawn(cohort: Cohort, head: str) -> NDArray[np.bool_]:
    """The published split: scikit-learn's, over the cases in the order of the table."""
    from sklearn.model_selection import train_test_split

    spread = cohort.labels.get(STRATUM, cohort.labels[head])
    try:
        _, chosen = train_test_split(
            np.arange(len(spread)), test_size=TEST_SHARE, random_state=SEED, stratify=spread
        )
    except ValueError as error:
        raise InputError(
            f"{len(spread)} cases cannot be split ({error}); give more cases of every class, or a "
            f"column {SPLIT!r} with {' or '.join(PARTS)}"
        ) from error
    test = np.zeros(len(spread), np.bool_)
    test[chosen] = True
    return test


def _check_columns(columns: set[str], wanted: Iterable[str]) -> None:
    missing = [name for name in wanted if name not in columns]
    if not missing:
        return
    more = len(missing) - _NAMED
    names = ", ".join(missing[:_NAMED]) + (f" and {more} more" if more > 0 else "")
    raise InputError(
        f"the table lacks the columns {names}; it needs the {len(FEATURES)} features by their "
        f"published names, and the labels {', '.join(HEADS)} that are to be learnt"
    )


def _numbers(line: int, row: dict[str, str]) -> list[float]:
    values = []
    for name in FEATURES:
        try:
            value = float(row[name])
        except (TypeError, ValueError):
            value = float("nan")
        if not np.isfinite(value):
            raise InputError(
                f"case {line}: {name} is {row[name]!r}, not a number; leave such cases out"
            )
        values.append(value)
    return values


def _labels(head: str, cells: Sequence[str]) -> NDArray[np.int64]:
    known = {str(k): k for k in range(len(HEADS[head].classes))}
    for line, cell in enumerate(cells, 1):
        if (cell or "").strip() not in known:
            raise InputError(f"case {line}: {head} is {cell!r}; its classes are {', '.join(known)}")
    return np.array([known[cell.strip()] for cell in cells], np.int64)


def _parts(cells: Sequence[str]) -> NDArray[np.bool_]:
    for line, cell in enumerate(cells, 1):
        if (cell or "").strip() not in PARTS:
            raise InputError(f"case {line}: {SPLIT} is {cell!r}; give {' or '.join(PARTS)}")
    return np.array([cell.strip() == PARTS[1] for cell in cells])


def _purpose(part: str) -> str:
    return "training" if part == PARTS[0] else "the test"
