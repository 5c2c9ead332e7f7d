"""Configurations, labels and Python steps: the committed repository is what the catalog says."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from hilum.catalog import ABOUT, SYSTEMS, Ensemble, Network, PythonStep
from hilum.catalog import cxr_severity as catalog
from hilum.export.config import config_text, label_file, model_config, parse_config
from hilum.export.declarations import (
    declared_files,
    repository_sizes,
    resolve_sizes,
    write_declarations,
)

ROOT = Path(__file__).resolve().parents[2]
MODELS = [*(m for s in SYSTEMS.values() for m in s.models()), ABOUT]


def test_the_committed_repository_is_what_export_writes(tmp_path: Path) -> None:
    committed = ROOT / "model_repository"
    for path in write_declarations(tmp_path):
        relative = path.relative_to(tmp_path)
        assert (committed / relative).read_text() == path.read_text(), f"{relative}: hilum export"
    ours = {m.model for m in MODELS}
    folders = {f.name for f in committed.iterdir() if f.is_dir() and not f.name.startswith(".")}
    assert folders == ours


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.model)
def test_a_configuration_reads_back(model: Network | PythonStep | Ensemble) -> None:
    text = config_text(model, model.sizes)
    assert parse_config(text) == model_config(model, model.sizes)
    assert f"max_batch_size: {model.max_batch}" in text
    config = parse_config(text)
    assert [t.name for t in config.input] == [t.name for t in model.inputs]
    assert [list(t.dims) for t in config.output] == [
        list(t.resolved(model.sizes)) for t in model.outputs
    ]


def test_what_a_network_is_configured_with() -> None:
    network = catalog.SYSTEM.network("manet")
    config = model_config(network, network.sizes)
    assert (config.backend, config.default_model_filename) == ("onnxruntime", "model.onnx")
    (group,) = config.instance_group
    assert (group.count, group.kind) == (1, 0)
    assert config.HasField("dynamic_batching")
    assert config.dynamic_batching.max_queue_delay_microseconds == 0
    assert not config.dynamic_batching.preferred_batch_size
    (warmup,) = config.model_warmup
    assert {n: list(i.dims) for n, i in warmup.inputs.items()} == {
        "image": [512, 512, 3],
        "lung": [512, 512],
        "box": [4],
    }
    (control,) = config.model_metrics.metric_control
    assert control.histogram_options.buckets[-1] >= 60_000


def test_an_ensemble_maps_every_input_of_its_steps() -> None:
    ensemble = catalog.ENSEMBLES["manet"]
    config = model_config(ensemble, ensemble.sizes)
    assert config.platform == "ensemble"
    assert [s.model_name for s in config.ensemble_scheduling.step] == [
        "cxr_lung", "cxr_clean", "cxr_manet", "cxr_zones",
    ]  # fmt: skip
    lung, clean, *_ = config.ensemble_scheduling.step
    assert dict(lung.output_map) == {"lung": "raw"}
    assert dict(clean.input_map) == {"raw": "raw", "mode": "mode"}


def test_a_model_without_a_batch_axis_says_so() -> None:
    assert "max_batch_size: 0" in config_text(ABOUT, {})
    assert not model_config(ABOUT, {}).HasField("dynamic_batching")


def test_labels_are_served() -> None:
    ensemble = catalog.ENSEMBLES["manet"]
    files = declared_files(ensemble, ensemble.sizes)
    (fractions,) = (t for t in ensemble.outputs if t.name == "fractions")
    assert files[label_file(fractions)].splitlines() == list(catalog.ZONES)
    config = parse_config(files["config.pbtxt"])
    assert {o.name: o.label_filename for o in config.output if o.label_filename} == {
        "fractions": "fractions_labels.txt",
        "fractions_ungated": "fractions_ungated_labels.txt",
    }
    assert [path for path in files if path.startswith("1/")] == ["1/.gitkeep"]


def test_the_first_network_decides_sizes_that_ensembles_share() -> None:
    sizes = resolve_sizes(catalog.SYSTEM, {"cxr_lung": {"L": 384}, "cxr_fpn": {"L": 512, "S": 320}})
    assert sizes["cxr_lung"] == {"L": 384}
    assert sizes["cxr_fpn"] == {"L": 384, "S": 320}
    assert sizes["cxr_manet"] == {"L": 384, "S": 544}
    assert sizes["cxr_clean"] == {"L": 384}
    assert sizes["cxr_severity_manet"]["L"] == 384


def test_an_empty_repository_has_the_sizes_of_the_catalog(tmp_path: Path) -> None:
    sizes = repository_sizes(tmp_path, catalog.SYSTEM)
    assert sizes == {m.model: dict(m.sizes) for m in catalog.SYSTEM.models()}


def test_texts_do_not_depend_on_the_order_of_declaration() -> None:
    network = catalog.SYSTEM.network("manet")
    swapped = dataclasses.replace(network, sizes=dict(reversed(network.sizes.items())))
    assert config_text(swapped, swapped.sizes) == config_text(network, network.sizes)
