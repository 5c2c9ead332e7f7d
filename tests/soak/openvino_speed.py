"""How fast OpenVINO in bfloat16 and INT8 is beside ONNX Runtime in FP32, through Triton.

    python tests/soak/openvino_speed.py --rounds 5

X-rays go from pixels to the score, DLPE's slabs through one network of stage one, which is INT8,
too. All servers run all the time and are used in turns, so that what else the machine does falls on
all. Weights are random, so INT8 is not judged here.

    python tests/soak/openvino_speed.py --dlpe int8

only writes a repository of DLPE, all networks INT8, for `dlpe_scan.py`.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import onnx

from hilum.catalog import SYSTEMS
from hilum.catalog.precision import Arithmetic
from hilum.client import Client
from hilum.client.registry import INSTALLED
from hilum.export.certificate import MODEL_FILE
from hilum.export.graph import OPSET
from hilum.export.int8 import OPENVINO, to_int8
from hilum.export.recipes import recipe
from hilum.export.repository import export_system
from hilum.preprocessing.phantoms.xray import chest_xray
from hilum.server.launcher import TritonServer
from hilum.systems.dlpe.options import Options

NETWORKS = {"cxr-severity": ("lung", "pspnet", "manet"), "dlpe": ("lung_z",)}
MODELS = ("cxr_severity_pspnet", "cxr_severity_manet", "dlpe_lung_z")
INT8_NETWORK = "lung_z"
FULL: Arithmetic = "fp32"
KINDS: tuple[Arithmetic, ...] = (FULL, "bf16", "int8")
SLAB, SIDE = 16, 512


def quantise(repository: Path, names: Sequence[str], side: int) -> None:
    """Put INT8 graphs, of random weights and slabs, in place of networks that were exported."""
    system = SYSTEMS["dlpe"]
    how = recipe(system)
    assert how.to_onnx is not None
    for name in names:
        network = system.network(name)
        core, _ = how.build_random(network, 0)
        shape = (1, int(how.core_signature(network).shape[0]), side, side)
        image = np.random.default_rng(0).normal(0, 0.5, shape).astype(np.float32)
        small = to_int8(how.to_onnx(core, OPSET), lambda image=image: [image], OPENVINO)
        onnx.save(how.wrap(small, network, {}), repository / network.model / "1" / MODEL_FILE)


def export(kind: Arithmetic, repository: Path) -> tuple[str, ...]:
    """Export what is timed in one precision; the models to serve."""
    wanted = {"dlpe": (INT8_NETWORK,)} if kind == "int8" else NETWORKS
    for system, names in wanted.items():
        made = export_system(
            SYSTEMS[system], repository=repository, networks=names,
            precision="fp32" if kind == "int8" else kind,
            target="onnx" if kind == FULL else "openvino",
        )  # fmt: skip
        for one in made:
            sys.stdout.write(f"{kind} {one['model']}: exported in {one['precision']}\n")
    if kind == "int8":
        quantise(repository, [INT8_NETWORK], SIDE)
    return MODELS[2:] if kind == "int8" else MODELS


def tasks(client: Client, kind: str) -> dict[str, Callable[[], object]]:
    """What is timed, by name."""
    xray = chest_xray(3, height=900, width=800, severity=0.6).pixels
    slab = np.random.default_rng(0).normal(0, 0.5, (SLAB + 10, SIDE, SIDE)).astype(np.float32)
    found: dict[str, Callable[[], object]] = {
        "dlpe_lung_z": lambda: client.infer("dlpe_lung_z", {"slab": slab}, ["probability"])
    }
    if kind == "int8":
        return found
    return {
        name: lambda name=name: client.run("cxr-severity", xray, network=name)
        for name in ("pspnet", "manet")
    } | found


def main() -> None:
    """Read what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dlpe", type=Path, help="only write DLPE in INT8 to this folder")
    given = parser.parse_args()
    if given.dlpe:
        write_dlpe(given.dlpe)
    else:
        compare(given.rounds)


def write_dlpe(repository: Path) -> None:
    """Export DLPE's main program with all networks in INT8."""
    system = SYSTEMS["dlpe"]
    models = INSTALLED["dlpe"].networks(Options())
    names = [network.name for network in system.networks if network.model in models]
    export_system(
        system, repository=repository, networks=names, weights="random", target="openvino"
    )
    quantise(repository, names, SIDE // 4)


def compare(rounds: int) -> None:
    """Serve, and time in turns."""
    with tempfile.TemporaryDirectory() as kept, ExitStack() as stack:
        timed: dict[str, dict[str, Callable[[], object]]] = {}
        for kind in KINDS:
            repository = Path(kept, kind)
            models = export(kind, repository)
            running = stack.enter_context(TritonServer(repository, models=models, grace=0))
            client = stack.enter_context(Client(running.grpc_url, deadline_s=120))
            timed[kind] = tasks(client, kind)
        for name in timed[FULL]:
            kinds = [kind for kind in KINDS if name in timed[kind]]
            found: list[dict[str, float]] = []
            for number in range(rounds + 1):
                seconds = {kind: _seconds(timed[kind][name]) for kind in kinds}
                if number:  # the first one warms up
                    found.append(seconds)
            for kind in kinds:
                middle = statistics.median(row[kind] for row in found)
                times = statistics.median(row[FULL] / row[kind] for row in found)
                sys.stdout.write(f"{name}: {middle:.3f} s in {kind}, {times:.2f} times\n")


def _seconds(task: Callable[[], object]) -> float:
    began = time.perf_counter()
    task()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
