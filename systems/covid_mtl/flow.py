"""COVID-MTL: chest CT → lungs → volume and radiomic features → diagnosis and severity of COVID-19.

The client segments the lungs and computes the features, in processes that all studies share; the
server runs the network. While one study's features are computed, others are segmented or with the
server. The features can also be left to the server.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hilum.catalog import covid_mtl as catalog
from hilum.catalog import lungmask
from hilum.client.calls import Calls
from hilum.client.trace import span
from hilum.postprocessing import covid_mtl as postprocessing
from hilum.preprocessing.covid_mtl.lungs import LearnedMask, Mask
from hilum.preprocessing.covid_mtl.pipeline import (
    CUT_BY_BOX,
    SHARES,
    TRUNCATED_WINDOW,
    Prepared,
    network_window,
    prepare,
    prepare_lungs,
)
from hilum.preprocessing.covid_mtl.radiomics import Scaled, radiomic_features, scale
from hilum.preprocessing.covid_mtl.resample import mask_to_millimetres

from ..lungmask.flow import series_lungs
from ..processes import POOLS, watched
from .options import NETWORKS, Options
from .result import CovidMtlResult
from .source import Opened, Segmented, open_ct

_LEAST = (CUT_BY_BOX, TRUNCATED_WINDOW)
"""Flags that come last: they hold for most patients."""


def diagnose(study: Any, options: Options, calls: Calls) -> CovidMtlResult:
    """Process one study.

    Parameters
    ----------
    study
        What `systems.studies.open_study` takes; or a published ``.dtm`` or cropped ``.dcm``.

    Raises
    ------
    InputError
        For anything that is not one chest CT, and where no lungs are found.
    """
    return _Run(options, calls).all(study)


class _MaskWanted(Exception):
    """The lungs are not found or implausible: a learned mask is wanted."""


@dataclass(slots=True)
class _Answered:
    """What the server said, and the features behind it."""

    probabilities: dict[str, NDArray[np.float32]]
    transport: str
    features: NDArray[np.float64] | None = None


@dataclass(slots=True)
class _Run:
    """One study that runs.

    Attributes
    ----------
    seconds
        By stage.
    """

    options: Options
    calls: Calls
    seconds: dict[str, float] = field(default_factory=dict)

    def all(self, study: Any) -> CovidMtlResult:
        """All stages."""
        start = time.perf_counter()
        with self._timed("read"):
            opened = open_ct(study, self.options.series, self.options.acquisition)
        with POOLS.use(self.options.processes) as pool:
            prepared = self._prepared(opened, pool)
            for stage, seconds in prepared.seconds.items():
                self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
            answered = self._answered(prepared, pool)
        self.seconds["total"] = time.perf_counter() - start
        with span("postprocess"):
            return self._result(opened, prepared, answered)

    def _prepared(self, opened: Opened | Segmented, pool: Executor | None) -> Prepared:
        """Lungs and common box; with a learned mask where there is need and a server of it."""
        if isinstance(opened, Segmented):
            with span("preprocess"):
                return prepare_lungs(opened.volume, opened.mask)
        learned: LearnedMask | None = None
        if self.options.asks_lungmask and lungmask.R231.model in self.calls.models():
            learned = _want_mask
        try:
            return self._scan(opened, pool, learned)
        except _MaskWanted:
            lungs = series_lungs(opened.series, self.calls)
        with span("postprocess"):
            mask = mask_to_millimetres(lungs.labels, opened.series.geometry)
        return self._scan(opened, pool, lambda: mask)

    def _scan(self, opened: Opened, pool: Executor | None, learned: LearnedMask | None) -> Prepared:
        watch = watched(self.calls, _preparation)
        with span("preprocess"):
            return prepare(opened.scan, self.options.mode, learned=learned, pool=pool, watch=watch)

    def _answered(self, prepared: Prepared, pool: Executor | None) -> _Answered:
        """Features and network, where the options want them."""
        if self.options.radiomics == "server":
            inputs = {catalog.CROPPED.name: prepared.crop[None]}
            return self._ask(inputs, catalog.RAW_FEATURES.name)
        inputs: dict[str, NDArray[Any]] = {}
        features = None
        if self.options.takes_features:
            with self._timed("features"):
                watch = watched(self.calls, lambda share: ("features", share))
                features = radiomic_features(prepared.crop, pool=pool, watch=watch)
            inputs[catalog.RADIOMICS.name] = scale(features).values[None]
        with span("preprocess"):
            inputs[catalog.VOLUME.name] = network_window(prepared.crop)[None]
        answered = self._ask(inputs)
        answered.features = features
        return answered

    def _ask(self, inputs: dict[str, NDArray[Any]], features: str = "") -> _Answered:
        """Ask the server for the answers, and for the `features` when they have a name."""
        outputs = {t.name for t in NETWORKS[self.options.network].outputs}
        heads = [head for head in catalog.HEADS.values() if head.output in outputs]
        wanted = [head.output for head in heads] + [features] * bool(features)
        self.calls.progress("network", 0, 1)
        with self._timed("network", whole=True):
            answer = self.calls.infer(self.options.model, inputs, wanted)
        self.calls.progress("network", 1, 1)
        found = {head.name: np.array(answer.outputs[head.output][0]) for head in heads}
        computed = np.array(answer.outputs[features][0]) if features else None
        return _Answered(found, answer.transport, computed)

    def _result(
        self, opened: Opened | Segmented, prepared: Prepared, answered: _Answered
    ) -> CovidMtlResult:
        found = answered.probabilities
        for head, values in found.items():
            postprocessing.most_probable(head, values)  # refuses what are no probabilities
        answers = postprocessing.answer(found) if len(found) == len(catalog.HEADS) else None
        scaled = None if answered.features is None else scale(answered.features)
        series = opened.series if isinstance(opened, Opened) else None
        flags, notes = _doubts(prepared, scaled, answers)
        if series is not None and series.breaks:
            where = series.where_missing()
            flags.append("gaps")
            notes.append(f"slices are missing between slices {where} from the head")
        if series is not None:
            flags += (*series.flags, *(doubt.code for doubt in series.look))
            notes += [doubt.text for doubt in series.look]
        return CovidMtlResult(
            study=opened.description,
            mode=self.options.mode,
            network=self.options.network,
            placement=self.options.radiomics if self.options.takes_features else "none",
            probabilities=found,
            answers=answers,
            prepared=prepared,
            features=answered.features,
            scaled=scaled,
            seconds=self.seconds,
            flags=tuple(sorted(flags, key=lambda flag: flag in _LEAST)),
            notes=tuple(dict.fromkeys((*prepared.notes, *notes))),
            transport=answered.transport,
            series=series,
        )

    @contextmanager
    def _timed(self, stage: str, *, whole: bool = False) -> Iterator[None]:
        start = time.perf_counter()
        try:
            with span(stage, whole=whole):
                yield
        finally:
            self.seconds[stage] = time.perf_counter() - start


def _want_mask() -> Mask:
    raise _MaskWanted


def _doubts(
    prepared: Prepared, scaled: Scaled | None, answers: postprocessing.Answers | None
) -> tuple[list[str], list[str]]:
    """Flags and notes on features, lungs and answers."""
    flags, notes = [], []
    if scaled is not None and scaled.replaced:
        count = len(scaled.replaced)
        flags.append("imputed_features")
        notes.append(
            f"{count} features cannot be computed for these lungs; means of the published cases "
            "took their places, so the answers are not to be trusted"
        )
    if scaled is not None and scaled.clipped:
        notes.append(f"{len(scaled.clipped)} features lie far outside the published cases")
    flags += prepared.flags
    if answers is not None:
        flags += ["inconsistent"] * (not answers.consistent)
        flags += ["unseen_combination"] * answers.unseen
        notes += answers.notes
    return flags, notes


def _preparation(share: float) -> tuple[str, float]:
    """The stage of the preparation and its share that is done, by the share of the whole."""
    edge = SHARES["resample"]
    if share < edge:
        return "read and resample", share / edge
    return "lungs", (share - edge) / (1 - edge)
