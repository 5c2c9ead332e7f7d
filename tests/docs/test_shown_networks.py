"""Exports, runs of systems and trainings that pages show, with small studies (make test-load).

Each `swaps` says what is typed instead of what the page shows: fewer slices, fewer networks, random
weights where the page takes the authors'.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from manual import ROOT, Typist, inline, shown

from hilum.server.launcher import free_ports

pytestmark = pytest.mark.load

SMALL = {"--out series": "--out series --slices 32 --size 128"}
RANDOM = {"--repository": "--weights random --repository"}
PUBLIC = "cxr-hannover-ccby"


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Typist:
    """Somebody who goes on in one folder from page to page."""
    folder = tmp_path_factory.mktemp("networks")
    return Typist(folder, OMP_NUM_THREADS="1", HILUM_STORE=str(folder / "store"))


def masked(text: str) -> str:
    """A text without figures, and on one line."""
    return re.sub(r"\d[\d.e-]*", "#", " ".join(text.split()))


def serves(reader: Typist, line: str, folder: dict[str, str]) -> None:
    """Type a line that serves a folder, as the page calls it and as it is here, on free ports."""
    grpc, metrics = free_ports(2)
    ports = {page: f"{here} --grpc-port {grpc} --metrics-port {metrics}"
             for page, here in folder.items()}  # fmt: skip
    with reader.going(line, ports) as serving:
        assert serving.stdout is not None
        assert serving.stdout.readline().startswith("ready")


def test_dlpe(reader: Typist) -> None:
    (block,) = shown("docs/background/dlpe.md", "A run", "sh")
    reader.type(block, {**SMALL, "--grid 128": "--grid 64"})
    for earlier in ("results-may", "results-july"):
        shutil.copytree(reader.folder / "results", reader.folder / earlier)
    (block,) = shown("docs/background/dlpe.md", "Two scans, and many", "sh")
    reader.type(block)
    assert (reader.folder / "summary.csv").read_text().count("\n") == 2
    assert list((reader.folder / "comparison").iterdir())


def test_a_trace_of_dlpe(reader: Typist) -> None:
    command = inline("docs/how-to/slow.md", "hilum phantom ct --out series --slices 60 --size 256")
    reader.type(command, {"--slices 60 --size 256": "--slices 32 --size 128"})
    run, told, _ = shown("docs/how-to/slow.md", "1. Look at one run", "sh", "text", "python")
    assert masked(told) in masked(reader.type(run))
    assert json.loads((reader.folder / "trace.json").read_text())["traceEvents"]


@pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="this machine has a GPU")
def test_arrays_on_a_gpu_that_is_not_there_are_refused(reader: Typist) -> None:
    (block,) = shown("docs/how-to/servers-and-gpus.md", "Array work on a GPU", "sh")
    assert "cuda:0" in reader.type(block, None, 2)


def test_ct_angel(reader: Typist) -> None:
    (block,) = shown("docs/background/ct-angel.md", "A run", "sh")
    reader.type(block, {"hilum phantom ct --out series\n": "", "--out results": "--out angel"})
    assert (reader.folder / "angel/0001/result.json").is_file()


def test_covid_mtl(reader: Typist) -> None:
    (block,) = shown("docs/background/covid-mtl.md", "A run", "sh")
    reader.type(block, {"hilum phantom ct --out series\n": "", "--out results": "--out mtl"})
    assert (reader.folder / "mtl/0001/result.json").is_file()


def test_networks_in_half_precision(reader: Typist) -> None:
    (block,) = shown("docs/how-to/own-network.md", "Half precision", "sh")
    some = {"--repository models": "--network lung_x --weights random --repository halves"}
    assert "dlpe lung_x" in reader.type(block, some)


def test_networks_for_tensorrt(reader: Typist) -> None:
    export, build, serve, _ = shown(
        "docs/how-to/own-network.md", "TensorRT engines", "sh", "sh", "sh", "sh"
    )
    some = {"--repository models": "--network lung_x --weights random --repository engines"}
    reader.type(export, some)
    assert (reader.folder / "engines/engines.json").is_file()
    elsewhere = {"--repository models": "--repository engines"}
    if not Path("/dev/nvidia0").exists():
        assert "GPU" in reader.type(build, elsewhere, 2, 3)
        assert "engine" in reader.type(serve, elsewhere, 2, 3)


def test_a_graph_is_checked_without_a_gpu(reader: Typist) -> None:
    (block,) = shown("docs/how-to/own-network.md", "Check graphs without a GPU", "sh")
    everything, some, one = block.splitlines()
    for line in (everything, some):
        assert "engines check" in Typist(ROOT).type(line, {"make ": "make --dry-run "})
    parser = ROOT / "out/tensorrt-rtx"
    if not parser.is_dir():
        pytest.skip("no TensorRT-RTX: make out/tensorrt-rtx/.installed")
    checked = Typist(reader.folder, HILUM_TENSORRT=str(parser))
    checked.type(one)
    assert (reader.folder / "check/report.json").is_file()


def test_networks_in_int8(reader: Typist) -> None:
    shutil.copytree(reader.folder / "series", reader.folder / "more")
    half, quantised = shown("docs/how-to/own-network.md", "INT8 networks of DLPE", "sh")[
        0
    ].splitlines()
    few = "--option calibration_grid=64 --option calibration_slices=4 --network lung_x"
    reader.type(half, {"--repository": "--network lung_x --weights random --repository"})
    swaps = {
        "--calibration more.nii.gz": "--calibration more", "--repository": f"{few} --repository",
        "--precision int8": "--weights random --precision int8", " --calibrate-with earlier": "",
    }  # fmt: skip
    said = reader.type(quantised, {**swaps, "--repository models": "--repository int8"})
    (block,) = shown("docs/how-to/own-network.md", "INT8 networks of DLPE", "text")
    starts = {line.partition(":")[0].split()[0] for line in block.splitlines()}
    assert starts == {"dlpe"}
    assert "dlpe lung_x" in said


def test_int8_as_it_was_measured(reader: Typist) -> None:
    (block,) = shown("docs/background/precision.md", "What was measured", "sh")
    phantom, alone, whole, masks = block.splitlines()
    small = {"--slices 120 --size 256": "--slices 32 --size 128"}
    few = {
        "calibration_grid=128": "calibration_grid=64",
        "calibration_slices=18": "calibration_slices=4",
    }  # fmt: skip
    reader.type(phantom, small)
    reader.type(alone, {**few, "--network lung_x --network visible_x ": ""})
    reader.type(whole, {"--repository earlier": "--repository whole"})
    some = {"--network vessel2_x --network follow_up_x --network root_x ": ""}
    reader.type(masks, {**few, **some, "--calibrate-with earlier": "--calibrate-with whole"})


def test_networks_for_openvino(reader: Typist) -> None:
    pytest.importorskip("openvino", reason="the extra openvino is not installed")
    (block,) = shown("docs/how-to/own-network.md", "OpenVINO and bfloat16", "sh")
    _, export, quantised, serve = block.splitlines()  # tests/installs has the first
    some = "--network lung --network pspnet --weights random --repository vino"
    reader.type(export, {"--repository models": some})
    serves(reader, serve, {"models": "vino"})
    few = "--option calibration_grid=64 --option calibration_slices=4 --network lung_x"
    some = f"{few} --weights random --repository vino8"
    said = reader.type(quantised, {"--repository models": some})
    assert "dlpe lung_x" in said


def test_models_are_upgraded(reader: Typist) -> None:
    (block,) = shown("docs/how-to/upgrade-and-backup.md", "Upgrade models", "sh")
    export, look, serve = block.splitlines()
    some = "--network lung --network pspnet --weights random --repository models-new"
    reader.type(export, {"--repository models-new": some})
    reader.type(look)
    serves(reader, serve, {"models-new": "models-new"})


def test_reference_weights_are_exported_and_listed(reader: Typist) -> None:
    (block,) = shown("docs/background/reference-weights.md", "Reference weights", "sh")
    said = reader.type(block, {"--repository models": "--repository reference"})
    assert "pspnet" in said


def test_reference_weights_are_measured(reader: Typist, shared: Path) -> None:
    (reader.folder / PUBLIC).symlink_to(shared / "data" / PUBLIC)
    (block,) = shown("docs/background/reference-weights.md", "How good they are", "sh")
    cards = shutil.copytree(ROOT / "export/reference_weights", reader.folder / "cards")
    xrays, chests = block.splitlines()
    elsewhere = "--measure 1 --publish cards"
    assert "Dice" in reader.type(xrays, {"--measure 200": elsewhere})
    assert "Dice" in reader.type(chests, {"--measure 10 --grid 256": f"{elsewhere} --grid 128"})
    assert "--measure 1 --grid 128" in (cards / "dlpe/lung_z.md").read_text()


def test_reference_weights_are_trained(reader: Typist) -> None:
    (block,) = shown("docs/background/reference-weights.md", "How they are trained", "sh")
    both, xrays, chests = block.splitlines()
    made = Typist(ROOT).type(both, {"make ": "make --dry-run -o install "})
    small = "--small --publish trained --threads 1"
    public = {f"--public-xrays {PUBLIC} ": ""}
    for line, network in ((xrays, "pspnet"), (chests, "vessel2_z")):
        words = line.replace(" --threads 1", "").split()
        assert set(words[1:]) <= set(made.split())
        given = {"--threads 1": f"{small} --network {network}", "out/training": "training"}
        reader.type(line, given | (public if network == "pspnet" else {}))
    assert list((reader.folder / "trained").rglob("pspnet.safetensors"))
