"""DLPE between its networks: Hilum's steps against a direct NumPy implementation, in one run.

The scan is generated: the lungs, airways and vessels of the chest phantom on a grid of normalised
space, and scores as smooth as the networks' probabilities. The direct implementation
(`dlpe_direct`) follows the definitions word for word: full sorts, loops over pixels, sets of
voxels. Where it would take many minutes it works on a part, and its time is extrapolated by
foreground voxels; the report says so.
"""

from __future__ import annotations

import statistics
import time
import tracemalloc
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import cv2
import numpy as np
import scipy
from numpy.typing import NDArray

from ..catalog.dlpe import (
    AIRWAY,
    FIELD_MM,
    HU_OFFSET,
    HU_SCALE,
    LOWEST_RATIO,
    LUNG_KEEP,
    RING_CAPS,
    RING_RATIOS,
    VESSEL,
    Tree,
)
from ..postprocessing.connectivity import refine
from ..postprocessing.enhancement import enhance
from ..postprocessing.ranks import channels, tree_mask
from ..postprocessing.tubes import Growth, extend_each
from ..preprocessing.phantom_ct import chest_ct
from . import dlpe_direct as direct
from .instrument.machine import hardware

GROWTHS = tuple(Growth(r, c) for r, c in zip(RING_RATIOS, RING_CAPS, strict=True))

ENHANCEMENT = "enhancement, parity, extension included"
"""Name of the row that is a stage of a study."""

Mask = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Scan:
    """A generated scan in normalised space, all arrays [side, side, side].

    Attributes
    ----------
    ct
        float32, normalised.
    lung
        uint8, 0 or 1.
    airway, vessel
        float32, 0…3, like sums of three probabilities.
    """

    ct: NDArray[np.float32]
    lung: Mask
    airway: NDArray[np.float32]
    vessel: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Row:
    """One step.

    Attributes
    ----------
    seconds
        Median over the rounds.
    peak_bytes
        Most memory that the step held at a time, results included, inputs not.
    direct_seconds
        Of the direct implementation, on all of the scan.
    direct_on
        What was measured of it.
    ratio
        Direct seconds divided by seconds.
    equal
        The results agree wherever both are known.
    """

    step: str
    seconds: float
    peak_bytes: int
    direct_seconds: float
    direct_on: str
    ratio: float
    equal: bool


@dataclass(frozen=True, slots=True)
class _Run:
    """A step of Hilum, measured."""

    seconds: float
    peak_bytes: int
    result: Any

    def row(self, step: str, direct_seconds: float, direct_on: str, equal: bool) -> Row:
        return Row(
            step, self.seconds, self.peak_bytes, direct_seconds, direct_on,
            direct_seconds / self.seconds, equal,
        )  # fmt: skip


def measure(
    side: int = 512,
    seed: int = 7,
    *,
    rounds: int = 3,
    slices: int = 6,
    block: int = 96,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Measure the steps on a generated scan.

    Parameters
    ----------
    side
        Voxels along each axis of normalised space, 32 or more.
    seed
        Of the generated patient.
    rounds
        Runs of each step of Hilum; the direct implementation runs once.
    slices
        Slices in which the direct implementation enlarges tubes.
    block
        Side of the cube that it refines.
    """
    progress(f"generate a scan of {side}³ voxels")
    scan = make_scan(side, seed)
    rows: list[Row] = []

    def done(row: Row) -> None:
        progress(f"{row.step}: {row.seconds:.2f} s, direct {row.direct_seconds:.1f} s")
        rows.append(row)

    done(_channels(scan, rounds))
    masks = {}
    for name, score, tree in (("airways", scan.airway, AIRWAY), ("vessels", scan.vessel, VESSEL)):
        row, masks[name] = _final_mask(scan, name, score, tree, rounds)
        done(row)
    structures = (masks["airways"] | masks["vessels"]) & scan.lung
    extension, outlines = _extension(structures, rounds, slices)
    done(extension)
    done(_corrected_extension(structures, rounds, slices))
    done(_enhancement(scan, masks, structures, outlines, extension.direct_seconds, rounds))
    del outlines
    done(_refinement("lungs", scan.lung, LUNG_KEEP, LOWEST_RATIO, rounds, block))
    for name, tree in (("airways", AIRWAY), ("vessels", VESSEL)):
        done(_refinement(name, masks[name], tree.keep, tree.lowest_ratio, rounds, block))
    return {
        "title": "DLPE between its networks",
        "command": f"hilum.benchmarks.dlpe_steps.measure({side}, {seed}, rounds={rounds}, "
        f"slices={slices}, block={block})",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": hardware(),
        "versions": {
            "numpy": np.__version__,
            "scipy": scipy.__version__,
            "opencv": cv2.__version__,
        },
        "side": side,
        "seed": seed,
        "rounds": rounds,
        "lung_voxels": int(np.count_nonzero(scan.lung)),
        "structure_voxels": int(np.count_nonzero(structures)),
        "rows": [asdict(row) for row in rows],
    }


def markdown(report: Mapping[str, Any]) -> str:
    """The report as Markdown."""
    versions = ", ".join(f"{name} {number}" for name, number in report["versions"].items())
    lines = [
        f"# {report['title']}",
        "",
        f"{report['side']}³ voxels, {report['lung_voxels']} of lung, "
        f"{report['structure_voxels']} of airways and vessels in it; {report['hardware']}; "
        f"{versions}; medians of {report['rounds']} rounds. `{report['command']}`",
        "",
        "| step | seconds | peak MB | direct NumPy, seconds | measured on | ratio | equal |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {r['step']} | {r['seconds']:.2f} | {r['peak_bytes'] / 1e6:.0f} "
        f"| {r['direct_seconds']:.1f} | {r['direct_on']} | {r['ratio']:.1f} "
        f"| {'yes' if r['equal'] else 'NO'} |"
        for r in report["rows"]
    ]
    return "\n".join(lines) + "\n"


def make_scan(side: int, seed: int) -> Scan:
    """Generate a scan: the phantom on the grid, and scores that fall off around its trees."""
    z, y, x = FIELD_MM[2] / side, FIELD_MM[0] / side, FIELD_MM[1] / side
    phantom = chest_ct(seed, slices=side, size=side, spacing=(z, y, x))
    rng = np.random.default_rng(seed)
    ct = _turned(phantom.volume.voxels.astype(np.float32))
    ct -= HU_OFFSET
    ct /= HU_SCALE
    near = [cv2.GaussianBlur(plane, (0, 0), 1.0) for plane in (phantom.lung > 0).astype(np.float32)]
    scores = []
    for truth, reach in ((phantom.airway, 1.5), (phantom.vessel, 2.0)):
        score = np.empty(truth.shape, np.float32)
        for out, plane, lung in zip(score, truth, near, strict=True):
            blurred = cv2.GaussianBlur(plane.astype(np.float32), (0, 0), reach * side / 512)
            grain = cv2.GaussianBlur(rng.standard_normal(plane.shape, np.float32), (0, 0), 1.5)
            out[...] = 3 * np.clip(blurred + (0.002 + 0.02 * lung) * grain, 0, 1)
        scores.append(_turned(score))
    return Scan(ct, _turned((phantom.lung > 0).astype(np.uint8)), *scores)


def _turned(array: NDArray[Any]) -> NDArray[Any]:
    """Turn [z, y, x] in LPS order into normalised space."""
    return np.ascontiguousarray(array.transpose(1, 2, 0))


def _run(step: Callable[[], Any], rounds: int) -> _Run:
    """Time a step, and run it once more to see how much memory it takes."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    tracemalloc.start()
    result = step()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return _Run(statistics.median(times), peak, result)


def _timed(step: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = step()
    return time.perf_counter() - start, result


def _channels(scan: Scan, rounds: int) -> Row:
    run = _run(lambda: channels(scan.lung, scan.vessel, VESSEL), rounds)
    shares = (VESSEL.high_recall, VESSEL.high_precision)
    seconds, wanted = _timed(
        lambda: [direct.rank_mask(scan.lung, scan.vessel, share) for share in shares]
    )
    equal = all(np.array_equal(a, b) for a, b in zip(run.result, wanted, strict=True))
    return run.row("rank thresholds and masks, two channels of vessels", seconds, "all", equal)


def _final_mask(
    scan: Scan, name: str, score: NDArray[np.float32], tree: Tree, rounds: int
) -> tuple[Row, Mask]:
    run = _run(lambda: tree_mask(scan.lung, score, tree.ratio), rounds)
    seconds, wanted = _timed(lambda: direct.rank_mask(scan.lung, score, tree.ratio))
    equal = np.array_equal(run.result, wanted)
    return run.row(f"rank threshold and final mask of {name}", seconds, "all", equal), run.result


def _extension(structures: Mask, rounds: int, slices: int) -> tuple[Row, tuple[Mask, ...]]:
    run = _run(lambda: extend_each(structures, GROWTHS), rounds)

    def by_definition(plane: Mask, growth: Growth) -> Mask:
        return direct.extend_plane(plane, growth.ratio, growth.cap)

    told = _by_slices(structures, run.result, slices, by_definition)
    return run.row("tube extension by both ratios, parity", *told), run.result


def _corrected_extension(structures: Mask, rounds: int, slices: int) -> Row:
    run = _run(lambda: extend_each(structures, GROWTHS, "corrected"), rounds)

    def by_definition(plane: Mask, growth: Growth) -> Mask:
        percent = round(100 * (growth.ratio - 1))
        return direct.extend_plane_corrected(plane, percent, growth.cap)

    told = _by_slices(structures, run.result, slices, by_definition)
    return run.row("tube extension by both ratios, corrected", *told)


def _by_slices(
    structures: Mask,
    results: tuple[Mask, ...],
    slices: int,
    by_definition: Callable[[Mask, Growth], Mask],
) -> tuple[float, str, bool]:
    """Seconds of the direct implementation on all slices, what they come from, and equality."""
    voxels = np.count_nonzero(structures, axis=(0, 1))
    filled = np.flatnonzero(voxels)
    chosen = filled[np.linspace(0, len(filled) - 1, min(slices, len(filled))).round().astype(int)]
    start, equal = time.perf_counter(), True
    for z in chosen:
        for growth, result in zip(GROWTHS, results, strict=True):
            wanted = by_definition(structures[:, :, z], growth)
            equal &= np.array_equal(result[:, :, z], wanted)
    seconds = (time.perf_counter() - start) * voxels.sum() / voxels[chosen].sum()
    return float(seconds), f"{len(chosen)} of {len(filled)} slices, extrapolated", equal


def _enhancement(
    scan: Scan,
    masks: Mapping[str, Mask],
    structures: Mask,
    outlines: tuple[Mask, ...],
    extension_seconds: float,
    rounds: int,
) -> Row:
    run = _run(lambda: enhance(scan.ct, scan.lung, masks["airways"], masks["vessels"]), rounds)
    seconds, (volume, baseline, std) = _timed(
        lambda: direct.enhance(scan.ct, scan.lung, structures, *outlines)
    )
    found = run.result
    equal = (found.baseline, found.std) == (baseline, std) and np.array_equal(found.volume, volume)
    return run.row(
        ENHANCEMENT,
        seconds + extension_seconds,
        f"all ({seconds:.1f} s), the extension as above",
        equal,
    )


def _refinement(
    name: str, mask: Mask, keep: int, lowest_ratio: float, rounds: int, block: int
) -> Row:
    run = _run(lambda: refine(mask, keep, lowest_ratio), rounds)
    part = _fullest(mask, block)
    seconds, wanted = _timed(lambda: direct.refine(part, keep, lowest_ratio))
    equal = np.array_equal(refine(part, keep, lowest_ratio), wanted)
    voxels, some = np.count_nonzero(mask), np.count_nonzero(part)
    shape = " × ".join(str(n) for n in part.shape)
    return run.row(
        f"connectivity refinement of {name}",
        seconds * voxels / some,
        f"{some} of {voxels} voxels ({shape}), extrapolated",
        equal,
    )


def _fullest(mask: Mask, block: int) -> Mask:
    """The block with the most foreground."""
    starts = [range(0, max(n - block, 0) + 1, block) for n in mask.shape]
    parts = (
        mask[x : x + block, y : y + block, z : z + block]
        for x in starts[0]
        for y in starts[1]
        for z in starts[2]
    )
    return max(parts, key=lambda part: int(np.count_nonzero(part)))
