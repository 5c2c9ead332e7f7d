"""The ledger: what grows meanwhile stays ignored, and work that is there is not made again."""

from __future__ import annotations

from pathlib import Path

import pytest

from hilum.gateway.ledger import Ledger
from hilum.gateway.records import identity_of

WORK = [("CT", "lungmask", {})]


def taken(ledger: Ledger, *instances: str) -> list[str]:
    ledger.see("1.2.3", "1.2", len(instances))
    series = ledger.series("1.2.3")
    assert series is not None
    return ledger.take(series, identity_of(instances), WORK)


def test_the_same_instances_make_no_second_job(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    assert len(taken(ledger, "1", "2")) == 1
    assert taken(ledger, "2", "1") == []


def test_a_job_whose_series_grew_cannot_be_brought_back_by_who_works_on_it(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    (first,) = taken(ledger, "1")
    (second,) = taken(ledger, "1", "2")
    assert not ledger.move(first, "fetching")
    assert not ledger.sending(first, {"1.2.4": 1})
    assert ledger.job(first).state == "ignored"
    assert ledger.outputs(first) == {}
    assert ledger.job(second).replaces == first
    assert ledger.move(second, "fetching")
    states = [row["state"] for row in ledger.audit() if row["subject"] == first]
    assert states == ["stable", "ignored"]


def test_nobody_else_reads_a_ledger(tmp_path: Path) -> None:
    path = tmp_path / "state" / "ledger"
    for _ in range(2):
        ledger = Ledger(path)
        assert len(taken(ledger, "1")) in (0, 1)
        assert path.parent.stat().st_mode & 0o077 == 0
        assert {file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {0o600}
        path.chmod(0o644)  # as somebody else made it
        ledger.close()


def test_a_block_that_fails_changes_nothing(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    with pytest.raises(KeyError), ledger.change():
        taken(ledger, "1")
        raise KeyError
    assert ledger.series("1.2.3") is None
    assert ledger.jobs() == []
    assert ledger.audit() == []


def test_systems_with_other_options_run_side_by_side(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    both = [("as published", "dlpe", {}), ("corrected", "dlpe", {"mode": "corrected"})]
    ledger.see("1.2.3", "1.2", 1)
    made = {}
    for instances in (["1"], ["1", "2"]):
        ledger.see("1.2.3", "1.2", len(instances))
        series = ledger.series("1.2.3")
        assert series is not None
        for key in ledger.take(series, identity_of(instances), both):
            made[len(instances), ledger.job(key).rule] = ledger.job(key)
            assert ledger.job(key).state == "stable"
    assert len(made) == 4
    for rule, _, _ in both:
        assert made[2, rule].replaces == made[1, rule].id


def test_all_that_may_have_been_sent_is_withdrawn(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    (first,) = taken(ledger, "1")
    assert ledger.move(first, "running")
    assert ledger.sending(first, {"1.9": 3})
    ledger.move(first, "done")
    (second,) = taken(ledger, "1", "2")  # which never comes to send anything
    (third,) = taken(ledger, "1", "2", "3")
    assert [job.id for job in ledger.earlier(ledger.job(third))] == [second, first]
    ledger.move(third, "running")
    ledger.sending(third, {"1.10": 1})
    ledger.move(third, "failed")
    (fourth,) = taken(ledger, "1", "2", "3", "4")
    assert [job.id for job in ledger.earlier(ledger.job(fourth))] == [third, second, first]
    ledger.forget(second)
    assert [job.id for job in ledger.earlier(ledger.job(fourth))] == [third, first]
    ledger.move(fourth, "done")
    (fifth,) = taken(ledger, "1", "2", "3", "4", "5")
    assert [job.id for job in ledger.earlier(ledger.job(fifth))] == [fourth]


def test_a_series_that_is_again_as_it_was_is_processed(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    (first,) = taken(ledger, "1")
    (second,) = taken(ledger, "1", "2")
    assert taken(ledger, "1") == [first]
    assert ledger.job(first).state == "stable"
    assert ledger.job(second).state == "ignored"
    assert [job.id for job in ledger.earlier(ledger.job(first))] == [second]


def test_jobs_end_when_no_rule_takes_the_series_any_more(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    (first,) = taken(ledger, "1")
    ledger.see("1.2.3", "1.2", 2)
    series = ledger.series("1.2.3")
    assert series is not None
    ledger.ignore(series, identity_of(["1", "2"]), "too many")
    assert ledger.job(first).state == "ignored"
    assert ledger.reasons() == [{"state": "ignored", "reason": "too many", "series": 1}]
    ledger.see("1.2.3", "1.2", 3)
    assert ledger.reasons() == []


def test_the_audit_holds_no_identifier_whatever_it_looks_like(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger")
    ledger.see("DOE^JOHN", "DOE", 1)
    series = ledger.series("DOE^JOHN")
    assert series is not None
    ledger.ignore(series, "", "none of ours")
    assert "DOE" not in str(ledger.audit())
