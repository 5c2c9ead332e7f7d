"""Studies on a cluster that take too much memory or too long: counted, and set aside."""

from __future__ import annotations

import gzip
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from archives import Archive
from nibabel.nifti1 import Nifti1Header

from hilum.archive.ledger import Ledger
from hilum.preprocessing.phantoms.ct import chest_ct
from hilum.preprocessing.phantoms.ct_dicom import write_dicom_series

if TYPE_CHECKING:
    from buckets import Troubled
    from werkzeug.wrappers import Request

pytest.importorskip("ray", reason="ray is not installed (extra cluster)")

from clusters import Cluster

pytestmark = [pytest.mark.serial, pytest.mark.load]  # what others take of the memory would count

ROOM_BYTES = 1_400_000_000
"""What a node with its workers and the driver may take beyond what is taken already."""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    try:
        yield made.start_head()
    finally:
        made.stop()


def taken(more: int) -> float:
    """The share of this machine's memory that is taken, as a raylet counts it, and `more` bytes."""
    lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    size = {name: 1024 * int(kib) for name, kib, *_ in lines}
    return (size["MemTotal:"] - size["MemAvailable:"] + more) / size["MemTotal:"]


def huge(path: Path) -> None:
    """A CT of 1000 slices: a small file that is a gigabyte and more while it is read."""
    header = Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape((512, 512, 1000))
    header.set_sform(np.diag([-0.7, -0.7, 0.5, 1]), 1)
    header["magic"], header["vox_offset"] = b"n+1", 352
    one = np.full((512, 512), -1000, np.int16)
    one[96:416, 96:416] = 40
    one[160:352, 160:240] = -850
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(header.binaryblock + bytes(4))
        for _ in range(1000):
            file.write(one.tobytes())


def test_a_study_that_takes_the_memory_of_its_node_is_set_aside(
    cluster: Cluster, archive: Archive, tmp_path: Path
) -> None:
    for seed in range(2):
        write_dicom_series(chest_ct(seed, slices=6, size=96, lesions=0).volume,
                           tmp_path / "in" / f"a{seed}")  # fmt: skip
    huge(tmp_path / "in" / "huge.nii.gz")
    archive.plan(tmp_path / "in", system="lungmask")
    limit = taken(ROOM_BYTES)
    cluster.start_node(
        archive.url, slots=1, memory_monitor_refresh_ms="20", memory_usage_threshold=f"{limit:.4f}"
    )
    archive.environment = cluster.environment
    run = archive.start("--engine", "ray", "--address", cluster.address)
    assert run.wait(240) == 1, archive.log()
    *small, study = archive.rows()
    assert [row["state"] for row in small] == ["done", "done"]
    assert (study["state"], study["error_kind"]) == ("failed", "crash"), archive.log()
    assert "ran out of memory" in study["error"]
    (crashed,) = Ledger(archive.ledger).studies("failed")
    assert crashed.crashes == 2


def test_a_study_that_hangs_is_set_aside_at_its_second_deadline(
    cluster: Cluster, s3: Troubled, bucket: str, archive: Archive, tmp_path: Path
) -> None:
    from buckets import filled

    filled(bucket, tmp_path / "in", 2)
    archive.plan(f"s3://{bucket}/in")

    def hang(asked: Request) -> int:
        if asked.path.endswith("in/001.dcm"):
            time.sleep(50)
        return 0

    s3.answer = hang
    cluster.start_node(archive.url, slots=1)
    archive.environment = cluster.environment
    run = archive.start("--engine", "ray", "--address", cluster.address, "--deadline", 10)
    assert run.wait(240) == 1, archive.log()
    done, hung = archive.rows()
    assert done["state"] == "done", archive.log()
    assert (hung["state"], hung["error_kind"]) == ("failed", "deadline"), archive.log()
    assert "10 s" in hung["error"]
