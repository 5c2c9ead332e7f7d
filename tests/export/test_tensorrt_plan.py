"""Profiles and build plan: which shapes engines take, and what is written about them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from hilum.catalog import SYSTEMS, Network, at_precision
from hilum.catalog.errors import RepositoryError
from hilum.export.certificate import signature
from hilum.export.config import EngineConfig, model_config, parse_config
from hilum.export.tensorrt import build
from hilum.export.tensorrt.plan import (
    PLAN_FILE,
    Engine,
    engine_of,
    fall_back,
    read_plan,
    restored,
    write_plan,
)
from hilum.export.tensorrt.profiles import SLABS, Profile, profiles
from hilum.server.doctor import engines as server_engines
from hilum.systems.dlpe import views as dlpe_views

NETWORKS = {n.model: (s.name, n) for s in SYSTEMS.values() for n in s.networks}


def certificate(network: Network, precision: str = "fp32") -> dict:
    return {
        "precision": precision,
        "sizes": dict(network.sizes),
        "file": {"sha256": "5" * 64},
        "inputs": [signature(t, network.sizes) for t in network.inputs],
    }


@pytest.mark.parametrize("model", sorted(NETWORKS))
def test_every_network_has_profiles_that_take_its_example(model: str) -> None:
    _, network = NETWORKS[model]
    found = profiles(network, network.sizes)
    assert found == tuple(Profile.from_json(p.as_json()) for p in found)
    batch = (1,) if network.max_batch else ()
    for profile in found:
        assert set(profile.inputs) == {t.name for t in network.inputs}
        for tensor in network.inputs:
            r = profile.inputs[tensor.name]
            example = batch + network.example_shape(tensor, network.sizes)
            assert len(r.least) == len(r.usual) == len(r.most) == len(example)
            triples = zip(r.least, r.usual, r.most, strict=True)
            assert all(0 < a <= b <= c for a, b, c in triples)
            assert all(a <= e <= c for a, e, c in zip(r.least, example, r.most, strict=True))
            if network.max_batch:
                assert r.most[0] == network.max_batch


def test_slabs_are_those_that_clients_send() -> None:
    how = dlpe_views.How(0, 0, skip=True)
    for side, slices in SLABS.items():
        assert how.length((512, side, side), "x") == slices
    # Whatever the shape, there is a profile that takes the slab.
    for height in range(16, 513, 16):
        for width in range(16, 513, 16):
            sent = how.length((height, width, 512), "z")
            assert any(sent <= most and max(height, width) <= side for side, most in SLABS.items())


def test_slabs_carry_the_margin_of_their_stage_and_channels_do_not() -> None:
    network = SYSTEMS["dlpe"].network("airway2_z")
    margin = network.example["slab"][0] - 1
    for profile in profiles(network, {}):
        slab, channel = profile.inputs["slab"], profile.inputs["high_recall"]
        assert [a[0] - b[0] for a, b in zip(
            (slab.least, slab.usual, slab.most), (channel.least, channel.usual, channel.most),
            strict=True,
        )] == [margin] * 3  # fmt: skip
        assert slab.least[1:] == (16, 16)  # smaller and oblong planes, too


def test_a_type_that_tensorrt_lacks_stays_with_onnx_runtime() -> None:
    system, network = NETWORKS["lungmask_r231"]
    engine = engine_of(system, network, certificate(network))
    assert engine.served_by == "onnxruntime"
    assert "hu is INT16" in engine.reason
    system, network = NETWORKS["cxr_pspnet"]
    assert engine_of(system, network, certificate(network)).served_by == "tensorrt"


def test_tf32_is_off_for_fp32_graphs_alone() -> None:
    system, network = NETWORKS["cxr_pspnet"]
    full, half = (engine_of(system, network, certificate(network, p)) for p in ("fp32", "fp16"))
    assert "tf32 off" in full.flags
    assert "tf32 on" in half.flags
    assert full.flags[:2] == ("strongly typed", "level 4")


def test_flags_name_every_shape() -> None:
    engine = _engine("dlpe_lung_x")
    (first, *others) = engine.profiles
    other = dataclasses.replace(engine, profiles=(first,))
    assert len(engine.flags) - len(other.flags) == len(others)
    assert engine.flags != other.flags


def _engine(model: str) -> Engine:
    system, network = NETWORKS[model]
    return engine_of(system, network, certificate(network))


def test_a_plan_reads_back(tmp_path: Path) -> None:
    engines = {m: _engine(m) for m in ("cxr_manet", "dlpe_lung_z", "lungmask_r231")}
    engines["cxr_manet"] = fall_back(engines["cxr_manet"], "no kernel", "key")
    write_plan(tmp_path, engines)
    assert read_plan(tmp_path) == engines
    told = json.loads((tmp_path / PLAN_FILE).read_text())["engines"]
    assert told["dlpe_lung_z"]["onnx"] == "dlpe_lung_z/1/model.onnx"
    assert restored(engines["cxr_manet"]) == _engine("cxr_manet")
    write_plan(tmp_path, {})
    assert read_plan(tmp_path) == {}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "[]", '{"engines": {"a": {}}}', '{"engines": 3}'])
def test_a_broken_plan_is_reported(tmp_path: Path, text: str) -> None:
    (tmp_path / PLAN_FILE).write_text(text)
    with pytest.raises(RepositoryError, match="hilum export --target tensorrt"):
        read_plan(tmp_path)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("model", ["cxr_manet", "dlpe_airway2_y", "covid_mtl_decovnet"])
def test_an_engines_configuration_has_the_same_signature(model: str, precision: str) -> None:
    network = at_precision(NETWORKS[model][1], precision)
    onnx = model_config(network, network.sizes)
    engine = model_config(network, network.sizes, EngineConfig(3, graphs=True))
    assert (engine.platform, engine.backend) == ("tensorrt_plan", "tensorrt")
    assert engine.default_model_filename == "model.plan"
    assert list(engine.instance_group[0].profile) == ["0", "1", "2"]
    (strategy,) = engine.parameters.values()
    assert strategy.string_value == "ON_PROFILE_CHANGE"
    assert engine.optimization.cuda.graphs
    for field in ("name", "max_batch_size", "input", "output", "model_warmup"):
        assert getattr(engine, field) == getattr(onnx, field), field
    single = model_config(network, network.sizes, EngineConfig(1, graphs=False))
    assert not single.instance_group[0].profile
    assert not single.parameters
    assert not single.HasField("optimization")
    assert parse_config(str(engine)) == engine


def test_the_servers_fingerprint_has_the_same_fields() -> None:
    ours, theirs = (
        [f.name for f in dataclasses.fields(c)]
        for c in (build.Fingerprint, server_engines.Fingerprint)
    )
    assert sorted(ours) == sorted(theirs)
