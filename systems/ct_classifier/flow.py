"""The way of a series through the slice classifier: probability, heat map and side of each slice.

The client decodes and halves each slice; ``ct_densenet`` (profile ``raw_hu``) classifies it as it
is, the ensemble ``ct_classifier_masked`` (profile ``masked``) by its lungs alone. The two have
different weights and inputs and are never mixed. Spec ct-classifier §4 to §8.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from hilum.catalog import ct_classifier as catalog
from hilum.catalog import lungmask
from hilum.catalog.errors import WrongStudy
from hilum.catalog.terms import AIR_HU
from hilum.client.calls import Calls
from hilum.client.trace import span
from hilum.postprocessing.lungmask import masked_image
from hilum.preprocessing.nearest import resize_nearest
from hilum.preprocessing.reading.series import Series
from hilum.preprocessing.reading.slice_pictures import (
    SlicePicture,
    is_slice_picture,
    read_slice_picture,
)
from hilum.preprocessing.windows import padding_to_air

from ..lungmask.flow import CropLabels, Slice, assemble_lungs, series_lungs, slice_lungs
from ..studies import open_study
from .options import Options
from .result import CtClassifierResult, summarised
from .scores import Labels, Score, Scores

_OUTPUTS = tuple(t.name for t in catalog.RAW_HU_NETWORK.outputs)


@dataclass(frozen=True, slots=True)
class _Seen:
    """One slice after the server: its score and what is known of its lungs."""

    score: Score
    crop: CropLabels | None = None
    lung: Labels | None = None


def classify(study: Any, options: Options, calls: Calls) -> CtClassifierResult:
    """Classify the slices of one series.

    Parameters
    ----------
    study
        What `systems.studies.open_study` takes. For profile `masked` also a picture of the lungs
        alone, grey on a constant ground, as the published masked slices are.

    Raises
    ------
    InputError
        For anything that is not one CT series.
    """
    with span("read"):
        opened = _open(study, options)
    if isinstance(opened, SlicePicture):
        scores = _picture(opened, calls)
    elif not options.masked:
        scores = _raw_hu(opened, options, calls)
    elif options.mode == "corrected":
        scores = _masked_volume(opened, options, calls)
    else:
        scores = _masked_slices(opened, options, calls)
    with span("postprocess"):
        return _finish(opened, scores, options)


def _open(study: Any, options: Options) -> Series | SlicePicture:
    if isinstance(study, (str, Path)) and is_slice_picture(Path(study)):
        if not options.masked:
            raise WrongStudy(
                "a picture of 8 bits has no Hounsfield units; give DICOM or NIfTI, or choose "
                "profile masked if it shows the lungs alone"
            )
        return read_slice_picture(Path(study))
    return open_study(study, series=options.series, acquisition=options.acquisition)


def _finish(opened: Series | SlicePicture, scores: Scores, options: Options) -> CtClassifierResult:
    return summarised(
        opened,
        scores,
        profile=options.profile,
        mode=options.mode,
        threshold=options.threshold,
        sides=options.laterality,
        verdict_run=options.verdict_run,
    )


def _score(model: str, inputs: dict[str, NDArray[Any]], calls: Calls) -> Score:
    """Ask a network or the ensemble about one slice."""
    answer = calls.infer(model, calls.integers(model, inputs), _OUTPUTS)
    out = answer.outputs
    return Score(
        float(out["probability"][0, 0]), float(out["logit"][0, 0]), out["cam"][0], answer.transport
    )


def _raw_hu(series: Series, options: Options, calls: Calls) -> Scores:
    """Every slice as it is; its lungs, for the sides, if the server has the network."""
    notes, sides = [], options.laterality
    if sides and lungmask.R231.model not in calls.models():
        sides = False
        notes.append(
            f"no laterality: the server does not serve {lungmask.R231.model} "
            "(hilum export ct-classifier --network r231)"
        )
    step = calls.steps("slices", len(series))

    def one(index: int) -> _Seen:
        with span("read"):
            hu = series.slice(index)
        with span("preprocess"):
            image = _halved(hu)
        score = _score(catalog.RAW_HU_NETWORK.model, {"hu": image[None]}, calls)
        crop = slice_lungs(hu, calls) if sides else None
        step()
        return _Seen(score.of(hu), crop)

    seen = calls.map(one, range(len(series)), options.slices_in_flight)
    scores = [s.score for s in seen]
    if padded := sum(s.hu_range[0] < AIR_HU for s in scores):
        notes.append(f"values below −1024 HU in {padded} slice(s) were raised to it")
    if not sides:
        return Scores(scores, None, None, tuple(notes))
    crops, shape = [cast("CropLabels", s.crop) for s in seen], _plane(series)
    with span("postprocess"):
        lung = assemble_lungs(crops, shape)
    return Scores(scores, lung, "series", tuple(notes))


def _halved(hu: Slice) -> NDArray[np.int16]:
    """Generation 2's input: every second pixel from the first (spec ct-classifier §4.1)."""
    return padding_to_air(resize_nearest(hu, (catalog.SIZE, catalog.SIZE), "opencv"))


def _masked_slices(series: Series, options: Options, calls: Calls) -> Scores:
    """Lungs of each slice on its own, as published: on the server, for slices of its size."""
    whole = _plane(series) == (catalog.SLICE, catalog.SLICE)
    step = calls.steps("slices", len(series))

    def one(index: int) -> _Seen:
        with span("read"):
            hu = series.slice(index)
        seen = (_by_ensemble if whole else _by_steps)(hu, calls)
        step()
        return seen

    seen = calls.map(one, range(len(series)), options.slices_in_flight)
    with span("postprocess"):
        lung = np.stack([cast("Labels", s.lung) for s in seen])
    return Scores([s.score for s in seen], lung, "slice")


def _by_ensemble(hu: Slice, calls: Calls) -> _Seen:
    model = catalog.MASKED_ENSEMBLE.model
    answer = calls.infer(model, {"hu": hu[None]}, (*_OUTPUTS, "lung"))
    out = answer.outputs
    probability, logit = float(out["probability"][0, 0]), float(out["logit"][0, 0])
    score = Score(probability, logit, out["cam"][0], answer.transport)
    return _Seen(score.of(hu), lung=out["lung"][0])


def _by_steps(hu: Slice, calls: Calls) -> _Seen:
    """The ensemble's steps one by one, for slices of another size."""
    crop = slice_lungs(hu, calls)
    with span("postprocess"):
        lung = assemble_lungs([crop], (hu.shape[0], hu.shape[1]))[0]
    with span("preprocess"):
        image = masked_image(hu, lung)
    score = _score(catalog.MASKED_NETWORK.model, {"image": image[None]}, calls)
    return _Seen(score.of(hu), lung=lung)


def _masked_volume(series: Series, options: Options, calls: Calls) -> Scores:
    """Lungs of the whole series first, then every slice by them."""
    lungs = series_lungs(series, calls, in_flight=options.slices_in_flight)
    step = calls.steps("slices classified", len(series))

    def one(index: int) -> Score:
        with span("read"):
            hu = series.slice(index)
        with span("preprocess"):
            image = masked_image(hu, lungs.labels[index])
        score = _score(catalog.MASKED_NETWORK.model, {"image": image[None]}, calls)
        step()
        return score.of(hu)

    scores = calls.map(one, range(len(series)), options.slices_in_flight)
    return Scores(scores, lungs.labels, "series")


def _picture(picture: SlicePicture, calls: Calls) -> Scores:
    """A ready masked slice: halved by Pillow's rule and classified (spec ct-classifier §4.2)."""
    image = resize_nearest(picture.pixels, (catalog.SIZE, catalog.SIZE), "pillow")
    score = _score(catalog.MASKED_NETWORK.model, {"image": image[None]}, calls)
    notes = ("a ready picture: taken as lungs alone; the sides are not known", *picture.notes)
    return Scores([score], None, None, notes)


def _plane(series: Series) -> tuple[int, int]:
    """Height and width of a slice."""
    return series.geometry.shape[1], series.geometry.shape[2]
