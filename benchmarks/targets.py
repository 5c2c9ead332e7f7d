"""`hilum bench targets`: one row for each documented figure of the systems."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from hilum.catalog import SYSTEMS
from hilum.catalog.errors import RepositoryError
from hilum.client.registry import INSTALLED

from .checks import from_predictions, network_sizes, published_rates
from .figures import Measure, Setting
from .instrument.machine import machine
from .instrument.record import Lane, Record, new_record
from .runs import Progress
from .systems import described
from .target_rows import (
    DATA_NEEDED,
    FAIL,
    GPU_NEEDED,
    NOT_COMPARABLE,
    PASS,
    Measured,
    measured_in,
    rows,
    targets,
)  # fmt: skip

QUICK = (3, 4.0)
USUAL = (5, 20.0)
"""Rounds, and seconds of each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is measured.

    Attributes
    ----------
    systems
        None: all.
    earlier
        Records to take measured figures from, instead of measuring.
    predictions
        Published predictions, from which documented errors and areas are computed again.
    """

    systems: tuple[str, ...] = ()
    quick: bool = False
    repository: Path | None = None
    weights: str = "random"
    earlier: tuple[Path, ...] = ()
    predictions: tuple[Path, ...] = ()

    @property
    def command(self) -> str:
        """The command line that measures the same."""
        words = ["hilum bench targets", *self.systems, "--quick" * self.quick]
        words += [f"--from {p.name if p.is_absolute() else p}" for p in self.earlier]
        words += [f"--predictions {p.name if p.is_absolute() else p}" for p in self.predictions]
        words.append("" if self.earlier else f"--weights {self.weights}")
        return " ".join(filter(None, words))


def measure(plan: Plan, progress: Progress) -> Record:
    """Measure what can be measured here, and set it beside every documented figure.

    Raises
    ------
    InputError
        For a system that there is not, or an earlier record that cannot be read.
    """
    wanted, before, earlier = list(targets(plan.systems)), machine(), measured_in(plan.earlier)
    found: list[Measured] = [*_checked(plan, {t.system for t in wanted}, progress)]
    lanes: list[Lane] = []
    notes = _notes(plan)
    if plan.earlier:
        known = plan.systems or tuple(SYSTEMS)
        found += [m for m in earlier if m.system in known]
    else:
        rounds, seconds = QUICK if plan.quick else USUAL
        setting = Setting(
            plan.quick, rounds, seconds, plan.repository, plan.weights, before, plan.command
        )
        for system, figures in measurable(plan.systems, quick=plan.quick).items():
            try:
                own = figures(setting, progress)
            except RepositoryError as error:  # of a repository that holds other systems
                notes.append(f"{system} was not measured: {error}")
                continue
            found += own.measured
            lanes += own.lanes
    made = rows(wanted, found, remedies())
    counts = Counter(row["verdict"] for row in made)
    missing = Counter(row["needs"] for row in made)
    verdicts = ", ".join(
        (
            f"{counts[PASS]} checked here and met", f"{counts[FAIL]} not met",
            *(f"{missing[what]} need {what}" for what in (GPU_NEEDED, DATA_NEEDED)),
            f"{counts[NOT_COMPARABLE] - missing[GPU_NEEDED] - missing[DATA_NEEDED]} cannot be "
            "compared for another reason, which stands in the row",
        )
    )  # fmt: skip
    return new_record(
        "targets", "Documented figures and what was measured", plan.command, before,
        lanes=tuple(lanes),
        tables={"targets": tuple(made), "measured": tuple(asdict(m) for m in found)},
        notes=(f"{len(made)} documented figures: {verdicts}.", *notes),
    )  # fmt: skip


def _checked(plan: Plan, systems: set[str], progress: Progress) -> Iterator[Measured]:
    """What can be checked without the authors' weights, images and hardware."""
    found = [*published_rates(), *from_predictions(plan.predictions)]
    if "cxr-severity" in systems:
        progress("count the networks' parameters and operations")
        try:
            found += network_sizes()
        except ImportError as missing:
            progress(f"not counted, without {missing.name}: pip install 'hilum[export]'")
    yield from (one for one in found if one.system in systems)


def measurable(systems: Sequence[str], *, quick: bool) -> dict[str, Measure]:
    """Those of the systems, all when none is named, that a run measures, and what does it."""
    found = {}
    for name in systems or INSTALLED:
        about = described(name) if name in INSTALLED else None
        if about is None or about.figures is None:
            continue
        if systems or not (quick and about.slow_export):
            found[name] = about.figures
    return found


def remedies() -> dict[tuple[str, str], str]:
    """How to measure what a run did not, by system and quantity."""
    about = {name: described(name) for name in SYSTEMS}
    return {
        (name, quantity): how
        for name, found in about.items()
        if found is not None
        for quantity, how in found.remedies.items()
    }


def _notes(plan: Plan) -> list[str]:
    notes = [
        "A documented figure is the authors', on their hardware, with their weights and data. A "
        "speed that is met here is a pass whatever the hardware; one that is not met is a failure "
        "only on a GPU, else it is not comparable.",
        "Parameters, operations, rates and errors are computed again: from the networks, from "
        "counts of cases, and from published predictions whose files are given (`--predictions`). "
        "Other accuracy cannot be measured without the authors' weights and data.",
    ]
    if plan.earlier:
        notes.append("Nothing was measured for this table: it is put together from earlier runs.")
    return notes
