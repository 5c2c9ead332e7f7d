"""A Grafana dashboard of everything in the catalog.

``python -m hilum.server.dashboard > docker/grafana/dashboards/hilum.json``
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from hilum.catalog import SYSTEMS, Ensemble, System

DATASOURCE = {"type": "prometheus", "uid": "hilum-prometheus"}

_WIDTH, _HEIGHT, _COLUMNS = 8, 8, 24


@dataclass(frozen=True, slots=True)
class Panel:
    """One graph: its queries, each with the legend of its lines.

    Attributes
    ----------
    unit
        Grafana's name of the unit (``ms``, ``bytes``, ``short``).
    """

    title: str
    description: str
    queries: tuple[tuple[str, str], ...]
    unit: str = "short"


OVERVIEW = (
    Panel(
        "Studies per hour",
        "Studies that clients finished in the last hour.",
        (
            (
                'sum by (system) (increase(hilum_client_studies_total{outcome="ok"}[1h]))',
                "{{system}}",
            ),
        ),
    ),
    Panel(
        "Failed studies",
        "Per hour, by reason; `input`: the study could not be read.",
        (
            (
                "sum by (system, reason) (increase(hilum_client_study_failures_total[1h])) > 0",
                "{{system}}: {{reason}}",
            ),
        ),
    ),
    Panel(
        "Time of a study",
        "Reading to result; 95 of 100 studies stay below.",
        (
            (
                "histogram_quantile(0.95, sum by (le, system) "
                "(rate(hilum_client_study_duration_seconds_bucket[15m])))",
                "{{system}}",
            ),
        ),
        "s",
    ),
    Panel(
        "GPU memory",
        "Used, and what there is.",
        (
            ("nv_gpu_memory_used_bytes", "{{gpu_uuid}} used"),
            ("nv_gpu_memory_total_bytes", "{{gpu_uuid}} total"),
        ),
        "bytes",
    ),
    Panel(
        "GPU utilisation",
        "Share of the time in which a kernel ran.",
        (("nv_gpu_utilization", "{{gpu_uuid}}"),),
        "percentunit",
    ),
    Panel(
        "Servers and what goes wrong",
        "Servers that answer, failed requests and repeated attempts per second.",
        (
            ('sum(up{job="triton"})', "servers that answer"),
            ("sum by (reason) (rate(nv_inference_request_failure[5m])) > 0", "failed: {{reason}}"),
            ("sum(rate(hilum_client_request_retries_total[5m]))", "repeated attempts"),
        ),
    ),
)

GATEWAY = (
    Panel(
        "Jobs by state",
        "A job is one system on one series; `failed` are set aside until somebody retries them.",
        (("sum by (state) (hilum_gateway_jobs) > 0", "{{state}}"),),
    ),
    Panel(
        "Done per hour",
        "Jobs whose results the PACS has.",
        (('sum(increase(hilum_gateway_jobs{state="done"}[1h]))', "done"),),
    ),
    Panel(
        "Series by state",
        "`seen` are not complete yet, `ignored` are taken by no rule.",
        (("sum by (state) (hilum_gateway_series) > 0", "{{state}}"),),
    ),
    Panel(
        "Age of the oldest job",
        "Of those that are not over.",
        (("hilum_gateway_oldest_job_seconds", "{{instance}}"),),
        "s",
    ),
    Panel(
        "Spool",
        "Images that were fetched, and results.",
        (("hilum_gateway_spool_bytes", "{{instance}}"),),
        "bytes",
    ),
    Panel(
        "Intake waits",
        "1 while nothing is fetched because the disk or the spool is full.",
        (("hilum_gateway_intake_waits", "{{instance}}"),),
    ),
)

BATCH = (
    Panel(
        "Studies by state",
        "Of the ledger; `failed` are set aside until somebody retries them.",
        (("sum by (state) (hilum_batch_studies) > 0", "{{state}}"),),
    ),
    Panel(
        "Done per hour",
        "Studies whose results are committed.",
        (("sum(increase(hilum_batch_study_seconds_count[1h]))", "done"),),
    ),
    Panel(
        "Hours left",
        "At the speed of the last ten minutes.",
        (
            (
                'sum(hilum_batch_studies{state=~"pending|running"}) / '
                "(sum(rate(hilum_batch_study_seconds_count[10m])) > 0) / 3600",
                "left",
            ),
        ),
        "h",
    ),
    Panel(
        "Failed tries by kind",
        "In the last hour; `crash` counts workers that ran out of memory, too.",
        (("sum by (kind) (increase(hilum_batch_failures_total[1h])) > 0", "{{kind}}"),),
    ),
    Panel(
        "Time of a study",
        "95 of 100 take less, from fetching to the committed result.",
        (
            (
                "histogram_quantile(0.95, "
                "sum by (le) (rate(hilum_batch_study_seconds_bucket[15m])))",
                "95 %",
            ),
        ),
        "s",
    ),
    Panel(
        "In flight",
        "Studies that workers have now.",
        (("sum(hilum_batch_in_flight)", "in flight"),),
    ),
)


def system_panels(system: System) -> tuple[Panel, ...]:
    """The graphs of one system; a line for each of its models."""
    every = _selector(m.model for m in system.models())
    # Batches and arithmetic are those of networks and steps; an ensemble has none of its own.
    parts = _selector(m.model for m in system.models() if not isinstance(m, Ensemble))

    def per_request(metric: str, base: str, models: str) -> tuple[tuple[str, str], ...]:
        over = f"(sum by (model) (rate({base}{models}[5m])) > 0)"
        return ((f"sum by (model) (rate({metric}{models}[5m])) / {over}", "{{model}}"),)

    success, count = "nv_inference_request_success", "nv_inference_count"
    return (
        Panel(
            "Requests per second",
            "Answered.",
            ((f"sum by (model) (rate({success}{every}[5m])) > 0", "{{model}}"),),
            "reqps",
        ),
        Panel(
            "Failures by reason",
            "Per second: BACKEND an error of the model, REJECTED a full queue, CANCELED the "
            "client's own doing, OTHER mostly wrong inputs.",
            (
                (
                    f"sum by (model, reason) (rate(nv_inference_request_failure{every}[5m])) > 0",
                    "{{model}}: {{reason}}",
                ),
            ),
            "reqps",
        ),
        Panel(
            "Queue",
            "How long a request waits before a model takes it.",
            per_request("nv_inference_queue_duration_us", success, parts),
            "µs",
        ),
        Panel(
            "Compute",
            "Time in the model, shared by the requests of a batch.",
            per_request("nv_inference_compute_infer_duration_us", count, parts),
            "µs",
        ),
        Panel(
            "Batch size",
            "Items in one execution.",
            per_request(count, "nv_inference_exec_count", parts),
        ),
        Panel(
            "Waiting requests",
            "In the queues of the models.",
            ((f"sum by (model) (nv_inference_pending_request_count{every})", "{{model}}"),),
        ),
    )


def dashboard(systems: Iterable[System] = tuple(SYSTEMS.values())) -> dict[str, Any]:
    """The dashboard as Grafana reads it: an overview, and folded rows."""
    panels: list[dict[str, Any]] = []
    ids = iter(range(1, 10_000))
    panels += _placed(OVERVIEW, ids, top=0)
    top = _rows(OVERVIEW) * _HEIGHT
    rows = [(f"{system.name}: {system.title}", system_panels(system)) for system in systems]
    rows.append(("gateway: studies from the PACS, results back", GATEWAY))
    rows.append(("batch: an archive's studies, once each", BATCH))
    for title, inside in rows:
        panels.append(
            {
                "id": next(ids),
                "type": "row",
                "title": title,
                "collapsed": True,
                "gridPos": {"x": 0, "y": top, "w": _COLUMNS, "h": 1},
                "panels": _placed(inside, ids, top + 1),
            }
        )
        top += 1
    return {
        "uid": "hilum",
        "title": "Hilum",
        "description": "Chest-imaging systems on Triton. Not a medical device.",
        "tags": ["hilum"],
        "schemaVersion": 39,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "browser",
        "panels": panels,
    }


def text() -> str:
    """The file that Grafana is given."""
    return json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n"


def queries(board: dict[str, Any]) -> Iterator[str]:
    """Every PromQL query of a dashboard."""
    for panel in board["panels"]:
        for inner in (panel, *panel.get("panels", ())):
            yield from (target["expr"] for target in inner.get("targets", ()))


def _selector(models: Iterable[str]) -> str:
    return '{model=~"' + "|".join(models) + '"}'


def _rows(panels: tuple[Panel, ...]) -> int:
    return -(-len(panels) * _WIDTH // _COLUMNS)


def _placed(panels: tuple[Panel, ...], ids: Iterator[int], top: int) -> list[dict[str, Any]]:
    each_row = _COLUMNS // _WIDTH
    return [
        _panel(panel, next(ids), (i % each_row) * _WIDTH, top + i // each_row * _HEIGHT)
        for i, panel in enumerate(panels)
    ]


def _panel(panel: Panel, number: int, x: int, y: int) -> dict[str, Any]:
    return {
        "id": number,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.description,
        "datasource": DATASOURCE,
        "gridPos": {"x": x, "y": y, "w": _WIDTH, "h": _HEIGHT},
        "fieldConfig": {
            "defaults": {"unit": panel.unit, "min": 0, "custom": {"lineWidth": 2}},
            "overrides": [],
        },
        "options": {
            "legend": {"displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull"]},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "targets": [
            {"refId": chr(ord("A") + i), "datasource": DATASOURCE, "expr": expr,
             "legendFormat": legend}
            for i, (expr, legend) in enumerate(panel.queries)
        ],
    }  # fmt: skip


def main() -> None:
    """Write the dashboard to standard output."""
    sys.stdout.write(text())


if __name__ == "__main__":
    main()
