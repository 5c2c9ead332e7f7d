"""Pages of the manual: links lead somewhere, commands exist, and what they name is there."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
import tomllib
import unicodedata
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from hilum.cli import app

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (*DOCS.rglob("*.md"), ROOT / "docker/README.md", ROOT / "benchmarks/README.md")
)
AT_THE_TOP = ["README.md", "CONTRIBUTING.md", "SECURITY.md"]
PAGES += [*AT_THE_TOP, "CHANGELOG.md"]
GUIDES = [page for page in PAGES if page.startswith("docs/") or page in AT_THE_TOP]

FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
INLINE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
PATH = re.compile(
    r"(?<![\w/.-])(?!\d+/)[\w.-]+(?:/[\w.-]+)+\.(?:py|toml|txt|yaml|service|head\.md)"
)
RECORDS = re.compile(r"docs/background/bench-(dlpe|covid-mtl|perf-analyzer)\.md")
"""What was measured once, with options that are no longer there, as the pages say."""


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def prose(text: str) -> str:
    return FENCE.sub("", text)


def slug(heading: str) -> str:
    """The anchor of a heading, as the site's Markdown makes it."""
    plain = re.sub(r"`|\*|\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    plain = unicodedata.normalize("NFKD", plain).encode("ascii", "ignore").decode()
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip().lower())


@cache
def anchors(path: Path) -> frozenset[str]:
    return frozenset(
        slug(heading) for heading in re.findall(r"^#+ (.+)$", prose(path.read_text()), re.MULTILINE)
    )


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_pages_and_headings(page: str) -> None:
    here = ROOT / page
    for target in LINK.findall(prose(text_of(page))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (here.parent / path).resolve() if path else here
        assert found.is_file(), target
        if page.startswith("docs/"):  # the site has nothing else
            assert found.is_relative_to(DOCS), target
        if anchor:
            assert anchor in anchors(found), target


@pytest.mark.parametrize("page", PAGES)
def test_lists_and_tables_begin_after_an_empty_line(page: str) -> None:
    """The site's Markdown takes them for text otherwise."""
    before = ""
    for line in prose(text_of(page)).splitlines():
        for begins in (r" *(?:[-*]|\d+\.) ", r" *\|"):
            if re.match(begins, line) and before.strip():
                inside = re.match(rf"{begins}|  +", before)
                assert inside, line
        before = line


def commands(page: str) -> Iterator[str]:
    """Lines of shells, and what stands between backticks."""
    text = text_of(page)
    for _, kind, block in FENCE.findall(text):
        if kind in ("sh", "bash", ""):
            for line in re.sub(r"\\\n\s*", "", block).splitlines():
                yield from re.split(r" (?:&&|\|) ", line)
    if not RECORDS.fullmatch(page):
        yield from (" ".join(code.split()) for code in INLINE.findall(prose(text)))


def words_of(line: str) -> list[str]:
    line = re.sub(r"\{[\w,]+\}", "x", line)  # a shell's braces
    try:
        words = shlex.split(line, comments=True)
    except ValueError:
        return []
    while words and re.fullmatch(r"\w+=.*", words[0]):
        words = words[1:]
    return words


def is_whole(line: str) -> bool:
    """Whether a line could be typed: no ellipsis and no placeholder."""
    return "…" not in line and not re.search(r"\b(?:SYSTEM|STUDY|JOB|DIR|FOLDER|FILE|NAME)\b", line)


def found_command(words: list[str], line: str) -> tuple[Any, list[str]]:
    """The command of a line, and the words after it."""
    command: Any = typer.main.get_command(app)
    while hasattr(command, "get_command"):
        if not words or words[0].startswith("-") or not re.fullmatch(r"[a-z-]+", words[0]):
            break
        with command.make_context(None, [], resilient_parsing=True) as context:
            inner = command.get_command(context, words[0])
        assert inner is not None, f"no command {words[0]}: {line}"
        command, words = inner, words[1:]
    return command, words


def options_of(command: Any) -> set[str]:
    """Of a command, or of all commands of a group, which a placeholder may stand for."""
    found = {"--help", "--version"}
    found |= {o for one in command.params for o in (*one.opts, *one.secondary_opts)}
    if hasattr(command, "list_commands"):
        with command.make_context(None, [], resilient_parsing=True) as context:
            for name in command.list_commands(context):
                found |= options_of(command.get_command(context, name))
    return found


@pytest.mark.parametrize("page", GUIDES)
def test_commands_and_their_options_exist(page: str) -> None:
    for line in commands(page):
        words = words_of(line)
        if words[:1] != ["hilum"] or words[1:2] == ["…"] or "hilum run laa" in line:
            continue
        command, rest = found_command(words[1:], line)
        options = [w.partition("=")[0] for w in rest if re.match(r"--[a-z]", w)]
        assert set(options) <= options_of(command), line


@pytest.mark.parametrize("page", GUIDES)
def test_lines_of_a_shell_are_complete(page: str) -> None:
    """Arguments and values are taken; nothing is run."""
    for _, kind, block in FENCE.findall(text_of(page)):
        lines = block.splitlines() if kind == "sh" else []
        for line in (part.strip() for one in lines for part in one.split("&&")):
            words = words_of(line)
            if words[:1] != ["hilum"] or "hilum run laa" in line or not is_whole(line):
                continue
            command, rest = found_command(words[1:], line)
            command.make_context("hilum", rest)  # raises what the command line would say


@pytest.mark.parametrize("page", GUIDES)
def test_files_targets_and_extras_that_are_named_exist(page: str) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for line in commands(page):
        words = words_of(line)
        if words[:1] == ["make"] and len(words) > 1 and re.fullmatch(r"[a-z-]+", words[1]):
            assert words[1] in targets, line
        if words[:2] == ["python", "-m"] and words[2].startswith("hilum."):
            assert importlib.util.find_spec(words[2]) is not None, line
        for names in re.findall(r"hilum\[([\w,]+)\]", line):
            assert set(names.split(",")) <= set(extras["optional-dependencies"]), line
        for path in PATH.findall(line):
            if not path.startswith("hilum_laa/"):
                assert any((base / path).exists() for base in (ROOT, ROOT / "docker")), path


@pytest.mark.parametrize("page", GUIDES)
def test_programs_are_python_and_import_what_is_there(page: str) -> None:
    for _, kind, block in FENCE.findall(text_of(page)):
        if kind != "python" or "adding-a-system" in page:
            continue
        tree = ast.parse(block)
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module and node.module[:5] == "hilum":
                module = importlib.import_module(node.module)
                for name in node.names:
                    assert hasattr(module, name.name), f"{node.module}.{name.name}"
