"""Reads spoilt inputs of every kind in processes with limits, and counts what must not happen.

    python tests/fuzz/fuzz.py --count 50000 --processes 2 --seed 1
    python tests/fuzz/fuzz.py --seed 1 --only "CT file" 123

An input breaks the promise when something else than a `HilumError` comes out of the reader, the
process dies, it takes over 10 s of the processor or 2 GiB, a message is longer than a screen, or
when it starts programs, opens connections, or writes files. The second command reads one input
again.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

_HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(_HERE), str(_HERE.parent), str(_HERE.parent / "export")]

import array_api_compat.numpy  # noqa: F401 - NumPy's testing starts lscpu once, when it is imported
import cv2
import targets
import torch

from hilum.catalog.errors import MAX_CHARACTERS, MAX_LINES, HilumError, OutOfMemory

MAX_SECONDS = 10
"""Of the processor, for one input."""

MAX_WAIT = 60
"""Seconds by the clock after which an input is taken to hang."""

MAX_MEMORY = 2 * 2**30

_FORBIDDEN = (
    "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.mkdir", "os.remove", "os.rename",
    "os.rmdir", "socket.connect", "socket.bind",
)  # fmt: skip
"""Events of Python that a reader has no reason for."""

Job = tuple[str, int]
"""A kind and the number of an input of it."""


@dataclass(slots=True)
class Tally:
    """What came of the inputs of one kind."""

    read: int = 0
    refused: int = 0
    seconds: float = 0.0
    memory: int = 0
    violations: list[str] = field(default_factory=list)

    @property
    def inputs(self) -> int:
        return self.read + self.refused + len(self.violations)


def jobs(count: int, only: set[str] | None = None) -> list[Job]:
    """Inputs of all kinds by their shares, mixed, so that what is done at any time is of all."""
    shares = {k: share for k, (share, _) in targets.kinds().items() if not only or k in only}
    found = []
    for kind, share in shares.items():
        total = max(1, round(count * share / sum(shares.values())))
        found += [((k + 0.5) / total, kind, k) for k in range(total)]
    return [(kind, k) for _, kind, k in sorted(found)]


class Reader:
    """Reads inputs in a folder of its own; one for each process."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._base = Path(tempfile.mkdtemp(prefix="hilum-fuzz-"))
        self._misdeeds: list[str] = []
        self._watching = False
        os.chdir(self._base)
        sys.addaudithook(self._audit)

    def close(self) -> None:
        shutil.rmtree(self._base, ignore_errors=True)

    def spoilt(self, job: Job) -> tuple[targets.Sample, dict[str, bytes]]:
        """The sound sample of an input, and the spoilt files."""
        kind, number = job
        rng = random.Random(f"{self._seed} {kind} {number}")
        sample = rng.choice(targets.samples(kind))
        return sample, sample.spoilt(rng)

    def read(self, job: Job) -> tuple[str, float, int]:
        """What came of an input: "read", "refused", or what was wrong; seconds; bytes."""
        sample, files = self.spoilt(job)
        folder = self._base / "input"
        for name, data in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        self._misdeeds.clear()
        before, start = _reset_peak(), _processor_seconds()
        self._watching = True
        try:
            outcome = _outcome(sample, folder)
        finally:
            self._watching = False
        seconds, memory = _processor_seconds() - start, _peak() - before
        shutil.rmtree(folder)
        if (self._base / targets.RAN).exists():
            (self._base / targets.RAN).rmdir()
            outcome = "runs code from the file"
        elif self._misdeeds:
            outcome = f"does what a reader must not: {self._misdeeds[0]}"
        elif memory > MAX_MEMORY:  # which takes its time, too
            outcome = f"takes {memory / 2**20:.0f} MiB"
        elif seconds > MAX_SECONDS:
            outcome = f"takes {seconds:.1f} s"
        return outcome, seconds, memory

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._watching:
            return
        if event == "open":
            path, mode, flags = arguments
            wrote = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if wrote and path != os.devnull:
                self._misdeeds.append(f"opens a file to write ({mode})")
        elif event == "subprocess.Popen":
            # HDF5 files are tried in a child process, on purpose.
            if not any("hdf5_probe" in str(a) for a in arguments[1]):
                self._misdeeds.append(event)
        elif event in _FORBIDDEN:
            self._misdeeds.append(event)


def _outcome(sample: targets.Sample, folder: Path) -> str:
    try:
        sample.read(folder)
    except OutOfMemory:
        return "runs out of memory"
    except HilumError as refused:
        text = str(refused)
        if len(text) > MAX_CHARACTERS + 10 or len(text.splitlines()) > MAX_LINES or not text:
            return "a message that is not one"
        return "refused"
    except BaseException as leaked:  # noqa: BLE001  the point of it
        place = traceback.extract_tb(leaked.__traceback__)[-1]
        inner = [f for f in traceback.extract_tb(leaked.__traceback__) if "hilum" in f.filename]
        ours = f"{Path(inner[-1].filename).name}:{inner[-1].lineno}" if inner else "?"
        return f"{type(leaked).__name__}: {str(leaked)[:80]!r} at {ours} ({place.name})"
    return "read"


def _processor_seconds() -> float:
    """Of this process and its children: what others do on the machine does not count."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, kinds))


def _reset_peak() -> int:
    """Forget the process's peak of memory; give what it holds now, in bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def _work(connection: Connection, seed: int) -> None:
    limit = 16 * 2**30  # far above what is allowed: only so that the machine survives
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 2)  # libraries complain of damaged files
    reader = Reader(seed)
    try:
        while (job := connection.recv()) is not None:
            connection.send(reader.read(job))
    except EOFError:
        pass
    finally:
        reader.close()


@dataclass(slots=True)
class _Worker:
    process: Any
    connection: Connection
    job: Job | None = None
    since: float = 0.0


def fuzz(todo: list[Job], *, seed: int, processes: int, until: float) -> dict[str, Tally]:
    """Read all inputs, or as many as fit until a time of the monotonic clock."""
    torch.set_num_threads(1)  # no threads may run when a process is copied
    cv2.setNumThreads(1)
    for kind in {kind for kind, _ in todo}:
        targets.samples(kind)  # once, before the copies
    tallies: dict[str, Tally] = {}
    queue = iter(todo)
    workers = [_start(seed) for _ in range(processes)]
    for worker in workers:
        _give(worker, queue, until)
    while busy := [w for w in workers if w.job is not None]:
        ready = wait([w.connection for w in busy], timeout=1)
        for worker in busy:
            late = time.monotonic() - worker.since > MAX_WAIT
            if worker.connection not in ready and not late:
                continue
            _take(worker, tallies, seed, late=worker.connection not in ready)
            _give(worker, queue, until)
    for worker in workers:
        worker.connection.send(None)
        worker.process.join()
    return tallies


def _start(seed: int) -> _Worker:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=_work, args=(theirs, seed))
    process.start()
    theirs.close()
    return _Worker(process, ours)


def _give(worker: _Worker, queue: Iterator[Job], until: float) -> None:
    worker.job = next(queue, None) if time.monotonic() < until else None
    worker.since = time.monotonic()
    if worker.job is not None:
        worker.connection.send(worker.job)


def _take(worker: _Worker, tallies: dict[str, Tally], seed: int, *, late: bool) -> None:
    assert worker.job is not None
    kind, number = worker.job
    tally = tallies.setdefault(kind, Tally())
    outcome, seconds, memory = f"hangs for {MAX_WAIT} s", float(MAX_WAIT), 0
    try:
        if not late:
            outcome, seconds, memory = worker.connection.recv()
    except EOFError:
        worker.process.join()
        outcome, seconds = f"ends the process ({worker.process.exitcode})", 0.0
    if outcome.startswith(("hangs", "ends")):
        worker.process.kill()
        fresh = _start(seed)
        worker.process, worker.connection = fresh.process, fresh.connection
    tally.seconds, tally.memory = max(tally.seconds, seconds), max(tally.memory, memory)
    if outcome == "read":
        tally.read += 1
    elif outcome == "refused":
        tally.refused += 1
    else:
        tally.violations.append(f"{outcome} · --seed {seed} --only {kind!r} {number}")


def table(tallies: dict[str, Tally]) -> str:
    """The figures as Markdown."""
    lines = [
        "| kind | inputs | refused | read | longest | most memory | violations |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {kind} | {t.inputs} | {t.refused} | {t.read} | {t.seconds:.1f} s "
        f"| {t.memory / 2**20:.0f} MiB | {len(t.violations)} |"
        for kind, t in tallies.items()
    ]
    return "\n".join(lines)


def main() -> int:
    """The program; gives its exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=50_000, help="inputs of all kinds")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=1e9, help="begin no input after so long")
    parser.add_argument("--kind", action="append", help="only inputs of these kinds")
    parser.add_argument("--only", nargs=2, metavar=("KIND", "NUMBER"), help="one input, in here")
    parser.add_argument("--keep", type=Path, help="with --only: where to leave its files")
    options = parser.parse_args()
    if options.only:
        return _again((options.only[0], int(options.only[1])), options.seed, options.keep)
    until = time.monotonic() + options.seconds
    todo = jobs(options.count, set(options.kind or ()))
    found = fuzz(todo, seed=options.seed, processes=options.processes, until=until)
    print(table(found))
    violations = [v for tally in found.values() for v in tally.violations]
    alike = {v.partition(" · ")[0]: v for v in reversed(violations)}
    for what, count in Counter(v.partition(" · ")[0] for v in violations).most_common(40):
        print(f"{count} times, first: {alike[what]}", file=sys.stderr)
    return 1 if violations else 0


def _again(job: Job, seed: int, keep: Path | None) -> int:
    keep = keep and keep.absolute()
    reader = Reader(seed)
    sample, files = reader.spoilt(job)
    folder = keep or Path.cwd() / "again"
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    try:
        print(sample.read(folder))
    finally:
        reader.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
