"""Classical baselines of COVID-MTL, trained from a user's table of radiomic features (spec §13.4).

LightGBM and a random forest learn each of the three questions from 375 features, and are tested on
the rest of the cases: what the deep network is to be measured by, and, trained on the published
table, a model of real data where no weights of the network were ever released.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..catalog.covid_mtl import HEADS
from ..catalog.covid_mtl_features import FEATURES
from ..catalog.errors import InputError
from ..client.pictures.canvas import DISCLAIMER
from ..postprocessing.classification_metrics import (
    one_vs_rest_auc,
    published_auc,
    roc_auc,
    weighted_averages,
)
from .covid_mtl_cohort import SEED, Part, divide, read_cohort

TREES, RATE = 1000, 0.01
"""Trees of either model, and the learning rate of LightGBM."""

MODELS = ("lightgbm", "forest")

TITLES = {"lightgbm": "LightGBM", "forest": "random forest"}

PUBLISHED: Mapping[str, Mapping[str, tuple[float, tuple[float, ...]]]] = {
    "lightgbm": {
        "ct": (0.8697, (0.9183,)),
        "nat": (0.7494, (0.8058,)),
        "severity": (0.6541, (0.8135, 0.7772, 0.7411)),
    },
    "forest": {
        "ct": (0.8647, (0.9123,)),
        "nat": (0.7393, (0.8189,)),
        "severity": (0.6391, (0.8161, 0.7928, 0.7656)),
    },
}
"""Accuracy and AUC on the published table's own split, by model and head; of severity by class."""


@dataclass(frozen=True, slots=True)
class Scores:
    """How well one model answers one question on the cases for the test.

    Attributes
    ----------
    auc
        Exact; of each class against the others when there are three.
    grid_auc
        Mean over the classes as the published program draws it, on 100 points.
    majority
        Accuracy of always giving the largest class.
    precision, recall, f1
        Weighted by the numbers of cases.
    """

    head: str
    model: str
    train: int
    test: int
    accuracy: float
    auc: tuple[float, ...]
    grid_auc: float
    majority: float
    precision: float
    recall: float
    f1: float


def train(
    table: Path,
    out: Path,
    *,
    heads: Sequence[str] = tuple(HEADS),
    models: Sequence[str] = MODELS,
    trees: int = TREES,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Train the models, save them, and test them.

    Parameters
    ----------
    table
        As `read_cohort` takes it.
    out
        Folder for the models: ``lightgbm-<head>.txt`` (LightGBM's own format) and
        ``forest-<head>.onnx``.
    heads
        Questions to be learnt.

    Returns
    -------
    The report, ready for JSON.

    Raises
    ------
    InputError
        For a table or a choice that does not fit, and when LightGBM or scikit-learn is missing.
    """
    _check(heads, HEADS, "question")
    _check(models, MODELS, "model")
    versions = _versions()
    cohort = read_cohort(table, heads)
    divided = {head: divide(cohort, head) for head in heads}
    out.mkdir(parents=True, exist_ok=True)
    rows, files = [], []
    for head, (learn, test) in divided.items():
        for model in models:
            progress(f"{TITLES[model]}, {HEADS[head].title}: {len(learn.labels)} cases")
            answer, file = _TRAIN[model](learn, trees, out, head)
            rows.append(score(head, model, learn, test, answer(test.features)))
            files.append(file.name)
    return {
        "title": "Classical baselines of COVID-MTL on radiomic features",
        "cases": len(cohort.features),
        "split": "drawn as published" if cohort.test is None else "the table's own",
        "trees": trees,
        "versions": versions,
        "rows": [asdict(row) for row in rows],
        "files": files,
    }


def score(
    head: str, model: str, learn: Part, test: Part, probabilities: NDArray[np.float64]
) -> Scores:
    """Judge probabilities [n, classes] of the cases for the test."""
    averages = weighted_averages(test.labels, probabilities.argmax(axis=1))
    binary = probabilities.shape[1] == 2
    aucs = (
        [roc_auc(test.labels, probabilities[:, 1])]
        if binary
        else one_vs_rest_auc(test.labels, probabilities).tolist()
    )
    return Scores(
        head, model, len(learn.labels), len(test.labels), averages.accuracy, tuple(aucs),
        published_auc(test.labels, probabilities),
        float(np.bincount(test.labels).max() / len(test.labels)),
        averages.precision, averages.recall, averages.f1,
    )  # fmt: skip


def markdown(report: Mapping[str, Any]) -> str:
    """The report as Markdown."""
    versions = ", ".join(f"{name} {number}" for name, number in report["versions"].items())
    lines = [
        f"# {report['title']}",
        "",
        f"{report['cases']} cases, split: {report['split']}; {report['trees']} trees; {versions}. "
        f"{DISCLAIMER}",
        "",
        "| question | model | train | test | accuracy | AUC | largest class | precision | recall "
        "| F1 | published: accuracy / AUC |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for r in report["rows"]:
        accuracy, auc = PUBLISHED[r["model"]][r["head"]]
        lines.append(
            f"| {HEADS[r['head']].title} | {TITLES[r['model']]} | {r['train']} | {r['test']} "
            f"| {r['accuracy']:.4f} | {_listed(r['auc'])} | {r['majority']:.4f} "
            f"| {r['precision']:.4f} | {r['recall']:.4f} | {r['f1']:.4f} "
            f"| {accuracy:.4f} / {_listed(auc)} |"
        )
    lines += [
        "",
        "AUC is exact; that of the severity is each class's against the others. *Largest class* is "
        "the accuracy of always giving it. The last column is what such models reached on the "
        "published table with its own split, 930 cases to learn from and 399 for the test; that "
        "table is no part of Hilum.",
        "",
        f"Models: {', '.join(report['files'])}.",
    ]
    return "\n".join(lines) + "\n"


def write(report: Mapping[str, Any], out: Path) -> str:
    """Write ``baselines.json`` and ``baselines.md``; returns the Markdown."""
    text = markdown(report)
    (out / "baselines.json").write_text(json.dumps(report, indent=2) + "\n")
    (out / "baselines.md").write_text(text)
    return text


Answer = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Features [n, 375] to probabilities [n, classes]."""


def _lightgbm(learn: Part, trees: int, out: Path, head: str) -> tuple[Answer, Path]:
    import lightgbm

    classes = len(HEADS[head].classes)
    kind = {"objective": "multiclass", "num_class": classes} if classes > 2 else {}
    parameters = {
        "objective": "binary", "boosting": "gbdt", "learning_rate": RATE, "seed": SEED,
        "deterministic": True, "force_row_wise": True, "verbosity": -1, **kind,
    }  # fmt: skip
    data = lightgbm.Dataset(learn.features, learn.labels, feature_name=list(FEATURES))
    booster = lightgbm.train(parameters, data, trees)
    file = out / f"lightgbm-{head}.txt"
    booster.save_model(file)

    def answer(features: NDArray[np.float64]) -> NDArray[np.float64]:
        found = np.asarray(booster.predict(features), np.float64)
        return np.stack([1 - found, found], axis=1) if found.ndim == 1 else found

    return answer, file


def _forest(learn: Part, trees: int, out: Path, head: str) -> tuple[Answer, Path]:
    from sklearn.ensemble import RandomForestClassifier

    from .covid_mtl_forest import forest_to_onnx

    forest = RandomForestClassifier(trees, random_state=SEED, n_jobs=-1)
    forest.fit(learn.features, learn.labels)
    file = out / f"forest-{head}.onnx"
    file.write_bytes(forest_to_onnx(forest).SerializeToString())
    return lambda features: np.asarray(forest.predict_proba(features)), file


_TRAIN = {"lightgbm": _lightgbm, "forest": _forest}


def _versions() -> dict[str, str]:
    try:
        import lightgbm
        import sklearn
    except ModuleNotFoundError as missing:
        raise InputError(
            f"the baselines need {missing.name}, which is not installed; install hilum[bench]"
        ) from missing
    return {"lightgbm": lightgbm.__version__, "scikit-learn": sklearn.__version__}


def _check(given: Sequence[str], known: Sequence[str] | Mapping[str, Any], what: str) -> None:
    for name in given:
        if name not in known:
            raise InputError(f"no {what} {name!r}; choose {', '.join(known)}")


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4f}" for value in values)
