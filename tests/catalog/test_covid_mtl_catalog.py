"""The constants of COVID-MTL against the golden and the published tables."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from hilum.catalog import closure
from hilum.catalog import covid_mtl as catalog
from hilum.catalog import covid_mtl_features as features


def test_features_have_the_published_order(golden: Path) -> None:
    names = np.load(golden / "mtl" / "radiomics.npz")["names"]
    assert tuple(names) == features.FEATURES
    assert len(set(features.FEATURES)) == 375


def test_constants_are_those_of_the_published_tables(shared: Path) -> None:
    folder = shared / "specs" / "golden_mtl"
    if not folder.is_dir():
        pytest.skip("no published tables of COVID-MTL")
    with (folder / "published_feature_stats.csv").open() as file:
        rows = {row["feature"]: row for row in csv.DictReader(file)}
    assert tuple(rows) == features.FEATURES
    reference = json.loads((folder / "published_reference.json").read_text())
    assert (reference["ct_mean"], reference["ct_std"]) == (catalog.MEAN, catalog.STD)
    assert list(reference["class_counts"]) == list(catalog.HEADS)
    largest = {
        name: 100 * max(counts.values()) / sum(counts.values())
        for name, counts in reference["split"]["test_counts"].items()
    }
    quoted = [figure.value for figure in catalog.SYSTEM.published]
    assert quoted == [pytest.approx(share, abs=0.05) for share in largest.values()]
    for name, counts in reference["class_counts"].items():
        assert len(counts) == len(catalog.HEADS[name].classes)


def test_the_window_lies_in_the_box() -> None:
    ends = [s + n for s, n in zip(catalog.WINDOW_START, catalog.WINDOW, strict=True)]
    assert ends == [270, 320, 320]
    assert all(end <= length for end, length in zip(ends, catalog.CROP, strict=True))
    assert catalog.VOLUME.shape == catalog.WINDOW
    whole = np.arange(catalog.CLIP + 1)
    assert np.array_equal(whole.astype(np.float16).astype(int), whole)


def test_the_server_computes_the_same_answers_from_the_box() -> None:
    local, remote = catalog.ENSEMBLE, catalog.SERVER_ENSEMBLE
    assert remote.outputs[:3] == local.outputs == catalog.ANSWERS
    needed = [m.model for m in closure([remote])]
    assert needed == [
        "covid_mtl_window", "covid_mtl_radiomics", "covid_mtl_dual", "covid_mtl_server",
    ]  # fmt: skip
    assert [t.labels for t in catalog.ANSWERS] == [h.classes for h in catalog.HEADS.values()]
