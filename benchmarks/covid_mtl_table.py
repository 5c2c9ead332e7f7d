"""The COVID-MTL benchmark as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from . import radiomics
from .covid_mtl_study import CLIENT, SERVER

GB = 1e9

SAME = 0.05
"""Probabilities of the same network, in whatever precision, differ by less."""

TITLES = {
    "read": "read the series",
    "resample": "resample to 1 mm",
    "lungs": "lungs: thresholds and active contours",
    "box": "common box",
    "features": "375 radiomic features",
    "network": "network, the way there and back included",
}
"""Stages by the pipeline's names."""

Part = Mapping[str, Any]


def markdown(report: Part) -> str:
    """The report as Markdown; what was not measured says so."""
    versions = ", ".join(f"{name} {number}" for name, number in report["versions"].items())
    lines = [
        f"# COVID-MTL: {report['title']}",
        "",
        f"{report['hardware']}; {versions}; weights: {report['weights']}. Load average before: "
        f"{report['load_before']:.2f}, after: {report['load_after']:.2f}. `{report['command']}`",
    ]
    if report["scale"] != 1:
        lines += [
            "",
            f"**Not the full size**: the phantom's body has {report['scale']:g} of an adult's "
            "height, width and depth, and the box in which the published procedure computes the "
            "features shrinks with it; that of the networks does not.",
        ]
    if report["study"] is not None:
        lines += _study(report["study"], report["published"], report)
        if report["published"] is not None:
            lines += _checks(report["published"], report["study"])
    if report["several"] is not None:
        lines += _several(report["several"])
    if report["radiomics"] is not None:
        lines += ["", "#" + radiomics.markdown(report["radiomics"]).rstrip("\n")]
        lines += ["", _criterion(report["radiomics"])]
    return "\n".join(lines) + "\n"


def _study(study: Part, published: Part | None, report: Part) -> list[str]:
    client, server = (study["placements"][p] for p in (CLIENT, SERVER))
    shape = " × ".join(str(n) for n in study["shape"])
    rows = [
        (
            title,
            f"{client['stages'][name]:.2f}",
            _in_server(server["stages"], name),
            *_published(published, name),
        )
        for name, title in TITLES.items()
    ]
    rows.append(("the rest", f"{client['rest']:.2f}", f"{server['rest']:.2f}", "", ""))
    theirs, ratio = "", ""
    if published is not None:
        theirs = f"**{median(published['seconds']):.2f}**"
        ratio = f"**{published['ratio'][CLIENT]:.2f}**"
    total = ("**total**", f"**{client['total']:.2f}**", f"**{server['total']:.2f}**", theirs, ratio)
    lines = [
        "",
        "## Seconds per study, through Triton",
        "",
        f"{study['series']}, a generated DICOM series in the page cache: {shape} voxels of 1 mm, "
        f"{study['lung_voxels']} of lung; {report['rounds']} round(s), medians. Tensors travel "
        f"over {study['transport']}. Flags of the result: {', '.join(study['flags']) or 'none'}; "
        f"{study['clipped']} features limited, {study['replaced']} replaced.",
        "",
        *_table(
            (
                "stage",
                "features by the client, s",
                "features by the server, s",
                "published procedure, s",
                "times faster (client)",
            ),
            [*rows, total],
        ),
        "",
        f"Features computed by the server take {study['server_to_client']:.2f} times as long per "
        "study: there they are part of the request, and one process computes them.",
        "",
        f"Memory: the client and its processes {_gb(study['client_peak_bytes'])} (sum of what each "
        f"had at most), the server's {study['server_memory']['processes']} processes "
        f"{_gb(study['server_memory']['upper_bound_bytes'])} (likewise; pages that several share "
        "count for each)"
        + (
            "."
            if published is None
            else f", the published procedure {_gb(published['peak_bytes'])}."
        ),
    ]
    if published is not None:
        lines += [
            "",
            f"**The published procedure takes {published['ratio'][CLIENT]:.2f} times as long** "
            f"({published['ratio'][SERVER]:.2f} with the features computed by the server): one "
            "process, slices refined one after another, SciPy's zoom, PyRadiomics on the whole "
            "common box with a wavelet transform for each of two passes, PyTorch eager on "
            f"{published['threads']} thread(s). Same series, same weights, same run.",
        ]
    return lines


def _in_server(stages: Mapping[str, float], name: str) -> str:
    return "in the request" if name == "features" else f"{stages[name]:.2f}"


def _published(published: Part | None, name: str) -> tuple[str, str]:
    if published is None:
        return "not measured", ""
    stage = published["stages"][name]
    return f"{stage['seconds']:.2f}", f"{stage['ratio']:.2f}"


def _checks(published: Part, study: Part) -> list[str]:
    rows = [
        (
            f"features by the {placement}",
            f"{c['mask_differing']} of {c['mask_voxels']}",
            f"{c['features']:.1e}",
            f"{c['probabilities']:.1e}",
        )
        for placement, c in published["checks"].items()
    ]
    return [
        "",
        "## The same answers",
        "",
        "How far Hilum's answers are from the published procedure's. To compare probabilities, "
        f"both limit the features to the same range ({study['clipped']} of them lie outside it).",
        "",
        *_table(
            (
                "",
                "lung voxels that differ",
                "features, largest relative difference",
                "probabilities, largest difference",
            ),
            rows,
        ),
        *_other_weights(published),
    ]


def _other_weights(published: Part) -> list[str]:
    if max(c["probabilities"] for c in published["checks"].values()) <= SAME:
        return []
    return [
        "",
        "**Other weights**: the repository does not serve the network that the published procedure "
        "ran, so the probabilities say nothing; export it anew, or leave out --repository.",
    ]


def _several(several: Part) -> list[str]:
    return [
        "",
        "## Several studies at once",
        "",
        f"{several['studies']} studies each, features by the client, one pool of processes for "
        "all: while one study's features are computed, another's lungs or volume are in work.",
        "",
        *_table(
            ("in flight", "seconds", "studies per minute", "gain"),
            [
                (
                    r["in_flight"],
                    f"{r['seconds']:.1f}",
                    f"{60 * r['per_second']:.2f}",
                    f"{r['gain']:.2f}",
                )
                for r in several["rows"]
            ],
        ),
    ]


def _criterion(report: Part) -> str:
    """Whether the aim for whole lungs is reached by every number of processes."""
    published, *ours = report["rows"]
    slowest = min(r["ratio"] for r in ours)
    by_cpu = min(published["cpu_seconds"] / r["cpu_seconds"] for r in ours)
    most = max(r["peak_bytes"] for r in ours)
    apart = max(r["difference"] for r in ours)
    same = "identical" if apart == 0 else f"equal but for {apart:.0e} of themselves (aim: 1e-9)"
    return (
        f"At least {slowest:.1f} times faster (aim: 3), by CPU seconds {by_cpu:.1f} times; at most "
        f"{_gb(most)} (aim: below 3 GB); values {same}."
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return lines + [f"| {' | '.join(str(cell) for cell in row)} |" for row in rows]


def _gb(count: float) -> str:
    return f"{count / GB:.2f} GB"
