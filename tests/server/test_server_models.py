"""What runs inside the server: the onnxruntime backend and the Python step."""

from __future__ import annotations

import json
import queue
import re
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton
from small_repository import CERTIFICATE, TYPES, tensors
from tritonclient.utils import InferenceServerException

from hilum.catalog.cxr_severity import CORRECTED, PARITY
from hilum.postprocessing.cxr_severity.lungs import clean_step
from hilum.postprocessing.cxr_severity.zones import zones_step

IMAGE = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


def tasks(*numbers):
    return np.array(numbers, np.int32)[:, None]


def test_every_element_type_arrives_and_returns_unchanged(infer):
    rng = np.random.default_rng(0)
    sent = {
        f"in_{t}": rng.integers(0, 2 if t == "BOOL" else 100, 37).astype(dtype)
        for t, (_, dtype) in TYPES.items()
    }
    result = infer("types", **sent)
    for t, (_, dtype) in TYPES.items():
        got = result.as_numpy(f"out_{t}")
        assert got.dtype == dtype
        np.testing.assert_array_equal(got, sent[f"in_{t}"])
        assert got.any()


def test_network_computes_a_batch(infer):
    x = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)
    np.testing.assert_array_equal(infer("double", x=x).as_numpy("y"), 2 * x)


def test_labels_are_served(client):
    wanted = [triton.InferRequestedOutput("y", class_count=1)]
    sent = tensors(x=np.array([[0, 5, 1]], np.float32))
    top = client.infer("double", sent, outputs=wanted).as_numpy("y")
    assert top[0, 0].decode().split(":")[1:] == ["1", "b"]


def test_requests_are_batched_together_and_keep_their_answers(client):
    before = client.get_inference_statistics("double").model_stats[0]
    answers: queue.Queue = queue.Queue()
    for i in range(64):
        client.async_infer(
            "double",
            tensors(x=np.full((1, 3), i, np.float32)),
            lambda result, error, i=i: answers.put((i, result, error)),
        )
    for _ in range(64):
        i, result, error = answers.get(timeout=20)
        assert error is None
        np.testing.assert_array_equal(result.as_numpy("y"), np.full((1, 3), 2 * i))
    after = before
    deadline = time.monotonic() + 10
    while after.inference_count - before.inference_count < 64:  # counted after the answer
        assert time.monotonic() < deadline
        after = client.get_inference_statistics("double").model_stats[0]
    assert after.execution_count - before.execution_count < 48


def test_wrong_shape_is_an_invalid_argument(infer):
    with pytest.raises(InferenceServerException, match="INVALID_ARGUMENT"):
        infer("double", x=np.zeros((1, 4), np.float32))


def test_step_is_called_for_each_image_and_stacked(infer):
    result = infer("probe", task=tasks(0, 0), image=IMAGE)
    np.testing.assert_array_equal(result.as_numpy("sum"), IMAGE.sum((1, 2))[:, None])
    np.testing.assert_array_equal(result.as_numpy("copy"), IMAGE[:, ::-1])
    assert np.diff(result.as_numpy("calls")[:, 0]) == [1]


def test_step_answers_only_what_was_requested(infer):
    result = infer("probe", ("sum",), task=tasks(0), image=IMAGE[:1])
    assert [o.name for o in result.get_response().outputs] == ["sum"]


def test_steps_chain_in_an_ensemble(infer):
    result = infer("chain", task=tasks(0, 0), image=IMAGE)
    np.testing.assert_array_equal(result.as_numpy("again"), IMAGE.sum((1, 2))[:, None])


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (1, r"INVALID_ARGUMENT.*image 7 shows no chest; leave it out"),
        (2, r"INTERNAL.*ZeroDivisionError: one of the areas is zero"),
        (3, r"INTERNAL.*'copy' as int16 \[3, 4\], declared is uint8 \[3, 4\]"),
        (4, r"INTERNAL.*returned \['sum'\], declared are \['calls', 'copy', 'sum'\]"),
        (5, r"INTERNAL.*read-only"),
    ],
)
def test_errors_of_a_step_say_what_and_where(infer, task, message):
    with pytest.raises(InferenceServerException, match=message):
        infer("probe", task=tasks(task), image=IMAGE[:1])


def test_traceback_is_in_the_log_and_pixels_are_not(infer, server):
    image = np.full((1, 3, 4), 231, np.uint8)
    with pytest.raises(InferenceServerException):
        infer("probe", task=tasks(2), image=image)
    log = server.log.read_text()
    assert "in probe_step" in log
    assert not re.search(r"231\W{1,3}231", log)


def test_failing_request_does_not_fail_its_neighbours(client):
    answers: queue.Queue = queue.Queue()
    order = [0, 2, 0, 1, 0, 3, 0]
    for i, task in enumerate(order):
        client.async_infer(
            "probe",
            tensors(task=tasks(task), image=IMAGE[:1]),
            lambda result, error, i=i: answers.put((i, error)),
        )
    failed = sorted(i for i, error in (answers.get(timeout=20) for _ in order) if error)
    assert failed == [1, 3, 5]


def test_cancelled_request_is_not_computed(client, infer):
    before = infer("probe", task=tasks(0), image=IMAGE[:1]).as_numpy("calls")[0, 0]
    answers: queue.Queue = queue.Queue()
    sent = []
    for task in (6, 0):
        inputs = tensors(task=tasks(task), image=IMAGE[:1])
        call = client.async_infer("probe", inputs, lambda result, error: answers.put(error))
        sent.append(call)
        # the second waits behind the first, which is being computed
        assert answers.empty()
        time.sleep(0.2)
    sent[1].cancel()
    errors = [answers.get(timeout=20) for _ in sent]
    assert sum(error is None for error in errors) == 1
    after = infer("probe", task=tasks(0), image=IMAGE[:1]).as_numpy("calls")[0, 0]
    assert after - before == 2


def test_steps_of_the_catalog_answer_as_their_functions_do(infer):
    masks = np.zeros((2, 512, 512), np.uint8)
    masks[0, 60:460, 60:220] = masks[0, 80:450, 280:450] = 1
    masks[1, 100:400, 100:200] = 1
    modes = np.array([[PARITY], [CORRECTED]], np.uint8)
    served = infer("cxr_clean", raw=masks, mode=modes)
    for i in range(2):
        for name, expected in clean_step(raw=masks[i], mode=modes[i]).items():
            np.testing.assert_array_equal(served.as_numpy(name)[i], expected)
    rng = np.random.default_rng(2)
    sent = {
        "lung": served.as_numpy("lung"),
        "box": served.as_numpy("box"),
        "disease": rng.integers(0, 2, (2, 512, 512), np.uint8),
        "ungated": rng.integers(0, 2, (2, 512, 512), np.uint8),
        "probability": np.array([[0.9], [0.2]], np.float32),
        "zone_threshold": np.full((2, 1), 0.3),
        "mode": modes,
    }
    scored = infer("cxr_zones", **sent)
    for i in range(2):
        alone = zones_step(**{name: array[i] for name, array in sent.items()})
        for name, expected in alone.items():
            np.testing.assert_array_equal(scored.as_numpy(name)[i], expected)


def test_about_reports_the_certificates(infer):
    answer = infer("hilum_about", query=np.zeros(1, np.uint8)).as_numpy("json")
    told = json.loads(answer.tobytes())
    assert told["models"] == {"double": CERTIFICATE}
    assert told["served_by"] == {"double": "onnxruntime"}
    assert told["hilum_version"]


def test_metrics_and_http_are_served(server, infer):
    infer("double", x=np.zeros((1, 3), np.float32))
    with urllib.request.urlopen(server.metrics_url, timeout=10) as answer:  # noqa: S310
        metrics = answer.read().decode()
    assert 'nv_inference_count{model="double"' in metrics
    assert 'quantile="0.99"' in metrics
    ready = f"http://{server.http_url}/v2/health/ready"
    with urllib.request.urlopen(ready, timeout=10) as answer:
        assert answer.status == 200


def test_regions_are_the_users_own(server):
    regions = list(Path("/dev/shm").glob(f"{server._tag}-*"))  # noqa: S108
    assert len(regions) >= 6
    assert all(region.stat().st_mode & 0o077 == 0 for region in regions)


def test_models_cannot_be_loaded_or_unloaded_from_outside(client):
    with pytest.raises(InferenceServerException, match="not allowed"):
        client.unload_model("double")


def test_log_and_trace_settings_are_closed(client):
    with pytest.raises(InferenceServerException, match="restricted"):
        client.update_log_settings({"log_verbose_level": 4})
    with pytest.raises(InferenceServerException, match="restricted"):
        client.update_trace_settings(settings={"trace_level": ["TENSORS"]})


def test_configuration_fits_the_machine(client, server):
    config = client.get_model_config("double").config
    assert config.instance_group[0].count == server.resources.instances
    threads = config.parameters["intra_op_thread_count"].string_value
    assert threads == str(server.resources.threads)
