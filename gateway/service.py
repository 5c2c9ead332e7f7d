"""The gateway as it runs: intake and three lanes of work, until it is asked to end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from hilum.catalog.errors import ConnectionFailed, HilumError, InferenceFailed, OutputError
from hilum.client.client import Client
from hilum.client.client_pool import ClientPool
from hilum.client.options import ConnectionOptions
from hilum.client.registry import find_system
from hilum.server.launcher import TritonServer

from .config import Settings, options_of
from .intake import Intake
from .ledger import Ledger
from .operation import served
from .orthanc import OrthancSource
from .pacs import QuerySource
from .records import Job
from .sources import FolderSource, Source
from .spool import Spool
from .worker import Worker

DRAIN = "drain"
"""Setting of the ledger by which another process asks for the end."""

_LOOK_S = 0.5
"""How often the ledger is looked at for what other processes ask, and for what is due."""

_AHEAD = 8
"""Jobs that are fetched before one of them runs."""

_LANE = 2
"""Jobs that are fetched, and that are sent, at once."""

_STALE_S = 120.0
"""Without a look at the source for so long the gateway is not alive any more."""

_MEASURE_S = 2.0
"""How often the spool is measured."""

_FULL_WEIGHT = 4.0
_DAY_S = 86_400.0


def source_of(settings: Settings) -> Source:
    """The source that the settings name."""
    given = settings.source
    if given.folder:
        return FolderSource(Path(given.folder))
    if given.orthanc:
        senders = any(rule.aet for rule in settings.rule)
        return OrthancSource(given, orthanc=given.orthanc, senders=senders)
    return QuerySource(given, days=given.days)


def spool_of(settings: Settings) -> Spool:
    """The spool beside the ledger; its folder is made.

    Raises
    ------
    OutputError
        When that fails.
    """
    folder = settings.folder / "spool"
    try:
        settings.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.mkdir(exist_ok=True, mode=0o700)
    except OSError as failure:
        raise OutputError(f"{folder}: {failure.strerror}") from failure
    return Spool(folder, settings.limits.spool_gb * 1e9, settings.limits.watermark)


def ledger_of(settings: Settings) -> Ledger:
    """The ledger of the settings."""
    return Ledger(settings.folder / "ledger.sqlite")


@contextmanager
def client_of(settings: Settings) -> Iterator[Client | ClientPool]:
    """A client of the servers that run, or of one that is started with the models of all rules."""
    given = settings.servers
    options = {
        "deadline_s": given.deadline_s,
        "retry_window_s": given.retry_window_s,
        "tls": bool(given.tls_ca),
        "tls_root_certificates": Path(given.tls_ca) if given.tls_ca else None,
        "tls_client_certificate": Path(given.tls_cert) if given.tls_cert else None,
        "tls_client_key": Path(given.tls_key) if given.tls_key else None,
    }
    with ExitStack() as stack:
        urls = list(given.urls)
        if not urls:
            server = TritonServer(Path(given.repository), models=models_of(settings))
            urls = [stack.enter_context(server.start()).grpc_url]
        if len(urls) > 1:
            yield stack.enter_context(ClientPool(urls, **options))
        else:
            yield stack.enter_context(Client(ConnectionOptions(url=urls[0], **options)))


def models_of(settings: Settings) -> tuple[str, ...]:
    """The Triton models that the rules' systems ask for."""
    found: dict[str, None] = {}
    for rule in settings.rule:
        for system in rule.systems:
            asked = find_system(system).models(options_of(rule, system))
            found.update(dict.fromkeys(asked))
    return tuple(found)


@dataclass(slots=True)
class Gateway:
    """One gateway over its ledger.

    Attributes
    ----------
    say
        Takes one line for the log, without identifiers.
    """

    settings: Settings
    ledger: Ledger
    spool: Spool
    source: Source
    client: Client | ClientPool
    say: Callable[[str], None]
    _ending: threading.Event = field(default_factory=threading.Event)
    _wake: threading.Event = field(default_factory=threading.Event)
    _taken: dict[str, float] = field(default_factory=dict)
    _lanes: dict[str, int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _looked: float = field(default_factory=time.monotonic)
    _trouble: str = ""
    _measured: tuple[float, str] = (-1e9, "")

    def run(self) -> None:
        """Work until `end` is called, or another process asks for the end in the ledger.

        Jobs that run then have `drain_s` to come to their end; those that do not are begun again
        by the next gateway.
        """
        self.ledger.set(DRAIN, "")
        self._recover()
        worker = Worker(self.settings, self.ledger, self.spool, self.source, self.client, self.say)
        operation = self.settings.operation
        looking = threading.Thread(target=self._look, daemon=True)
        pool = ThreadPoolExecutor(2 * _LANE + 16, thread_name_prefix="gateway")
        with served(operation.host, operation.port, self.ledger, self.spool, self._health) as port:
            self.say(f"ready: http://{operation.host}:{port}/metrics")
            looking.start()
            while not self._ending.is_set():
                self._wake.wait(_LOOK_S)
                self._wake.clear()
                try:
                    if self.ledger.setting(DRAIN):
                        self.end()
                    self._hand_out(pool, worker)
                except OutputError as failure:  # a full disk: the ledger is tried again
                    self.say(str(failure))
                    self._ending.wait(self.settings.trigger.poll_s)
            self._drain(pool)

    @property
    def busy(self) -> bool:
        """Whether a job did not come to its end."""
        return bool(self._taken)

    def end(self) -> None:
        """Take nothing new, and end when what runs is done."""
        self._ending.set()
        self._wake.set()

    def _recover(self) -> None:
        """Have fetched again what was not computed: only results are sure to be whole on disk."""
        for job in self.ledger.jobs("fetching", "running"):
            if not self.spool.result(job.id).is_dir():
                self.spool.drop_inputs(job.id)
                self.ledger.move(job.id, "stable")

    def _drain(self, pool: ThreadPoolExecutor) -> None:
        deadline = time.monotonic() + self.settings.operation.drain_s
        self.say(f"ending: {len(self._taken)} jobs are finished first")
        while self._taken and time.monotonic() < deadline:
            time.sleep(_LOOK_S)
        pool.shutdown(wait=False, cancel_futures=True)
        for key in list(self._taken):
            job = self.ledger.job(key)
            if job.state == "running" and job.crashes:
                self.ledger.move(key, "running", crashes=job.crashes - 1)  # we end, it does not die

    def _look(self) -> None:
        intake = Intake(self.settings, self.ledger, self.source)
        cleaned = 0.0
        while not self._ending.is_set():
            try:
                intake.look()
                for key in intake.judge():
                    self.say(f"{key} is new")
                    self._wake.set()
                if time.monotonic() - cleaned > 3600:
                    self._clean()
                    cleaned = time.monotonic()
                self._say_trouble(self.source.trouble)
            except HilumError as failure:
                self._say_trouble(str(failure))
            except Exception as failure:  # noqa: BLE001 - what it is, is said; the queue goes on
                said = getattr(failure, "strerror", None)  # the text of an OSError names a file
                self._say_trouble(f"intake: {said or type(failure).__name__}")
            self._looked = time.monotonic()
            self._ending.wait(self.settings.trigger.poll_s)

    def _say_trouble(self, text: str) -> None:
        if text != self._trouble:
            self.say(text or "the source answers again")
        self._trouble = text

    def _clean(self) -> None:
        """Remove results that were sent long ago, and what belongs to no open job."""
        keep = time.time() - self.settings.limits.keep_days * _DAY_S
        jobs = {job.id: job for job in self.ledger.jobs()}
        for place in self.spool.folder.iterdir():
            job = jobs.get(place.name)
            over = job is None or (job.state in ("done", "ignored") and job.changed < keep)
            if over:
                self.spool.drop(place.name)

    def _hand_out(self, pool: ThreadPoolExecutor, worker: Worker) -> None:
        """Give each lane what it has room for."""
        if time.monotonic() - self._measured[0] > _MEASURE_S:
            self._measured = time.monotonic(), self.spool.full()
        full = self._measured[1]
        while self._lanes.get("send", 0) < _LANE and self._start(
            pool, worker, "send", ("sending", "verifying")
        ):
            pass
        while self._weight() < self.settings.limits.weight_in_flight and self._start(
            pool, worker, "run", ("running",)
        ):
            pass
        ahead = self.ledger.count("running") - self._lanes.get("run", 0)
        while (
            not full
            and ahead + self._lanes.get("fetch", 0) < _AHEAD
            and self._lanes.get("fetch", 0) < _LANE
            and self._start(pool, worker, "fetch", ("stable", "fetching"))
        ):
            pass

    def _weight(self) -> float:
        with self._lock:
            return sum(self._taken.values())

    def _start(
        self, pool: ThreadPoolExecutor, worker: Worker, lane: str, states: tuple[str, ...]
    ) -> bool:
        """Begin a stage of the next job of a lane; whether there was one."""
        with self._lock:
            job = self.ledger.claim(states, self._taken)
            if job is None:
                return False
            weight = self._weight_of(job) if lane == "run" else 0.0
            running = sum(self._taken.values())
            if weight and running and running + weight > self.settings.limits.weight_in_flight:
                return False
            self._taken[job.id] = weight
            self._lanes[lane] = self._lanes.get(lane, 0) + 1
        pool.submit(self._stage, worker, lane, job)
        return True

    def _weight_of(self, job: Job) -> float:
        """The weight of a job that runs: all of it for one during which the gateway died.

        So that runs alone, and only it is blamed if the gateway dies again.
        """
        if job.crashes:
            return self.settings.limits.weight_in_flight
        return _FULL_WEIGHT / find_system(job.system).studies_in_flight

    def _stage(self, worker: Worker, lane: str, job: Job) -> None:
        try:
            if not worker.stage(job):  # the ledger's disk is full: not at once again
                self._ending.wait(self.settings.trigger.poll_s)
        finally:
            with self._lock:
                del self._taken[job.id]
                self._lanes[lane] -= 1
            self._wake.set()

    def _health(self, what: str) -> str:
        """What is wrong: alive is a gateway that looks at its source, ready one that can work."""
        if time.monotonic() - self._looked > max(_STALE_S, 10 * self.settings.trigger.poll_s):
            return "it has not looked at its source for long"
        if what == "live":
            return ""
        if self._trouble:
            return self._trouble
        try:
            return "" if self.client.ready() else "no Triton server is ready"
        except (ConnectionFailed, InferenceFailed) as failure:
            return str(failure)
