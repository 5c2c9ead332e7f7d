"""The three views of one stage: slabs of each direction stream to the server, sums come together.

Spec dlpe §5: p_X, p_Y and p_Z are added in float32 as (p_X + p_Y) + p_Z. The first two may come in
any order, since addition commutes and adding to 0 is exact; so directions X and Y run together into
one volume, and Z follows. That is also what lets slices of Z be left out that cannot change a mask.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from tritonclient.utils import triton_to_np_dtype

from hilum.catalog import dlpe as catalog
from hilum.catalog.dlpe import Direction
from hilum.client.calls import Calls
from hilum.client.models import ModelInfo
from hilum.client.trace import span
from hilum.postprocessing.dlpe.extent import extent
from hilum.postprocessing.dlpe.three_way import open_slices
from hilum.preprocessing.arrays import Array, namespace
from hilum.preprocessing.dlpe import slabs
from hilum.preprocessing.dlpe.slabs import Slab

from .ledger import Ledger

T = TypeVar("T")

SLAB_VOXELS, CPU_SLAB_VOXELS = 1 << 21, 1 << 19
"""Voxels of a slab's middle when its slices are not chosen: 8 slices of 512 × 512; and 2 where the
networks run on CPUs, which gain nothing by more and need a quarter of a gigabyte for each."""

MOST_SLICES = 32
"""Of a slab when they are not chosen."""

IN_FLIGHT, SLABS_EACH = 4, 2
"""Slabs at once when their number is not chosen: so many, or two for each GPU, of which one
is computed while the other is on its way."""

LEAST_SLABS = 8
"""Of a direction when they are not chosen: with fewer, not all networks would be busy."""


@dataclass(frozen=True, slots=True)
class Variant:
    """Networks that are asked together.

    Attributes
    ----------
    models
        Triton model by direction.
    outputs
        Its output by the name of the sum that it adds to.
    tasks
        The networks' tasks.
    """

    models: Mapping[Direction, str]
    outputs: Mapping[str, str]
    tasks: tuple[str, ...]

    @classmethod
    def ensemble(cls, stage: str, tasks: tuple[str, ...]) -> Variant:
        """Some networks of a stage of the catalog; Triton leaves out those not asked for."""
        models = {d: catalog.ENSEMBLES[stage, d].model for d in catalog.DIRECTIONS}
        return cls(_directed(models), {task: task for task in tasks}, tasks)

    @classmethod
    def single(cls, task: str) -> Variant:
        """One network without an ensemble; a sum is named after its task or its class."""
        declared = catalog.TASKS[task]
        single = len(declared.outputs) == 1
        models = {d: declared.network(d).model for d in catalog.DIRECTIONS}
        outputs = {task if single else name: name for name in declared.outputs}
        return cls(_directed(models), outputs, (task,))


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What is asked of the networks about one volume.

    Attributes
    ----------
    title
        For progress.
    variants
        Fewest networks first; the last one has all of them.
    volume
        float32 [x, y, z] of any array module, from which slabs are cut.
    channels
        uint8 [x, y, z] by the name of the model's input.
    thresholds
        By sum, where nothing but the mask above a threshold is needed.
    within
        uint8 [x, y, z]: only these voxels of the sums are needed; None: all.
    """

    title: str
    variants: tuple[Variant, ...]
    volume: Array
    channels: Mapping[str, Array] = field(default_factory=dict)
    thresholds: Mapping[str, float] = field(default_factory=dict)
    within: Array | None = None

    @property
    def tasks(self) -> tuple[str, ...]:
        """Tasks of all networks."""
        return self.variants[-1].tasks

    @property
    def margin(self) -> int:
        """Further slices on both ends of a slab."""
        return max(catalog.TASKS[t].margin for t in self.tasks)

    @property
    def window(self) -> tuple[int, ...]:
        """Offsets of the slices that any of the networks sees."""
        return tuple(sorted({w for t in self.tasks for w in catalog.TASKS[t].window}))

    @property
    def passes(self) -> int:
        """Passes of networks when nothing is left out, as in the published program."""
        return len(self.tasks) * sum(self.volume.shape)


@dataclass(frozen=True, slots=True)
class How:
    """How slabs are sent.

    Attributes
    ----------
    slab_slices
        Most slices of a slab, margins not counted; 0: by the size of slices and volume.
    in_flight
        Slabs at once; 0: by the server's GPUs.
    skip
        Leave out what cannot change a result.
    on_cpu
        The networks run on the server's CPU.
    """

    slab_slices: int
    in_flight: int
    skip: bool
    on_cpu: bool = False

    def at(self, network: ModelInfo) -> How:
        """The same for a server that runs `network` as it does: no GPU of it waits for slabs."""
        in_flight = self.in_flight or max(IN_FLIGHT, SLABS_EACH * network.gpus)
        return replace(self, on_cpu=network.on_cpu, in_flight=in_flight)

    def length(self, shape: tuple[int, ...], direction: Direction) -> int:
        """Most slices of a slab of one direction."""
        if self.slab_slices:
            return self.slab_slices
        longer = max(shape[axis] for axis in catalog.IMAGE_AXES[direction])
        side = next((plane for plane in catalog.PLANES if plane >= longer), longer)
        count = shape[catalog.DIRECTIONS.index(direction)]
        voxels = CPU_SLAB_VOXELS if self.on_cpu else SLAB_VOXELS
        most = min(voxels // side**2, MOST_SLICES, -(-count // LEAST_SLABS))
        return max(most, 1)


@dataclass(frozen=True, slots=True)
class _Job:
    """One request."""

    slab: Slab
    variant: Variant

    @property
    def model(self) -> str:
        return self.variant.models[self.slab.direction]


def three_views(stage: Stage, how: How, ledger: Ledger, calls: Calls) -> dict[str, Array]:
    """Run the networks of a stage in all three directions.

    Returns
    -------
    float32 [x, y, z] by name: the sum of the three probabilities, of the array module of the
    stage's volume. Where the stage has a threshold, or voxels that are not needed, sums may lack
    what cannot change the mask there.
    """
    network = calls.model(catalog.TASKS[stage.tasks[0]].network("x").model)
    how = how.at(network)
    with span("plan"):
        views = _Views.begin(stage, how, ledger, calls)
        first = views.first_two()
    calls.map(views.process, first, how.in_flight)
    with span("plan"):
        last = views.third()
    calls.map(views.process, last, how.in_flight)
    views.report()
    return views.totals


@dataclass(slots=True)
class _Views:
    """A stage that runs.

    Attributes
    ----------
    totals
        Sums by name.
    """

    stage: Stage
    how: How
    ledger: Ledger
    calls: Calls
    totals: dict[str, Array]
    _needed: tuple[slice, ...] | None
    _locks: dict[str, threading.Lock]
    _count: threading.Lock = field(default_factory=threading.Lock)
    _settled: int = 0

    @classmethod
    def begin(cls, stage: Stage, how: How, ledger: Ledger, calls: Calls) -> _Views:
        xp = namespace(stage.volume)
        names = stage.variants[-1].outputs
        totals = {name: xp.zeros(stage.volume.shape, dtype=xp.float32) for name in names}
        needed = None
        if how.skip and stage.within is not None:
            nothing = (slice(0, 0),) * 3
            needed = extent(stage.within) or nothing
        locks = {name: threading.Lock() for name in names}
        return cls(stage, how, ledger, calls, totals, needed, locks)

    def first_two(self) -> list[_Job]:
        """The requests of X and Y, interleaved."""
        x, y = (
            self._jobs(d, self.stage.variants[-1], self._wanted(d), self._same(d))
            for d in catalog.DIRECTIONS[:2]
        )
        return list(_interleaved(x, y))

    def third(self) -> list[_Job]:
        """The requests of Z: for each slice the fewest networks that can still change a mask."""
        stage, wanted = self.stage, self._wanted("z")
        variants = stage.variants if self.how.skip else stage.variants[-1:]
        needs: dict[str, NDArray[np.bool_]] = {}
        for name, total in self.totals.items():
            needs[name] = wanted
            if self.how.skip and name in stage.thresholds:
                needs[name] = wanted & open_slices(total, stage.thresholds[name], "z", stage.within)
        jobs: list[_Job] = []
        left, same = np.logical_or.reduce(list(needs.values())), self._same("z")
        for variant in variants:
            lacking = [need for name, need in needs.items() if name not in variant.outputs]
            enough = left & ~np.logical_or.reduce([np.zeros_like(left), *lacking])
            jobs += self._jobs("z", variant, enough, same)
            left = left & ~enough
        return sorted(jobs, key=lambda job: job.slab.start)

    def process(self, job: _Job) -> None:
        """One slab from the volume to the sums."""
        slab, outputs = job.slab, job.variant.outputs
        served = self.calls.model(job.model)
        dtype = np.dtype(triton_to_np_dtype(served.inputs["slab"].dtype))
        with span("cut"):
            inputs = self._cut(slab, dtype)
        shape = (len(slab), *inputs["slab"].shape[1:])
        with self.ledger.request():
            answer = self.calls.infer(
                job.model,
                inputs,
                list(outputs.values()),
                output_shapes=dict.fromkeys(outputs.values(), shape),
            )
        self.ledger.add(inputs.values(), answer, len(slab) * len(job.variant.tasks))
        found = {name: answer.outputs[output] for name, output in outputs.items()}
        with span("add"):
            self._add(slab, found)
        with self._count:
            self._settled += slab.settled
            self.report(self._settled)

    def report(self, settled: int | None = None) -> None:
        """Report how far the stage is, in slices of the three directions; None: all of them."""
        total = sum(self.stage.volume.shape)
        self.calls.progress(self.stage.title, total if settled is None else settled, total)

    def _wanted(self, direction: Direction) -> NDArray[np.bool_]:
        axis = catalog.DIRECTIONS.index(direction)
        wanted = np.ones(self.stage.volume.shape[axis], bool)
        if self._needed is not None:
            wanted[:] = False
            wanted[self._needed[axis]] = True
        return wanted

    def _same(self, direction: Direction) -> NDArray[np.intp]:
        """For each slice the first one with the same input."""
        stage = self.stage
        if not self.how.skip:
            return np.arange(stage.volume.shape[catalog.DIRECTIONS.index(direction)])
        return slabs.same_inputs(stage.volume, direction, stage.window, stage.channels.values())

    def _jobs(
        self,
        direction: Direction,
        variant: Variant,
        wanted: NDArray[np.bool_],
        same: NDArray[np.intp],
    ) -> list[_Job]:
        length = self.how.length(self.stage.volume.shape, direction)
        return [_Job(slab, variant) for slab in slabs.plan(direction, wanted, same, length)]

    def _cut(self, slab: Slab, dtype: np.dtype) -> dict[str, Array]:
        stage = self.stage
        cuttings = {"slab": slabs.cut(stage.volume, slab, stage.margin, dtype)}
        cuttings |= {name: slabs.cut(volume, slab) for name, volume in stage.channels.items()}
        return cuttings

    def _add(self, slab: Slab, found: Mapping[str, Array]) -> None:
        for name, probabilities in found.items():
            total = self.totals[name]
            values = namespace(total).asarray(probabilities)
            with self._locks[name]:  # slabs of X and Y share voxels, and several threads add
                slabs.add(total, slab, values)


def _directed(models: Mapping[str, str]) -> Mapping[Direction, str]:
    return {"x": models["x"], "y": models["y"], "z": models["z"]}


def _interleaved(a: Iterable[T], b: Iterable[T]) -> Iterator[T]:
    return (item for pair in zip_longest(a, b) for item in pair if item is not None)
