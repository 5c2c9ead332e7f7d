"""A cluster that is started as the page says (make test-load)."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest
from archives import xrays
from manual import Typist, shown

from hilum.server.launcher import TritonServer

pytest.importorskip("ray", reason="the extra cluster is not installed")
pytest.importorskip("moto.server", reason="moto is not installed")

import buckets
from clusters import Cluster

pytestmark = pytest.mark.load


def test_a_cluster_is_started_and_works_on_an_archive(
    chest_server: TritonServer, tmp_path: Path
) -> None:
    (block,) = shown("docs/how-to/archive.md", "On a cluster", "sh")
    settings, head, node, run = block.splitlines()
    cluster = Cluster(tmp_path)
    names = {word.partition("=")[0] for word in shlex.split(settings)[1:]}
    assert names <= set(cluster.environment)
    xrays(tmp_path / "in", 2)
    plan = "hilum batch plan in --system cxr-severity --option network=manet --ledger ct.db"
    with buckets.served():
        buckets.made("bucket")
        try:
            own = head.replace("6379", str(cluster.port))
            cluster.start("head", *shlex.split(own)[2:])
            address = {"HEAD:6379": cluster.address, "localhost:8001": chest_server.grpc_url}
            for old, new in address.items():
                node, run = node.replace(old, new), run.replace(old, new)
            url, *words = shlex.split(node, comments=True)
            cluster.start("node", *words[2:], HILUM_BATCH_URL=url.partition("=")[2])
            reader = Typist(tmp_path, **cluster.environment, **{
                name: os.environ[name] for name in os.environ if name.startswith("AWS_")
            })  # fmt: skip
            reader.type(plan)
            reader.type(run, limit_s=300)
        finally:
            cluster.stop()
        status = reader.type("hilum batch status --ledger ct.db")
    assert "2 done" in status
