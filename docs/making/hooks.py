"""What MkDocs does besides: lists pages by folder, fills in what is generated, shows notebooks.

A page asks for a generated part with a comment, ``<!-- generated: NAME ARGUMENTS -->``.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import commands
import fields
import notebooks
from mkdocs.structure.files import File

MADE: dict[str, Callable[..., str]] = {
    "commands": commands.page,
    "exit-codes": fields.exit_codes,
    "fields": fields.fields,
    "metrics": fields.metrics,
    "options": fields.options,
    "settings": fields.settings,
}
"""What can be generated, by name."""

_GENERATED = re.compile(r"^<!-- generated: (\S+)(.*) -->$", re.MULTILINE)
_OUTSIDE = re.compile(r"(?<!!)\[([^\]]+)\]\(((?:\.\./)+[^)#]+)(?:#[^)]*)?\)")


def on_config(config: Any) -> Any:
    """Replace ``folder/*`` in the navigation by the pages of the folder not named beside it."""
    docs = Path(config.docs_dir)
    config.nav = [_listed(entry, docs) for entry in config.nav]
    return config


def _listed(entry: Any, docs: Path) -> Any:
    if isinstance(entry, dict):
        return {title: list(_expanded(pages, docs)) for title, pages in entry.items()}
    return entry


def _expanded(pages: list[Any], docs: Path) -> Iterator[Any]:
    named = {page for page in pages if isinstance(page, str)}
    for page in pages:
        if isinstance(page, dict):
            yield _listed(page, docs)
        elif page.endswith("/*"):
            found = sorted(p for kind in ("md", "ipynb") for p in docs.glob(f"{page}.{kind}"))
            names = [str(p.relative_to(docs).with_suffix(".md")) for p in found]
            yield from (name for name in names if name not in named)
        else:
            yield page


def on_files(files: Any, config: Any) -> Any:
    """Make a page of each notebook."""
    for file in [f for f in files if f.src_uri.endswith(".ipynb")]:
        files.remove(file)
        name = file.src_uri.replace(".ipynb", ".md")
        files.append(File.generated(config, name, content=notebooks.page(file.content_string)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Fill in what is generated; name files that are not in the manual instead of linking them."""
    here = Path(page.file.src_uri).parent
    docs = Path(config.docs_dir)

    def outside(link: re.Match[str]) -> str:
        target = (docs / here / link[2]).resolve()
        if target.is_relative_to(docs):
            return link[0]
        path = target.relative_to(docs.parent)
        return link[1] if link[1].strip("`") == str(path) else f"{link[1]} (`{path}`)"

    markdown = _OUTSIDE.sub(outside, markdown).replace(".ipynb)", ".md)")
    return _GENERATED.sub(lambda part: MADE[part[1]](*part[2].split()), markdown)
