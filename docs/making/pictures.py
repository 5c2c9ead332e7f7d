"""Pictures of the manual, from generated studies, and its notebooks executed (`make pictures`).

    python docs/making/pictures.py            # all of it
    python docs/making/pictures.py start      # or notebooks

The pictures are what the commands of docs/start write, made smaller.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from PIL import Image

DOCS = Path(__file__).resolve().parents[1]
START = {
    "xray.md": ("results/0003/overlay.png", "start-xray.png", 640),
    "ct.md": ("scans/0001/montage.png", "start-ct.png", 1000),
}
"""By page: what its commands write, the picture that is made of it, and its width."""


BLOCK = re.compile(r"^```sh\n(hilum .*?)^```$", re.MULTILINE | re.DOTALL)
"""What a tutorial does once Hilum is installed."""


def start() -> None:
    """Run the commands of the tutorials and keep one picture of each."""
    with tempfile.TemporaryDirectory() as folder:
        for page, (written, picture, width) in START.items():
            for block in BLOCK.findall((DOCS / "start" / page).read_text()):
                subprocess.run(["bash", "-ec", block], cwd=folder, env=environment(), check=True)
            shrink(Path(folder, written), DOCS / "images" / picture, width)


def shrink(path: Path, target: Path, width: int) -> None:
    """Write a picture with fewer pixels and 256 colours."""
    with Image.open(path) as opened:
        height = round(opened.height * width / opened.width)
        small = opened.convert("RGB").resize((width, height), Image.Resampling.LANCZOS)
        small.quantize(256, kmeans=3).save(target, optimize=True)


def environment() -> dict[str, str]:
    """The environment with this Python's programs first."""
    return os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def notebooks() -> None:
    """Execute each notebook in a folder of its own and keep what it shows."""
    for path in sorted((DOCS / "start").glob("*.ipynb")):
        nbformat.write(executed(path), path)


def executed(path: Path) -> nbformat.NotebookNode:
    """A notebook with what its cells print and show; the first error ends it."""
    book = nbformat.read(path, as_version=4)
    os.environ.update(environment())
    with tempfile.TemporaryDirectory() as folder:
        sockets = str(Path(folder, "kernel"))  # for nobody else
        kernel = AsyncKernelManager(kernel_name="python3", transport="ipc", ip=sockets)
        place = {"metadata": {"path": folder}}
        NotebookClient(book, km=kernel, timeout=600, resources=place).execute()
    for cell in book.cells:
        cell.metadata.pop("execution", None)  # times
    return book


if __name__ == "__main__":
    for name in sys.argv[1:] or ("start", "notebooks"):
        {"start": start, "notebooks": notebooks}[name]()
