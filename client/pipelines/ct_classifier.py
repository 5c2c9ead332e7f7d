"""Classifier of chest CT slices: series → probability, heat map and side of each slice.

The client decodes and halves each slice; ``ct_densenet`` (profile ``raw_hu``) classifies it as it
is, the ensemble ``ct_classifier_masked`` (profile ``masked``) by its lungs alone. The two have
different weights and inputs and are never mixed. Spec ct-classifier §4 to §8.
"""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
from numpy.typing import NDArray

from ...catalog import ct_classifier as catalog
from ...catalog import lungmask
from ...catalog.errors import InputError
from ...postprocessing.lungmask import masked_image
from ...preprocessing.images import Mode
from ...preprocessing.nearest import resize_nearest
from ...preprocessing.series import Series
from ...preprocessing.slice_pictures import SlicePicture, is_slice_picture, read_slice_picture
from ...preprocessing.windows import padding_to_air
from .. import calls
from .base import option
from .ct_classifier_result import CtClassifierResult, summarised
from .ct_classifier_scores import Score, Scores
from .ct_source import CtSource, find_studies, open_source
from .lungmask import (
    CropLabels,
    Labels,
    Slice,
    assemble_lungs,
    check_in_flight,
    series_lungs,
    slice_lungs,
)

_OUTPUTS = tuple(t.name for t in catalog.RAW_HU_NETWORK.outputs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What can be chosen for a run.

    Raises
    ------
    InputError
        For a mode or profile that does not exist, and for numbers out of range.
    """

    profile: str = option(
        catalog.DEFAULT_PROFILE, f"What the weights were trained on: {', '.join(catalog.PROFILES)}."
    )
    mode: Mode = option(
        "parity", "parity: lungs of profile masked slice by slice, as published; corrected: of all."
    )
    threshold: float = option(catalog.THRESHOLD, "A slice is positive at this probability.")
    laterality: bool = option(True, "Tell the sides apart; profile raw_hu needs r231 for it.")
    verdict_run: int | None = option(
        None, "Call the patient positive from so many consecutive slices on (default: no verdict)."
    )
    series: str | None = option(None, "Which series of a mixed folder: its number, or its UID.")
    slices_in_flight: int = option(4, "Slices in work at once.")

    def __post_init__(self) -> None:
        if self.profile not in catalog.PROFILES:
            known = ", ".join(catalog.PROFILES)
            raise InputError(f"no profile {self.profile!r}; choose one of {known}")
        if self.mode not in ("parity", "corrected"):
            raise InputError(f"no mode {self.mode!r}; choose parity or corrected")
        if not 0 < self.threshold < 1:
            raise InputError(f"threshold {self.threshold} is not between 0 and 1")
        if self.verdict_run is not None and self.verdict_run < 1:
            raise InputError(f"a verdict from {self.verdict_run} slices; give 1 or more")
        check_in_flight(self.slices_in_flight)

    @property
    def masked(self) -> bool:
        """The profile takes the lungs alone."""
        return self.profile == catalog.MASKED


@dataclass(frozen=True, slots=True)
class _Seen:
    """One slice after the server: its score and what is known of its lungs."""

    score: Score
    crop: CropLabels | None = None
    lung: Labels | None = None


class CtClassifier:
    """The pipeline of the system `ct-classifier`."""

    system: ClassVar = catalog.SYSTEM
    options_type: ClassVar = Options
    noun: ClassVar = "chest CT"

    def models(self, options: Options) -> tuple[str, ...]:
        """Names of the Triton models that a run asks for."""
        if options.masked:
            steps = (catalog.MASKED_NETWORK.model, lungmask.R231.model)
            return (catalog.MASKED_ENSEMBLE.model, *steps)
        return self.networks(options)

    def networks(self, options: Options) -> tuple[str, ...]:
        """Names of the Triton models whose weights stand behind a result."""
        lungs = (lungmask.R231.model,) if options.masked or options.laterality else ()
        return (catalog.SYSTEM.network(options.profile).model, *lungs)

    def fallback(self, options: Options) -> Options | None:
        """Without the lung network profile `raw_hu` still classifies, but knows no sides."""
        if options.masked or not options.laterality:
            return None
        return dataclasses.replace(options, laterality=False)

    def find(self, path: Path) -> list[Path]:
        """The series that an argument of the command line stands for, see `find_studies`."""
        return find_studies(path)

    def study(self, source: CtSource, options: Options) -> calls.Steps[CtClassifierResult]:
        """Classify the slices of one series; yields actions for the client's drivers.

        Parameters
        ----------
        source
            A DICOM folder or file, a NIfTI file, its bytes, a `Series`, a `Volume`, or voxels
            [z, y, x] in HU and LPS order. For profile `masked` also a picture of the lungs alone,
            grey on a constant ground, as the published masked slices are.

        Raises
        ------
        InputError
            For anything that is not one CT series.
        """
        opened = yield calls.Compute(lambda: _open(source, options), "read")
        if isinstance(opened, SlicePicture):
            scores = yield from _picture(opened)
        elif not options.masked:
            scores = yield from _raw_hu(opened, options)
        elif options.mode == "corrected":
            scores = yield from _masked_volume(opened, options)
        else:
            scores = yield from _masked_slices(opened, options)
        return (yield calls.Compute(lambda: _finish(opened, scores, options), "postprocess"))


def _open(source: CtSource, options: Options) -> Series | SlicePicture:
    if isinstance(source, (str, Path)) and is_slice_picture(Path(source)):
        if not options.masked:
            raise InputError(
                "a picture of 8 bits has no Hounsfield units; give DICOM or NIfTI, or choose "
                "profile masked if it shows the lungs alone"
            )
        return read_slice_picture(Path(source))
    return open_source(source, series=options.series)


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


def _score(model: str, inputs: dict[str, NDArray[Any]]) -> calls.Steps[Score]:
    """Ask a network or the ensemble about one slice."""
    inputs = yield from calls.integers(model, inputs)
    answer = yield from calls.infer(model, inputs, _OUTPUTS)
    out = answer.outputs
    return Score(
        float(out["probability"][0, 0]), float(out["logit"][0, 0]), out["cam"][0], answer.transport
    )


def _raw_hu(series: Series, options: Options) -> calls.Steps[Scores]:
    """Every slice as it is; its lungs, for the sides, if the server has the network."""
    notes, sides = [], options.laterality
    if sides:
        served = yield from calls.models()
        if lungmask.R231.model not in served:
            sides = False
            notes.append(
                f"no laterality: the server does not serve {lungmask.R231.model} "
                "(hilum export ct-classifier --network r231)"
            )
    done = itertools.count(1)

    def one(index: int) -> calls.Steps[_Seen]:
        hu = yield calls.Compute(lambda: series.slice(index), "read")
        image = yield calls.Compute(lambda: _halved(hu), "preprocess")
        score = yield from _score(catalog.RAW_HU_NETWORK.model, {"hu": image[None]})
        crop = (yield from slice_lungs(hu)) if sides else None
        yield calls.Tell("slices", next(done), len(series))
        return _Seen(score.of(hu), crop)

    seen = yield from calls.each(one, range(len(series)), options.slices_in_flight)
    scores = [s.score for s in seen]
    if padded := sum(s.hu_range[0] < catalog.AIR_HU for s in scores):
        notes.append(f"values below −1024 HU in {padded} slice(s) were raised to it")
    if not sides:
        return Scores(scores, None, None, tuple(notes))
    crops, shape = [cast("CropLabels", s.crop) for s in seen], _plane(series)
    lung = yield calls.Compute(lambda: assemble_lungs(crops, shape), "postprocess")
    return Scores(scores, lung, "series", tuple(notes))


def _halved(hu: Slice) -> NDArray[np.int16]:
    """Generation 2's input: every second pixel from the first (spec ct-classifier §4.1)."""
    return padding_to_air(resize_nearest(hu, (catalog.SIZE, catalog.SIZE), "opencv"))


def _masked_slices(series: Series, options: Options) -> calls.Steps[Scores]:
    """Lungs of each slice on its own, as published: on the server, for slices of its size."""
    whole = _plane(series) == (catalog.SLICE, catalog.SLICE)
    done = itertools.count(1)

    def one(index: int) -> calls.Steps[_Seen]:
        hu = yield calls.Compute(lambda: series.slice(index), "read")
        seen = yield from (_by_ensemble(hu) if whole else _by_steps(hu))
        yield calls.Tell("slices", next(done), len(series))
        return seen

    seen = yield from calls.each(one, range(len(series)), options.slices_in_flight)
    lung = yield calls.Compute(
        lambda: np.stack([cast("Labels", s.lung) for s in seen]), "postprocess"
    )
    return Scores([s.score for s in seen], lung, "slice")


def _by_ensemble(hu: Slice) -> calls.Steps[_Seen]:
    model = catalog.MASKED_ENSEMBLE.model
    answer = yield from calls.infer(model, {"hu": hu[None]}, (*_OUTPUTS, "lung"))
    out = answer.outputs
    probability, logit = float(out["probability"][0, 0]), float(out["logit"][0, 0])
    score = Score(probability, logit, out["cam"][0], answer.transport)
    return _Seen(score.of(hu), lung=out["lung"][0])


def _by_steps(hu: Slice) -> calls.Steps[_Seen]:
    """The ensemble's steps one by one, for slices of another size."""
    crop = yield from slice_lungs(hu)
    shape = (hu.shape[0], hu.shape[1])
    lung = yield calls.Compute(lambda: assemble_lungs([crop], shape)[0], "postprocess")
    image = yield calls.Compute(lambda: masked_image(hu, lung), "preprocess")
    score = yield from _score(catalog.MASKED_NETWORK.model, {"image": image[None]})
    return _Seen(score.of(hu), lung=lung)


def _masked_volume(series: Series, options: Options) -> calls.Steps[Scores]:
    """Lungs of the whole series first, then every slice by them."""
    lungs = yield from series_lungs(series, in_flight=options.slices_in_flight)
    done = itertools.count(1)

    def one(index: int) -> calls.Steps[Score]:
        hu = yield calls.Compute(lambda: series.slice(index), "read")
        image = yield calls.Compute(lambda: masked_image(hu, lungs.labels[index]), "preprocess")
        score = yield from _score(catalog.MASKED_NETWORK.model, {"image": image[None]})
        yield calls.Tell("slices classified", next(done), len(series))
        return score.of(hu)

    scores = yield from calls.each(one, range(len(series)), options.slices_in_flight)
    return Scores(scores, lungs.labels, "series")


def _picture(picture: SlicePicture) -> calls.Steps[Scores]:
    """A ready masked slice: halved by Pillow's rule and classified (spec ct-classifier §4.2)."""
    image = resize_nearest(picture.pixels, (catalog.SIZE, catalog.SIZE), "pillow")
    score = yield from _score(catalog.MASKED_NETWORK.model, {"image": image[None]})
    notes = ("a ready picture: taken as lungs alone; the sides are not known", *picture.notes)
    return Scores([score], None, None, notes)


def _plane(series: Series) -> tuple[int, int]:
    """Height and width of a slice."""
    return series.geometry.shape[1], series.geometry.shape[2]


__all__ = ["CtClassifier", "CtClassifierResult", "Options"]
