"""What `hilum bench compare` found, as Markdown."""

from __future__ import annotations

from ..instrument.compare import Change, Comparison
from .tables import NOTHING, Grid, grid_markdown, number


def markdown(found: Comparison) -> str:
    """A sentence, the table of all changes, and the notes."""
    lines = [_headline(found), "", *grid_markdown(change_grid(found)), ""]
    lines += [f"- {note}" for note in found.notes]
    return "\n".join(lines).rstrip() + "\n"


def change_grid(found: Comparison) -> Grid:
    """One row per lane and figure."""
    rows = tuple(_cells(change) for change in found.changes)
    head = ("lane", "figure", "before", "after", "change", "interval", "verdict")
    return Grid("Changes", head, rows)


def _headline(found: Comparison) -> str:
    counts = {
        verdict: sum(change.verdict == verdict for change in found.changes)
        for verdict in ("slower", "faster", "no real difference", "cannot tell")
    }
    counted = ", ".join(f"{n} {verdict}" for verdict, n in counts.items() if n)
    failing = f", {len(found.fails_more)} failing more often" if found.fails_more else ""
    return (
        f"{counted or 'nothing was done in both runs'}{failing}. Changes below "
        f"{100 * found.threshold:.3g} % do not matter; in {found.level:.0%} of comparisons of an "
        "unchanged build nothing is called changed."
    )


def _cells(change: Change) -> tuple[str, ...]:
    ratio = change.ratio
    between = NOTHING
    if ratio.low is not None and ratio.high is not None:
        between = f"{_percent(ratio.low)} … {_percent(ratio.high)}"
    return (
        change.lane, change.figure,
        f"{number(change.before)} {change.unit}", f"{number(change.after)} {change.unit}",
        _percent(ratio.value), between, change.verdict,
    )  # fmt: skip


def _percent(ratio: float) -> str:
    return f"{100 * (ratio - 1):+.1f} %"
