"""`hilum run SYSTEM INPUT… --out DIR`: studies in, report and pictures out."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import os
import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.markup import escape
from rich.table import Table

from hilum.catalog.errors import InputError, OutputError, RepositoryError
from hilum.catalog.extras import require
from hilum.client.client import Client
from hilum.client.client_pool import ClientPool
from hilum.client.options import ConnectionOptions
from hilum.client.protocols import AnySystem
from hilum.client.registry import INSTALLED
from hilum.client.trace import Trace
from hilum.preprocessing.reading.own_results import is_own_result
from hilum.results.canvas import DISCLAIMER
from hilum.results.folder import RunFolder, refuse_inputs
from hilum.results.provenance import weights_entries
from hilum.results.report import Report

from .console import Exit, default_repository, err, errors_to_exit_codes, out
from .doctor import refuse_broken
from .interrupts import Interrupted, Interrupts
from .lazy import lazy, single
from .run_batch import AnyClient, BatchRun
from .run_options import (
    Common,
    check_device,
    fitted,
    inputs_parameter,
    is_own,
    parameters,
)
from .streams import visible

if TYPE_CHECKING:
    from hilum.client.metrics import Metrics
    from hilum.server.launcher import Progress, TritonServer

_UMASKS = {"user": 0o077, "group": 0o027, "all": 0o022}
"""Permissions that files do not get, by who may read them."""


def _command(system: AnySystem) -> Any:
    """The command of one system: the common options and those of its system."""
    own = [f.name for f in dataclasses.fields(system.options_type) if is_own(f)]

    @functools.wraps(_run)
    def command(**given: Any) -> None:
        with errors_to_exit_codes():
            chosen = {k: given.pop(k) for k in own}
            inputs = given.pop("inputs")
            common = Common(**given)
            for field in dataclasses.fields(system.options_type):
                if not is_own(field):
                    chosen[field.name] = getattr(common, field.metadata["from"])
            options = system.options_type(**chosen)
            check_device(system, options, common)
            _run(system, inputs, options, common)

    command.__doc__ = f"{system.declared.summary}. {system.declared.paper}"
    common = (fitted(parameter, system) for parameter in parameters(Common))
    command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inputs_parameter(system), *common, *parameters(system.options_type)]
    )
    return command


def _run(system: AnySystem, inputs: list[Path], options: Any, common: Common) -> None:
    interrupts = Interrupts()
    with interrupts.handled(), _readable_by(common.permissions):
        try:
            _run_all(system, inputs, options, common, interrupts)
        except Interrupted as end:
            err.print(f"interrupted by {signal.Signals(end.signum).name}", markup=False)
            interrupts.end_now(end.code)


@contextmanager
def _readable_by(whom: str) -> Iterator[None]:
    """Let only these read the files that are written meanwhile: results are about patients."""
    if whom not in _UMASKS:
        raise InputError(f"--permissions {whom}: choose {', '.join(_UMASKS)}")
    before = os.umask(_UMASKS[whom])
    try:
        yield
    finally:
        os.umask(before)


def _run_all(
    system: AnySystem, inputs: list[Path], options: Any, common: Common, interrupts: Interrupts
) -> None:
    studies = [study for path in inputs for study in _studies(system, path)]
    if not studies:
        raise InputError(f"no {system.study_label} in {', '.join(map(str, inputs))}")
    refuse_inputs(common.out_dir, inputs, studies)
    if common.dicom:
        require("--dicom", "highdicom")
    if common.seg not in ("binary", "labelmap"):
        raise InputError(f"--seg {common.seg}: choose binary or labelmap")
    if not common.dicom and (common.seg_probability or common.parametric_map):
        raise InputError("--seg-probability and --parametric-map choose DICOM objects: add --dicom")
    folder = RunFolder.claim(
        common.out_dir,
        system=system.name,
        count=len(studies),
        resume=common.resume,
        overwrite=common.overwrite,
    )
    interrupts.on_end(folder.close)
    with closing(folder), _client(system, options, common) as client:
        options = _affordable(client, system, options)
        report = _report(client, system, options, common, len(studies))
        run = BatchRun(client, system, studies, options, common, folder, report, interrupts)
        try:
            with _traced(common.trace):
                run.run()
        finally:
            _save(report)
    if common.as_json:
        out.print(json.dumps(report.as_dict(), indent=2), markup=False)
    else:
        _show(report, run.rows)
        err.print(f"Report: {report.folder / 'report.json'}", markup=False)
    if report.failed:
        raise typer.Exit(Exit.STUDY_FAILED)


def _studies(system: AnySystem, path: Path) -> list[Path]:
    """The studies that an argument stands for; Hilum's own results in a folder are none."""
    found = system.find(path)
    return [s for s in found if not is_own_result(s)] if path.is_dir() else found


def _save(report: Report) -> None:
    """Write the report; say what is lost without it, and how to get it."""
    try:
        report.save()
    except OutputError as failure:
        err.print(
            f"[bold red]error:[/] {escape(str(failure))}. The {report.done} studies that are done "
            "have their results in their folders; run again with --resume for the report"
        )
        raise typer.Exit(Exit.STUDY_FAILED) from None
    if left := report.total - report.done:
        err.print(
            f"{report.done} of {report.total} studies are done; --resume does the other {left}",
            markup=False,
        )


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
def _client(system: AnySystem, options: Any, common: Common) -> Iterator[AnyClient]:
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
    from hilum.server.foreground import kept

    with (
        _metrics(common.metrics_port) as metrics,
        kept(_start(system, options, common), _say_event) as server,
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
    from hilum.client.metrics import Metrics

    metrics = Metrics()
    with metrics.served(port) as listening:
        err.print(f"Metrics: http://127.0.0.1:{listening}/metrics", markup=False)
        yield metrics


def _start(system: AnySystem, options: Any, common: Common) -> TritonServer:
    """Start a server of what the run asks for; of less, where that is all there is."""
    from hilum.server.launcher import TritonServer

    repository = common.repository or default_repository()

    def start(options: Any) -> TritonServer:
        models = system.models(options)
        if not common.ignore_doctor:
            refuse_broken(repository, models=models)
        return TritonServer(repository, models=models, progress=_say, grace=0).start()

    try:
        return start(options)
    except RepositoryError as lack:
        less = system.fallback(options)
        if less is None:
            raise
        try:
            return start(less)
        except RepositoryError:
            raise lack from None


def _affordable(client: AnyClient, system: AnySystem, options: Any) -> Any:
    """The options that the server can fulfil: as chosen, or those of the system's fallback."""
    less = system.fallback(options)
    if less is None:
        return options
    there = client.models()
    missing = [m for m in system.models(options) if m not in there]
    if not missing or not set(system.models(less)) <= set(there):
        return options
    err.print(f"the server has no {', '.join(missing)}; running without", markup=False)
    return less


def _say_event(line: str) -> None:
    err.print(line, markup=False)


def _say(progress: Progress) -> None:
    err.print(f"server: {len(progress.loaded)} of {progress.total} models loaded", markup=False)


def _report(
    client: AnyClient, system: AnySystem, options: Any, common: Common, total: int
) -> Report:
    missing = [m for m in system.models(options) if m not in client.models()]
    if missing:
        raise RepositoryError(
            f"the server does not serve {', '.join(missing)}; export it "
            f"(hilum export {system.name}) and start the server again"
        )
    weights = weights_entries(system.networks(options), client.about())
    report = Report.begin(
        common.out_dir,
        system=system.name,
        mode=options.mode,
        device=str(system.device(options)),
        weights=weights,
        server=client.describe(),
        total=total,
    )
    report.save()  # whoever finds the folder knows whose it is, however the run ends
    if note := report.head["weights_note"]:
        err.print(f"[bold yellow]{note}[/]")
    return report


def _show(report: Report, rows: dict[str, dict[str, str]]) -> None:
    """Print one line for each study; the columns are the system's own."""
    results = report.as_dict()["results"]
    columns = list(next(iter(rows.values()), {"status": ""}))
    table = Table("", "input", *columns, box=None, pad_edge=False)
    for entry in results:
        row = rows.get(entry["name"], {"status": entry["status"]})
        given = escape(visible(Path(entry["input"]).name))
        table.add_row(entry["name"], given, *(row.get(c, "") for c in columns))
    out.print(table)
    out.print(DISCLAIMER)


app = lazy(
    INSTALLED,
    lambda name: single(name, _command(INSTALLED[name])),
    "Run a system over studies.",
)
