"""Gateway, Triton and Orthanc as processes, each to be killed while a job is in some state."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import requests
from gateways import RULES, Running, ct, study_of, web, xray
from pacs import PASSWORD, USER, Orthanc, free_port

from hilum.gateway.ledger import Ledger
from hilum.gateway.records import OPEN

sys.path.append(str(Path(__file__).parent / "soak"))
from server_chaos import Server

PARTS = ("gateway", "triton", "orthanc")


def kills(seed: int) -> list[tuple[str, str]]:
    """Each part in each state, in an order of the seed."""
    pairs = list(product(PARTS, OPEN))
    random.Random(seed).shuffle(pairs)
    return pairs


def studies(folder: Path, count: int) -> list[list[Path]]:
    """CT series and X-rays, in turns."""
    folder.mkdir()
    return [
        ct(folder / f"{n}", seed=20 + n, slices=6) if n % 2 else xray(folder / f"{n}.dcm", 40 + n)
        for n in range(count)
    ]


@dataclass
class Site:
    """A PACS with studies, servers, and a gateway between them, in one folder.

    `XDG_STATE_HOME` of this process must lie in the folder, since the servers write there.
    """

    folder: Path
    server: Server
    orthanc: Orthanc = field(init=False)
    gateway: Running = field(init=False)
    stored_studies: int = 0

    def __post_init__(self) -> None:
        (self.folder / "orthanc").mkdir(parents=True)
        self.orthanc = Orthanc(self.folder / "orthanc")
        config = self.folder / "gateway.toml"
        config.write_text(f"""{web(self.orthanc)}
[servers]
urls = ["{self.server.url}"]
retry_window_s = 1
[trigger]
idle_s = 0.6
poll_s = 0.3
[limits]
weight_in_flight = 2
first_retry_s = 0.3
longest_retry_s = 1
crashes = 100
[operation]
folder = '{self.folder}/state'
port = {free_port()}
{RULES}""")
        self.gateway = Running(config, self.folder / "gateway.log")

    @property
    def ledger(self) -> Ledger:
        """Its ledger."""
        return Ledger(self.folder / "state" / "ledger.sqlite")

    def start(self, made: list[list[Path]]) -> None:
        """Start PACS and gateway with these studies."""
        self.orthanc.start()
        self.add(made)
        self.gateway.start()

    def kill(self, part: str) -> None:
        """Kill a part with SIGKILL, and start it again."""
        if part == "gateway":
            self.gateway.end(signal.SIGKILL)
            self.gateway.start()
        elif part == "orthanc":
            self.orthanc.stop(signal.SIGKILL)
            time.sleep(0.3)
            self.orthanc.start()
        else:  # its supervisor starts it again
            while not (living := self.server.parts().get("triton")):
                time.sleep(0.01)
            os.kill(living[0], signal.SIGKILL)

    def disturb(
        self,
        pairs: Sequence[tuple[str, str]],
        more: Sequence[list[Path]],
        say: Callable[[str], None],
    ) -> list[tuple[str, str]]:
        """Kill each part while some job is in its state, in whatever order states are met.

        After each kill the PACS gets a study of `more`, and one is done before the next kill.

        Returns
        -------
        list
            The pairs whose state was not met any more before all was done.
        """
        ledger, left, coming = self.ledger, list(pairs), list(more)
        while left:
            counts = ledger.counts()
            met = next((pair for pair in left if counts[pair[1]]), None)
            if met is None:
                if self.all_done(ledger):
                    break
                time.sleep(0.0005)
                continue
            left.remove(met)
            self.kill(met[0])
            if coming:
                self.add([coming.pop()])
            while ledger.count("done") == counts["done"]:
                time.sleep(0.001)
            say(f"{met[0]} killed while a study was {met[1]}; {counts['done']} are done")
        if coming:
            self.add(coming)
        ledger.close()
        return left

    def add(self, made: Sequence[list[Path]]) -> None:
        """Store studies in the PACS."""
        for files in made:
            self.orthanc.store(files)
            self.stored_studies += 1

    def all_done(self, ledger: Ledger) -> bool:
        """Whether every study that the PACS has is done."""
        return ledger.count("done") == self.stored_studies

    def wait(self, count: int, seconds: float) -> None:
        """Wait until so many jobs are done."""
        self.gateway.until(lambda status: status["counts"]["done"] == count, seconds)

    def stored(self, made: list[list[Path]]) -> list[dict[str, list[str]]]:
        """What the PACS holds: for each study its series with hashes of its instances' files."""
        with requests.Session() as session:
            session.auth = (USER, PASSWORD)

            def find(level: str, **query: str) -> list[dict[str, str]]:
                asked = {"Level": level, "Query": query}
                return session.post(f"{self.orthanc.rest}/tools/find", json=asked).json()

            found: list[dict[str, list[str]]] = []
            for files in made:
                there: dict[str, list[str]] = {}
                for uid in self.orthanc.series(study_of(files)):
                    places = find("Instance", SeriesInstanceUID=uid)
                    there[uid] = sorted(
                        hashlib.sha256(
                            session.get(f"{self.orthanc.rest}/instances/{place}/file").content
                        ).hexdigest()
                        for place in places
                    )
                found.append(there)
            return found

    def stop(self) -> None:
        """End what runs."""
        if self.gateway.process is not None:
            self.gateway.process.kill()
            self.gateway.process.wait()
        self.orthanc.stop(signal.SIGKILL)
