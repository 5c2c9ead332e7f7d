"""The DLPE benchmark as Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..catalog import dlpe as catalog
from . import dlpe_steps

MB, GB = 1e6, 1e9

Part = Mapping[str, Any]


def markdown(report: Part) -> str:
    """The report as Markdown; what was not measured says so."""
    versions = ", ".join(f"{name} {number}" for name, number in report["versions"].items())
    lines = [
        f"# DLPE: {report['title']}",
        "",
        f"{report['hardware']}; {versions}; weights: {report['weights']}. Load "
        f"average before: {report['load_before']:.2f}. `{report['command']}`",
        "",
        "**EXTRAPOLATED** figures were not measured: they are what a smaller run gives in "
        "proportion to the voxels.",
    ]
    if report["study"] is not None:
        lines += _study(report["study"], report)
    if report["published"] is not None:
        lines += _published(report["published"], report)
    if report["stage_one"] is not None:
        lines += _stage_one(report["stage_one"])
    if report["steps"] is not None:
        lines += ["", "#" + dlpe_steps.markdown(report["steps"]).rstrip("\n")]
    return "\n".join(lines) + "\n"


def _study(study: Part, report: Part) -> list[str]:
    counts = study["counts"]
    return [
        "",
        f"## A study on a grid of {report['grid']}³, through Triton",
        "",
        f"{study['series']}, a generated DICOM series in the page cache; medians of "
        f"{report['rounds']} rounds. {counts['passes']} of {counts['published_passes']} passes of "
        f"networks, {counts['slabs']} slabs, at most {counts['most_in_flight']} in flight, over "
        f"{study['transport']}; {counts['bytes_sent'] / MB:.0f} MB sent, "
        f"{counts['bytes_received'] / MB:.0f} MB received, {study['written_bytes'] / MB:.0f} MB "
        "written.",
        "",
        *_waterfall(study),
        "",
        _minutes(study, report),
        "",
        "Inside the stages with networks. Seconds here are sums over requests, several of which "
        "are in work at once.",
        "",
        *_table(
            ("asked", "requests", "slices", "MB sent", "MB received", "client waits s",
             "in the server s", "transfer s"),
            [
                (m["model"], f"{m['requests']:.0f}", f"{m['slices']:.0f}",
                 f"{m['bytes_sent'] / MB:.0f}", f"{m['bytes_received'] / MB:.0f}",
                 f"{m['client_seconds']:.2f}", f"{m['server_seconds']:.2f}",
                 f"{m['transfer_seconds']:.2f}")
                for m in study["models"]
            ],
        ),
        "",
        f"Cutting slabs and adding probabilities in the client: {study['local_seconds']:.2f} s.",
        "",
        *_table(
            ("network", "slices", *(f"compute {d.upper()} s" for d in catalog.DIRECTIONS),
             "copies s", "queue s", "ms per slice"),
            [
                (n["title"], n["slices"],
                 *(f"{n['compute_seconds'][d]:.2f}" for d in catalog.DIRECTIONS),
                 f"{n['copy_seconds']:.2f}", f"{n['queue_seconds']:.2f}",
                 f"{n['ms_per_slice']:.1f}")
                for n in study["networks"]
            ],
        ),
        "",
        f"Memory: the client {_gb(study['client_peak_bytes'])} at most "
        f"({_gb(study['client_start_bytes'])} before the study). {_server(study['server_memory'])}",
    ]  # fmt: skip


def _waterfall(study: Part) -> list[str]:
    total, larger = study["seconds"], study["seconds_at_512"]
    rows = [
        (s["title"], f"{s['seconds']:.2f}", f"{s['seconds'] / total:.1%}",
         f"{s['seconds_at_512']:.1f}", s["how"])
        for s in study["stages"]
    ]  # fmt: skip
    alone = f"{study['read_alone_seconds']:.2f}"
    rows.insert(1, ("– reading alone, slice after slice, on its own", alone, "", "", ""))
    rows.append(("**total**", f"**{total:.2f}**", "", f"**{larger:.1f}**", ""))
    head = ("stage", "seconds", "share", "seconds at 512³, EXTRAPOLATED", "how")
    return _table(head, rows)


def _minutes(study: Part, report: Part) -> str:
    documented = "; ".join(
        f"{f['value']:g} {f['unit']} on {f['hardware']} ({f['source']})"
        for f in report["documented"]
    )
    text = (
        f"**Minutes per scan: {study['seconds'] / 60:.2f} at {report['grid']}³; at 512³ "
        f"{study['seconds_at_512'] / 60:.1f} EXTRAPOLATED.** Documented: {documented}; measured by "
        "the authors, not here."
    )
    by_stage_one = study.get("networks_at_512_by_stage_one")
    if by_stage_one is not None:
        text += (
            " By the seconds that one slice of 512 × 512 took in stage one below, the networks "
            f"alone take {by_stage_one / 60:.1f} minutes at 512³, EXTRAPOLATED."
        )
    return text


def _published(found: Part, report: Part) -> list[str]:
    own, other = (statistics.median(found[key]) for key in ("seconds", "published_seconds"))
    return [
        "",
        "## Beside the published procedure",
        "",
        f"PyTorch eager on {found['threads']} threads (the faster of one and all cores), one "
        "direction after the other, batch 4, full sorts, pixels one by one; tube extension in one "
        "process (the published program uses 32). The same normalised volume and the same "
        "weights, in turns with the studies above; reading, normalising and writing are left out "
        "of both.",
        "",
        f"**{own:.1f} s, published procedure {other:.1f} s: ratio {found['ratio']:.2f}** (median "
        f"over {report['rounds']} rounds). {found['passes']} and {found['published_passes']} "
        f"passes; for each pass the ratio is {found['ratio_per_pass']:.2f}. At 512³ the published "
        f"procedure takes {found['published_seconds_at_512'] / 60:.0f} minutes on this machine, "
        "EXTRAPOLATED.",
        "",
        *_table(
            ("stage", "seconds", "published procedure, seconds", "ratio"),
            [
                (s["title"], f"{s['seconds']:.2f}", f"{s['published_seconds']:.2f}",
                 f"{s['ratio']:.2f}")
                for s in found["stages"]
            ],
        ),
        "",
        *_table(
            ("mask", "voxels", "differing"),
            [(m["mask"], m["voxels"], m["differing"]) for m in found["masks"]],
        ),
        "",
        f"Window level {found['level'][0]:.4f} and {found['level'][1]:.4f} HU, width "
        f"{found['width'][0]:.4f} and {found['width'][1]:.4f} HU.",
    ]  # fmt: skip


def _stage_one(found: Part) -> list[str]:
    full = found["all_slices"]
    label = " EXTRAPOLATED" if full["extrapolated"] else ""
    return [
        "",
        f"## Stage one at {found['side']}³, direction {found['direction'].upper()}",
        "",
        f"Lungs, airways and vessels of {found['slices']} of {found['side']} slices in "
        f"{found['slabs']} slabs of {found['slab_type']}; blocks of slabs by turns. Triton over "
        f"{found['transport']}, {found['in_flight']} slabs in flight; ONNX Runtime in process with "
        "its defaults, one network after the other.",
        "",
        *_table(
            ("lane", "seconds", f"seconds for all slices{label}", "peak memory of the process"),
            [
                ("Triton", f"{found['triton_seconds']:.1f}", f"{full['triton_seconds']:.0f}",
                 _gb(found["client_peak_bytes"])),
                ("ONNX Runtime in process", f"{found['in_process_seconds']:.1f}",
                 f"{full['in_process_seconds']:.0f}", _gb(found["in_process_peak_bytes"])),
            ],
        ),
        "",
        f"**Speed to that of ONNX Runtime in process: {found['ratio']:.3f}** (median over "
        f"{len(found['blocks'])} blocks {found['ratio_of_blocks']:.3f}); "
        f"{found['seconds_per_pass']:.3f} s for one slice through one network; probabilities "
        f"differ by {found['deviation']:.1e} at most, at the voxels compared. "
        f"{_server(found['server'])}",
    ]  # fmt: skip


def _server(memory: Part) -> str:
    return (
        f"The server's {memory['processes']} processes: {_gb(memory['sampled_peak_bytes'])} at "
        "most (proportional set sizes, a sample every five seconds); "
        f"{_gb(memory['upper_bound_bytes'])} as the sum of what each had at most since it began "
        "(shared pages counted for each)."
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    line = "|---" * len(head) + "|"
    return [_row(head), line, *(_row(row) for row in rows)]


def _row(cells: Sequence[Any]) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def _gb(count: float) -> str:
    return f"{count / GB:.2f} GB"
