"""Where the time of a DLPE study goes: stages, networks, transfer, bytes; and what 512³ would take.

What the client tells (seconds by stage, requests, bytes) comes from the process of the study; what
the networks took, from Triton's own counts before and after.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..catalog import dlpe as catalog
from ..client import Client
from ..client.models import ModelStatistics
from .dlpe_study import Measured
from .instrument.watched import Asked

Counts = Mapping[str, ModelStatistics]
"""By Triton model."""

NORMALISE, WRITE = "normalise", ("write files", "write pictures")

TITLES = {
    NORMALISE: "read and normalise",
    "stage_one": "stage one: lungs, airways, vessels",
    "masks": "masks of sums and final ranks",
    "ranks": "rank thresholds and channels of stage two",
    "stage_two": "stage two: airways, vessels",
    "enhancement": "enhancement, tube extension included",
    "lesions": "lesions on the enhanced volume",
    "visible_lesions": "visible lesions",
    "other": "the rest: the server asked about itself, the result put together",
    "write files": "write volumes (NIfTI) and the windowed series",
    "write pictures": "write panels and montages",
}
"""Stages that the report names in words."""

NETWORK_STAGES = frozenset({"stage_one", "stage_two", "lesions", "visible_lesions"})


@dataclass(frozen=True, slots=True)
class Run:
    """One study and what the server counted meanwhile."""

    study: Measured
    before: Counts
    after: Counts

    def gained(self, model: str, read: Callable[[ModelStatistics], float]) -> float:
        """How much one of the server's counts grew."""
        return read(self.after[model]) - read(self.before[model])


def statistics_of(client: Client, models: Iterable[str]) -> Counts:
    """The server's counts of models."""
    return {model: client.statistics(model) for model in models}


def waterfall(
    runs: Sequence[Run], grid: int, measured_at_512: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """Medians over the runs, ready for JSON.

    Parameters
    ----------
    measured_at_512
        Seconds of stages that were measured at 512³ in the same run.
    """
    studies = [run.study for run in runs]
    last = studies[-1]
    stages = _stages(studies, grid, measured_at_512 or {})
    return {
        "stages": stages,
        "read_alone_seconds": _median(s.read_s for s in studies),
        "seconds": sum(s["seconds"] for s in stages),
        "seconds_at_512": sum(s["seconds_at_512"] for s in stages),
        "models": _models(runs),
        "networks": _networks(runs),
        "local_seconds": _median(s.local_s for s in studies),
        "counts": last.counts,
        "transport": last.transport,
        "flags": list(last.flags),
        "written_bytes": last.written_bytes,
        "client_start_bytes": max(s.start_bytes for s in studies),
        "client_peak_bytes": max(s.peak_bytes for s in studies),
        "study_seconds": [s.seconds for s in studies],
    }


def stage_seconds(study: Measured) -> dict[str, float]:
    """All stages of a study from reading to writing, in order."""
    found = dict(study.timings)
    # What the stages do not name: the result put together, minima and maxima.
    found["other"] = max(study.seconds - sum(found.values()), 0.0)
    return found | study.write_s


def _stages(
    studies: Sequence[Measured], grid: int, measured_at_512: Mapping[str, float]
) -> list[dict[str, Any]]:
    factor = (catalog.SIDE / grid) ** 3
    rounds = [stage_seconds(study) for study in studies]
    found = []
    for name in rounds[-1]:
        seconds = _median(r[name] for r in rounds)
        if name in measured_at_512:
            larger, how = measured_at_512[name], "measured at 512³, on a generated scan"
        elif name in WRITE:
            larger, how = seconds, "as it is, by the series"
        elif name == NORMALISE:
            reading = min(_median(s.read_s for s in studies), seconds)
            larger = reading + (seconds - reading) * factor
            how = f"reading as it is, the rest × {factor:g}"
        else:
            larger, how = seconds * factor, f"× {factor:g}, by voxels"
        found.append(
            {
                "stage": name,
                "title": TITLES.get(name, name),
                "seconds": seconds,
                "seconds_at_512": larger,
                "how": how,
            }
        )
    return found


def _models(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """What was asked, the three directions together; sums over overlapping requests."""
    found = []
    for stem in dict.fromkeys(m.rpartition("_")[0] for m in runs[-1].study.asked):
        models = [m for m in runs[-1].study.asked if m.rpartition("_")[0] == stem]
        rounds = [_asked(run, models) for run in runs]
        found.append({"model": stem} | {k: _median(r[k] for r in rounds) for k in rounds[0]})
    return found


def _asked(run: Run, models: Sequence[str]) -> dict[str, float]:
    asked = [run.study.asked.get(m, Asked()) for m in models]
    client = sum(a.seconds for a in asked)
    server = sum(run.gained(m, lambda s: s.success_s) for m in models)
    return {
        "requests": sum(a.requests for a in asked),
        "slices": sum(a.slices for a in asked),
        "bytes_sent": sum(a.bytes_sent for a in asked),
        "bytes_received": sum(a.bytes_received for a in asked),
        "client_seconds": client,
        "server_seconds": server,
        "transfer_seconds": client - server,
    }


def _networks(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """By task: slices, what the networks computed and how long requests waited for them."""
    found = []
    for task in catalog.TASKS.values():
        models = {d: task.network(d).model for d in catalog.DIRECTIONS}
        slices = sum(runs[-1].study.passes.get(m, 0) for m in models.values())
        if not slices:
            continue
        compute = {d: _median(run.gained(m, _compute) for run in runs) for d, m in models.items()}
        waited = [sum(run.gained(m, lambda s: s.queue_s) for m in models.values()) for run in runs]
        copied = [sum(run.gained(m, _copies) for m in models.values()) for run in runs]
        found.append(
            {
                "task": task.name,
                "title": task.title,
                "slices": slices,
                "compute_seconds": compute,
                "copy_seconds": _median(copied),
                "queue_seconds": _median(waited),
                "ms_per_slice": 1e3 * sum(compute.values()) / slices,
            }
        )
    return found


def _compute(counts: ModelStatistics) -> float:
    return counts.compute_infer_s


def _copies(counts: ModelStatistics) -> float:
    return counts.compute_input_s + counts.compute_output_s


def _median(values: Iterable[float]) -> float:
    return statistics.median(values)
