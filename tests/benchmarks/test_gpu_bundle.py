"""The bundle for a machine without registries: cut, carried, put together, started."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from manual import Typist, shown

from hilum.catalog.errors import InputError
from hilum.proof import bundle, unpack

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"


def _wheel(folder: Path, name: str, needs: tuple[str, ...] = ()) -> None:
    """A small wheel of one module, as pip takes it."""
    about = "".join(f"Requires-Dist: {need}\n" for need in needs)
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as held:
        info = f"{name}-1.0.dist-info"
        held.writestr(f"{name}/__init__.py", f"NAME = {name!r}\n")
        held.writestr(f"{name}-1.0.data/scripts/{name}", "#!/bin/sh\n")
        held.writestr(f"{name}-1.0.data/purelib/{name}_more.py", "MORE = 1\n")
        held.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{about}"
        )
        held.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        held.writestr(f"{info}/RECORD", "")


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes wheels from instead of a registry; the bundle is for this Python."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    _wheel(folder, "first", ("second>=1", "other; extra == 'more'", "old; python_version < '3'"))
    _wheel(folder, "second", ("torch", "third"))
    _wheel(folder, "third")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setattr(bundle, "PACKAGES", ("first",))
    monkeypatch.setattr(bundle, "PYTHON", HERE)
    monkeypatch.setattr(bundle, "PRESET", 0)
    large = ("export/reference_weights/", "tests/golden/", "model_repository/", "constraints/")
    monkeypatch.setattr(bundle, "LEFT_OUT", (*bundle.LEFT_OUT, *large))
    return folder


@pytest.mark.load
def test_what_is_packed_is_unpacked_and_starts(registry: Path, tmp_path: Path) -> None:
    most = 1 << 19
    manifest = bundle.pack(tmp_path / "out", (), part_bytes=most)
    made = json.loads(manifest.read_text())
    assert made["packages"] == ["first", "second", "third"]  # what is needed, but no PyTorch
    assert len(made["parts"]) > 1
    sizes = [(tmp_path / "out" / part["name"]).stat().st_size for part in made["parts"]]
    assert max(sizes) == most and sizes == [part["bytes"] for part in made["parts"]]

    *_, there = shown(
        "docs/how-to/gpu-proof.md", "A machine without package registries", "sh", "sh"
    )
    unpacking, proving = there.splitlines()
    reader, opt = Typist(tmp_path / "out"), {"/opt/hilum-proof": str(tmp_path / "there")}
    assert "bench gpu-proof --out FOLDER" in reader.type(unpacking, opt)
    site = tmp_path / "there" / "site"
    assert (site / "third_more.py").is_file() and (site / "second" / "__init__.py").is_file()
    assert not (site / "bin").exists()
    assert (tmp_path / "there" / "hilum" / "tests" / "array_modules.py").is_file()
    assert not (tmp_path / "there" / "hilum" / "docs").exists()
    program = tmp_path / "there" / "bin" / "hilum"
    said = subprocess.run([program, "systems"], capture_output=True, text=True, check=True)
    assert "cxr-severity" in said.stdout
    if not Path("/dev/nvidia0").exists():
        assert "GPU" in reader.type(proving, opt, 2)


def test_packages_that_are_there_are_left_out(registry: Path, tmp_path: Path) -> None:
    have = list(bundle.names_in("Second==2.0\n# a comment\nnumpy @ file:///numpy\n\n"))
    assert have == ["Second", "numpy"]
    left_out = {name.lower() for name in (*have, *bundle.NEVER)}
    assert bundle._collect(left_out, tmp_path / "got") == ["first"]
    assert [f.name for f in (tmp_path / "got").iterdir()] == ["first-1.0-py3-none-any.whl"]


def test_parts_may_come_one_after_the_other(registry: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    bundle.pack(out, (), part_bytes=1 << 19)
    last = max(out.glob("*.xz.*"))
    held = last.read_bytes()
    last.unlink()
    with pytest.raises(ValueError, match=f"{last.name} is not there yet"):
        unpack.unpack(out, tmp_path / "there")
    last.write_bytes(held[:-1])
    with pytest.raises(ValueError, match=f"{last.name} is damaged"):
        unpack.unpack(out, tmp_path / "there")
    assert not (tmp_path / "there").exists()
    last.write_bytes(held)
    assert unpack.unpack(out, tmp_path / "there").is_file()
    manifest = json.loads((out / unpack.MANIFEST).read_text())
    (out / unpack.MANIFEST).write_text(json.dumps({**manifest, "python": "3.9"}))
    with pytest.raises(ValueError, match=r"the bundle is for Python 3\.9"):
        unpack.unpack(out, tmp_path / "there")


def test_what_cannot_be_had_is_named(
    registry: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "PACKAGES", ("first", "absent"))
    with pytest.raises(InputError, match=r"not all wheels for Python .*absent"):
        bundle.pack(tmp_path / "out", ())
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(InputError, match="holds other files"):
        bundle.pack(tmp_path / "full", ())


def test_what_other_pythons_need_is_left_out(tmp_path: Path) -> None:
    wheel = tmp_path / "nvidia_pytriton-1-py3-none-any.whl"
    stubs = "pytriton/tritonserver/python_backend_stubs"
    names = [f"{stubs}/{v}/triton_python_backend_stub" for v in ("3.11", bundle.PYTHON)]
    names += ["nvidia_pytriton.libs/libpython3-4.13.so.1.0", "nvidia_pytriton.libs/libz.so"]
    with zipfile.ZipFile(wheel, "w") as held:
        for name in names:
            held.writestr(name, "x")
    bundle.install(wheel, tmp_path / "site")
    found = {
        str(f.relative_to(tmp_path / "site")) for f in (tmp_path / "site").rglob("*") if f.is_file()
    }
    assert found == {names[1], names[3]}
    assert (tmp_path / "site" / names[1]).stat().st_mode & 0o100
