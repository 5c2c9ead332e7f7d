"""Documented figures that are checked without the authors' weights, images or hardware.

Three kinds: the sizes of networks are counted; tables of rates are computed from the counts of
cases behind them; errors and areas are computed again from the predictions that were published.
"""

from __future__ import annotations

import contextlib
import csv
import io
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import groupby
from math import ceil, floor
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from hilum.catalog import SYSTEMS, Counts, Figure, covid_mtl, cxr_severity
from hilum.catalog.errors import InputError

from .target_rows import SIZES, TOLERANCES, Measured, Target, targets


def checked(figure: Figure, system: str, network: str, value: float, how: str) -> Measured:
    """A checked value, on which no hardware and no weights bear."""
    return Measured(
        system=system, network=network, quantity=figure.quantity, value=value, unit=figure.unit,
        hardware="", gpu=False, weights="", precision="", how=how, documented_on=figure.hardware,
    )  # fmt: skip


def network_sizes() -> Iterator[Measured]:
    """Parameters and multiply–accumulates of the disease networks, stage I's included.

    The article adds two numbers of one decimal, and its counter, ptflops, misses EfficientNet's
    convolutions and counts too many of DPN's. The same counter is asked here, on the networks that
    are exported: what is checked is the published figure, not the true one (spec cxr §12.4).

    Raises
    ------
    ImportError
        Without PyTorch or ptflops, which the extra ``export`` brings.
    """
    first = _count(cxr_severity.LUNG.name, cxr_severity.LUNG_SIZE)
    for name, facts in cxr_severity.DISEASE.items():
        second = _count(name, facts.size)
        for figure in cxr_severity.SYSTEM.network(name).published:
            if (i := SIZES.get(figure.quantity)) is not None:
                how = f"counted with ptflops: {first[i]:.3f} + {second[i]:.3f} {figure.unit}"
                value = round(first[i], 1) + round(second[i], 1)
                yield checked(figure, "cxr-severity", name, value, how)


@cache
def _count(name: str, size: int) -> tuple[float, float]:
    """Parameters in millions and multiply–accumulates in thousands of millions.

    The network has shapes but no values, so that nothing is computed. The counter prints a line
    for every layer that stands in two places.
    """
    from ptflops import get_model_complexity_info

    from hilum.export.systems.cxr_severity.network import skeleton

    with contextlib.redirect_stdout(io.StringIO()):
        macs, parameters = get_model_complexity_info(
            skeleton(name), (3, size, size), as_strings=False, print_per_layer_stat=False
        )
    return float(parameters) / 1e6, float(macs) / 1e9


def published_rates() -> Iterator[Measured]:
    """Each rate whose counts of cases are known, or follow from the table it stands in."""
    for system in SYSTEMS.values():
        for setting, found in groupby(system.published, key=lambda figure: figure.hardware):
            cases = system.published_cases.get(setting)
            figures = {name: f for f in found if (name := _rate(f))}
            if cases is None or not figures:
                continue
            for name, figure in figures.items():
                fitting = [cases] if isinstance(cases, Counts) else fits(cases, figures)
                if not fitting:
                    continue
                said = (
                    "published counts" if isinstance(cases, Counts)
                    else f"the table is consistent; of {cases} cases these counts alone give it"
                    if len(fitting) == 1
                    else f"the table is consistent; {len(fitting)} tables of counts give it, as"
                )  # fmt: skip
                value = fitting[0].rates[name] * _scale(figure)
                yield checked(figure, system.name, "", value, f"{said}: {fitting[0]}")


def fits(cases: int, figures: dict[str, Figure]) -> list[Counts]:
    """Every table of whole counts with so many cases that gives all five rates to their last digit.

    None: the published table contradicts itself.
    """
    wanted = {name: f.value / _scale(f) for name, f in figures.items()}
    tolerance = {name: TOLERANCES[f.unit] / _scale(f) + 1e-9 for name, f in figures.items()}

    def near(of: int, name: str) -> range:
        low, high = wanted[name] - tolerance[name], wanted[name] + tolerance[name]
        return range(max(0, floor(of * low)), min(of, ceil(of * high)) + 1)

    return [
        counts
        for positive in range(1, cases)
        for tp in near(positive, "sensitivity")
        if abs(tp / positive - wanted["sensitivity"]) <= tolerance["sensitivity"]
        for tn in near(cases - positive, "specificity")
        for counts in [Counts(tp, positive - tp, cases - positive - tn, tn)]
        if all(abs(counts.rates[name] - wanted[name]) <= tolerance[name] for name in wanted)
    ]


def _rate(figure: Figure) -> str:
    """Which rate a figure is, in the words of `Counts.rates`; empty for none."""
    name = figure.quantity.partition(" per ")[0]
    return name if name in Counts(1, 1, 1, 1).rates else ""


def _scale(figure: Figure) -> float:
    return 100.0 if figure.unit == "%" else 1.0


def from_predictions(paths: Sequence[Path]) -> Iterator[Measured]:
    """What published predictions give.

    Parameters
    ----------
    paths
        ``segments.npz`` of X-ray severity scoring, with its ``images.csv`` beside it (nine networks
        and both programs that the article compares; arrays `nets`, `image_idx` [N], `fractions`
        [9, N, 6], `score` [9, N]), or an ``.npz`` with `label` and `prob_positive` [N] of DeCoVNet.

    Raises
    ------
    InputError
        For a file that is none of these, or whose scores do not follow from its fractions.
    """
    for path in paths:
        try:
            with np.load(path, allow_pickle=False) as arrays:
                held = {name: arrays[name] for name in arrays.files}
            if {"nets", "image_idx", "fractions", "score"} <= set(held):
                yield from _errors(path, held)
            elif {"label", "prob_positive"} <= set(held):
                yield from _areas(path, held["label"] > 0, held["prob_positive"])
            else:
                raise InputError(f"{path} holds the arrays {', '.join(sorted(held))}")
        except (OSError, ValueError, LookupError, EOFError, BadZipFile) as error:
            raise InputError(
                f"{path} holds no published predictions ({type(error).__name__}); give "
                "segments.npz with images.csv beside it, or an .npz with label and prob_positive"
            ) from None


def _errors(path: Path, held: dict[str, np.ndarray]) -> Iterator[Measured]:
    """Mean absolute errors of the severity score on the test images that were rated."""
    with (path.parent / "images.csv").open(newline="", encoding="utf-8") as file:
        images = list(csv.DictReader(file))
    rows = [images[i] for i in held["image_idx"]]
    test = np.array([row["subset"] == "test" for row in rows])
    truth = np.array([float(row["gt"]) for row in rows])

    def error(score: np.ndarray) -> float:
        return float(np.abs(score - truth)[test].mean())

    how = f"of {test.sum()} images in {path.name}"
    networks = {facts.architecture: facts for facts in cxr_severity.DISEASE.values()}
    for name, fractions, stored in zip(held["nets"], held["fractions"], held["score"], strict=True):
        facts = networks[str(name)]
        score = (fractions > facts.zone_threshold).sum(axis=1)
        if not np.array_equal(score, stored):
            raise InputError(
                f"{path}: the scores of {name} are not its fractions above {facts.zone_threshold}"
            )
        figure = _figure("cxr-severity", facts.name, "MAE on the 135 test images").figure
        yield checked(
            figure, "cxr-severity", facts.name, error(score),
            f"scores from the fractions above {facts.zone_threshold}, {how}",
        )  # fmt: skip
    for program, column in (("COVID-Net-S", "covidnet_geo"), ("BS-net", "bsnet")):
        figure = _figure("cxr-severity", "", f"MAE of {program}").figure
        score = np.array([float(row[column]) for row in rows])
        yield checked(figure, "cxr-severity", "", error(score), f"published scores {how}")


def _areas(path: Path, truth: np.ndarray, probability: np.ndarray) -> Iterator[Measured]:
    """Areas under both curves and the accuracy at one half of DeCoVNet."""
    positive, negative = probability[truth], probability[~truth]
    above = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    order = np.argsort(-probability, kind="stable")
    precision = np.cumsum(truth[order]) / np.arange(1, truth.size + 1)
    values = {
        "AUC": float(above.mean()),
        "area under the precision-recall curve": float(precision[truth[order]].mean()),
        "accuracy": float(((probability >= 0.5) == truth).mean()),
    }
    for quantity, value in values.items():
        target = _figure("covid-mtl", covid_mtl.DECOVNET.name, quantity)
        how = f"of {truth.size} volumes in {path.name}"
        yield checked(target.figure, target.system, target.network, value, how)


def _figure(system: str, network: str, quantity: str) -> Target:
    wanted = (system, network, quantity)
    return next(t for t in targets((system,)) if (t.system, t.network, t.figure.quantity) == wanted)
