"""The benchmark of the steps between DLPE's networks, on a small scan."""

from __future__ import annotations

import numpy as np
from hilum.benchmarks.dlpe_steps import make_scan, markdown, measure


def test_every_step_agrees_with_its_definition() -> None:
    told: list[str] = []
    report = measure(64, 3, rounds=1, slices=3, block=24, progress=told.append)
    assert len(report["rows"]) == 9
    for row in report["rows"]:
        assert row["equal"], row["step"]
        assert row["seconds"] > 0
        assert row["ratio"] == row["direct_seconds"] / row["seconds"]
        # Never more than a few masks and the enhanced volume at a time.
        assert row["peak_bytes"] < 16 * 64**3
    assert markdown(report).count("| yes |") == 9
    assert len(told) == 10


def test_the_scan_lies_in_normalised_space() -> None:
    scan = make_scan(64, 3)
    columns = scan.lung.sum(axis=(1, 2)), scan.lung.sum(axis=(0, 2)), scan.lung.sum(axis=(0, 1))
    # Two lungs side by side along axis 1, and wider below than at their tips along axis 2.
    across = columns[1] / columns[1].max()
    assert across[31:33].max() < 0.6
    up = np.flatnonzero(columns[2])
    assert columns[2][up[:12]].sum() > columns[2][up[-12:]].sum()
    assert scan.ct[scan.lung > 0].mean() < -0.1
    assert scan.vessel.max() <= 3
