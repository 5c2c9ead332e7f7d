"""Which server is found, and how it is called."""

from __future__ import annotations

from pathlib import Path

import pytest

from hilum.catalog.errors import ServerError
from hilum.server import logs
from hilum.server.arguments import (
    MiB,
    Ports,
    Settings,
    arguments,
    is_loopback,
    print_args,
    region_size,
)
from hilum.server.backend_folder import assemble_backends
from hilum.server.binary import find_server, inspect_server


@pytest.fixture
def container(tmp_path):
    """The files of a container's installation, with a program that knows two options."""
    program = tmp_path / "bin" / "tritonserver"
    program.parent.mkdir()
    program.write_text(
        "#!/bin/sh\necho '  --model-repository <string>\n  --allow-client-shm <b>'\n"
    )
    program.chmod(0o755)
    for backend in ("python", "onnxruntime", "tensorrt"):
        (tmp_path / "backends" / backend).mkdir(parents=True)
    (tmp_path / "TRITON_VERSION").write_text("2.71.0\n")
    return program


def test_the_wheel_is_found_and_gets_our_backend(monkeypatch, tmp_path):
    monkeypatch.delenv("HILUM_TRITONSERVER", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = find_server()
    assert (found.kind, found.version, found.needs_backends) == ("wheel", "2.51.0", True)
    folder = assemble_backends(found, tmp_path / "backends")
    assert {f.name for f in folder.iterdir()} == {"python", "onnxruntime", "openvino", "pytorch"}
    assert (folder / "onnxruntime" / "model.py").is_file()


def test_a_named_server_comes_first_and_a_container_keeps_its_backends(
    monkeypatch, container, tmp_path
):
    monkeypatch.setenv("HILUM_TRITONSERVER", str(container))
    found = find_server()
    assert (found.kind, found.version, found.needs_backends) == ("native", "2.71.0", False)
    assert assemble_backends(found, tmp_path / "none") is None
    (tmp_path / "backends" / "openvino").mkdir()
    (tmp_path / "backends" / "python" / "libtriton_python.so").touch()
    folder = assemble_backends(found, tmp_path / "with-openvino", ["onnxruntime", "openvino"])
    assert (folder / "onnxruntime").is_symlink()
    assert (folder / "openvino" / "model.py").is_file()  # a container's rounds coordinates


def test_an_installation_without_onnxruntime_gets_ours_beside_its_own(container, tmp_path):
    (tmp_path / "backends" / "onnxruntime").rmdir()
    (tmp_path / "backends" / "python" / "libtriton_python.so").touch()
    found = inspect_server(container)
    folder = assemble_backends(found, tmp_path / "assembled")
    ours = {"python", "onnxruntime", "openvino", "pytorch"}
    assert {f.name for f in folder.iterdir()} == {*ours, "tensorrt"}
    assert (folder / "python" / "libtriton_python.so").is_file()


def test_a_wrong_name_names_the_remedy(monkeypatch, tmp_path):
    monkeypatch.setenv("HILUM_TRITONSERVER", str(tmp_path / "nothing"))
    with pytest.raises(ServerError, match=r"not an executable.*pip install 'hilum\[server\]'"):
        find_server()


def test_a_program_that_is_no_triton_is_refused(monkeypatch):
    monkeypatch.setenv("HILUM_TRITONSERVER", "/bin/true")
    with pytest.raises(ServerError, match="does not answer --help as a tritonserver does"):
        find_server().has_flag("--id")


def test_the_wheel_is_called_hardened(tmp_path):
    settings = Settings(tmp_path, ports=Ports(1, 2), backends=tmp_path / "b")
    options = arguments(find_server(), settings)
    for option in (
        "--grpc-address=127.0.0.1",
        "--metrics-address=127.0.0.1",
        "--allow-http=false",
        "--model-control-mode=none",
        "--strict-readiness=true",
        "--disable-auto-complete-config",
        f"--backend-directory={tmp_path / 'b'}",
        "--backend-config=onnxruntime,shm-region-prefix-name=hilum-",
    ):
        assert option in options
    assert not any(option.startswith("--allow-client-shm") for option in options)  # 2.69 and later


def test_fields_that_a_server_does_not_know_are_seen(monkeypatch):
    monkeypatch.delenv("HILUM_TRITONSERVER", raising=False)
    found = find_server()
    assert found.has_field("model_warmup")
    assert not found.has_field("max_inflight_requests")  # 2.63 and later


def test_options_that_a_server_does_not_know_are_left_out(container, tmp_path):
    found = inspect_server(container)
    assert arguments(found, Settings(tmp_path)) == (
        f"--model-repository={tmp_path}",
        "--allow-client-shm=true",
    )
    outside = Settings(tmp_path, host="0.0.0.0")  # noqa: S104
    assert "--allow-client-shm=true" not in arguments(found, outside)


def test_printed_command_has_the_environment(container, tmp_path):
    shown = print_args(inspect_server(container), Settings(tmp_path / "my models"))
    assert shown.startswith("env \\\n  MALLOC_MMAP_MAX_=0 \\\n")
    assert f"'--model-repository={tmp_path}/my models'" in shown


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("10.0.0.7", False), ("a.b", False)],
)
def test_loopback(host, expected):
    assert is_loopback(host) is expected


def test_regions_share_what_is_free():
    assert region_size(4, 64 * MiB) == 4 * MiB  # a container's default /dev/shm
    assert region_size(4, 24 * 1024 * MiB) == 32 * MiB
    assert region_size(40, 64 * MiB) == MiB


def test_logs_are_kept_to_the_last_ten(tmp_path):
    running = logs.new_log(tmp_path)
    made = []
    for _ in range(13):
        with logs.new_log(tmp_path) as log:
            made.append(Path(log.name))
    kept = {*made[-10:], Path(running.name)}  # and that of a server that still runs
    running.close()
    assert set(tmp_path.iterdir()) == kept
