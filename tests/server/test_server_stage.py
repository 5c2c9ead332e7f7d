"""The runtime copy of a repository."""

from __future__ import annotations

import shutil
from dataclasses import replace

import pytest
import small_repository

from hilum.catalog import ABOUT
from hilum.catalog.cxr_severity import CLEAN, ENSEMBLES, ZONE_STEP
from hilum.catalog.errors import RepositoryError
from hilum.server.model_config import read_config
from hilum.server.runtime_repository import Resources, stage

CPU = Resources(
    gpu=False, instances=2, threads=3, stream_instances=5, stream_threads=1, step_instances=4
)


@pytest.fixture
def exported(tmp_path):
    """A repository of the X-ray system in which only the lung and PSPNet networks are there."""
    folder = tmp_path / "exported"
    for network in ("pspnet", "manet"):
        ensemble = ENSEMBLES[network]
        for call in ensemble.calls:
            name = call.target.model
            if call.target in (CLEAN, ZONE_STEP):
                small_repository.write_python(folder, name, "", 'backend: "python"\n')
            else:
                small_repository.write_config(folder, name, 'backend: "onnxruntime"\n')
        steps = "".join(
            f'step {{ model_name: "{c.target.model}" model_version: -1 }}\n' for c in ensemble.calls
        )
        text = f'platform: "ensemble"\nensemble_scheduling {{ {steps} }}\n'
        small_repository.write_config(folder, ensemble.model, text)
    for name in ("cxr_lung", "cxr_pspnet"):
        small_repository.write_onnx(folder, name, (folder / name / "config.pbtxt").read_text())
    small_repository.write_python(folder, ABOUT.model, "", 'backend: "python"\n')
    return folder


def test_what_is_incomplete_is_left_out_and_reported(exported, tmp_path):
    staged = stage(exported, tmp_path / "run", CPU)
    assert staged.models == (
        "cxr_clean", "cxr_lung", "cxr_pspnet", "cxr_severity_pspnet", "cxr_zones", "hilum_about",
    )  # fmt: skip
    assert staged.left_out == {
        "cxr_manet": "has no model.onnx",
        "cxr_severity_manet": "needs cxr_manet, which has no model.onnx",
    }
    assert staged.instances == {"onnxruntime": 4, "python": 9, "": 0}
    assert (tmp_path / "run" / "cxr_severity_pspnet" / "1").is_dir()


def test_only_what_was_asked_for_comes_with_what_it_calls(exported, tmp_path):
    staged = stage(exported, tmp_path / "run", CPU, ["cxr_lung"])
    assert staged.models == ("cxr_lung", "hilum_about")
    assert staged.left_out == {}


def test_asked_for_and_incomplete_names_the_command(exported, tmp_path):
    with pytest.raises(RepositoryError) as failure:
        stage(exported, tmp_path / "run", CPU, ["cxr_severity_manet"])
    assert "needs cxr_manet, which has no model.onnx" in str(failure.value)
    assert f"hilum export cxr-severity --network manet --repository {exported}" in str(
        failure.value
    )


def test_nothing_left_names_the_command(exported, tmp_path):
    for model in exported.glob("*/1/model.onnx"):
        model.unlink()
    with pytest.raises(RepositoryError, match=r"no model of .* can be served: .*hilum export cxr-"):
        stage(exported, tmp_path / "run", CPU)


@pytest.mark.parametrize("make", [False, True])
def test_no_repository_names_the_command(tmp_path, make):
    folder = tmp_path / "none"
    if make:
        folder.mkdir()
    with pytest.raises(RepositoryError, match=f"hilum export --repository {folder}"):
        stage(folder, tmp_path / "run", CPU)


def test_bad_configuration_names_file_and_place(repository, tmp_path):
    shutil.copytree(repository, tmp_path / "bad")
    (tmp_path / "bad" / "double" / "config.pbtxt").write_text("backend: onnx runtime\n")
    with pytest.raises(RepositoryError, match=r"double/config.pbtxt is not a Triton .* 1:"):
        stage(tmp_path / "bad", tmp_path / "run", CPU)


def test_configuration_is_of_this_machine_and_the_source_stays(repository, tmp_path):
    before = (repository / "double" / "config.pbtxt").read_text()
    stage(repository, tmp_path / "run", CPU)
    config = read_config(tmp_path / "run" / "double" / "config.pbtxt")
    (group,) = config.instance_group
    assert (group.count, group.kind) == (2, group.KIND_CPU)
    assert config.parameters["intra_op_thread_count"].string_value == "3"
    assert config.dynamic_batching.max_queue_delay_microseconds == 5000
    assert (tmp_path / "run" / "double" / "labels.txt").read_text() == "a\nb\nc\n"
    assert "max_batch_size: 0" in (tmp_path / "run" / "types" / "config.pbtxt").read_text()
    assert (repository / "double" / "config.pbtxt").read_text() == before


@pytest.mark.parametrize("gpu", [False, True])
@pytest.mark.parametrize(("delay_ms", "expected"), [(None, 5000), (0.0, 0), (1.5, 1500)])
def test_queue_delay_is_of_networks_that_batch(tmp_path, gpu, delay_ms, expected):
    folder = tmp_path / "exported"
    batches = "max_batch_size: 8\ndynamic_batching { max_queue_delay_microseconds: 5000 }\n"
    for name, config in (("cxr_lung", batches), ("dlpe_lung_x", "max_batch_size: 0\n")):
        config = f'backend: "onnxruntime"\n{config}'
        small_repository.write_config(folder, name, config)
        small_repository.write_onnx(folder, name, config)
    small_repository.write_python(folder, "step", "", f'backend: "python"\n{batches}')
    resources = Resources.of_machine(gpu=gpu, queue_delay_ms=delay_ms)
    stage(folder, tmp_path / "run", resources)
    found = {name: read_config(tmp_path / "run" / name / "config.pbtxt")
             for name in ("cxr_lung", "dlpe_lung_x", "step")}  # fmt: skip
    assert found["cxr_lung"].dynamic_batching.max_queue_delay_microseconds == expected
    assert not found["dlpe_lung_x"].HasField("dynamic_batching")
    assert found["step"].dynamic_batching.max_queue_delay_microseconds == 5000


def test_triton_places_networks_on_gpus_that_nobody_mentions(repository, tmp_path):
    resources = replace(Resources.of_machine(instances=3, gpu=True), gpu_free=())
    stage(repository, tmp_path / "run", resources)
    (group,) = read_config(tmp_path / "run" / "double" / "config.pbtxt").instance_group
    assert (group.count, group.kind) == (3, group.KIND_AUTO)
    (group,) = read_config(tmp_path / "run" / "probe" / "config.pbtxt").instance_group
    assert group.kind == group.KIND_CPU


@pytest.mark.parametrize(
    ("cores", "instances", "threads", "expected"),
    [
        (2, None, None, (1, 2, 2, 1)),
        (16, None, None, (2, 8, 4, 4)),
        (16, 4, None, (4, 4, 4, 4)),
        (16, None, 2, (8, 2, 8, 2)),
        (1, 3, None, (3, 1, 3, 1)),
    ],
)
def test_instances_times_threads_is_about_the_cores(
    monkeypatch, cores, instances, threads, expected
):
    monkeypatch.setattr("hilum.server.machine.cores", lambda: cores)
    resources = Resources.of_machine(instances, threads, gpu=False)
    one = (resources.instances, resources.threads)
    assert (*one, resources.stream_instances, resources.stream_threads) == expected


def test_networks_fed_by_a_stream_get_more_instances_of_fewer_threads(tmp_path):
    folder = tmp_path / "exported"
    for name in ("ct_densenet", "cxr_lung"):
        config = 'backend: "onnxruntime"\nmax_batch_size: 8\ndynamic_batching {}\n'
        small_repository.write_config(folder, name, config)
        small_repository.write_onnx(folder, name, config)
    stage(folder, tmp_path / "run", CPU)
    found = {}
    for name in ("ct_densenet", "cxr_lung"):
        config = read_config(tmp_path / "run" / name / "config.pbtxt")
        threads = config.parameters["intra_op_thread_count"].string_value
        batches = list(config.dynamic_batching.preferred_batch_size)
        found[name] = (config.instance_group[0].count, threads, batches)
    assert found == {"ct_densenet": (5, "1", [2]), "cxr_lung": (2, "3", [])}


@pytest.mark.parametrize("gpu", [False, True])
def test_networks_of_any_length_have_no_arena_on_the_cpu(tmp_path, gpu):
    folder = tmp_path / "exported"
    for name in ("dlpe_lung_x", "cxr_lung"):
        config = 'backend: "onnxruntime"\nmax_batch_size: 0\n'
        small_repository.write_config(folder, name, config)
        small_repository.write_onnx(folder, name, config)
    stage(folder, tmp_path / "run", Resources.of_machine(1, 1, gpu=gpu))
    found = {
        name: read_config(tmp_path / "run" / name / "config.pbtxt")
        .parameters["enable_mem_arena"]
        .string_value
        for name in ("dlpe_lung_x", "cxr_lung")
    }
    assert found == {"dlpe_lung_x": "" if gpu else "0", "cxr_lung": ""}
