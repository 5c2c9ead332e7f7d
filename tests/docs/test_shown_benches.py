"""Benchmarks, soaks and whole programs that pages show, with small values (make test-load)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from manual import ROOT, Typist, inline, shown

from hilum.server.launcher import TritonServer

pytestmark = pytest.mark.load

BRIEF = "--quick --seconds 1 --rounds 1"
ONE = "--rounds 1 --tasks 1"


@pytest.fixture(scope="module")
def reader(standin_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Typist:
    folder = tmp_path_factory.mktemp("benches")
    (folder / "models").symlink_to(standin_repository)
    return Typist(folder, OMP_NUM_THREADS="1")


@pytest.fixture(scope="module")
def server(standin_repository: Path) -> Iterator[TritonServer]:
    with TritonServer(standin_repository, grace=0) as server:
        yield server


def lanes(record: Path) -> int:
    return len(json.loads((record / "bench.json").read_text())["lanes"])


def test_load(reader: Typist, server: TritonServer) -> None:
    (block,) = shown("docs/how-to/slow.md", "3. Load it", "sh")
    own, rates, mixed, replayed = block.splitlines()
    at = {"--url triton:8001": f"--url {server.grpc_url}"}
    reader.type(own, {"--quick": f"--repository models {BRIEF}"})
    assert lanes(reader.folder / "bench")
    reader.type(rates, {**at, "--out bench": f"{BRIEF} --out rates"})
    assert lanes(reader.folder / "rates") == 2
    one = {"cxr-severity=3,ct-classifier=1": "cxr-severity=1"}  # the stand-ins are of one system
    reader.type(mixed, {**one, "--out bench": f"{BRIEF} --out mixed"})
    (arrivals,) = shown("docs/how-to/slow.md", "Recorded arrivals", "text")
    columns = [line.split("   ")[0] for line in arrivals.splitlines()]
    objects = [line[line.index("{") :] for line in arrivals.splitlines() if "{" in line]
    read = [json.loads(text) for text in objects]
    assert [f"{line['seconds']},{line['system']}" for line in read] == columns[1:]
    rows = [line.replace("ct-angel", "cxr-severity") for line in columns]
    (reader.folder / "monday.csv").write_text("\n".join(rows))
    replay = {"ct-angel": "cxr-severity", "--out bench": f"{BRIEF} --out replayed"}
    reader.type(replayed, {**at, **replay})
    assert lanes(reader.folder / "replayed") == 1


def test_a_record_is_drawn_again_and_compared(reader: Typist) -> None:
    for name in ("before", "after"):
        shutil.copy(reader.folder / "bench/bench.json", reader.folder / f"{name}.json")
    shutil.copy(reader.folder / "bench/bench.json", reader.folder)
    single, _ = shown("docs/how-to/slow.md", "5. Ask whether a change is real", "sh", "sh")
    reader.type(single)
    reader.type(inline("docs/how-to/slow.md", "hilum bench page bench.json --out page"))
    assert (reader.folder / "page/bench.html").is_file()


def test_servers_are_compared_in_turns(reader: Typist, server: TritonServer) -> None:
    _, turns = shown("docs/how-to/slow.md", "5. Ask whether a change is real", "sh", "sh")
    fewer = {"1 2 3 4 5": "1 2 3", ",before4,after4,before5,after5": ""}
    here = {"old:8001": server.grpc_url, "new:8001": server.grpc_url}
    said = reader.type(
        turns, {**fewer, **here, "--concurrency 4": f"--concurrency 1 {BRIEF}"}, 0, 1
    )
    assert "images per second" in said or "p50" in said


def test_capacity(reader: Typist) -> None:
    (block,) = shown("docs/how-to/slow.md", "4. Ask how much it can take", "sh")
    first, quick, again = block.splitlines()
    # A bound that no task keeps is found with a few tasks; then the exit code is 1.
    least = {"--p99 500ms": "--p99 1ms --quick"}
    reader.type(first, least, 1)
    assert (reader.folder / "capacity/trials.jsonl").is_file()
    reader.type(again, {"--p99 500ms": "--p99 1ms --quick --repository models"}, 1)
    own = {"--bound 500ms": "--bound 1ms --repository models", "--out capacity": "--out other"}
    reader.type(quick, own, 1)


def test_what_triton_adds_to_each_system(reader: Typist) -> None:
    (loop,) = shown("docs/background/bench-overhead.md", "Measured: what Triton adds", "sh")
    two = {"in cxr-severity ct-classifier ct-angel dlpe lungmask covid-mtl": "in lungmask"}
    small = {"--out bench/peers": f"--quick {ONE} --weights random --out bench/peers"}
    reader.type(loop, two | small)
    assert lanes(reader.folder / "bench/peers-lungmask")


@pytest.mark.parametrize(
    ("command", "swaps"),
    [
        (
            inline(
                "docs/background/bench-overhead.md",
                "hilum bench peers cxr-severity --rounds 3 --tasks 4 --quick --weights random",
            ),
            {"--rounds 3 --tasks 4": f"{ONE} --network pspnet"},
        ),
        (
            inline(
                "docs/background/bench-overhead.md",
                "hilum bench peers ct-classifier --rounds 5 --tasks 6 --weights random",
            ),
            {"--rounds 5 --tasks 6": f"{ONE} --quick"},
        ),
        (
            inline(
                "docs/background/bench-overhead.md",
                "hilum bench peers ct-angel --rounds 3 --tasks 2 --quick --weights random",
            ),
            {"--rounds 3 --tasks 2": ONE},
        ),
        (
            inline(
                "docs/background/bench-overhead.md",
                "hilum bench peers dlpe --rounds 5 --tasks 4 --quick --weights random",
            ),
            {"--rounds 5 --tasks 4": ONE},
        ),
        (
            inline(
                "docs/background/bench-overhead.md",
                "hilum bench peers lungmask --rounds 5 --tasks 4 --weights random",
            ),
            {"--rounds 5 --tasks 4": f"{ONE} --quick"},
        ),
        (
            inline(
                "docs/background/bench-overhead.md",
                "hilum bench peers covid-mtl --rounds 3 --tasks 2 --quick --weights random",
            ),
            {"--rounds 3 --tasks 2": ONE},
        ),
        (
            inline(
                "docs/background/bench-cxr-severity.md",
                "hilum bench cxr-severity --network pspnet --network manet --rounds 3 --tasks 4",
            ),
            {"--network manet --rounds 3 --tasks 4": f"--concurrency 1 {ONE} --weights random"},
        ),
        (
            inline(
                "docs/background/bench-ct-angel.md",
                "hilum bench ct-angel --rounds 3 --tasks 4 --concurrency 2 --concurrency 4 "
                "--batch 1 --batch 2",
            ),
            {
                "--rounds 3 --tasks 4 --concurrency 2 --concurrency 4 --batch 1 --batch 2":
                f"{ONE} --concurrency 1 --batch 1 --weights random",
            },
        ),
        (
            inline(
                "docs/background/bench-ct-classifier.md",
                "hilum bench ct-classifier --rounds 5 --tasks 24 --concurrency 1 --concurrency 4 "
                "--concurrency 8 --batch 1 --batch 2 --batch 4 --batch 8",
            ),
            {
                "--rounds 5 --tasks 24": ONE,
                " --concurrency 4 --concurrency 8": "",
                " --batch 2 --batch 4 --batch 8": " --weights random",
            },
        ),
    ],
    ids=["peers of X-rays", "of slices", "of CT-Angel", "of DLPE", "of lungmask", "of covid-mtl",
         "X-rays", "CT-Angel", "slices"],
)  # fmt: skip
def test_a_measurement_can_be_made_again(
    command: str, swaps: dict[str, str], tmp_path: Path, reader: Typist
) -> None:
    reader.type(f"{command} --out {tmp_path / 'record'}", swaps)
    assert lanes(tmp_path / "record")


def test_bfloat16_is_timed_beside_the_published_programs(reader: Typist) -> None:
    pytest.importorskip("openvino")
    (block,) = shown("docs/background/precision.md", "bfloat16", "sh")
    fewer = {
        " --network manet": "", " --concurrency 2": f" {ONE}",
        "--grid 128 --rounds 5": "--grid 64 --rounds 1 --no-published",
    }  # fmt: skip
    reader.type(block, fewer)
    assert lanes(reader.folder / "bench-xrays") and lanes(reader.folder / "bench-dlpe")


def test_documented_figures_are_computed_again(reader: Typist, shared: Path) -> None:
    command = inline(
        "docs/background/bench-targets.md",
        "hilum bench targets --quick --predictions segments.npz "
        "--predictions decovnet_published_predictions.npz --weights random",
    )  # fmt: skip
    for name in ("segments.npz", "images.csv", "decovnet_published_predictions.npz"):
        (found, *_) = shared.rglob(name)
        (reader.folder / name).symlink_to(found)
    one = {"--quick": "cxr-severity --quick"}
    published = {" --predictions decovnet_published_predictions.npz": ""}  # of another system
    reader.type(f"{command} --out targets", one | published, 0, 1)
    assert (reader.folder / "targets/bench.json").is_file()


SOAKS = {
    "scale": (
        inline(
            "docs/background/benchmarks.md",
            "python tests/soak/cluster_scale.py --service 5 --studies 6 --servers 1,3,2",
        ),
        {"--service 5 --studies 6 --servers 1,3,2": "--service 0.5 --studies 2 --servers 1"},
    ),
    "ledger": (
        inline("docs/background/benchmarks.md", "python tests/soak/ledger_scale.py"),
        {"scale.py": "scale.py --studies 2000"},
    ),
    "throughput": (
        inline(
            "docs/background/benchmarks.md",
            "python tests/soak/gateway_throughput.py --count 200 --rounds 2 --apart",
        ),
        {"--count 200 --rounds 2": "--count 4 --rounds 1 --network standins"},
    ),
    "waiting": (
        inline(
            "docs/background/benchmarks.md", "python tests/soak/gateway_waiting.py --studies 500"
        ),
        {"--studies 500": "--studies 5"},
    ),
    "dicom": (
        inline("docs/background/benchmarks.md", "python tests/soak/dicom_costs.py"),
        {"costs.py": "costs.py --slices 20 --side 128"},
    ),
    "views": (
        inline("docs/background/benchmarks.md", "python tests/soak/desk_views.py"),
        {"views.py": "views.py --slices 20 --size 128 --views 2"},
    ),
    "upload": (
        inline("docs/background/benchmarks.md", "python tests/soak/desk_upload.py"),
        {"upload.py": "upload.py --slices 20 --size 128"},
    ),
    "quantities": (
        inline("docs/background/benchmarks.md", "python tests/soak/dlpe_quantities_costs.py"),
        {"costs.py": "costs.py --side 96"},
    ),
    "openvino": (
        inline("docs/background/precision.md", "python tests/soak/openvino_speed.py"),
        {"speed.py": "speed.py --rounds 1"},
    ),
    "gateway": (
        inline(
            "docs/background/reliability.md",
            "python tests/soak/gateway_chaos.py --studies 20 --seed 1",
        ),
        {"--studies 20": "--studies 3"},
    ),
    "cluster": (
        inline(
            "docs/background/reliability.md",
            "python tests/soak/cluster_chaos.py --xrays 300 --cts 12 --seed 1",
        ),
        {"--xrays 300": "--xrays 40"},
    ),
    "fuzz": (
        inline(
            "docs/background/reliability.md",
            "python tests/fuzz/fuzz.py --count 50000 --processes 2 --seed 1",
        ),
        {"--count 50000 --processes 2": "--count 20 --processes 1"},
    ),
}
"""Programs of the checkout, with what is typed instead of the page's numbers."""


@pytest.mark.parametrize("name", SOAKS)
def test_a_soak_runs(name: str) -> None:
    command, swaps = SOAKS[name]
    # 1: slower than a bound, on a busy machine; too small for its progress to be seen
    bounds = (0, 1) if name in ("views", "upload") else (0,)
    Typist(ROOT, OMP_NUM_THREADS="1").type(command, swaps, *bounds)


def test_the_pictures_of_the_page_are_made(tmp_path: Path) -> None:
    command = inline("docs/how-to/page.md", "python docs/images/desk.py")
    Typist(ROOT).type(f"{command} --out {tmp_path}")
    assert list(tmp_path.glob("*.png"))


def test_what_a_span_costs() -> None:
    command = inline(
        "docs/how-to/slow.md",
        'python -m timeit -s "from hilum.client.trace import span" "with span(\'x\'): pass"',
    )
    assert "nsec per loop" in Typist(ROOT).type(command)


def test_a_whole_scan_is_timed_beside_published_passes(reader: Typist) -> None:
    pytest.importorskip("openvino")
    reader.type("hilum phantom ct --out scan --slices 24 --size 96")
    folder, typist = reader.folder, Typist(ROOT)
    command = inline(
        "docs/background/precision.md", "python tests/soak/openvino_speed.py --dlpe int8"
    )
    typist.type(command, {"--dlpe int8": f"--dlpe {folder / 'int8'}"})
    said = typist.type(
        f"python tests/soak/dlpe_scan.py {folder / 'scan'} --repository {folder / 'int8'} "
        "--grid 64 --batches 1"
    )
    assert "times as fast" in said
    assert "32 cores, modelled" in said
