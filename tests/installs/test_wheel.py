"""What the wheel holds: every sub-package and data file, and nothing of the tests."""

from __future__ import annotations

import re
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SUFFIXES = (".py", ".csv", ".toml", ".json", ".html", ".js", ".css", ".svg", ".txt")


def test_every_module_and_data_file_is_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    held = {name for name in wheel.namelist() if ".dist-info/" not in name}
    rooms = [link.name for link in (ROOT / "hilum").iterdir() if link.is_symlink()]
    assert len(rooms) >= 8
    wanted = {"hilum/__init__.py", "hilum/py.typed"}
    for room in rooms:
        for path in (ROOT / room).rglob("*"):
            left_out = "__pycache__" in path.parts
            weights = "reference_weights" in path.parts and path.is_file()
            if (path.suffix in SUFFIXES or weights) and not left_out:
                wanted.add(f"hilum/{path.relative_to(ROOT).as_posix()}")
    assert wanted - held == set()
    assert held - wanted == set()


def test_the_wheel_names_its_licence_and_its_command(wheel: zipfile.ZipFile) -> None:
    (folder,) = {n.split("/")[0] for n in wheel.namelist() if ".dist-info/" in n}
    assert "hilum = hilum.cli:main" in wheel.read(f"{folder}/entry_points.txt").decode()
    metadata = wheel.read(f"{folder}/METADATA").decode()
    assert "License-Expression: Apache-2.0\n" in metadata
    assert f"{folder}/licenses/LICENSE" in wheel.namelist()


def test_the_hashed_versions_are_the_pinned_ones() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {canonical(n): v for n, _, v in (x.partition("==") for x in lines if "==" in x)}
    for kind in ("base", "image", "development"):
        text = (ROOT / f"constraints/hashes-{kind}.txt").read_text()
        entries = re.findall(r"^([\w.-]+)==([\w.+]+)", text, re.MULTILINE)
        found = {canonical(name): version for name, version in entries}
        foreign = found.keys() - pinned.keys()  # of other systems: none is installed here
        assert foreign <= {"colorama", "tzdata"}
        assert all(pinned[name] == version for name, version in found.items() if name in pinned)
        assert "torch" not in found
        if kind == "development":
            assert pinned.keys() - found.keys() == {"torch"}
        elif kind == "base":
            project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
            asked = {canonical(re.split(r"[<>=!~\[]", d)[0]) for d in project["dependencies"]}
            assert asked <= found.keys()


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
