"""From what a source has to jobs: which series are complete, and who takes them."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace

from hilum.catalog.errors import HilumError, InputError

from .config import Settings
from .ledger import Ledger
from .pacs import PacsError
from .records import Series, identity_of
from .rules import SeriesFacts, Verdict, judge
from .sources import ODD, Found, Source, is_uid

_CURSOR = "cursor"

_LOOKS = 0.25
"""Part of `idle_s` after which a study that waits is asked for again."""


@dataclass(slots=True)
class Intake:
    """Looks at a source, and judges the series that are complete."""

    settings: Settings
    ledger: Ledger
    source: Source
    _asked: dict[str, float] = field(default_factory=dict)
    _failed: dict[str, tuple[int, float]] = field(default_factory=dict)

    def look(self) -> None:
        """Enter what is new at the source.

        Raises
        ------
        PacsError
            When it does not answer.
        """
        before = self.ledger.setting(_CURSOR)
        found, cursor = self.source.news(before)
        with self.ledger.change():
            for series in found:
                self._see(series)
            if cursor != before:
                self.ledger.set(_CURSOR, cursor)
        self._asked |= dict.fromkeys((series.study for series in found), time.monotonic())
        self._look_again()

    def _look_again(self) -> None:
        """Ask for studies that wait, each a few times while it must not change.

        A series that is complete is asked for when it is judged.
        """
        waiting = {one.study for one in self.ledger.waiting() if not self._complete(one)}
        self._asked = {study: at for study, at in self._asked.items() if study in waiting}
        distance = self.settings.trigger.idle_s * _LOOKS
        for study in waiting:
            if time.monotonic() - self._asked.get(study, -math.inf) < distance:
                continue
            self._asked[study] = time.monotonic()
            try:
                found = self.source.study(study)
            except PacsError as failure:
                if failure.everywhere:
                    raise
                continue  # what is wrong is said when it is judged
            for series in found:
                self._see(series)

    def judge(self) -> list[str]:
        """Judge every series that is complete; returns the new jobs.

        Raises
        ------
        PacsError
            When the source answers nothing at all; the rest is judged later.
        """
        made: list[str] = []
        waiting = self.ledger.waiting()
        there = {series.uid for series in waiting}
        self._failed = {uid: tried for uid, tried in self._failed.items() if uid in there}
        for series in waiting:
            if self._complete(series) and self._failed.get(series.uid, (0, 0.0))[1] <= time.time():
                made += self._judge(series)
        return made

    def explain(self, study: str) -> list[tuple[Found, SeriesFacts | None, list[Verdict], str]]:
        """What the rules say about each series of a study, as it is now at the source.

        Returns
        -------
        list
            Each series with what rules ask, their verdicts, and the state in the ledger.
        """
        judged = []
        for found in self.source.study(study):
            instances = self.source.instances(found)
            facts = self._facts(found, instances) if instances else None
            known = self.ledger.series(found.uid)
            verdicts = judge(facts, self.settings.rule) if facts else []
            state = known.state if known else "not seen yet"
            if self.ledger.is_output(found.uid):
                state = "sent by this gateway"
            judged.append((found, facts, verdicts, state))
        return judged

    def _see(self, series: Found) -> None:
        if self.ledger.is_output(series.uid):
            return
        new = self.ledger.see(series.uid, series.study, series.instances)
        entered = self.ledger.series(series.uid) if new else None
        if entered and not (is_uid(series.uid) and is_uid(series.study)):
            self.ledger.ignore(entered, "", ODD)

    def _complete(self, series: Series) -> bool:
        now, trigger = time.time(), self.settings.trigger
        idle = now - series.changed >= trigger.idle_s
        return idle or now - series.first_seen >= trigger.force_s

    def _judge(self, series: Series) -> list[str]:
        found = Found(series.uid, series.study, series.instances)
        try:
            instances = self.source.instances(found)
            if not instances:
                self.ledger.ignore(series, "", "it has no instances any more")
                return []
            facts = self._facts(found, instances)
        except InputError as failure:
            self.ledger.ignore(series, "", str(failure))
            return []
        except PacsError as failure:
            if failure.everywhere:
                raise
            if failure.again:
                self._delay(series, str(failure))
            else:
                self.ledger.ignore(series, "", str(failure))
            return []
        except HilumError:
            raise
        except Exception as failure:  # noqa: BLE001 - of this series; it may hold a name
            self._delay(series, f"it cannot be looked at ({type(failure).__name__})")
            return []
        if len(instances) != series.instances:
            self.ledger.see(series.uid, series.study, len(instances))
            grown = self.ledger.series(series.uid)
            if grown is None or not self._complete(grown):
                return []
            series = grown  # it has grown for `force_s`
            facts = replace(facts, instances=series.instances)
        verdicts = judge(facts, self.settings.rule)
        identity = identity_of(instances)
        work = {
            (system, str(verdict.rule.options.get(system))): (
                verdict.rule.name, system, verdict.rule.options.get(system, {})
            )
            for verdict in verdicts if verdict.takes for system in verdict.rule.systems
        }  # fmt: skip
        if work:
            return self.ledger.take(series, identity, list(work.values()))
        reasons = sorted({verdict.reason for verdict in verdicts})
        self.ledger.ignore(series, identity, "; ".join(reasons)[:500])
        return []

    def _delay(self, series: Series, reason: str) -> None:
        """Ask again later for a series of which the source says nothing good, or set it aside."""
        limits, now = self.settings.limits, time.time()
        if now - series.changed > 3600 * limits.give_up_h:
            self.ledger.ignore(series, "", reason)
            return
        tries = self._failed.get(series.uid, (0, 0.0))[0] + 1
        wait = min(limits.longest_retry_s, limits.first_retry_s * 2 ** min(tries - 1, 20))
        self._failed[series.uid] = tries, now + wait
        if series.reason != reason:
            self.ledger.delay(series.uid, reason)

    def _facts(self, found: Found, instances: list[str]) -> SeriesFacts:
        facts = self.source.facts(found, instances[0])
        if not facts.ours and self.ledger.is_output(found.uid):
            return replace(facts, ours="sent by this gateway")
        return facts
