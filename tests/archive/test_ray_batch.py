"""Batches on a cluster of Ray: parts are killed, and every study is there once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from archives import Archive, xrays

pytest.importorskip("ray", reason="ray is not installed (extra cluster)")

from chaos import EVENTS, Chaos, survive
from clusters import Cluster

from hilum.archive.cluster import check_address
from hilum.catalog.errors import InputError


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    made = Cluster(tmp_path_factory.mktemp("ray"))
    try:
        yield made.start_head()
    finally:
        made.stop()


@pytest.mark.load
def test_parts_die_and_every_output_is_that_of_a_run(
    chest_repository: Path, tmp_path: Path
) -> None:
    with Chaos(tmp_path, chest_repository, seed=4, servers=2) as chaos:
        xrays(tmp_path / "in", 40)
        survive(chaos, tmp_path / "in", "cxr-severity", 40, EVENTS)
    log = (tmp_path / "in-batch" / "log").read_text()
    assert str(tmp_path / "in" / "0") not in log
    assert "raylet" not in log


def test_another_token_is_refused(cluster: Cluster, archive: Archive, tmp_path: Path) -> None:
    xrays(tmp_path / "in", 1)
    archive.plan(tmp_path / "in")
    archive.environment = {**cluster.environment, "RAY_AUTH_TOKEN": "a-wrong-one" * 4}
    run = archive.start("--engine", "ray", "--address", cluster.address)
    assert run.wait(120) == 3, (archive.folder / "log").read_text()


def test_a_cluster_on_a_network_needs_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    for address in ("10.0.0.1:6379", "head:6379", "ray://head:10001"):
        with pytest.raises(InputError, match="token"):
            check_address(address)
    for address in ("auto", "127.0.0.1:6379", "localhost:6379", "[::1]:6379"):
        check_address(address)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    check_address("head:6379")
