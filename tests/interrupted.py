"""Runs that are interrupted: their studies, what must be there in the end, and full disks."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hilum.catalog import cxr_severity as cxr
from hilum.preprocessing.phantoms.ct import chest_ct
from hilum.preprocessing.phantoms.ct_dicom import write_dicom_series
from hilum.preprocessing.phantoms.xray import chest_xray, write_png

HILUM = str(Path(sys.executable).with_name("hilum"))
XRAY_MODEL = cxr.ENSEMBLES["manet"].model


@dataclass(frozen=True, slots=True)
class Work:
    """Studies for one system, and what each of them leaves in its folder."""

    system: str
    inputs: Path
    count: int
    files: frozenset[str]

    def words(self, out: Path, *more: object) -> list[str]:
        """The command that runs them."""
        given = ["run", self.system, self.inputs, "--out", out, *more]
        return [HILUM, *map(str, given)]

    @property
    def names(self) -> list[str]:
        """Of the studies' folders."""
        return [f"{number:04d}" for number in range(1, self.count + 1)]

    def outcome(self, out: Path) -> list[dict[str, Any]]:
        """What must not differ between runs: numbers, and size and SHA-256 of every file."""
        own = ("seconds", "transport")
        found = json.loads((out / "report.json").read_text())["results"]
        entries = [{k: v for k, v in r.items() if k not in own} for r in found]
        for entry in entries:
            files = sorted((out / entry["name"]).glob("*"))
            entry["bytes"] = {
                f.name: (f.stat().st_size, hashlib.sha256(f.read_bytes()).hexdigest())
                for f in files if f.name != "result.json"
            }  # fmt: skip
        return entries

    def problem(self, out: Path, undisturbed: list[dict[str, Any]]) -> str | None:
        """What is wrong with a run that has ended well; each study must be there once."""
        if self.outcome(out) != undisturbed:
            return "results differ from those of an undisturbed run"
        left = {p.name for p in out.iterdir()} ^ {*self.names, "report.json", "summary.csv"}
        if left:
            return f"too much or missing in the folder: {sorted(left)}"
        for name, entry in zip(self.names, undisturbed, strict=True):
            if {p.name for p in (out / name).iterdir()} != self.files | {"result.json"}:
                return f"too much or missing in the folder of study {name}"
            if json.loads((out / name / "result.json").read_text())["status"] != entry["status"]:
                return f"study {name} has another status than in the report"
        return None


def draw_xrays(folder: Path, count: int) -> Work:
    """X-rays, twelve of them different."""
    folder.mkdir()
    for seed in range(min(count, 12)):
        phantom = chest_xray(seed, height=400, width=400, severity=seed / 12)
        write_png(phantom, folder / f"patient-name-{seed:05d}.png")
    for number in range(12, count):
        same = (folder / f"patient-name-{number % 12:05d}.png").read_bytes()
        (folder / f"patient-name-{number:05d}.png").write_bytes(same)
    return Work("cxr-severity", folder, count, frozenset({"overlay.png"}))


def draw_ct(folder: Path, count: int, slices: int = 40, size: int = 128) -> Work:
    """Chest CTs as DICOM series, each different."""
    for seed in range(count):
        series = folder / f"patient-name-{seed:05d}"
        series.mkdir(parents=True)
        write_dicom_series(chest_ct(seed, slices=slices, size=size).volume, series)
    return Work("lungmask", folder, count, frozenset({"lung.nii.gz", "lung.png"}))


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it does not come"
        time.sleep(0.02)


@dataclass(frozen=True, slots=True)
class Room:
    """A mount namespace of its own, with small file systems that can really be filled up."""

    pid: int

    @property
    def enter(self) -> list[str]:
        """Words before a command that run it in there; paths must be absolute."""
        return ["nsenter", f"--mount=/proc/{self.pid}/ns/mnt", "--"]

    def path(self, inside: Path) -> Path:
        """A path of there, as it is reached from outside."""
        return Path(f"/proc/{self.pid}/root") / inside.relative_to("/")

    def fill(self, folder: Path, left: int = 0) -> Path:
        """Fill the file system of a folder but for `left` bytes; gives what to remove again."""
        ballast = self.path(folder) / "ballast"
        room = os.statvfs(ballast.parent)
        size, at = room.f_bavail * room.f_frsize - left, 0
        with ballast.open("wb") as file:
            for piece in (1 << 20, room.f_frsize):  # others may take some of it meanwhile
                with contextlib.suppress(OSError):
                    while at + piece <= size:
                        os.posix_fallocate(file.fileno(), at, piece)
                        at += piece
        return ballast


@contextmanager
def small_file_systems(sizes: dict[Path, str]) -> Iterator[Room | None]:
    """A room in which each of these folders is a tmpfs of its size; None where that is not allowed.

    Parameters
    ----------
    sizes
        As `mount` has them: ``{Path("/dev/shm"): "64m"}``.
    """
    mounts = " && ".join(f"mount -t tmpfs -o size={s} tmpfs '{p}'" for p, s in sizes.items())
    holder = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", f"{mounts} && echo ready && exec sleep 3600"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        assert holder.stdout is not None
        yield Room(holder.pid) if holder.stdout.readline() == "ready\n" else None
    finally:
        holder.kill()
        holder.wait()
