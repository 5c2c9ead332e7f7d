"""What the manual shows: its blocks and commands, and somebody who types them.

Tests take what they run by `shown`, `whole` and `inline`. `tests/docs/test_all_is_run.py` reads
these calls and fails where a page shows something that no test takes. So their arguments are
written out. Lines of `pip` and `docker` are found by tests of their own, on all pages.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import typer
from typer.exceptions import TyperException

from hilum.cli import app

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
MANUAL = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (
        *DOCS.rglob("*.md"),
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
        *(ROOT / folder / "README.md" for folder in ("docker", "benchmarks")),
    )
)

FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
PLACEHOLDER = re.compile(
    r"…|\b(?:SYSTEM|STUDY|JOB|DIR|FOLDER|FILE|NAME|ADDRESS|SERIES|HOST|N|S|C|E|R)\b"
)
PIP = re.compile(r"pip install (?:'hilum\[([\w,]+)\]'|hilum\b(?!\[))")
"""What tests/installs runs, for every page that shows it."""

RECORDS = re.compile(r"docs/background/bench-(dlpe|covid-mtl|perf-analyzer)\.md")
"""What was measured once, with options that are no longer there, as the pages say."""


@dataclass(frozen=True)
class Block:
    """One block of code: the heading above it, the word after its fence, its text."""

    page: str
    heading: str
    kind: str
    text: str


def blocks(page: str) -> list[Block]:
    """All blocks of a page, in their order."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = []
    for match in FENCE.finditer(text):
        above = re.findall(r"^#+ (.+)$", FENCE.sub("", text[: match.start()]), re.MULTILINE)
        found.append(Block(page, above[-1], match[2] or "plain", textwrap.dedent(match[3])))
    return found


def shown(page: str, heading: str, *kinds: str) -> list[str]:
    """The blocks of these kinds below a heading, which has no others of these kinds."""
    found = [b for b in blocks(page) if b.heading == heading and b.kind in kinds]
    assert tuple(block.kind for block in found) == kinds, (page, heading)
    return [block.text for block in found]


def whole(page: str, *kinds: str) -> list[Block]:
    """All blocks of a page, which are of these kinds."""
    found = blocks(page)
    assert tuple(block.kind for block in found) == kinds, page
    return found


@cache
def _command_line() -> Any:
    return typer.main.get_command(app)


def is_complete(words: list[str]) -> bool:
    """Whether the command line takes these words after `hilum`, and they name more than a command.

    `hilum bench` may lack its folder where a page says how a figure was measured.
    """
    command: Any = _command_line()
    while hasattr(command, "get_command") and words:
        with command.make_context(None, [], resilient_parsing=True) as context:
            command = command.get_command(context, words[0])
        if command is None:
            return False
        words = words[1:]
    if not words or hasattr(command, "get_command"):
        return False
    for given in (words, [*words, "--out", "out"]):
        try:
            command.make_context("hilum", list(given))
        except TyperException:
            continue
        except typer.Exit:
            return True
        return True
    return False


@cache
def is_command(code: str) -> bool:
    """Whether code between backticks is a command to type, and not the name of one."""
    if PLACEHOLDER.search(code):
        return False
    try:
        words = shlex.split(code)
    except ValueError:
        return False
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    match words[:1]:
        case ["hilum"] if len(words) > 1:
            return is_complete(words[1:])
        case ["make"]:
            return any("=" in word for word in words)
        case ["python" | "pytest" | "helm" | "curl" | "sudo" | "docker"]:
            return len(words) > 1
    return False


def commands(page: str) -> list[str]:
    """What a page shows as a command in its sentences and tables."""
    text = FENCE.sub("", (ROOT / page).read_text(encoding="utf-8"))
    return [
        code for code in (" ".join(c.split()) for c in INLINE.findall(text)) if is_command(code)
    ]


def inline(page: str, command: str) -> str:
    """A command that stands between backticks on a page."""
    assert command in commands(page), command
    return command


def taken() -> tuple[set[tuple[str, str, str]], set[str], set[tuple[str, str]]]:
    """What tests take: kinds of blocks below headings, whole pages, commands of pages."""
    below, pages, codes = set(), set(), set()
    texts = (path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    for text in texts:
        for node in ast.walk(ast.parse(text)) if "\nfrom manual import" in text else ():
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            words = [arg.value for arg in node.args if isinstance(arg, ast.Constant)]
            match node.func.id, words:
                case "shown", [page, heading, *kinds]:
                    below |= {(page, heading, kind) for kind in kinds}
                case "whole", [page, *_]:
                    pages.add(page)
                case "inline", [page, command]:
                    codes.add((page, command))
    return below, pages, codes


def swapped(text: str, swaps: Mapping[str, str]) -> str:
    """A text with other words in some places; each of them must be there."""
    for old, new in swaps.items():
        assert old in text, (old, text)
        text = text.replace(old, new)
    return text


class Typist:
    """Somebody who types what pages show, in a folder."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        self.environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)} | environment

    def type(
        self, text: str, swaps: Mapping[str, str] | None = None, *codes: int, limit_s: int = 900
    ) -> str:
        """Give lines to a shell, with other words where `swaps` says so; gives what they print.

        Lines that install Hilum are left out: tests/installs has them.
        """
        lines = [line for line in swapped(text, swaps or {}).splitlines() if not PIP.match(line)]
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", "\n".join(lines)],
            cwd=self.folder, env=self.environment, text=True, timeout=limit_s,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert done.returncode in (codes or (0,)), (text, done.returncode, done.stdout)
        return done.stdout

    def program(self, text: str, swaps: Mapping[str, str] | None = None) -> str:
        """Run a program in Python; gives what it prints."""
        (self.folder / "program.py").write_text(swapped(text, swaps or {}), encoding="utf-8")
        return self.type("python program.py")

    @contextmanager
    def going(
        self, line: str, swaps: Mapping[str, str] | None = None
    ) -> Iterator[subprocess.Popen[str]]:
        """A command that goes on; Ctrl-C at the end."""
        process = subprocess.Popen(
            ["bash", "-c", f"exec {swapped(line, swaps or {})}"],
            cwd=self.folder, env=self.environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
            try:
                process.wait(60)
            finally:
                process.kill()
