"""The stages of DLPE: which networks are asked about which volume, and what may be left out.

Spec dlpe §1 (order), §4.4 (networks), §11.4 (work that cannot change the result).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from hilum.catalog import dlpe as catalog
from hilum.preprocessing.arrays import Array

from .options import Options
from .views import Stage, Variant

_TREES = Variant.ensemble("stage1", ("airway1", "vessel1"))
_STAGE_ONE = Variant.ensemble("stage1", ("lung", "airway1", "vessel1"))
_WITH_HEART = Variant.ensemble("stage1_heart", ("lung", "airway1", "vessel1", "heart"))
_VISIBLE = Variant.ensemble("stage1", ("visible",))
_STAGE_TWO = Variant.ensemble("stage2", ("airway2", "vessel2"))
_BOTH_COHORTS = Variant.ensemble("enhanced", ("follow_up", "in_patient"))


FIRST = "stage one"


def stage_one(ct: Array, *, heart: bool) -> Stage:
    """Lungs, airways and vessels of the CT; of lungs and heart only the masks are needed."""
    thresholds = {"lung": catalog.POSITIVE}
    if heart:
        thresholds["heart"] = catalog.HEART_POSITIVE
    return Stage(
        title=FIRST,
        variants=_stage_one_variants(heart=heart),
        volume=ct,
        thresholds=thresholds,
    )


def stage_two(ct: Array, channels: Mapping[str, Array], lung: Array | None) -> Stage:
    """Airways and vessels, given those of stage one.

    Parameters
    ----------
    channels
        By tree and name: ``airway_high_recall`` …
    lung
        Only the box of the lungs is needed; None: everything.
    """
    return Stage(
        title="stage two", variants=(_STAGE_TWO,), volume=ct, channels=channels, within=lung
    )


def visible(ct: Array, lung: Array) -> Stage:
    """Visible lesions; the mask is multiplied by that of the lungs."""
    return Stage(
        title="visible lesions",
        variants=(_VISIBLE,),
        volume=ct,
        thresholds={"visible": catalog.POSITIVE},
        within=lung,
    )


def lesions(enhanced: Array, tasks: tuple[str, ...], within: Array | None) -> Stage:
    """Lesions on the enhanced volume.

    Parameters
    ----------
    tasks
        One or two networks.
    within
        uint8: what the masks are multiplied by; None: nothing.
    """
    return Stage(
        title="lesions",
        variants=_lesion_variants(tasks),
        volume=enhanced,
        thresholds=dict.fromkeys(tasks, catalog.POSITIVE),
        within=within,
    )


def roots(ct: Array, lung: Array, outer_vessel: Array) -> Stage:
    """Roots of arteries and veins, given lungs and the vessels outside them."""
    return Stage(
        title="roots",
        variants=(Variant.single("root"),),
        volume=ct,
        channels={"lung": lung, "outer_vessel": outer_vessel},
    )


def models(options: Options) -> tuple[str, ...]:
    """Triton models that a run asks for."""
    named = (m for v in _variants(options) for m in v.models.values())
    return tuple(dict.fromkeys(named))


def networks(options: Options) -> tuple[str, ...]:
    """Triton models whose weights stand behind a result."""
    tasks = dict.fromkeys(t for v in _variants(options) for t in v.tasks)
    return tuple(catalog.TASKS[t].network(d).model for t in tasks for d in catalog.DIRECTIONS)


def share_of_first(options: Options) -> float:
    """Share of the passes of the first stage in those of all; they take about the same time."""
    first = _stage_one_variants(heart=options.roots)[-1]
    return len(first.tasks) * len(catalog.DIRECTIONS) / len(networks(options))


def _variants(options: Options) -> Iterator[Variant]:
    yield from _stage_one_variants(heart=options.roots)
    yield _STAGE_TWO
    if options.lesions:
        yield from _lesion_variants(options.lesions)
    if options.visible:
        yield _VISIBLE
    if options.roots:
        yield Variant.single("root")


def _stage_one_variants(*, heart: bool) -> tuple[Variant, ...]:
    return (_TREES, _STAGE_ONE, _WITH_HEART) if heart else (_TREES, _STAGE_ONE)


def _lesion_variants(tasks: Iterable[str]) -> tuple[Variant, ...]:
    singles = tuple(Variant.single(task) for task in tasks)
    return singles if len(singles) == 1 else (*singles, _BOTH_COHORTS)
