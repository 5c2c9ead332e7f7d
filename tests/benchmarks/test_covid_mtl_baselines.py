"""LightGBM and random forests on tables of radiomic features."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import onnxruntime
import pytest
from hilum.benchmarks import covid_mtl_baselines as baselines
from hilum.benchmarks.covid_mtl_cohort import divide, read_cohort
from hilum.benchmarks.covid_mtl_forest import forest_to_onnx
from hilum.catalog.covid_mtl import HEADS
from hilum.catalog.covid_mtl_features import FEATURES
from hilum.catalog.errors import InputError
from hilum.client.cli import app
from hilum.preprocessing.radiomics import scaling
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split
from typer.testing import CliRunner

CASES, TREES = 240, 40

Row = dict[str, Any]


def rows(seed: int = 3, *, cases: int = CASES, shuffled: bool = False) -> list[Row]:
    """Cases whose first 60 features tell the labels, in the ranges of the published table."""
    rng = np.random.default_rng(seed)
    low, high = scaling().low, scaling().high
    severity = rng.choice(3, cases, p=[0.43, 0.42, 0.15])
    labels = {
        "ct": (rng.random(cases) < np.where(severity > 0, 0.9, 0.5)).astype(int),
        "nat": (severity > 0).astype(int),
        "severity": severity,
    }
    told = rng.random((cases, len(FEATURES)))
    for column, values in enumerate(labels.values()):
        mine = slice(20 * column, 20 * (column + 1))
        told[:, mine] = 0.2 * told[:, mine] + 0.4 * values[:, None]
    if shuffled:
        labels = {name: rng.permutation(values) for name, values in labels.items()}
    features = low + told * (high - low)
    return [
        dict(zip(FEATURES, map(float, features[k]), strict=True))
        | {name: int(values[k]) for name, values in labels.items()}
        for k in range(cases)
    ]


def write(path: Path, table: Sequence[Row]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(table[0]))
        writer.writeheader()
        writer.writerows(table)
    return path


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("table") / "cases.csv", rows())


@pytest.fixture(scope="module")
def trained(table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command writes for a table with signal."""
    out = tmp_path_factory.mktemp("trained")
    done = CliRunner().invoke(
        app,
        ["bench", "covid-mtl-baselines", str(table), "--out", str(out), "--trees", str(TREES)],
    )
    assert done.exit_code == 0, done.output
    assert "| Severity | random forest |" in done.stdout
    return out


@pytest.fixture(scope="module")
def report(trained: Path) -> dict[str, Any]:
    return json.loads((trained / "baselines.json").read_text())


# --- training -------------------------------------------------------------------------------------


def test_models_find_what_is_there(report: dict[str, Any]) -> None:
    found = {(r["head"], r["model"]): r for r in report["rows"]}
    assert set(found) == {(h, m) for h in HEADS for m in baselines.MODELS}
    for (head, _), row in found.items():
        assert (row["train"], row["test"]) == (168, 72)
        assert len(row["auc"]) == (3 if head == "severity" else 1)
        assert min(row["auc"]) > 0.97
        assert row["accuracy"] == row["recall"] > row["majority"] >= 1 / 3
        assert abs(row["grid_auc"] - np.mean(row["auc"])) < 0.02
        assert 0.8 < row["f1"] <= 1
        assert 0.8 < row["precision"] <= 1
    assert report["split"] == "drawn as published"
    assert report["cases"] == CASES


def test_shuffled_labels_cannot_be_learnt(tmp_path: Path) -> None:
    file = write(tmp_path / "cases.csv", rows(cases=400, shuffled=True))
    found = baselines.train(file, tmp_path / "out", heads=["nat"], trees=TREES)
    for row in found["rows"]:
        assert row["auc"][0] == pytest.approx(0.5, abs=0.13)  # 2.5 deviations of 120 cases


def test_the_report_is_written_for_people(trained: Path, report: dict[str, Any]) -> None:
    text = (trained / "baselines.md").read_text()
    assert text.count("\n| ") == 7
    assert "0.8697 / 0.9183" in text
    assert "0.6391 / 0.8161, 0.7928, 0.7656" in text
    assert "Not a medical device" in text
    row = report["rows"][0]
    assert f"| {row['accuracy']:.4f} | {row['auc'][0]:.4f} |" in text
    assert sorted(report["files"]) == sorted(
        p.name for p in trained.iterdir() if p.suffix in (".txt", ".onnx")
    )


def test_saved_models_give_the_same(trained: Path, table: Path, report: dict[str, Any]) -> None:
    cohort = read_cohort(table)
    for row in report["rows"]:
        learn, test = divide(cohort, row["head"])
        if row["model"] == "forest":
            session = onnxruntime.InferenceSession(trained / f"forest-{row['head']}.onnx")
            given = {"features": test.features.astype(np.float32)}
            found = session.run(["probabilities"], given)[0]
            forest = RandomForestClassifier(TREES, random_state=11)
            wanted = forest.fit(learn.features, learn.labels).predict_proba(test.features)
            assert np.abs(found - wanted).max() < 1e-6
        else:
            booster = lightgbm.Booster(model_file=trained / f"lightgbm-{row['head']}.txt")
            found = np.asarray(booster.predict(test.features))
            found = np.stack([1 - found, found], 1) if found.ndim == 1 else found
        again = baselines.score(row["head"], row["model"], learn, test, found)
        assert again.accuracy == row["accuracy"]
        # In single precision some of a forest's equal probabilities are no longer equal.
        far = 0.01 if row["model"] == "forest" else 1e-9
        assert again.auc == pytest.approx(row["auc"], abs=far)


def test_a_forest_in_onnx_is_the_forest() -> None:
    rng = np.random.default_rng(1)
    features = rng.integers(0, 12, (300, 5)) / 10  # many values on a threshold
    forest = RandomForestClassifier(30, random_state=2).fit(features, rng.integers(0, 3, 300))
    model = forest_to_onnx(forest).SerializeToString()
    found = onnxruntime.InferenceSession(model).run(
        ["probabilities"], {"features": features.astype(np.float32)}
    )[0]
    assert np.abs(found - forest.predict_proba(features)).max() < 1e-6


# --- tables and splits ----------------------------------------------------------------------------


def test_the_split_is_the_published_one(table: Path) -> None:
    cohort = read_cohort(table)
    order = np.arange(CASES)
    learn, test = train_test_split(
        order, test_size=0.30, random_state=11, stratify=cohort.labels["nat"], shuffle=True
    )
    for head in HEADS:
        parts = divide(cohort, head)
        for part, chosen in zip(parts, (learn, test), strict=True):
            assert np.array_equal(part.features, cohort.features[np.sort(chosen)])
            assert np.array_equal(part.labels, cohort.labels[head][np.sort(chosen)])


def test_published_sizes_of_the_split() -> None:
    """1329 cases, 568 of them negative: 930 and 399, with 397 and 171 of these (spec §2.2)."""
    nat = np.arange(1329) >= 568
    learn, test = train_test_split(
        np.arange(1329), test_size=0.30, random_state=11, stratify=nat, shuffle=True
    )
    assert (len(learn), len(test)) == (930, 399)
    assert ((~nat[learn]).sum(), (~nat[test]).sum()) == (397, 171)


def test_a_table_may_bring_its_split(tmp_path: Path) -> None:
    cases = rows(cases=30)
    cases = [{**row, "split": "test" if k % 3 == 0 else "train"} for k, row in enumerate(cases)]
    cohort = read_cohort(write(tmp_path / "cases.csv", cases), ["nat"])
    learn, test = divide(cohort, "nat")
    assert np.array_equal(test.features, cohort.features[::3])
    assert (len(learn.labels), len(test.labels)) == (20, 10)


def changed(row: int, **cells: Any) -> list[Row]:
    table = rows(cases=40)
    table[row] |= cells
    return table


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([{k: v for k, v in r.items() if k != "Idmn"} for r in rows(cases=3)],
         "lacks the columns Idmn"),
        ([{k: v for k, v in r.items() if "glrlm" not in k} for r in rows(cases=3)],
         "and 123 more"),
        ([{k: v for k, v in r.items() if k != "severity"} for r in rows(cases=3)],
         "lacks the columns severity"),
        (changed(4, Energy=float("nan")), "case 5: Energy is 'nan', not a number"),
        (changed(4, Energy="much"), "case 5: Energy is 'much'"),
        (changed(4, Energy=""), "case 5: Energy is ''"),
        (changed(7, ct=2), "case 8: ct is '2'; its classes are 0, 1"),
        (changed(7, severity="mild"), "its classes are 0, 1, 2"),
        ([{**r, "nat": 1} for r in rows(cases=40)], r"nat: no case of class 0 \(negative\)"),
        ([{**r, "nat": int(k > 0)} for k, r in enumerate(rows(cases=9))],
         "9 cases cannot be split"),
        ([{**r, "split": "both"} for r in rows(cases=3)], "case 1: split is 'both'"),
    ],
)  # fmt: skip
def test_bad_tables_are_named(tmp_path: Path, bad: list[Row], message: str) -> None:
    file = write(tmp_path / "cases.csv", bad)
    with pytest.raises(InputError, match=message):
        baselines.train(file, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_cohort(tmp_path / "missing.csv")
    (tmp_path / "picture").write_bytes(bytes(range(256)))
    with pytest.raises(InputError, match="cannot be read"):
        read_cohort(tmp_path / "picture")
    (tmp_path / "empty.csv").write_text(",".join([*FEATURES, *HEADS]) + "\n")
    with pytest.raises(InputError, match="no cases"):
        read_cohort(tmp_path / "empty.csv")


def test_choices_that_there_are_not(table: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no question 'age'"):
        baselines.train(table, tmp_path, heads=["age"])
    with pytest.raises(InputError, match="no model 'svm'"):
        baselines.train(table, tmp_path, models=["svm"])
    done = CliRunner().invoke(
        app, ["bench", "covid-mtl-baselines", str(table), "--out", str(tmp_path), "--model", "svm"]
    )
    assert done.exit_code == 2
