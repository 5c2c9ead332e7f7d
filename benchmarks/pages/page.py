"""`hilum bench page`: a record as one HTML file that needs nothing else, and its figures."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path

from ..instrument.record import Record
from ..instrument.record import write as write_record
from .tables import Grid, about, grids, markdown, warnings

CSS = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #fff; --line: #d5dae0; --soft: #5a6470;
  --band: #f3f5f8; --warn: #8a4b00; --warn-band: #fff4e0; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ed; --paper: #14171b; --line: #3a4149;
  --soft: #a3adb8; --band: #1d2228; --warn: #ffcf87; --warn-band: #33260f; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.7rem; line-height: 1.2; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
.warn { color: var(--warn); background: var(--warn-band); padding: .5rem .8rem; font-weight: 600; }
.about { color: var(--soft); font-size: .9rem; } .about code { overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .82rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; text-align: left; border-bottom: 1px solid var(--line);
  vertical-align: top; }
th { background: var(--band); } td { min-width: 3rem; }
.note { color: var(--soft); font-size: .85rem; }
figure { margin: 1.2rem 0; } figure img { max-width: 100%; background: #fff; }
figcaption { color: var(--soft); font-size: .85rem; }
@media print { body { max-width: none; margin: 0; font-size: 11px; color: #000; background: #fff; }
  figure, tr { break-inside: avoid; } .wide { overflow: visible; }
  table { font-size: 8px; } }
""".strip()
"""Light or dark as the reader's system is, and fit for printing."""


NO_FIGURES = "Figures need matplotlib: pip install 'hilum[bench]'"


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure as PNG, and what it shows."""

    png: bytes
    caption: str


def write(record: Record, folder: Path) -> str:
    """Write ``bench.json``, ``bench.md``, ``bench.html`` and figures; returns the Markdown."""
    write_record(record, folder / "bench.json")
    text = markdown(record)
    (folder / "bench.md").write_text(text, encoding="utf-8")
    write_page(record, folder)
    return text


def write_page(record: Record, folder: Path) -> list[Path]:
    """Write ``bench.html`` and the figures beside it; without matplotlib a page without figures.

    Returns
    -------
    list
        Paths of what was written, the page first. It holds the figures itself and asks no other
        host for anything.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "bench.html"
    try:
        from .figures import draw, save
    except ModuleNotFoundError:
        path.write_text(page(record, [], NO_FIGURES), encoding="utf-8")
        return [path]
    drawn = draw(record)
    files = save(drawn, folder)
    pictures = [Picture(f.read_bytes(), d.caption) for f, d in zip(files, drawn, strict=True)]
    path.write_text(page(record, pictures), encoding="utf-8")
    return [path, *files]


def page(record: Record, pictures: Iterable[Picture], lack: str = "") -> str:
    """The HTML of a record; `lack` says why there are no pictures."""
    title = escape(record.title[:1].upper() + record.title[1:])
    parts = [
        f"<h1>{title}</h1>",
        *(f'<p class="warn">{escape(line)}</p>' for line in warnings(record)),
        "<h2>What was measured, on what</h2>",
        _list(about(record), "about"),
        *([f'<p class="note">{escape(lack)}</p>'] if lack else []),
        *_figures(pictures),
        *(part for grid in grids(record) for part in _table(grid)),
        *(["<h2>Notes</h2>", _list(record.notes, "notes")] if record.notes else []),
    ]
    head = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>\n{CSS}\n</style></head><body>"
    )
    return "\n".join([head, *parts, "</body></html>\n"])


def _figures(pictures: Iterable[Picture]) -> Iterator[str]:
    for number, picture in enumerate(pictures):
        if number == 0:
            yield "<h2>Figures</h2>"
        data = base64.b64encode(picture.png).decode("ascii")
        caption = escape(picture.caption)
        yield (
            f'<figure><img alt="{caption}" src="data:image/png;base64,{data}">'
            f"<figcaption>{caption}</figcaption></figure>"
        )


def _table(grid: Grid) -> Iterator[str]:
    yield f"<h2>{escape(grid.title)}</h2>"
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in grid.head)
    yield f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>'
    for row in grid.rows:
        yield "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
    yield "</tbody></table></div>"
    yield from (f'<p class="note">{escape(note)}</p>' for note in grid.notes)


def _list(lines: Iterable[str], kind: str) -> str:
    return f'<ul class="{kind}">' + "".join(f"<li>{escape(x)}</li>" for x in lines) + "</ul>"
