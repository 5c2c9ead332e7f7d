"""Fetch the viewer of `hilum desk` from its pinned npm package, and check it.

    python constraints/viewer.py              # NiiVue, into desk/vendor/ (make desk)
    python constraints/viewer.py --tests      # axe-core, which tests need, into out/axe/

npm fetches the packages; nothing of them is run.
"""

from __future__ import annotations

import base64
import hashlib
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent


@dataclass(frozen=True)
class Package:
    """A package of npm, and the file of it that is kept."""

    name: str
    sha512: str
    member: str
    target: Path


NIIVUE = Package(
    "@niivue/niivue@0.69.0",
    "YMjQvJgD1W2b7DuoxkwlC4VxbrgIePRJ5qyQzXKxi2v2MBVg285P/CIQyg46oDDGDIcaNlbd+MhtO/edMbXJkA==",
    "package/dist/niivue.umd.js",
    ROOT / "desk/vendor/niivue.umd.js",
)
AXE = Package(
    "axe-core@4.14.1",
    "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ==",
    "package/axe.min.js",
    ROOT / "out/axe/axe.min.js",
)


def fetch(package: Package) -> None:
    """Fetch a package, refuse one that is not the pinned one, keep its file."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", "--silent", "--ignore-scripts", package.name]
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        (packed,) = Path(folder).glob("*.tgz")
        found = base64.b64encode(hashlib.sha512(packed.read_bytes()).digest()).decode()
        if found != package.sha512:
            sys.exit(f"{package.name}: the package is not the pinned one ({found})")
        with tarfile.open(packed) as members:
            held = members.extractfile(package.member)
            content = held.read() if held else b""
    package.target.parent.mkdir(parents=True, exist_ok=True)
    partial = package.target.with_suffix(".partial")
    partial.write_bytes(content)
    partial.replace(package.target)


if __name__ == "__main__":
    fetch(AXE if "--tests" in sys.argv[1:] else NIIVUE)
