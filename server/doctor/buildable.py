"""Can engines be built on this machine? The part of `checks` that a builder depends on.

What matters to a running server alone is not asked: its address, its shared memory, its engines.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from hilum.catalog.errors import ExportError

from .checks import Facts, Finding, Level, broken, check_driver, check_gpus, number, table


def check_build(facts: Facts) -> list[Finding]:
    """Every finding about building engines here: GPU, driver, TensorRT."""
    if not facts.gpus and not facts.gpus_unread:
        gpus = [
            Finding(
                Level.PROBLEM,
                "no NVIDIA GPU found",
                "an engine is built on the GPU that is to run it",
                "build where it is to be served; a container needs `--gpus all` (compose.gpu.yaml)",
            )
        ]
    else:
        gpus = check_gpus(facts)
    return [*gpus, *check_driver(facts), *check_tensorrt(facts)]


def check_tensorrt(facts: Facts) -> Iterator[Finding]:
    """TensorRT's version against those that build as Hilum asks, and against the GPUs."""
    if facts.tensorrt is None:
        return  # the builder itself looks for its Python package
    rule, have = table()["tensorrt"], number(facts.tensorrt)
    remedy = f"use {table()['floor']['image']} or newer with TensorRT before {rule['below']}"
    what = f"TensorRT {facts.tensorrt}"
    if have < number(rule["minimum"]):
        why = f"strongly typed engines need {rule['minimum']} or newer"
        yield Finding(Level.PROBLEM, what, why, remedy)
    elif have >= number(rule["below"]):
        why = f"nobody has built Hilum's engines with {rule['below']} or newer"
        yield Finding(Level.PROBLEM, what, why, remedy)
    elif unfit := [g for g in dict.fromkeys(facts.gpus) if _too_old(g.capability, have)]:
        for gpu in unfit:
            yield Finding(
                Level.PROBLEM,
                f"{gpu.name}, compute capability {gpu.capability}",
                f"{what} builds for {rule['capability']} or more",
                "export its networks with `--target onnx`, or use a newer GPU",
            )
    else:
        yield Finding(Level.OK, what)


def _too_old(capability: str, tensorrt: tuple[int, ...]) -> bool:
    rule = table()["tensorrt"]
    since = number(rule["capability_since"])
    return tensorrt >= since and number(capability) < number(rule["capability"])


def refuse_build(findings: Iterable[Finding]) -> None:
    """Raise when engines cannot be built here.

    Raises
    ------
    ExportError
        With every problem and its remedy.
    """
    if problems := broken(findings):
        listed = "".join(f"\n  {problem}" for problem in problems)
        raise ExportError(
            f"this machine does not fit the engines that are to be built:{listed}\n"
            "`hilum doctor` shows more; --ignore-doctor builds all the same"
        )
