"""`hilum run SYSTEM INPUT… --out DIR`: studies in, report and pictures out."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.markup import escape
from rich.table import Table

from ...catalog.errors import InputError, RepositoryError
from ..balance import ClientPool
from ..batch import Outcome
from ..client import Client
from ..options import ConnectionOptions
from ..pictures.canvas import DISCLAIMER
from ..pipelines import PIPELINES, Pipeline, Result
from ..pipelines.base import Frugal, WritesFiles
from ..provenance import weights_entry
from ..results import Report, reason, save_arrays
from ..trace import Trace, span
from .console import Exit, Steps, default_repository, err, errors_to_exit_codes, out
from .doctor import refuse_broken
from .lazy import lazy, single
from .run_options import (
    Common,
    check_device,
    device_of,
    fitted,
    inputs_parameter,
    is_own,
    parameters,
)

if TYPE_CHECKING:
    from ...server.launcher import Progress, TritonServer
    from ..metrics import Metrics

AnyClient = Client | ClientPool


def _command(pipeline: Pipeline) -> Any:
    """The command of one system: the common options and those of its pipeline."""
    own = [f.name for f in dataclasses.fields(pipeline.options_type) if is_own(f)]

    @functools.wraps(_run)
    def command(**given: Any) -> None:
        with errors_to_exit_codes():
            chosen = {k: given.pop(k) for k in own}
            inputs = given.pop("inputs")
            common = Common(**given)
            for field in dataclasses.fields(pipeline.options_type):
                if not is_own(field):
                    chosen[field.name] = getattr(common, field.metadata["from"])
            options = pipeline.options_type(**chosen)
            check_device(pipeline, options, common)
            _run(pipeline, inputs, options, common)

    command.__doc__ = f"{pipeline.system.summary}. {pipeline.system.paper}"
    common = (fitted(parameter, pipeline) for parameter in parameters(Common))
    command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inputs_parameter(pipeline), *common, *parameters(pipeline.options_type)]
    )
    return command


def _run(pipeline: Pipeline, inputs: list[Path], options: Any, common: Common) -> None:
    studies = [study for path in inputs for study in pipeline.find(path)]
    if not studies:
        raise InputError(f"no {pipeline.noun} in {', '.join(map(str, inputs))}")
    rows: dict[str, dict[str, str]] = {}
    with _client(pipeline, options, common) as client:
        options = _affordable(client, pipeline, options)
        report = _report(client, pipeline, options, common, len(studies))
        try:
            with _traced(common.trace):
                _process(client, pipeline, studies, options, common, report, rows)
        finally:
            path = report.save()
    if common.as_json:
        out.print(json.dumps(report.as_dict(), indent=2), markup=False)
    else:
        _show(report, rows)
        err.print(f"Report: {path}", markup=False)
    if report.failed:
        raise typer.Exit(Exit.STUDY_FAILED)


@contextmanager
def _traced(path: Path | None) -> Iterator[None]:
    """Record what is done meanwhile, if that was asked for."""
    if path is None:
        yield
        return
    trace = Trace()
    try:
        with trace.recorded():
            yield
    finally:
        trace.save(path)
        err.print(f"Trace: {path}; {trace.overlap()}", markup=False)


@contextmanager
def _client(pipeline: Pipeline, options: Any, common: Common) -> Iterator[AnyClient]:
    """A client of the servers that were named, or of one that is started for the run."""
    urls = [one for given in common.url or () for one in given.split(",")]
    settings = {
        "transport": common.transport,
        "deadline_s": common.deadline,
        "retry_window_s": common.retry_window,
        "tls": common.tls_ca is not None,
        "tls_root_certificates": common.tls_ca,
        "tls_client_certificate": common.tls_cert,
        "tls_client_key": common.tls_key,
    }
    if urls:
        if common.repository is not None:
            raise InputError("--url names a running server and --repository starts one; give one")
        with (
            _metrics(common.metrics_port) as metrics,
            _connected(urls, metrics, settings) as client,
        ):
            yield client
        return
    with (
        _metrics(common.metrics_port) as metrics,
        _start(pipeline, options, common) as server,
        Client(ConnectionOptions(url=server.grpc_url, **settings), metrics=metrics) as client,
    ):
        yield client


def _connected(urls: list[str], metrics: Metrics | None, settings: dict[str, Any]) -> AnyClient:
    """A client of one server, or of several."""
    if len(urls) > 1:
        return ClientPool(urls, metrics=metrics, **settings)
    return Client(ConnectionOptions(url=urls[0], **settings), metrics=metrics)


@contextmanager
def _metrics(port: int | None) -> Iterator[Metrics | None]:
    """What counts for Prometheus while the studies run, if that was asked for."""
    if port is None:
        yield None
        return
    from ..metrics import Metrics

    metrics = Metrics()
    with metrics.served(port) as listening:
        err.print(f"Metrics: http://127.0.0.1:{listening}/metrics", markup=False)
        yield metrics


def _start(pipeline: Pipeline, options: Any, common: Common) -> TritonServer:
    """Start a server of what the run asks for; of less, where that is all there is."""
    from ...server.launcher import TritonServer

    repository = common.repository or default_repository()

    def start(options: Any) -> TritonServer:
        models = pipeline.models(options)
        if not common.ignore_doctor:
            refuse_broken(repository, models=models)
        return TritonServer(repository, models=models, progress=_say, grace=0).start()

    try:
        return start(options)
    except RepositoryError as lack:
        less = pipeline.fallback(options) if isinstance(pipeline, Frugal) else None
        if less is None:
            raise
        try:
            return start(less)
        except RepositoryError:
            raise lack from None


def _affordable(client: AnyClient, pipeline: Pipeline, options: Any) -> Any:
    """The options that the server can fulfil: as chosen, or those of the pipeline's fallback."""
    less = pipeline.fallback(options) if isinstance(pipeline, Frugal) else None
    if less is None:
        return options
    there = client.models()
    missing = [m for m in pipeline.models(options) if m not in there]
    if not missing or not set(pipeline.models(less)) <= set(there):
        return options
    err.print(f"the server has no {', '.join(missing)}; running without", markup=False)
    return less


def _say(progress: Progress) -> None:
    err.print(f"server: {len(progress.loaded)} of {progress.total} models loaded", markup=False)


def _report(
    client: AnyClient, pipeline: Pipeline, options: Any, common: Common, total: int
) -> Report:
    missing = [m for m in pipeline.models(options) if m not in client.models()]
    if missing:
        raise RepositoryError(
            f"the server does not serve {', '.join(missing)}; export it "
            f"(hilum export {pipeline.system.name}) and start the server anew"
        )
    about = client.about() or {"models": {}}
    known, served_by = about["models"], about.get("served_by", {})
    weights = [
        weights_entry(model, known.get(model), served_by.get(model))
        for model in pipeline.networks(options)
    ]
    report = Report.begin(
        common.out_dir,
        system=pipeline.system.name,
        mode=options.mode,
        device=str(device_of(options)),
        weights=weights,
        server=client.describe(),
        total=total,
    )
    if note := report.head["weights_note"]:
        err.print(f"[bold yellow]{note}[/]")
    return report


def _process(
    client: AnyClient,
    pipeline: Pipeline,
    studies: list[Path],
    options: Any,
    common: Common,
    report: Report,
    rows: dict[str, dict[str, str]],
) -> None:
    """Run the studies; what a study leaves behind is written where it was computed."""
    note = report.head["weights_note"]

    def write(outcome: Outcome, result: Result, files: list[str]) -> None:
        if isinstance(result, WritesFiles):
            files += result.write_files(common.out_dir, outcome.name)
        if common.pictures:
            files += result.write_pictures(common.out_dir, outcome.name, note)
        if common.save_arrays:
            files.append(save_arrays(common.out_dir, outcome.name, result.arrays()))

    def finish(outcome: Outcome) -> tuple[Outcome, str | None]:
        files: list[str] = []
        unwritten = None
        if outcome.result is not None:
            rows[outcome.name] = outcome.result.row()
            try:
                with span("write"):
                    write(outcome, outcome.result, files)
            except Exception as failure:  # noqa: BLE001 - the result itself is kept
                unwritten = f"not all files could be written: {failure}"
        # Here, not in the studies' order: an interrupted run keeps what waits for a slower one.
        if not isinstance(outcome.error, CancelledError):
            report.add(outcome, files, unwritten)
        return outcome, unwritten

    batch = client.run_many(
        pipeline.system.name, studies, in_flight=common.in_flight, options=options, finish=finish
    )
    # Closed before the report is written, wherever Ctrl-C falls: studies in work end first.
    with closing(batch), Steps(pipeline.noun, len(studies)) as steps:
        client.on_progress = lambda told: steps.part(told.stage, told.done, told.total)
        for outcome, unwritten in batch:
            steps.advance(f"{outcome.name} {outcome.result.status if outcome.result else 'failed'}")
            problem = unwritten or (outcome.error and reason(outcome.error))
            if problem:
                name = studies[outcome.index].name
                err.print(f"{outcome.name} ({name}): {problem}", markup=False)


def _show(report: Report, rows: dict[str, dict[str, str]]) -> None:
    """Print one line for each study; the columns are the pipeline's own."""
    results = report.as_dict()["results"]
    columns = list(next(iter(rows.values()), {"status": ""}))
    table = Table("", "input", *columns, box=None, pad_edge=False)
    for entry in results:
        row = rows.get(entry["name"], {"status": entry["status"]})
        table.add_row(
            entry["name"], escape(Path(entry["input"]).name), *(row.get(c, "") for c in columns)
        )
    out.print(table)
    out.print(DISCLAIMER)


app = lazy(
    PIPELINES,
    lambda system: single(system, _command(PIPELINES[system])),
    "Run a system over studies.",
)
