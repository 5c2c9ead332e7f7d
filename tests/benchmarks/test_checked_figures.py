"""Documented figures that are computed again: sizes, rates, errors; and what does not fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hilum.benchmarks import targets
from hilum.benchmarks.checks import (
    checked,
    fits,
    from_predictions,
    network_sizes,
    published_rates,
)
from hilum.benchmarks.target_rows import judge, rows
from hilum.benchmarks.target_rows import targets as documented
from hilum.catalog import Counts, Figure, cxr_severity
from hilum.catalog.errors import InputError


def test_every_published_size_of_a_network_is_counted_to_its_last_digit() -> None:
    pytest.importorskip("ptflops")
    found = {(one.network, one.quantity): one for one in network_sizes()}
    assert len(found) == 2 * len(cxr_severity.DISEASE)
    for name in cxr_severity.DISEASE:
        for figure in cxr_severity.SYSTEM.network(name).published:
            if figure.quantity in ("parameters", "MACs"):
                own = found[name, figure.quantity]
                assert judge(figure, own).outcome == "pass", own
                assert judge(replace(figure, value=figure.value + 0.1), own).outcome == "fail"


def test_every_published_table_of_rates_has_counts_that_give_it() -> None:
    found = list(published_rates())
    made = rows(documented(("ct-angel", "ct-classifier")), found, {})
    passed = [row for row in made if row["verdict"] == "pass"]
    assert len(passed) == len(found) == 20
    assert {row["figure"].partition(" per ")[0] for row in passed} == set(Counts(1, 1, 1, 1).rates)


def test_a_table_that_contradicts_itself_has_no_counts() -> None:
    values = {
        "sensitivity": 100.0, "specificity": 93.55, "accuracy": 95.24,
        "positive predictive value": 84.62, "negative predictive value": 100.0,
    }  # fmt: skip
    table = {name: Figure(f"{name} per patient", value, "%") for name, value in values.items()}
    assert fits(42, table) == [Counts(tp=11, fn=0, fp=2, tn=29)]
    assert fits(43, table) == []
    accuracy = replace(table["accuracy"], value=95.0)
    assert fits(42, table | {"accuracy": accuracy}) == []


def test_a_checked_figure_fails_when_its_last_digit_differs() -> None:
    figure = Figure("accuracy per slice", 0.908, "", "752 slices")
    assert judge(figure, checked(figure, "s", "", 0.9082, "counts")).outcome == "pass"
    verdict = judge(figure, checked(figure, "s", "", 0.9093, "counts"))
    assert (verdict.outcome, verdict.reason) == ("fail", "differs by 0.0013: counts")


def test_errors_are_computed_again_from_the_published_predictions(shared: Path) -> None:
    files = ("golden_cxr/segments.npz", "golden_mtl/decovnet_published_predictions.npz")
    given = [shared / "specs" / name for name in files]
    made = rows(documented(), from_predictions(given), targets.remedies())
    passed = [row for row in made if row["verdict"] == "pass"]
    assert len(passed) == 11 + 3
    assert not [row for row in made if row["verdict"] == "fail"]


def _predictions(folder: Path, threshold: float = 0.38) -> Path:
    fractions = np.array([[[0.5, 0.4, 0.39, 0.1, 0, 0], [0, 0, 0, 0, 0, 0]]])
    (folder / "images.csv").write_text(
        "idx,subset,gt,bsnet,covidnet_geo\n0,test,2.5,6,1\n1,train,0,1,1\n", encoding="utf-8"
    )
    np.savez(
        folder / "segments.npz", nets=["PSPNet"], image_idx=[0, 1], fractions=fractions,
        score=(fractions > threshold).sum(axis=2),
    )  # fmt: skip
    return folder / "segments.npz"


def test_only_rated_test_images_count(tmp_path: Path) -> None:
    found = list(from_predictions([_predictions(tmp_path)]))
    assert [(one.network, one.value) for one in found] == [("pspnet", 0.5), ("", 1.5), ("", 3.5)]


def test_scores_that_are_not_their_fractions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"scores of PSPNet are not its fractions above 0\.38"):
        list(from_predictions([_predictions(tmp_path, threshold=0.395)]))


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04broken"])
def test_a_file_without_predictions_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "predictions.npz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"holds no published predictions .*; give segments\.npz"):
        list(from_predictions([path]))
    with pytest.raises(InputError, match="FileNotFoundError"):
        list(from_predictions([tmp_path / "nothing.npz"]))
    np.savez(path, other=np.zeros(3))
    with pytest.raises(InputError, match="holds the arrays other"):
        list(from_predictions([path]))
