"""The ledger of a batch and its driver, with an engine that fails as it is asked to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from hilum.archive.driver import Driver, RunSettings
from hilum.archive.ledger import Ledger, alone
from hilum.archive.outcomes import Outcome, Task
from hilum.archive.plan import Keys, Plan
from hilum.archive.store import FolderStore
from hilum.catalog.errors import ConnectionFailed, OutputError

PLAN = Plan(system="lungmask", options={}, files={"pictures": False})


@dataclass
class Answers:
    """An engine that answers with what a function makes of a task, at once or never."""

    answer: Callable[[Task], Outcome | None]
    most: int = 0
    cancelled: list[Task] = field(default_factory=list)
    _flight: list[Task] = field(default_factory=list)

    def slots(self) -> int:
        return 3

    def submit(self, task: Task) -> None:
        self._flight.append(task)
        self.most = max(self.most, len(self._flight))

    def wait(self, timeout: float) -> list[Outcome]:
        found = [Outcome(t.key, weights="{}") if not t.source else self.answer(t)
                 for t in self._flight]  # fmt: skip
        self._flight = [t for t, one in zip(self._flight, found, strict=True) if one is None]
        found += [Outcome(t.key, "crash", "killed", crashes=2) for t in self.cancelled]
        self._flight = [t for t in self._flight if t not in self.cancelled]
        self.cancelled.clear()
        return [one for one in found if one is not None]

    def cancel(self, task: Task) -> None:
        self.cancelled.append(task)

    def close(self) -> None: ...


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger.db", create=True)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hilum.archive.driver._WAIT_S", 0.0)
    monkeypatch.setattr("hilum.archive.driver._LOOK_S", 0.01)


def drive(ledger: Ledger, answer: Callable[[Task], Outcome | None], **more: float) -> Answers:
    out = ledger.path.parent / "out"
    engine, settings = Answers(answer), RunSettings(out=str(out), urls=("x",), **more)  # type: ignore[arg-type]
    said: list[str] = []
    Driver(ledger, FolderStore(out), engine, settings, said.append, threading.Event()).run()
    return engine


def enter(ledger: Ledger, count: int) -> None:
    ledger.enter(PLAN, ((f"/s{n}", "1") for n in range(count)))


@pytest.mark.parametrize(
    ("kind", "tries", "state"),
    [("input", 1, "failed"), ("server", 4, "failed"), ("output", 3, "failed"),
     ("crash", 2, "failed"), ("", 1, "done")],
)  # fmt: skip
def test_each_kind_of_error_has_its_number_of_tries(
    ledger: Ledger, kind: str, tries: int, state: str
) -> None:
    enter(ledger, 1)
    drive(ledger, lambda task: Outcome(task.key, kind, "why"))
    (study,) = ledger.studies()
    assert (study.state, study.kind, study.tries) == (state, kind, tries)


def test_a_study_that_never_ends_is_set_aside_at_its_second_deadline(ledger: Ledger) -> None:
    enter(ledger, 1)
    drive(ledger, lambda _: None, deadline_s=0.05)
    (study,) = ledger.studies()
    assert (study.state, study.kind, study.crashes) == ("failed", "deadline", 2)


def test_a_cluster_without_servers_ends_and_blames_no_study(ledger: Ledger) -> None:
    enter(ledger, 2)
    with pytest.raises(ConnectionFailed):
        drive(ledger, lambda task: Outcome(task.key, "lost", "gone"), patience_s=0.1)
    ledger.resume()
    assert {(s.state, s.tries) for s in ledger.studies()} == {("pending", 0)}


def test_no_more_is_handed_out_than_there_are_slots(ledger: Ledger) -> None:
    enter(ledger, 50)
    engine = drive(ledger, lambda task: Outcome(task.key))
    assert engine.most == 3
    assert ledger.counts()["done"] == 50


def test_a_second_driver_is_refused(ledger: Ledger) -> None:
    with (
        alone(ledger),
        pytest.raises(OutputError, match="another driver"),
        alone(Ledger(ledger.path)),
    ):
        pass


def test_a_driver_on_another_machine_is_waited_for(ledger: Ledger) -> None:
    ledger.set("lease", f"elsewhere {time.time():.0f}")
    with pytest.raises(OutputError, match="elsewhere"), alone(ledger):
        pass
    ledger.set("lease", f"elsewhere {time.time() - 90:.0f}")
    with alone(ledger):
        pass


def test_a_copy_of_a_ledger_made_meanwhile_opens(ledger: Ledger, tmp_path: Path) -> None:
    enter(ledger, 1000)
    for name in ("ledger.db", "ledger.db-wal"):
        (tmp_path / f"copy-{name}").write_bytes((tmp_path / name).read_bytes())
    assert Ledger(tmp_path / "copy-ledger.db").counts()["pending"] == 1000


def test_keys_follow_from_all_that_a_result_does() -> None:
    one = Keys(PLAN).key("/a", "1")
    assert one == Keys(PLAN).key("/a", "1")
    other = Plan(system="lungmask", options={"mode": "corrected"}, files={"pictures": False})
    assert len({one, Keys(PLAN).key("/b", "1"), Keys(PLAN).key("/a", "2"),
                Keys(other).key("/a", "1")}) == 4  # fmt: skip


def test_a_result_is_committed_once(tmp_path: Path) -> None:
    store, marker = FolderStore(tmp_path), {"follows_from": "x", "sha256": "1"}
    for sha in ("1", "2"):
        with store.workspace("ab12") as work:
            (work / "r").mkdir()
            (work / "r" / "file").write_text(sha)
            there = store.commit("ab12", work / "r", {**marker, "sha256": sha})
        assert there["sha256"] == "1"
    assert (tmp_path / "ab" / "ab12" / "file").read_text() == "1"
    with store.workspace("ab12") as work, pytest.raises(OutputError, match="other weights"):
        (work / "r").mkdir()
        store.commit("ab12", work / "r", {"follows_from": "y", "sha256": "3"})
    assert list(store.names()) == ["ab12"]
