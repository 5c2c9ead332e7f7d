"""Studies from a bucket and results in one: a server of moto's, with answers that fail."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
from archives import Archive

pytest.importorskip("s3fs", reason="s3fs is not installed (extra s3)")
pytest.importorskip("moto.server", reason="moto is not installed")

from buckets import Troubled, filled

from hilum.archive.bucket import BucketStore
from hilum.archive.ledger import Ledger
from hilum.catalog.errors import OutputError


@pytest.mark.load
def test_a_batch_goes_from_bucket_to_bucket_while_answers_fail(
    s3: Troubled, bucket: str, archive: Archive, make_archive: Callable[..., Archive],
    tmp_path: Path,
) -> None:  # fmt: skip
    filled(bucket, tmp_path / "in", 3)
    assert "3 studies are new" in archive.plan(f"s3://{bucket}/in")
    count = itertools.count(1)
    s3.answer = lambda _: 503 if next(count) % 5 == 0 else 0
    archive.run("--out", f"s3://{bucket}/out")
    assert s3.failed
    assert "3 studies, 3 done, 3 results, 3 read, 0 problems" in archive.verified()
    local = make_archive("local")
    local.plan(tmp_path / "in")
    local.run()
    assert sorted(archive.checksums().values()) == sorted(local.checksums().values())
    assert {row["state"] for row in archive.rows()} == {"done"}


def test_an_upload_that_was_interrupted_is_not_there(
    s3: Troubled, bucket: str, tmp_path: Path
) -> None:
    store = BucketStore(f"s3://{bucket}/out")
    (tmp_path / "result.json").write_text("{}")
    (tmp_path / "two.bin").write_bytes(b"2")
    marker = {"files": {"result.json": "", "two.bin": ""}, "follows_from": "x", "sha256": "1"}
    s3.answer = lambda asked: 403 if asked.path.endswith("two.bin") else 0
    with pytest.raises(OutputError):
        store.commit("ab12", tmp_path, marker)
    assert list(store.names()) == []
    s3.answer = lambda _: 0
    assert store.commit("ab12", tmp_path, marker)["sha256"] == "1"
    again = store.commit("ab12", tmp_path, {**marker, "sha256": "2"})
    assert again["sha256"] == "1"
    assert list(store.names()) == ["ab12"]
    assert store.read("ab12", "two.bin") == b"2"


def test_a_bucket_that_denies_is_a_reason_in_the_table(
    s3: Troubled, bucket: str, archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hilum.archive.driver._WAIT_S", 0.1)
    filled(bucket, tmp_path / "in", 2)
    archive.plan(f"s3://{bucket}/in")
    s3.answer = lambda asked: 403 if asked.path.endswith("in/001.dcm") else 0
    archive.run(code=1)
    done, denied = archive.rows()
    assert (done["state"], denied["state"], denied["error_kind"]) == ("done", "failed", "source")
    assert "denies" in denied["error"]
    assert Ledger(archive.ledger).counts()["done"] == 1
