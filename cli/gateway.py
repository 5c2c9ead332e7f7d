"""`hilum gateway`: studies reach Hilum from a PACS or a folder, and results go back."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from hilum.catalog.errors import HilumError, InputError
from hilum.catalog.extras import require
from hilum.results.canvas import DISCLAIMER
from hilum.server.signals import call_apart, handled

from .console import Exit, err, errors_to_exit_codes, out

if TYPE_CHECKING:
    from hilum.gateway.config import Settings
    from hilum.gateway.ledger import Ledger

app = typer.Typer(help=f"{__doc__} {DISCLAIMER}", no_args_is_help=True, add_completion=False,
                  rich_markup_mode=None)  # fmt: skip

ConfigFile = Annotated[Path, typer.Option("--config", help="The settings.")]
_FILE = Path("gateway.toml")


@app.command()
def init(config: ConfigFile = _FILE) -> None:
    """Write settings to begin with; a file that is there is not touched."""
    with errors_to_exit_codes():
        _require()
        from hilum.gateway.config import TEMPLATE

        try:
            with config.open("x") as stream:
                stream.write(TEMPLATE)
        except FileExistsError:
            raise InputError(f"{config} is there already") from None
        except OSError as failure:
            raise InputError(f"{config}: {failure.strerror}") from failure
    out.print(f"{config}: change it, then `hilum gateway check`", markup=False)


@app.command()
def check(config: ConfigFile = _FILE) -> None:
    """Try every connection and rule, without processing anything."""
    failed = False
    with errors_to_exit_codes():
        settings = _settings(config)
        for what, problem in _checks(settings):
            failed |= bool(problem)
            out.print(f"{what}: {problem or 'ok'}", markup=False)
    raise typer.Exit(Exit.STUDY_FAILED if failed else Exit.DONE)


@app.command()
def run(config: ConfigFile = _FILE) -> None:
    """Work until SIGTERM, Ctrl-C or `hilum gateway drain`."""
    with errors_to_exit_codes():
        settings = _settings(config)
        os.umask(0o077)
        from hilum.gateway import service
        from hilum.gateway.lock import alone

        other = "another gateway works in {}; `hilum gateway drain` ends it"
        with alone(settings.folder, other), service.client_of(settings) as client:
            gateway = service.Gateway(
                settings,
                service.ledger_of(settings),
                service.spool_of(settings),
                service.source_of(settings),
                client,
                _log,
            )
            with handled(lambda *_: call_apart(gateway.end)):
                gateway.run()
                gateway.ledger.close()
    if gateway.busy:  # threads that cannot be stopped; the next gateway begins their jobs again
        sys.stderr.flush()
        os._exit(Exit.DONE)


@app.command()
def status(
    config: ConfigFile = _FILE,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show how many jobs are in which state, why jobs wait or failed, and series are left alone."""
    with errors_to_exit_codes():
        settings = _settings(config)
        from hilum.gateway.worker import explained

        ledger = _ledger(settings)
        counts = ledger.counts()
        jobs = [explained(job) for job in ledger.jobs()]
        series = ledger.reasons()
    if as_json:
        told = {"counts": counts, "jobs": jobs, "series": series}
        out.print(json.dumps(told, indent=2), markup=False)
        return
    out.print(", ".join(f"{n} {name.replace('_', ' ')}" for name, n in counts.items() if n)
              or "nothing was seen yet", markup=False)  # fmt: skip
    table = Table("job", "system", "state", "tries", "since", "reason", box=None, pad_edge=False)
    for job in jobs:
        if job["state"] not in ("done", "ignored"):
            age = f"{time.time() - job['changed']:.0f} s"
            table.add_row(job["job"], job["system"], job["state"], str(job["attempts"]), age,
                          escape(job["reason"]))  # fmt: skip
    if table.row_count:
        out.print(table)
    reasons = Table("series", "state", "reason", box=None, pad_edge=False)
    for row in series:
        reasons.add_row(str(row["series"]), row["state"], escape(row["reason"]))
    if reasons.row_count:
        out.print(reasons)


@app.command()
def desk(
    config: ConfigFile = _FILE,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 0,
) -> None:
    """Serve a page over the ledger; `hilum desk --gateway` does the same and has more options."""
    from .desk import desk as serve

    serve(gateway=config, host=host, port=port)


@app.command()
def explain(
    study: Annotated[str, typer.Argument(help="StudyInstanceUID.")], config: ConfigFile = _FILE
) -> None:
    """Say which rule takes or refuses which series of a study, and why."""
    with errors_to_exit_codes():
        settings = _settings(config)
        from hilum.gateway.intake import Intake
        from hilum.gateway.service import source_of

        intake = Intake(settings, _ledger(settings), source_of(settings))
        series = intake.explain(study)
        if not series:
            raise InputError("the source has no such study")
    for number, (found, facts, verdicts, state) in enumerate(series, 1):
        kind = facts.modality if facts else "empty"
        size = _counted(found.instances, "instance")
        out.print(f"series {number}: {kind}, {size}, {state}", markup=False)
        for verdict in verdicts:
            says = (
                f"takes it: {', '.join(verdict.rule.systems)}"
                if verdict.takes
                else (f"refuses it: {verdict.reason}")
            )
            out.print(f"  {verdict.rule.name}: {says}", markup=False)


@app.command()
def retry(
    jobs: Annotated[list[str] | None, typer.Argument(help="Jobs, as `status` shows them.")] = None,
    all_failed: Annotated[bool, typer.Option("--all", help="Every job that failed.")] = False,
    config: ConfigFile = _FILE,
) -> None:
    """Try jobs again that failed; what is there of them is used."""
    with errors_to_exit_codes():
        settings = _settings(config)
        from hilum.gateway.service import spool_of

        ledger, spool = _ledger(settings), spool_of(settings)
        if not jobs and not all_failed:
            raise InputError("name jobs, or give --all")
        chosen = ledger.jobs("failed") if all_failed else [ledger.job(key) for key in jobs or ()]
        for job in chosen:
            if job.state == "ignored":
                raise InputError(f"{job.id}: the series grew; a later job has it")
            if job.state not in ("failed", "done"):
                ledger.move(job.id, job.state, next_at=0.0)
                continue
            sent = spool.objects(job.id) and ledger.outputs(job.id)
            ledger.move(
                job.id, "sending" if sent else "stable", attempts=0, crashes=0, next_at=0.0,
                failing_since=None, kind="", code="", reason="",
            )  # fmt: skip
    out.print(f"{_counted(len(chosen), 'job')} to be tried again", markup=False)


@app.command()
def forget(
    jobs: Annotated[list[str], typer.Argument(help="Jobs, as `status` shows them.")],
    config: ConfigFile = _FILE,
) -> None:
    """Remove jobs that are over, with what the spool has of them. Sent results stay in the PACS."""
    with errors_to_exit_codes():
        settings = _settings(config)
        from hilum.gateway.service import spool_of

        ledger, spool = _ledger(settings), spool_of(settings)
        for key in jobs:
            job = ledger.job(key)
            if job.state not in ("failed", "ignored", "done"):
                raise InputError(f"{job.id} is {job.state}; only jobs that are over are forgotten")
            spool.drop(job.id)
            ledger.forget(job.id)
    out.print(f"{_counted(len(jobs), 'job')} forgotten", markup=False)


@app.command()
def drain(config: ConfigFile = _FILE) -> None:
    """End the gateway that runs, as soon as its jobs are finished."""
    with errors_to_exit_codes():
        settings = _settings(config)
        from hilum.gateway.service import DRAIN

        _ledger(settings).set(DRAIN, "1")
    out.print("a gateway that runs takes nothing new, and ends when its jobs are finished")


def _checks(settings: Settings) -> list[tuple[str, str]]:
    """What was tried, and what is wrong with it; empty when nothing is."""
    from hilum.gateway import service
    from hilum.gateway.pacs import Pacs

    def source() -> None:
        service.source_of(settings).check()

    def target() -> None:
        if not settings.target.folder:
            Pacs(settings.out).check()

    def servers() -> None:
        if not settings.servers.urls:
            if not Path(settings.servers.repository).is_dir():
                raise InputError(f"{settings.servers.repository}: no such repository")
            return
        with service.client_of(settings) as client:
            there = client.models()
        lacking = [model for model in service.models_of(settings) if model not in there]
        if lacking:
            raise InputError(f"the servers do not serve {', '.join(lacking)}")

    def spool() -> None:
        if full := service.spool_of(settings).full():
            raise InputError(full)

    checked = [("rules", "")]  # read with the settings
    for name, attempt in (
        ("source", source), ("target", target), ("servers", servers), ("spool", spool),
    ):  # fmt: skip
        try:
            attempt()
        except HilumError as failure:
            checked.append((name, str(failure)))
        else:
            checked.append((name, ""))
    return checked


def _counted(number: int, name: str) -> str:
    return f"{number} {name}" if number == 1 else f"{number} {name}s"


def _require() -> None:
    require("the gateway", "msgspec", "dicomweb_client", "highdicom")


def _settings(config: Path) -> Settings:
    _require()
    from hilum.gateway.config import read_settings

    return read_settings(config)


def _ledger(settings: Settings) -> Ledger:
    from hilum.gateway.service import ledger_of

    return ledger_of(settings)


def _log(line: str) -> Any:
    err.print(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {line}", markup=False, soft_wrap=True)
