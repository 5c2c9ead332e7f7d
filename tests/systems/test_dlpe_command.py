"""`hilum run dlpe` with the networks of the golden files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
from commands import report_of

from hilum.server.launcher import TritonServer


def test_a_study_and_a_file_that_is_none(
    dlpe_server: TritonServer, golden: Path, tmp_path: Path
) -> None:
    study = tmp_path / "volume.npz"
    with np.load(golden / "dlpe" / "10_pipeline.npz") as stored:
        np.savez(study, array=(stored["hu"].astype(np.float32) + 600) / 1600)
    (tmp_path / "bad.npy").write_bytes(b"nothing")
    done = subprocess.run(
        [Path(sys.executable).with_name("hilum"), "run", "dlpe", study, tmp_path / "bad.npy",
         "--out", tmp_path / "out", "--url", dlpe_server.grpc_url, "--no-pictures",
         "--save-arrays", "--cohort", "in-patient", "--slab-slices", "16"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    report = report_of(tmp_path / "out")
    first, second = report["results"]
    assert first["status"] == "window_not_trusted"  # of masks that mean nothing
    assert first["ring_outside_lung_share"] > 0.05
    assert second["status"] == "failed"
    assert first["cohort"] == "in-patient"
    assert first["counts"]["passes"] < first["counts"]["published_passes"] == 7 * 192
    assert len(report["weights"]) == 21
    with np.load(tmp_path / "out" / "0001" / "arrays.npz") as arrays:
        assert "in_patient" in arrays
        assert "follow_up" not in arrays
