"""The catalog refuses declarations that contradict themselves, and quotes what was published."""

from __future__ import annotations

import dataclasses

import pytest

from hilum.catalog import SYSTEMS, closure, ct_angel, ct_classifier, find_model
from hilum.catalog import cxr_severity as cxr
from hilum.catalog.errors import CatalogError
from hilum.catalog.types import Call, Ensemble, Network, PythonStep, System, Tensor

IMAGE = Tensor("image", "UINT8", ("S", "S"))
MASK = Tensor("mask", "UINT8", ("S", "S"))
NETWORK = Network("net", "x_net", "A network", (IMAGE,), (MASK,), 4, {"S": 64})
STEP = PythonStep(
    "x_step", "A step", "package:function", (Tensor("mask", "UINT8", ("S", "S")),),
    (Tensor("area", "INT32", (1,)),), 4, {"S": 64},
)  # fmt: skip


def ensemble(*calls: Call, outputs: tuple[Tensor, ...] = STEP.outputs, batch: int = 4) -> Ensemble:
    return Ensemble("x", "Both", (IMAGE,), outputs, calls, batch)


def call(target: Network | PythonStep, **renamed: str) -> Call:
    inputs = {t.name: renamed.get(t.name, t.name) for t in target.inputs}
    return Call(target, inputs, {t.name: t.name for t in target.outputs})


def test_edges_that_fit_are_accepted() -> None:
    both = ensemble(call(NETWORK), call(STEP))
    assert dict(both.sizes) == {"S": 64}
    assert [m.model for m in closure([both])] == ["x_net", "x_step", "x"]


@pytest.mark.parametrize(
    ("calls", "words"),
    [
        ([call(STEP), call(NETWORK)], ["x_step.mask", "no earlier step"]),
        (
            [call(NETWORK), call(dataclasses.replace(STEP, sizes={"S": 32}))],
            ["size S", "64", "32"],
        ),
        (
            [
                call(NETWORK),
                call(dataclasses.replace(STEP, inputs=(Tensor("mask", "FP32", ("S", "S")),))),
            ],
            ["UINT8", "FP32", "x_step.mask"],
        ),
        (
            [
                call(NETWORK),
                call(dataclasses.replace(STEP, inputs=(Tensor("mask", "UINT8", ("S", 3)),))),
            ],
            ["x_step.mask", "'S', 3"],
        ),
        ([call(NETWORK), call(dataclasses.replace(STEP, max_batch=0))], ["differ in batching"]),
        ([call(NETWORK), call(dataclasses.replace(STEP, max_batch=2))], ["batches of 4", "2"]),
        ([call(NETWORK), Call(STEP, {}, {})], ["x_step.mask is not connected"]),
        ([call(NETWORK), Call(STEP, {"mask": "mask"}, {"size": "size"})], ["x_step.size"]),
        ([call(NETWORK)], ["no step provides the output 'area'"]),
        ([call(NETWORK), call(NETWORK), call(STEP)], ["'mask' is written twice"]),
    ],
)
def test_edges_that_do_not_fit_are_named(calls: list[Call], words: list[str]) -> None:
    with pytest.raises(CatalogError) as error:
        ensemble(*calls)
    for word in words:
        assert word in str(error.value)


def test_what_nothing_uses_is_named() -> None:
    with pytest.raises(CatalogError, match=r"nothing uses x_net\.mask"):
        Ensemble("x", "One", (IMAGE,), (IMAGE,), (call(NETWORK),), 4)


def test_sizes_and_names_are_checked() -> None:
    with pytest.raises(CatalogError, match="size 'S' has no value"):
        dataclasses.replace(NETWORK, sizes={})
    with pytest.raises(CatalogError, match="two tensors of one name"):
        dataclasses.replace(NETWORK, outputs=(MASK, MASK))
    with pytest.raises(CatalogError, match="network 'net' is declared twice"):
        System("x", "X", "", "", (NETWORK, NETWORK), (), ())


def test_every_model_is_found_by_its_name() -> None:
    for system in SYSTEMS.values():
        for model in system.models():
            assert find_model(model.model) == model
    with pytest.raises(KeyError, match="no system declares"):
        find_model("resnet50")


def test_published_figures_are_quoted() -> None:
    assert [cxr.DISEASE[n].images_per_second for n in ("pspnet", "manet")] == [12.5, 7.9]
    assert min(cxr.DISEASE.values(), key=lambda f: f.mae).name == cxr.DEFAULT_NETWORK


@pytest.mark.parametrize(
    ("system", "counts", "figures"),
    [
        # true positives, true negatives, false positives, false negatives of the publications
        (ct_classifier.SYSTEM, (399, 284, 65, 4), "per slice"),
        (ct_angel.SYSTEM, (11, 29, 2, 0), "per patient"),
    ],
)
def test_published_rates_follow_from_the_counts(
    system: System, counts: tuple[int, int, int, int], figures: str
) -> None:
    tp, tn, fp, fn = counts
    rates = {
        "sensitivity": tp / (tp + fn),
        "specificity": tn / (tn + fp),
        "accuracy": (tp + tn) / sum(counts),
    }
    for name, rate in rates.items():
        quoted = next(f for f in system.published if f.quantity == f"{name} {figures}")
        scale, digits = (100, 2) if quoted.unit == "%" else (1, 3)
        assert round(scale * rate, digits) == quoted.value
