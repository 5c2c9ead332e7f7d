"""X-ray severity scoring from file to score, through the real server, against the golden cases."""

from __future__ import annotations

import asyncio
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from hilum.catalog import cxr_severity as cxr
from hilum.catalog.errors import InferenceFailed, InputError
from hilum.client import AsyncClient, Client
from hilum.preprocessing.phantoms.xray import chest_xray, write_dicom
from hilum.server.launcher import TritonServer

CASES = {
    "gray_640x760|cls0.9|544": "manet",
    "gray_640x760|cls0.9|384": "fpn",
    "gray_640x760|cls0.5|544": "pan",
    "gray_640x760|cls0.2|544": "linknet",
    "color_500x400|cls0.9|544": "manet",
    "gray_900x512_mild|cls0.9|544": "manet",
    "nolung_300x300|cls0.9|544": "manet",
}
"""Golden case → the network in whose place the stand-in of the case is served."""


@pytest.fixture(scope="module", params=["grpc", "shm"])
def client(request: pytest.FixtureRequest, standin_server: TritonServer) -> Iterator[Client]:
    with Client(standin_server.grpc_url, transport=request.param) as client:
        yield client


@pytest.fixture(scope="module")
def expected(golden: Path) -> dict[str, Any]:
    cases = json.loads((golden / "cxr/e2e/expected.json").read_text())["cases"]
    assert set(cases) == set(CASES)
    return cases


@pytest.fixture(scope="module")
def masks(golden: Path) -> dict[str, np.ndarray]:
    with np.load(golden / "cxr/e2e/masks.npz") as packed:
        return {key: np.unpackbits(packed[key], axis=-1) for key in packed.files}


@pytest.mark.parametrize("case", CASES)
def test_golden_cases_are_reproduced_exactly(
    client: Client, golden: Path, expected: dict[str, Any], masks: dict[str, np.ndarray], case: str
) -> None:
    want = expected[case]
    result = client.run(
        "cxr-severity", golden / "cxr/e2e" / want["image"], network=CASES[case], zone_threshold=0.31
    )
    key = case.replace("|", "__")
    for name, got in (
        ("lungfilt", result.lung), ("lung512", result.lung512), ("dis512", result.disease512)
    ):  # fmt: skip
        found = [k for k in masks if k.startswith(key) and k.endswith(name)]
        assert len(found) == 1
        np.testing.assert_array_equal(got, masks[found[0]])
    assert list(result.box) == want["union_box"]
    assert result.lung_components == len(want["components"])
    assert result.lung_area_px == want["lung_px_filtered"]
    assert list(result.fractions) == want["raw"]
    assert result.score == want["score_at_0p31"]
    assert result.disease_probability == pytest.approx(want["cls"], abs=1e-7)
    assert result.gated == (want["cls"] <= 0.5)
    assert result.status == ("ok" if want["components"] else "no_lung")


def test_no_lung_has_no_score_in_corrected_mode(client: Client, golden: Path) -> None:
    result = client.run("cxr-severity", golden / "cxr/e2e/nolung_300x300.png", mode="corrected")
    assert (result.score, result.status) == (None, "no_lung")
    assert result.fractions == (None,) * 6


def test_arrays_bytes_and_files_give_the_same(client: Client, golden: Path) -> None:
    path = golden / "cxr/e2e/color_500x400.png"
    results = [
        client.run("cxr-severity", source)
        for source in (path, str(path), path.read_bytes(), cv2.imread(str(path)))
    ]
    assert len({r.fractions for r in results}) == 1
    assert results[0].score == 3


def test_dicom_scores_like_its_pixels(client: Client, tmp_path: Path) -> None:
    phantom = chest_xray(3, height=600, width=560, severity=0.7)
    write_dicom(phantom, tmp_path / "plain.dcm", bits=8)
    write_dicom(phantom, tmp_path / "inverted.dcm", bits=8, monochrome1=True)
    plain, inverted = (
        client.run("cxr-severity", tmp_path / f"{n}.dcm") for n in ("plain", "inverted")
    )
    assert plain.fractions == inverted.fractions
    assert plain.score == inverted.score
    assert any(0 < f < 1 for f in plain.fractions if f is not None)


def test_async_client_gives_the_same(standin_server: TritonServer, golden: Path) -> None:
    files = sorted((golden / "cxr/e2e").glob("*_*.png"))

    async def run() -> list[Any]:
        async with AsyncClient(standin_server.grpc_url) as client:
            single = await client.run("cxr-severity", files[0])
            batch = [o async for o in client.run_many("cxr-severity", files, in_flight=2)]
            return [single, *(o.result for o in batch)]

    with Client(standin_server.grpc_url) as client:
        sync = [client.run("cxr-severity", files[0])]
        sync += [o.result for o in client.run_many("cxr-severity", files, in_flight=2)]
    found = asyncio.run(run())
    assert [r.report() for r in found] == [r.report() for r in sync]


def test_batch_keeps_order_and_goes_on(client: Client, golden: Path, tmp_path: Path) -> None:
    good = golden / "cxr/e2e/gray_640x760.png"
    bad = tmp_path / "bad.png"
    bad.write_text("not a picture")
    outcomes = list(client.run_many("cxr-severity", [good, bad, good, tmp_path / "none", good]))
    assert [o.index for o in outcomes] == [0, 1, 2, 3, 4]
    assert [o.error is None for o in outcomes] == [True, False, True, False, True]
    assert isinstance(outcomes[1].error, InputError)


def test_abandoned_batch_stops(client: Client, golden: Path) -> None:
    good = golden / "cxr/e2e/gray_640x760.png"
    started = []

    def sources() -> Iterator[Path]:
        for number in range(1000):
            started.append(number)
            yield good

    batch = client.run_many("cxr-severity", sources(), in_flight=2)
    next(batch)
    batch.close()
    assert len(started) <= 2 * 2 + 1


def test_unknown_choices_are_named(client: Client, golden: Path) -> None:
    good = golden / "cxr/e2e/gray_640x760.png"
    with pytest.raises(InputError, match=r"resnet.*manet"):
        client.run("cxr-severity", good, network="resnet")
    with pytest.raises(InputError, match="its options are network, mode"):
        client.run("cxr-severity", good, threshold=1)
    with pytest.raises(InputError, match=r"no system 'cxr'.*cxr-severity"):
        client.run("cxr", good)
    with pytest.raises(InputError, match="'no disease' to every image"):
        client.run("cxr-severity", good, network="deeplabv3", mode="corrected")


def test_model_that_is_not_served_is_named(client: Client, golden: Path) -> None:
    with pytest.raises(InferenceFailed, match=r"no model 'cxr_severity_unet'.*--network unet"):
        client.run("cxr-severity", golden / "cxr/e2e/gray_640x760.png", network="unet")


def test_whole_ensemble_follows_the_size_of_the_files(golden: Path, tmp_path: Path) -> None:
    import standins

    from hilum.catalog import SYSTEMS
    from hilum.export.repository import export_system

    export_system(
        SYSTEMS["cxr-severity"],
        repository=tmp_path / "repository",
        onnx={
            "lung": standins.write_lung(tmp_path / "lung.onnx", 384),
            "pspnet": standins.write_disease(tmp_path / "disease.onnx", 448, 0.9),
            "deeplabv3": standins.write_disease(tmp_path / "nothing.onnx", 480, 0.1),
        },
    )
    models = ["cxr_severity_pspnet", "cxr_severity_deeplabv3"]
    with (
        TritonServer(tmp_path / "repository", models=models, grace=0) as server,
        Client(server.grpc_url) as client,
    ):
        result = client.run("cxr-severity", golden / "cxr/e2e/gray_640x760.png", network="pspnet")
        assert result.lung.shape == (384, 384)
        assert result.disease512.shape == (cxr.FRAME, cxr.FRAME)
        assert 0 < max(f for f in result.fractions if f is not None) < 1
        assert client.about()["models"]["cxr_pspnet"]["sizes"] == {"L": 384, "S": 448}
        assert "network_finds_nothing" not in result.flags
        blind = client.run("cxr-severity", golden / "cxr/e2e/gray_640x760.png", network="deeplabv3")
        assert blind.status == "network_finds_nothing"


def test_a_result_pickles_and_shows_itself(client: Client, golden: Path) -> None:
    result = client.run("cxr-severity", golden / "cxr/e2e/gray_640x760.png")
    found = pickle.loads(pickle.dumps(result))
    assert found.report() == result.report()
    assert "data:image/png;base64," in found._repr_html_()
