"""The report of a check as Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hilum.catalog import SYSTEMS

from .checked import Checked
from .graphs import precisions_of

MiB = 1 << 20

LONGEST = 160
"""Characters of a message in a table."""


def page(results: Sequence[Checked]) -> str:
    """Totals, what was not checked, one row for each graph, and what the compiler remarked."""
    failed = [c for c in results if c.status != "ok"]
    compilers = ", ".join(sorted({c.compiler for c in results})) or "nothing"
    parts = [
        "# ONNX graphs through NVIDIA's parser and compiler\n",
        f"{len(results) - len(failed)} of {len(results)} graphs passed: parsed as strongly typed "
        f"networks and built ahead of time by {compilers}, without a GPU, with all their "
        "optimisation profiles. Random weights. Not a medical device.\n",
        _missing(results),
        _table(results),
    ]
    if failed:
        rows = "".join(f"- `{c.model}` {c.precision}: {_short(c.reason)}\n" for c in failed)
        parts.append(f"## Failed\n\n{rows}")
    if remarks := _remarks(results):
        parts.append(f"## What parser and builder remarked\n\n{remarks}")
    if changed := [c for c in results if c.changed]:
        rows = "".join(f"- `{c.model}` {c.precision}: {', '.join(c.changed)}\n" for c in changed)
        parts.append(
            "## Types that TensorRT does not take\n\nThese files were exported for ONNX Runtime. A "
            "copy was checked in which the inputs are as wide as `--target tensorrt` makes them."
            f"\n\n{rows}"
        )
    return "\n".join(parts)


def _missing(results: Sequence[Checked]) -> str:
    have = {(c.model, c.precision) for c in results}
    lines = []
    for system in SYSTEMS.values():
        for precision in precisions_of(system):
            missing = [n.name for n in system.networks if (n.model, precision) not in have]
            if missing:
                lines.append(f"- {system.name} {precision}: {', '.join(missing)}\n")
    return f"## Not checked\n\n{''.join(lines)}" if lines else "Every network was checked.\n"


def _table(results: Sequence[Checked]) -> str:
    rows = "".join(
        f"| {c.system} | {c.network} | {c.precision} | {c.status} | {c.layers} "
        f"| {c.onnx_bytes / MiB:.1f} | {c.engine_bytes / MiB:.1f} "
        f"| {c.parse_seconds:.1f} | {c.build_seconds:.1f} | {c.peak_bytes / MiB:.0f} "
        f"| `{c.onnx_sha256[:12]}` |\n"
        for c in results
    )
    return (
        "## Graphs\n\nSizes in MiB, times in s; memory is the largest of the building process.\n\n"
        "| system | network | precision | | layers | ONNX | engine | parse | build | memory "
        f"| sha256 |\n|---|---|---|---|--:|--:|--:|--:|--:|--:|---|\n{rows}"
    )


def _remarks(results: Sequence[Checked]) -> str:
    """Each message once, numbers and names left out, with how many graphs had it."""
    counts: dict[str, set[tuple[str, str]]] = {}
    for checked in results:
        for message in checked.messages:
            text = re.sub(r"0x[0-9a-f]+|\d+", "…", message)
            text = re.sub(r"'[^']*'|\"[^\"]*\"|\S*/\S+", "…", text)
            counts.setdefault(_short(text), set()).add((checked.model, checked.precision))
    rows = sorted(counts.items(), key=lambda item: (-len(item[1]), item[0]))
    return "".join(f"- {len(graphs)} ×: {text}\n" for text, graphs in rows)


def _short(text: str) -> str:
    line = " ".join(text.split()).replace("|", "¦")
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}…"
