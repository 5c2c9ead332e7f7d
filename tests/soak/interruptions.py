"""Runs that are interrupted again and again, and memory over many requests: ``make soak``.

``python tests/soak/interruptions.py --studies 200 --ct 5 --requests 10000 --seed 1``

X-rays and chest CTs are run while one thing after the other happens at points that the seed gives:
the run gets Ctrl-C, SIGTERM, SIGHUP or SIGKILL; Triton, one of its processes, or one of two whole
servers is killed; the disk of the results or `/dev/shm` is full for a while. Each time the run
goes on with `--resume`, until it is done; then it begins again, until everything has happened
`--each` times. In the end each study must be there once and as in an undisturbed run, and nothing
may be left in `/dev/shm` and the temporary folder. As root it all runs in a mount namespace of its
own, where both are small file systems; otherwise they are not filled up.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "soak")]

import interrupted  # noqa: E402
import numpy as np  # noqa: E402
from chest_repository import CHEST_MODELS as MODELS  # noqa: E402
from chest_repository import export_chest  # noqa: E402
from interrupted import XRAY_MODEL, Room, Work  # noqa: E402
from server_chaos import Server  # noqa: E402

from hilum.client import Client  # noqa: E402
from hilum.preprocessing.phantoms.xray import chest_xray  # noqa: E402
from hilum.server.launcher import TritonServer  # noqa: E402
from hilum.server.machine import SHM  # noqa: E402

FLAT = 0.02
"""Most that memory may grow, as a share."""

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGKILL")
SERVERS = ("stub", "triton", "server")
FULL = ("disk", "shm")

_ALONE = "HILUM_SOAK_ALONE"
"""Set where the process has file systems of its own."""


def main() -> None:
    """Interrupt, resume, compare; then send requests and watch the memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=200, help="X-rays")
    parser.add_argument("--ct", type=int, default=5, help="chest CTs")
    parser.add_argument(
        "--each", type=int, default=3, help="how often each thing happens, at least"
    )
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    _go_alone()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if given.studies or given.ct:
        disturb(given.studies, given.ct, given.each, random.Random(given.seed))
    if given.requests:
        with tempfile.TemporaryDirectory(prefix="hilum-soak-") as name:
            repository = export_chest(Path(name))
            with TritonServer(repository, models=[XRAY_MODEL]) as server:
                watch(server, given.requests)


def _go_alone() -> None:
    """Start again in a mount namespace with a `/dev/shm` and a temporary folder of its own."""
    if os.getuid() or _ALONE in os.environ:
        return
    script = (
        "mount -t tmpfs -o size=512m tmpfs /dev/shm && mount -t tmpfs -o size=4g tmpfs /tmp "
        f'&& {_ALONE}=1 exec "$@"'
    )
    possible = subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode == 0
    if possible:
        words = ["unshare", "--mount", "sh", "-c", script, "sh", sys.executable, *sys.argv]
        os.execvp(words[0], words)  # noqa: S606


@dataclass(slots=True)
class Soak:
    """Works under disturbance, on two servers that are started again when they die."""

    folder: Path
    servers: list[Server]
    chance: random.Random
    each: int
    happened: Counter[str] = field(default_factory=Counter)
    longest: float = 0.0

    @property
    def room(self) -> Room | None:
        """Where disks can be filled up: here, in a namespace of our own."""
        return Room(os.getpid()) if _ALONE in os.environ else None

    def work(self, work: Work) -> None:
        """Run it undisturbed, and then disturbed until everything has happened often enough."""
        alone = self.folder / f"{work.system}-alone"
        subprocess.run(
            work.words(alone, "--url", self.servers[0].url), check=True, capture_output=True
        )
        undisturbed = work.outcome(alone)
        self.happened.clear()
        laps = 0
        while laps < 2 or self._missing():
            out = self.folder / "disk" / work.system
            self._lap(work, out, two=bool(laps % 2))
            problem = work.problem(out, undisturbed)
            if problem:
                raise SystemExit(f"{work.system}, run {laps + 1}: {problem}")
            shutil.rmtree(out)
            laps += 1
        happened = ", ".join(f"{kind} {n}" for kind, n in sorted(self.happened.items()))
        print(  # noqa: T201
            f"{work.system}: {work.count} studies, {laps} runs until done, {happened}: each there "
            f"once and the same; {self.longest:.1f} s from a signal to the end at most",
            flush=True,
        )

    def _missing(self) -> list[str]:
        kinds = (*SIGNALS, *SERVERS, *(FULL if self.room else ()))
        return [kind for kind in kinds if self.happened[kind] < self.each]

    def _lap(self, work: Work, out: Path, *, two: bool) -> None:
        """One run over all studies, on one server or two, with `--resume` until it is done."""
        urls = ",".join(server.url for server in self.servers[: 1 + two])
        resume: list[str] = []
        log = self.folder / "run.log"
        failed = 0
        while True:
            with log.open("wb") as said:
                words = work.words(out, "--url", urls, *resume)
                run = subprocess.Popen(words, stdout=said, stderr=said)
            try:
                disturbed = self._until_it_ends(run, work, out, two=two)
            finally:
                run.kill()
            if run.returncode == 0:
                return
            failed = 0 if disturbed else failed + 1  # the first may meet a server that starts again
            if failed > 2:
                raise SystemExit(f"runs that nothing happened to fail: {log.read_text()}")
            resume = ["--resume"] if (out / "report.json").exists() else []

    def _until_it_ends(
        self, run: subprocess.Popen[bytes], work: Work, out: Path, *, two: bool
    ) -> bool:
        """Disturb a run again and again, each time after some more studies, or half a minute."""
        disturbed = False
        while run.poll() is None:
            wanted = _finished(out) + self.chance.randint(1, max(1, work.count // 8))
            deadline = time.monotonic() + 30
            while run.poll() is None and _finished(out) < wanted and time.monotonic() < deadline:
                time.sleep(0.05)
            with contextlib.suppress(subprocess.TimeoutExpired):
                run.wait(self.chance.uniform(0, 1))
            if run.poll() is None:
                disturbed = True
                self._disturb(run, two=two)
        return disturbed

    def _disturb(self, run: subprocess.Popen[bytes], *, two: bool) -> None:
        kinds = [*SIGNALS, "stub", "triton", *(["server"] if two else []),
                 *(FULL if self.room else ())]  # fmt: skip
        wanted = [kind for kind in kinds if kind in self._missing()]
        kind = self.chance.choice(wanted or kinds)
        if kind in SIGNALS:
            done = self._signal(run, kind)
        elif kind in FULL:
            done = self._fill(run, self.folder / "disk" if kind == "disk" else SHM)
        else:
            done = self._kill(kind)
        self.happened[kind] += done

    def _signal(self, run: subprocess.Popen[bytes], kind: str) -> bool:
        run.send_signal(signal.Signals[kind])
        sent = time.monotonic()
        run.wait(30)
        if kind != "SIGKILL":
            self.longest = max(self.longest, time.monotonic() - sent)
        return True

    def _kill(self, kind: str) -> bool:
        server = self.servers[0]
        if kind == "server":
            server.process.kill()
            server.process.wait()
            server.start()
            return True
        living = server.parts().get(kind)
        if living:
            os.kill(self.chance.choice(living), signal.SIGKILL)
        return bool(living)

    def _fill(self, run: subprocess.Popen[bytes], place: Path) -> bool:
        """A full file system for some seconds, or until the run has ended."""
        assert self.room is not None
        ballast = self.room.fill(place)
        try:
            run.wait(self.chance.uniform(2, 4))
        except subprocess.TimeoutExpired:
            pass
        finally:
            ballast.unlink()
        return True


def disturb(xrays: int, cts: int, each: int, chance: random.Random) -> None:
    """Both systems under disturbance; then nothing may be left."""
    before = _there()
    with tempfile.TemporaryDirectory(prefix="hilum-soak-") as name, ExitStack() as stack:
        folder = Path(name)
        (folder / "disk").mkdir()
        os.environ["XDG_STATE_HOME"] = str(folder / "state")
        if _ALONE in os.environ:
            mount = ["mount", "-t", "tmpfs", "-o", "size=256m", "tmpfs", str(folder / "disk")]
            subprocess.run(mount, check=True)
            stack.callback(subprocess.run, ["umount", str(folder / "disk")], check=True)
        else:
            print("not root, so neither the disk nor /dev/shm is filled up")  # noqa: T201
        repository = export_chest(folder)
        soak = Soak(folder, [], chance, each)
        for number in range(2):
            server = Server(repository, folder / "state", folder / f"{number}.log", models=MODELS)
            soak.servers.append(server)
            stack.callback(_stop, server)
        if xrays:
            soak.work(interrupted.draw_xrays(folder / "xrays", xrays))
        if cts:
            soak.work(interrupted.draw_ct(folder / "ct", cts, slices=80, size=256))
    left = sorted(_there() - before)
    if left:
        raise SystemExit(f"left behind: {left}")
    print("nothing is left in /dev/shm and the temporary folder")  # noqa: T201


def _finished(out: Path) -> int:
    return len(list(out.glob("[0-9]*/result.json")))


def _stop(server: Server) -> None:
    server.process.send_signal(signal.SIGTERM)
    server.process.wait(60)


def _there() -> set[str]:
    """What lies in `/dev/shm` and the temporary folder; beside others only what is Hilum's."""
    own: Callable[[Path], bool] = lambda p: _ALONE in os.environ or "hilum" in p.name  # noqa: E731
    places = (SHM, Path(tempfile.gettempdir()))
    return {str(path) for place in places for path in place.iterdir() if own(path)}


def watch(server: TritonServer, count: int) -> None:
    """Send requests; memory of client, server and stubs may not grow."""
    pixels = chest_xray(1, height=400, width=400, severity=0.5).pixels
    means: dict[str, list[float]] = {}
    with Client(server.grpc_url) as client:
        for number in range(count):
            client.run("cxr-severity", pixels, network="manet")
            if number % max(1, count // 200) == 0:
                for part, pids in parts(server).items():
                    means.setdefault(part, []).append(memory(pids))
    for part, found in means.items():
        settled = found[len(found) // 5 :]
        quarter = max(1, len(settled) // 4)
        before, after = np.mean(settled[:quarter]), np.mean(settled[-quarter:])
        growth = after / before - 1
        print(f"{count} requests, {part}: {before:.0f} MiB, {growth:+.1%}")  # noqa: T201
        if growth > FLAT:
            raise SystemExit(f"memory of {part} grew by {growth:.1%}")


def parts(server: TritonServer) -> dict[str, list[int]]:
    """Process ids of client, server and stubs."""
    assert server.pid is not None
    stubs = []
    for thread in Path(f"/proc/{server.pid}/task").iterdir():
        stubs += [int(pid) for pid in (thread / "children").read_text().split()]
    return {"client": [os.getpid()], "server": [server.pid], "stubs": stubs}


def memory(pids: Iterable[int]) -> float:
    """Proportional set size in MiB."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1])
    return total / 1024


if __name__ == "__main__":
    main()
