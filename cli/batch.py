"""`hilum batch`: an archive of studies, each computed exactly once, on one machine or a cluster."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hilum.catalog.errors import InputError
from hilum.catalog.extras import require
from hilum.results.canvas import DISCLAIMER
from hilum.server.signals import call_apart, handled

from .console import Exit, duration, err, errors_to_exit_codes, out

if TYPE_CHECKING:
    from hilum.archive.engine import Engine
    from hilum.archive.ledger import Ledger

app = typer.Typer(help=f"{__doc__} {DISCLAIMER}", no_args_is_help=True, add_completion=False,
                  rich_markup_mode=None)  # fmt: skip

LedgerFile = Annotated[
    Path, typer.Option("--ledger", help="The ledger: a file on a disk of this machine.")
]
_FILE = Path("ledger.db")
_RATE_S = 600.0
_WATCH_S = 2.0


@app.command()
def plan(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Folders, files, patterns, lists (.txt, a path or address a line), s3://…, or "
            "https://PACS/dicom-web?Modality=CT."
        ),
    ],
    system: Annotated[str, typer.Option(help="The system; `hilum systems` names them.")],
    ledger: LedgerFile = _FILE,
    option: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="An option of the system.")
    ] = None,
    pictures: Annotated[bool, typer.Option(help="Write a picture for each study.")] = True,
    save_arrays: Annotated[bool, typer.Option(help="Keep masks as arrays.npz.")] = False,
    dicom: Annotated[
        bool, typer.Option("--dicom", help="Also write DICOM objects (extra dicom).")
    ] = False,
    hashed: Annotated[
        str, typer.Option("--hash", help="What a file is recognised by: stat, or content.")
    ] = "stat",
) -> None:
    """Enter studies in the ledger; those that are there already stay as they are."""
    with errors_to_exit_codes():
        _require()
        if dicom:
            require("--dicom", "highdicom")
        from hilum.archive.ledger import Ledger
        from hilum.archive.plan import Plan
        from hilum.archive.sources import find

        files = {"pictures": pictures, "arrays": save_arrays, "dicom": dicom}
        wanted = Plan(system=system, options=_pairs(option), files=files, hashed=hashed)
        wanted.check()
        book = Ledger(ledger, create=True)
        found = (study for source in sources for study in find(source, wanted))
        new, known = book.enter(wanted, found)
        if not new and not known:
            raise InputError(f"no {wanted.found_system().study_label} in {', '.join(sources)}")
    out.print(f"{new} studies are new, {known} were there already", markup=False)


@app.command()
def run(
    out_dir: Annotated[str, typer.Option("--out", help="Folder, or s3://bucket/prefix.")],
    ledger: LedgerFile = _FILE,
    engine: Annotated[str, typer.Option(help="local, or ray.")] = "local",
    url: Annotated[
        list[str] | None,
        typer.Option(
            help="HOST:PORT of a Triton, as workers reach it; may be given again. A node's own "
            "HILUM_BATCH_URL comes first."
        ),
    ] = None,
    address: Annotated[
        str, typer.Option(help="HOST:PORT of Ray's head (default: a cluster on this machine).")
    ] = "auto",
    slots: Annotated[int, typer.Option(min=1, help="Studies at once, with the local engine.")] = 2,
    deadline: Annotated[float, typer.Option(min=1, help="Seconds for one study.")] = 1800.0,
    patience: Annotated[
        float, typer.Option(min=1, help="Seconds to wait while no server answers at all.")
    ] = 600.0,
    limit: Annotated[int | None, typer.Option(min=1, help="Hand out so many studies.")] = None,
    metrics_port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Serve Prometheus metrics on this loopback port."),
    ] = None,
) -> None:
    """Compute what is left. The same command goes on after anything died."""
    with errors_to_exit_codes():
        _require()
        from hilum.archive.driver import Driver, RunSettings
        from hilum.archive.ledger import alone
        from hilum.archive.places import store_at

        book = _open(ledger)
        place = out_dir if "://" in out_dir else str(Path(out_dir).absolute())
        settings = RunSettings(
            out=place, urls=tuple(url or ("localhost:8001",)), deadline_s=deadline, limit=limit,
            patience_s=patience,
        )  # fmt: skip
        stop = threading.Event()
        with alone(book), _engine(engine, address, slots) as carried, _ending(stop):
            driver = Driver(book, store_at(place), carried, settings, _log, stop)
            served = (
                nullcontext(None) if metrics_port is None else driver.metrics.served(metrics_port)
            )
            with served as port:
                if port is not None:
                    _log(f"metrics: http://127.0.0.1:{port}/metrics")
                driver.run()
        counts = book.counts()
        _show(book)
    if counts["failed"]:
        raise typer.Exit(Exit.STUDY_FAILED)


@app.command()
def status(
    ledger: LedgerFile = _FILE,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Print it again and again.")] = False,
) -> None:
    """Show how far the batch is, studies per hour, and the time left."""
    with errors_to_exit_codes():
        book = _open(ledger)
        while True:
            if as_json:
                out.print(json.dumps(_state(book)), markup=False)
            else:
                _show(book)
            counts = book.counts()
            if not watch or not counts["pending"] + counts["running"]:
                return
            time.sleep(_WATCH_S)


@app.command()
def retry(
    ledger: LedgerFile = _FILE,
    kind: Annotated[
        list[str] | None, typer.Option(help="Only these kinds of error, as `status` names them.")
    ] = None,
) -> None:
    """Try studies again that failed; `hilum batch run` then does them."""
    with errors_to_exit_codes():
        from hilum.archive.ledger import alone
        from hilum.archive.outcomes import KINDS

        for one in kind or ():
            if one not in KINDS:
                raise InputError(f"--kind {one}: choose {', '.join(KINDS)}")
        book = _open(ledger)
        with alone(book):
            count = book.reset(["failed"], kind or ())
    out.print(f"{count} studies are tried again", markup=False)


@app.command()
def verify(
    ledger: LedgerFile = _FILE,
    sample: Annotated[
        str, typer.Option(help="Share of the results whose files are read, for instance 1%.")
    ] = "100%",
) -> None:
    """Compare ledger, markers and contents; exit code 1 where they differ."""
    with errors_to_exit_codes():
        from hilum.archive.verify import verify as compare

        book = _open(ledger)
        found = compare(book, _store(book), _share(sample))
    out.print(
        f"{found.studies} studies, {found.done} done, {found.markers} results, {found.read} read, "
        f"{sum(found.counts.values())} problems",
        markup=False,
    )
    for problem in found.problems:
        out.print(problem, markup=False)
    if found.counts:
        raise typer.Exit(Exit.STUDY_FAILED)


@app.command()
def export(
    out_file: Annotated[Path, typer.Option("--out", help="A .parquet or .jsonl file.")],
    ledger: LedgerFile = _FILE,
) -> None:
    """Write one table of all studies, with every field of their results."""
    with errors_to_exit_codes():
        if out_file.suffix == ".parquet":
            require("a Parquet table", "pyarrow")
        from hilum.archive.export import export as write

        book = _open(ledger)
        count = write(book, _store(book), out_file)
    out.print(f"{out_file}: {count} rows", markup=False)


def _require() -> None:
    require("hilum batch", "msgspec")


def _open(path: Path) -> Ledger:
    from hilum.archive.ledger import Ledger

    return Ledger(path)


def _store(book: Ledger) -> Any:
    from hilum.archive.places import store_at

    place = book.setting("out")
    if not place:
        raise InputError(f"{book.path}: nothing has run yet")
    return store_at(place)


@contextmanager
def _engine(name: str, address: str, slots: int) -> Iterator[Engine]:
    if name == "local":
        from hilum.archive.local import LocalEngine

        engine: Engine = LocalEngine(slots)
    elif name == "ray":
        require("--engine ray", "ray")
        from hilum.archive.cluster import RayEngine

        engine = RayEngine(address)
    else:
        raise InputError(f"--engine {name}: choose local or ray")
    try:
        yield engine
    finally:
        engine.close()


@contextmanager
def _ending(stop: threading.Event) -> Iterator[None]:
    """Let the first signal end the run with what is under way, the second at once."""
    heard = list[int]()

    def handle(number: int, _frame: object) -> None:
        heard.append(number)
        if len(heard) > 1:
            raise KeyboardInterrupt
        call_apart(stop.set)
        _log(f"ending after {signal.Signals(number).name}: what runs is finished first")

    with handled(handle, (signal.SIGINT, signal.SIGTERM)):
        yield


def _state(book: Ledger) -> dict[str, Any]:
    """What `status` says."""
    counts = book.counts()
    recent = book.done_since(time.time() - _RATE_S)
    began = float(book.setting("began") or 0)
    hour = recent / max(1.0, min(_RATE_S, time.time() - began)) * 3600
    left = counts["pending"] + counts["running"]
    return {
        "counts": counts,
        "kinds": book.kinds(),
        "studies_per_hour": round(hour, 1),
        "seconds_left": round(left / hour * 3600) if hour and left else None,
    }


def _show(book: Ledger) -> None:
    state = _state(book)
    parts = [f"{count} {name}" for name, count in state["counts"].items()]
    parts += [f"{count} failed of {kind}" for kind, count in state["kinds"].items()]
    parts.append(f"{state['studies_per_hour']:.0f} studies/h")
    if state["seconds_left"] is not None:
        parts.append(f"{duration(state['seconds_left'])} left")
    out.print(", ".join(parts), markup=False)


def _pairs(given: list[str] | None) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"--option {text}: give NAME=VALUE")
        found[name.replace("-", "_")] = value
    return found


def _share(text: str) -> float:
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise InputError(f"--sample {text}: give a share, for instance 1% or 0.01")
    return share


def _log(line: str) -> None:
    err.print(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} {line}", markup=False, soft_wrap=True)
