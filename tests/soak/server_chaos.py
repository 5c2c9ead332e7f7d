"""Requests without end while parts of the servers are killed: how many fail, how many are wrong.

``python tests/soak/server_chaos.py --requests 10000 --servers 2 --seed 0``: starts `hilum serve` on
small models, sends requests from several threads, and kills (-9) a stub, Triton, a supervisor or,
where there are two, a whole server at points that the seed gives. Prints figures as JSON; exit code
1 when a request failed or was wrong, memory grew by more than 2 %, or something stayed behind.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "server"))
import small_repository

from hilum.catalog.errors import HilumError
from hilum.client import Client, ClientPool
from hilum.server import stubs
from hilum.server.launcher import free_ports

HILUM = Path(sys.executable).with_name("hilum")
MODELS = ("chain", "double")
PARTS = ("stub", "triton", "supervisor")
FLAT = 0.02
"""Most that memory may grow after the first fifth of the requests, as a share."""


class Server:
    """One `hilum serve`, which is started again when it is killed as a whole."""

    def __init__(
        self, repository: Path, state: Path, log: Path, models: Sequence[str] = MODELS
    ) -> None:
        self.grpc, self.metrics = free_ports(2)
        self.url = f"127.0.0.1:{self.grpc}"
        self._repository, self._state, self._log = repository, state, log
        self._models = models
        self.start()

    def start(self) -> None:
        """Start it, as often as it takes: what is left of a killed one may hold the ports yet."""
        models = [f"--model={model}" for model in self._models]
        for _ in range(20):
            self.process = subprocess.Popen(
                [HILUM, "serve", f"--repository={self._repository}", f"--grpc-port={self.grpc}",
                 f"--metrics-port={self.metrics}", "--grace=2", *models],
                stdout=subprocess.PIPE, stderr=self._log.open("a"), text=True,
            )  # fmt: skip
            assert self.process.stdout is not None
            if self.url in self.process.stdout.readline():
                return
            time.sleep(0.5)
        raise RuntimeError(f"no server: {self._log.read_text()}")

    def stop(self) -> None:
        """End it with all its parts."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(60)

    def parts(self) -> dict[str, list[int]]:
        """Process ids by kind of part; empty while it is started again."""
        for file in (self._state / "hilum" / "run").glob("*/server.json"):
            try:
                record = json.loads(file.read_text())
            except (OSError, ValueError):
                continue
            if record["grpc"] == self.url:
                found = [pid for pid, _ in stubs.children(record["pid"])]
                supervisor = int(file.parent.name.split("-")[2])
                return {"stub": found, "triton": [record["pid"]], "supervisor": [supervisor]}
        return {}

    def memory(self) -> int:
        """Proportional set size of Triton and its stubs in bytes."""
        parts = self.parts()
        return sum(_pss(pid) for pid in (*parts.get("stub", ()), *parts.get("triton", ())))


def _pss(pid: int | str) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def _ask(client: Client | ClientPool, number: int) -> str:
    rng = np.random.default_rng(number)
    try:
        if number % 2:
            image = rng.integers(0, 255, (1, 3, 4), np.uint8)
            given = {"task": np.zeros((1, 1), np.int32), "image": image}
            found = client.infer("chain", given, ["again"]).outputs["again"]
            return "right" if found.item() == image.sum() else "wrong"
        x = rng.random((1, 3), np.float32)
        found = client.infer("double", {"x": x}, ["y"]).outputs["y"]
        return "right" if (found == 2 * x).all() else "wrong"
    except HilumError as error:
        return f"failed: {error}"


class Chaos:
    """Kills one part after the other until it is ended."""

    def __init__(self, servers: list[Server], seed: int, every: float) -> None:
        self.killed: Counter[str] = Counter()
        self.ended = threading.Event()
        self._servers, self._rng, self._every = servers, random.Random(seed), every
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def end(self) -> None:
        self.ended.set()
        self._thread.join()

    def _run(self) -> None:
        kinds = PARTS if len(self._servers) == 1 else (*PARTS, "server")
        while not self.ended.wait(self._rng.uniform(0.5, 1.5) * self._every):
            server, kind = self._rng.choice(self._servers), self._rng.choice(kinds)
            if kind == "server":
                server.process.kill()
                server.process.wait()
                server.start()
            elif living := server.parts().get(kind):
                try:
                    os.kill(self._rng.choice(living), signal.SIGKILL)
                except ProcessLookupError:
                    continue
            else:
                continue
            self.killed[kind] += 1


def run(requests: int, servers: int, seed: int, every: float, threads: int = 4) -> dict:
    """One soak; its figures."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["XDG_STATE_HOME"] = str(folder / "state")
        small_repository.write(folder / "repository")
        started = [
            Server(folder / "repository", folder / "state", folder / f"{i}.log")
            for i in range(servers)
        ]
        urls = [server.url for server in started]
        began = time.monotonic()
        memory: list[tuple[int, int]] = []
        outcomes: Counter[str] = Counter()
        chaos = None
        try:
            with Client(urls[0]) if servers == 1 else ClientPool(urls) as client:
                chaos = Chaos(started, seed, every) if every else None
                done = 0
                with ThreadPoolExecutor(threads) as pool:
                    for start in range(0, requests, 50):
                        numbers = range(start, min(requests, start + 50))
                        outcomes.update(pool.map(lambda n: _ask(client, n), numbers))
                        done += len(numbers)
                        memory.append((_pss("self"), sum(s.memory() for s in started)))
        finally:
            if chaos is not None:
                chaos.end()
            for server in started:
                server.stop()
        seconds = time.monotonic() - began
        left = [str(path) for path in (folder / "state" / "hilum" / "run").iterdir()]
    steady = memory[len(memory) // 5 :]
    # Servers that were started again begin small, so theirs says something without kills alone.
    growth = {"client": _growth([own for own, _ in steady])}
    if not every:
        growth["servers"] = _growth([theirs for _, theirs in steady])
    return {
        "requests": requests, "servers": servers, "seed": seed, "seconds": round(seconds, 1),
        "outcomes": dict(outcomes), "killed": dict(chaos.killed) if chaos else {},
        "memory_growth": growth, "left_behind": left,
    }  # fmt: skip


def _growth(sizes: list[int]) -> float:
    """How much the mean of the last quarter is above that of the first, as a share."""
    quarter = max(1, len(sizes) // 4)
    return round(float(np.mean(sizes[-quarter:]) / np.mean(sizes[:quarter]) - 1), 4)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--servers", type=int, choices=(1, 2), default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--every", type=float, default=10.0, help="seconds from kill to kill; 0: none"
    )
    given = parser.parse_args()
    figures = run(given.requests, given.servers, given.seed, given.every)
    sys.stdout.write(json.dumps(figures, indent=2) + "\n")
    flat = all(growth <= FLAT for growth in figures["memory_growth"].values())
    return 0 if set(figures["outcomes"]) == {"right"} and flat and not figures["left_behind"] else 1


if __name__ == "__main__":
    sys.exit(main())
