"""A cluster whose parts are killed at seeded points while it computes a batch on real Tritons.

What died is started again, as a hospital's supervisor would. Then rows, markers and studies must be
as many, and every output that of an undisturbed `hilum run`.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

from archives import Archive, ran, settled
from chest_repository import CHEST_MODELS
from clusters import Cluster

from hilum.archive.ledger import Ledger
from hilum.archive.store import FolderStore
from hilum.server.arguments import Ports
from hilum.server.launcher import TritonServer, free_ports

EVENTS = ("worker", "raylet", "node", "triton", "second driver", "driver", "gcs")
"""What can happen; all but the second driver, which is refused, die by -9."""


class _Over(Exception):
    """The batch came to its end."""


class Chaos:
    """Servers, a cluster with a node for each, and the driver of a batch."""

    def __init__(self, folder: Path, repository: Path, *, seed: int, servers: int) -> None:
        self.folder, self.repository, self.chosen = folder, repository, random.Random(seed)
        self.ports = [Ports(*free_ports(2)) for _ in range(servers)]
        self.servers: list[TritonServer] = []
        self.nodes: list[str] = []
        self.clusters = 0
        self.driver: subprocess.Popen[bytes] | None = None
        self.stack = ExitStack()
        self.supervisor = self.stack.enter_context(ThreadPoolExecutor(1))
        self.starting: dict[int, Future[None]] = {}
        self.struck = self.chosen.randrange(servers)

    def __enter__(self) -> Chaos:
        self.servers = [self._server(ports) for ports in self.ports]
        self._start_cluster()
        return self

    def __exit__(self, *_: object) -> None:
        self._end_driver()
        self.stack.close()

    def batch(self, archive: Archive, events: Sequence[str], studies: int) -> None:
        """Run a batch, and let the events happen at random counts of results."""
        order = self.chosen.sample(list(events), len(events))
        points = sorted(self.chosen.sample(range(1, max(len(order) + 1, studies - 3)), len(order)))
        store = FolderStore(archive.results)
        self._drive(archive)
        struck = 0
        with suppress(_Over):  # a fast machine may have done all before the last events
            for event, point in zip(order, points, strict=True):
                self._until(lambda p=point: sum(1 for _ in store.names()) >= p, archive)
                began = time.monotonic()
                self._strike(event, archive)
                took = time.monotonic() - began
                print(f"{event} at {point} of {studies}, {took:.0f} s", flush=True)  # noqa: T201
                struck += 1
        assert struck > len(order) // 2, f"{studies} studies are too few to disturb"
        assert self.driver is not None
        code = self.driver.wait(3600)
        assert code == 0, archive.log()[-3000:]
        self._wait(*range(len(self.nodes)))

    def _meanwhile(self, start: Callable[[int], None], node: int) -> None:
        self.starting[node] = self.supervisor.submit(start, node)

    def _wait(self, *nodes: int) -> None:
        """Until what died is there again."""
        for node in nodes:
            if node in self.starting:
                self.starting.pop(node).result()

    def _start_node(self, node: int) -> None:
        self.nodes[node] = self.cluster.start_node(self.servers[node].grpc_url)

    def _start_server(self, node: int) -> None:
        self.servers[node].stop(0)
        self.servers[node] = self._server(self.ports[node])

    def _server(self, ports: Ports) -> TritonServer:
        server = TritonServer(self.repository, models=CHEST_MODELS, ports=ports, grace=0).start()
        self.stack.callback(server.stop, 0)
        return server

    def _start_cluster(self) -> None:
        self.clusters += 1
        place = self.folder / f"ray{self.clusters}"
        place.mkdir()
        self.cluster = Cluster(place)
        self.stack.callback(self.cluster.stop)
        self.cluster.start_head()
        self.nodes = [self.cluster.start_node(server.grpc_url) for server in self.servers]

    def _drive(self, archive: Archive) -> None:
        begun = archive.log().count("to do ")
        archive.environment = self.cluster.environment
        self.driver = archive.start("--engine", "ray", "--address", self.cluster.address)
        self._until(lambda: archive.log().count("to do ") > begun, archive)

    def _strike(self, event: str, archive: Archive) -> None:
        assert self.driver is not None
        self._goes_on(archive)
        node = self.struck
        if event in ("raylet", "node", "triton"):  # one after the other, so that none is waited for
            self.struck = (node + 1) % len(self.nodes)
            self._wait(node)
        if event == "gcs":
            self._wait(*range(len(self.nodes)))
        match event:
            case "worker":
                found: list[int] = []
                self._until(lambda: bool(found.extend(self.cluster.workers()) or found), archive)
                os.kill(self.chosen.choice(found), signal.SIGKILL)
            case "raylet":
                self.cluster.kill_raylet(self.nodes[node])
                self._meanwhile(self._start_node, node)
            case "node":
                self.cluster.kill_node(self.nodes[node])
                self._meanwhile(self._start_node, node)
            case "triton":
                pid = self.servers[node].pid
                assert pid is not None
                os.kill(pid, signal.SIGKILL)
                self._meanwhile(self._start_server, node)
            case "second driver":
                second = archive.start("--engine", "ray", "--address", self.cluster.address)
                assert second.wait(60) == 2
                assert "another driver" in archive.log()
            case "driver":
                self.driver.kill()
                self.driver.wait(30)
                self._drive(archive)
            case "gcs":
                self.cluster.kill_gcs()
                self.driver.wait(150)  # Ray ends it when it finds no head
                self.cluster.stop()
                self._start_cluster()
                self._drive(archive)

    def _end_driver(self) -> None:
        if self.driver is not None:
            self.driver.kill()
            self.driver.wait(30)

    def _goes_on(self, archive: Archive) -> None:
        assert self.driver is not None
        code = self.driver.poll()
        if code == 0:
            raise _Over
        assert code is None, archive.log()[-3000:]

    def _until(self, true: Callable[[], bool], archive: Archive) -> None:
        deadline = time.monotonic() + 1800
        while not true():
            self._goes_on(archive)
            assert time.monotonic() < deadline, archive.log()[-3000:]
            time.sleep(0.05)


def survive(chaos: Chaos, source: Path, system: str, count: int, events: Sequence[str]) -> int:
    """Compute the studies below `source` while parts die; returns how many were tried twice.

    Afterwards every study is there once, with the output of an undisturbed run.
    """
    archive = Archive(chaos.folder / f"{source.name}-batch", chaos.servers[0].grpc_url)
    archive.folder.mkdir()
    archive.plan(source, system=system)
    chaos.batch(archive, events, count)
    said = archive.verified()
    assert f"{count} studies, {count} done, {count} results, {count} read, 0 problems" in said, said
    run = chaos.folder / f"{source.name}-run"
    ran(system, source, chaos.servers[0].grpc_url, run)
    outputs = settled(run)
    assert len(outputs) == count
    assert settled(archive.results) == outputs
    return sum(study.tries > 1 for study in Ledger(archive.ledger).studies())
