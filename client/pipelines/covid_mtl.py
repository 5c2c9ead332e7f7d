"""COVID-MTL: chest CT → lungs → volume and radiomic features → diagnosis and severity of COVID-19.

The client segments the lungs and computes the features, in processes that all studies share; the
server runs the network. While one study's features are computed, others are segmented or with the
server. The features can also be left to the server.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ...catalog import covid_mtl as catalog
from ...catalog import lungmask
from ...catalog.errors import InputError
from ...postprocessing import covid_mtl as postprocessing
from ...preprocessing.covid_mtl import SHARES, Prepared, network_window, prepare, prepare_lungs
from ...preprocessing.covid_mtl_lungs import LearnedMask, Mask
from ...preprocessing.covid_mtl_resample import mask_to_millimetres
from ...preprocessing.images import Mode
from ...preprocessing.radiomics import Scaled, radiomic_features, scale
from ...preprocessing.workers import Watch
from .. import calls
from ..trace import span
from . import covid_mtl_source
from .base import option
from .covid_mtl_result import CovidMtlResult
from .covid_mtl_source import Opened, Segmented, open_study
from .ct_source import CtSource
from .lungmask import series_lungs
from .shared_pool import PARTS, POOLS, followed

Placement = Literal["client", "server"]

NETWORKS = {n.name: n for n in catalog.SYSTEM.networks if n.inputs[0] == catalog.VOLUME}
"""What can be run: the networks that see the window of the common box."""

MAX_PROCESSES = 256

_LEAST = ("cut by the box", "truncated window")
"""Flags that come last: they hold for most patients."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What can be chosen for a run.

    Mode ``parity`` is the published program with its faults: the file's numbers are taken for
    HU + 1024 whatever slope and intercept say, and of lungs that no airway joins one is lost.
    Mode ``corrected`` mends these, and refuses what cannot be lungs (spec covid_mtl §3, §4, §16).

    Raises
    ------
    InputError
        For a value that makes no sense.
    """

    mode: Mode = option("parity", "parity: the published program, faults included; or corrected.")
    network: str = option(catalog.DUAL.name, f"Network to ask: {', '.join(NETWORKS)}.")
    radiomics: Placement = option(
        "client", "Where the features of the network dual are computed: client, or server."
    )
    series: str | None = option(None, "Which series of a mixed folder: its number, or its UID.")
    learned_mask: bool = option(
        True, "Mode corrected: ask lungmask, where it is served, when thresholds find no lungs."
    )
    processes: int = option(
        0, "Processes for lungs and features; 0: one for each core; 1: no further ones."
    )

    def __post_init__(self) -> None:
        choices = {
            "mode": get_args(Mode),
            "network": tuple(NETWORKS),
            "radiomics": get_args(Placement),
        }
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise InputError(f"no {name} {getattr(self, name)!r}; choose {', '.join(known)}")
        if self.radiomics == "server" and not self.takes_features:
            raise InputError(
                f"the network {self.network} takes no features, so there are none to compute on "
                f"the server; leave radiomics out or choose {catalog.DUAL.name}"
            )
        if not 0 <= self.processes <= MAX_PROCESSES:
            raise InputError(f"{self.processes} processes; give 0 to {MAX_PROCESSES}")

    @property
    def takes_features(self) -> bool:
        """Whether the network takes features beside the volume."""
        return catalog.RADIOMICS in NETWORKS[self.network].inputs

    @property
    def asks_lungmask(self) -> bool:
        """Whether lungmask is asked when need be."""
        return self.learned_mask and self.mode == "corrected"

    @property
    def model(self) -> str:
        """The Triton model that answers."""
        if not self.takes_features:
            return NETWORKS[self.network].model
        on_server = self.radiomics == "server"
        return (catalog.SERVER_ENSEMBLE if on_server else catalog.ENSEMBLE).model


class CovidMtl:
    """The pipeline of the system `covid-mtl`."""

    system: ClassVar = catalog.SYSTEM
    options_type: ClassVar = Options
    noun: ClassVar = "chest CT"
    studies_in_flight: ClassVar = 2

    def models(self, options: Options) -> tuple[str, ...]:
        """Names of the Triton models that a run asks for."""
        more = (lungmask.R231.model,) if options.asks_lungmask else ()
        return (options.model, *more)

    def networks(self, options: Options) -> tuple[str, ...]:
        """Names of the Triton models whose weights stand behind a result."""
        more = (lungmask.R231.model,) if options.asks_lungmask else ()
        return (NETWORKS[options.network].model, *more)

    def fallback(self, options: Options) -> Options | None:
        """Do without a learned lung mask, whose network not every server has."""
        return dataclasses.replace(options, learned_mask=False) if options.asks_lungmask else None

    def find(self, path: Path) -> list[Path]:
        """The studies that an argument of the command line stands for: `covid_mtl_source.find`."""
        return covid_mtl_source.find(path)

    def study(self, source: CtSource, options: Options) -> calls.Steps[CovidMtlResult]:
        """Process one study; yields actions for the client's drivers.

        Parameters
        ----------
        source
            A DICOM folder or file, a NIfTI file, its bytes, a `Series`, a `Volume`, voxels
            [z, y, x] in HU and LPS order; or a published ``.dtm`` or cropped ``.dcm``.

        Raises
        ------
        InputError
            For anything that is not one chest CT, and where no lungs are found.
        """
        work = _Work(options)
        try:
            return (yield from work.run(source))
        finally:
            work.stop.set()


class _MaskWanted(Exception):
    """The lungs are not found or implausible: a learned mask is wanted."""


@dataclass(slots=True)
class _Answered:
    """What the server said, and the features behind it."""

    probabilities: dict[str, NDArray[np.float32]]
    transport: str
    features: NDArray[np.float64] | None = None


@dataclass(slots=True)
class _Work:
    """One study in work.

    Attributes
    ----------
    stop
        Ends what is computed.
    seconds
        By stage.
    """

    options: Options
    stop: threading.Event = field(default_factory=threading.Event)
    seconds: dict[str, float] = field(default_factory=dict)

    def run(self, source: CtSource) -> calls.Steps[CovidMtlResult]:
        """All stages."""
        start = time.perf_counter()
        with self._timed("read"):
            opened: Opened | Segmented = yield calls.Compute(
                lambda: open_study(source, self.options.series)
            )
        with POOLS.use(self.options.processes) as pool:
            prepared: Prepared = yield from self._prepared(opened, pool)
            for stage, seconds in prepared.seconds.items():
                self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
            answered = yield from self._answered(prepared, pool)
        self.seconds["total"] = time.perf_counter() - start
        told = yield calls.Compute(lambda: self._result(opened, prepared, answered), "postprocess")
        return told

    def _prepared(self, opened: Opened | Segmented, pool: Executor | None) -> calls.Steps[Prepared]:
        """Lungs and common box; with a learned mask where there is need and a server of it."""
        if isinstance(opened, Segmented):
            return (
                yield calls.Compute(lambda: prepare_lungs(opened.volume, opened.mask), "preprocess")
            )
        learned: LearnedMask | None = None
        if self.options.asks_lungmask and lungmask.R231.model in (yield from calls.models()):
            learned = _want_mask
        try:
            return (yield from self._scan(opened, pool, learned))
        except _MaskWanted:
            lungs = yield from series_lungs(opened.series)
        mask: Mask = yield calls.Compute(
            lambda: mask_to_millimetres(lungs.labels, opened.series.geometry), "postprocess"
        )
        return (yield from self._scan(opened, pool, lambda: mask))

    def _scan(
        self, opened: Opened, pool: Executor | None, learned: LearnedMask | None
    ) -> calls.Steps[Prepared]:
        def work(watch: Watch) -> Prepared:
            with span("preprocess"):
                return prepare(
                    opened.scan, self.options.mode, learned=learned, pool=pool, watch=watch
                )

        return (yield from followed(work, _told_preparation, self.stop))

    def _answered(self, prepared: Prepared, pool: Executor | None) -> calls.Steps[_Answered]:
        """Features and network, where the options want them."""
        if self.options.radiomics == "server":
            inputs = {catalog.CROPPED.name: prepared.crop[None]}
            return (yield from self._ask(inputs, catalog.RAW_FEATURES.name))
        inputs: dict[str, NDArray[Any]] = {}
        features = None
        if self.options.takes_features:
            with self._timed("features"):
                features = yield from self._features(prepared.crop, pool)
            inputs[catalog.RADIOMICS.name] = scale(features).values[None]
        volume = yield calls.Compute(lambda: network_window(prepared.crop), "preprocess")
        inputs[catalog.VOLUME.name] = volume[None]
        answered = yield from self._ask(inputs)
        answered.features = features
        return answered

    def _features(
        self, crop: NDArray[np.uint16], pool: Executor | None
    ) -> calls.Steps[NDArray[np.float64]]:
        def work(watch: Watch) -> NDArray[np.float64]:
            return radiomic_features(crop, pool=pool, watch=watch)

        return (yield from followed(work, _parts_of("features"), self.stop))

    def _ask(self, inputs: dict[str, NDArray[Any]], features: str = "") -> calls.Steps[_Answered]:
        """Ask the server for the answers, and for the `features` when they have a name."""
        outputs = {t.name for t in NETWORKS[self.options.network].outputs}
        heads = [head for head in catalog.HEADS.values() if head.output in outputs]
        wanted = [head.output for head in heads] + [features] * bool(features)
        yield calls.Tell("network", 0, 1)
        with self._timed("network", whole=True):
            answer = yield from calls.infer(self.options.model, inputs, wanted)
        yield calls.Tell("network", 1, 1)
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
            after = ", ".join(str(i + 1) for i in series.breaks)
            flags.append("gaps")
            notes.append(f"slices are missing after slice {after}")
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
        flags.append(f"imputed features ({count})")
        notes.append(
            f"{count} features cannot be computed for these lungs; means of the published cases "
            "took their places, so the answers are not to be trusted"
        )
    if scaled is not None and scaled.clipped:
        notes.append(f"{len(scaled.clipped)} features lie far outside the published cases")
    flags += prepared.flags
    if answers is not None:
        flags += ["inconsistent"] * (not answers.consistent)
        flags += ["unseen combination"] * (postprocessing.UNSEEN in answers.flags)
        notes += answers.flags
    return flags, notes


def _told_preparation(share: float) -> calls.Tell:
    edge = SHARES["resample"]
    if share < edge:
        return _parts_of("read and resample")(share / edge)
    return _parts_of("lungs")((share - edge) / (1 - edge))


def _parts_of(stage: str) -> Callable[[float], calls.Tell]:
    return lambda share: calls.Tell(stage, round(PARTS * share), PARTS)
