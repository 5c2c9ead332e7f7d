"""Figures, tables and the page of a record: what they show, and that nothing leaves or leaks in."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from records import closed_round, load_record, make_lane, make_record, service
from typer.testing import CliRunner

from hilum.benchmarks.instrument.record import Estimate, Record, read, write
from hilum.benchmarks.pages.bars import latency_points, where_time_goes
from hilum.benchmarks.pages.figures import (
    draw,
    latency_against_load,
    latency_distribution,
    throughput_against_load,
)
from hilum.benchmarks.pages.page import write_page
from hilum.benchmarks.pages.style import COLOURS
from hilum.benchmarks.pages.tables import estimate, grids, lane_grid, markdown, text
from hilum.cli import app


@pytest.fixture(scope="module")
def record() -> Record:
    return load_record()


@pytest.fixture(scope="module")
def written(record: Record, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_page(record, tmp_path_factory.mktemp("page"))


class Page(HTMLParser):
    """Text, tags and attributes of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_page_needs_nothing_else(written: list[Path]) -> None:
    html = written[0].read_text()
    page = Page(html)
    assert page.open == []
    assert not {"script", "link", "iframe"} & set(page.tags)
    assert "url(" not in html
    assert "@import" not in html
    sources = [value for name, value in page.attributes if name in ("src", "href")]
    assert len(sources) == len(written) - 1 > 5
    assert all(source and source.startswith("data:image/png;base64,") for source in sources)
    assert "http" not in " ".join(page.words)


def test_the_page_says_it_in_words(written: list[Path]) -> None:
    words = " ".join(Page(written[0].read_text()).words)
    for expected in (
        "Not a medical device",
        "RANDOM WEIGHTS",
        "images/s",
        "open loop",
        "Inputs <are> generated.",
        "Processor <of a test>, 2 cores",
        "half the load <b>",
        "cxr-severity, open loop, poisson, 15/s",
    ):
        assert expected in words


def test_text_is_escaped(record: Record, tmp_path: Path) -> None:
    evil = "<script>alert('x')</script>&"
    lane = dataclasses.replace(record.lanes[0], name=evil, notes=(evil,))
    worse = dataclasses.replace(
        record, title=evil, command=evil, lanes=(lane,), notes=(evil,), server={evil: evil},
        tables={evil: ({evil: evil},)},
    )  # fmt: skip
    page = Page(write_page(worse, tmp_path)[0].read_text())
    assert "script" not in page.tags
    assert page.words.count(evil) >= 4


def test_every_figure_is_a_readable_picture(written: list[Path]) -> None:
    assert {path.name for path in written[1:]} == {
        "latency-1.png", "latency-2.png", "throughput-against-load-closed.png",
        "latency-against-load-closed.png", "throughput-against-load-open.png",
        "latency-against-load-open.png", "where.png",
    }  # fmt: skip
    for path in written[1:]:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB"))
            assert image.format == "PNG"
        assert pixels.shape[1] == 1080  # 7.2 inches, 150 dots each
        assert pixels[0, 0].tolist() == [255, 255, 255]
        blue = [int(COLOURS[0][i : i + 2], 16) for i in (1, 3, 5)]
        assert (pixels == blue).all(axis=-1).any() or path.name == "where.png"


def test_axes_name_their_units(record: Record) -> None:
    for drawn in draw(record):
        (axes,) = drawn.figure.axes
        assert re.search(r"second|percentile|\(ms\)|number of|at once", axes.get_xlabel()), (
            drawn.name
        )
        assert axes.get_ylabel() or axes.get_yticklabels()


def test_the_distribution_is_that_of_the_samples() -> None:
    rounds = [closed_round(np.arange(1, 1001) / 1000)]
    (axes,) = latency_distribution([make_lane("lane", rounds)]).axes
    line, ring = axes.lines
    x, y = np.asarray(line.get_xdata()), np.asarray(line.get_ydata())
    assert (y[0], y[-1]) == (500, pytest.approx(990))  # from p50 to the last one it bears
    at_90 = y[np.searchsorted(x, np.log10(0.5 / 0.1) - 1e-9)]
    assert at_90 == pytest.approx(900)
    assert float(np.asarray(ring.get_ydata())[0]) == 1000
    assert "blind to stalls" in str(line.get_label())


def test_few_latencies_are_shown_one_by_one() -> None:
    lane = make_lane("lane", [closed_round(np.array([2.0, 4.0, 9.0]))])
    (axes,) = latency_points([lane]).axes
    points, median = axes.lines
    assert list(points.get_xdata()) == [2, 4, 9]
    assert list(median.get_xdata()) == [4, 4]
    assert axes.get_xlabel() == "latency (s)"
    (drawn,) = draw(make_record([lane]))
    assert "Few were measured" in drawn.caption
    assert lane_grid([lane]).head[3] == "p50 (s)"


def test_any_random_weights_are_warned_of(record: Record) -> None:
    lane = dataclasses.replace(record.lanes[0], weights="random (seed 0); output layer fitted")
    assert "RANDOM WEIGHTS" in markdown(make_record([lane]))
    own = dataclasses.replace(lane, weights="store: published")
    assert "RANDOM WEIGHTS" not in markdown(make_record([own]))
    tried = dataclasses.replace(lane, weights="reference weights (seed 1)")
    assert "REFERENCE WEIGHTS" in markdown(make_record([tried]))


def test_curves_against_load(record: Record) -> None:
    series = {"cxr-severity": list(record.lanes[3:])}
    (axes,) = throughput_against_load(series).axes
    line = axes.containers[0].lines[0]  # type: ignore[index]
    assert list(line.get_xdata()) == [5, 10, 15]
    assert list(line.get_ydata()) == [x.summary.per_second.value for x in record.lanes[3:]]
    (axes,) = latency_against_load(series).axes
    dashed = axes.containers[1]
    assert dashed.get_label() == "cxr-severity, p99"
    wanted = [1e3 * x.summary.latency_s["99"].value for x in record.lanes[3:]]
    assert list(dashed.lines[0].get_ydata()) == wanted  # type: ignore[attr-defined]


def test_bars_add_up(record: Record) -> None:
    (axes,) = where_time_goes(record.tables["where"]).axes
    first_lane = [bar for bar in axes.patches if round(bar.get_y() + 0.31) == 5]  # type: ignore[attr-defined]
    assert sum(bar.get_width() for bar in first_lane) == pytest.approx(54)  # type: ignore[attr-defined]


def test_parts_that_are_not_known_are_left_out() -> None:
    row = {"lane": "overlapping", "waiting_s": None, "queue_s": 0.01, "copy_s": None,
           "infer_s": 0.03, "rest_s": None, "latency_s": None}  # fmt: skip
    (axes,) = where_time_goes([row]).axes
    assert sum(bar.get_width() for bar in axes.patches) == pytest.approx(40)  # type: ignore[attr-defined]


def test_lanes_without_a_sweep_get_points() -> None:
    lanes = [make_lane(f"unet: {peer}", [closed_round(service(20, r)) for r in range(3)])
             for peer in ("PyTorch", "Triton, gRPC")]  # fmt: skip
    assert [d.name for d in draw(make_record(lanes))] == ["latency-1", "throughput"]


def test_many_lanes_share_no_panel_too_narrow_for_them() -> None:
    lanes = [make_lane(f"lane {n}", [closed_round(service(20, n))]) for n in range(17)]
    drawn = [d for d in draw(make_record(lanes)) if d.name.startswith("latency")]
    sizes = [len(d.figure.axes[0].get_legend_handles_labels()[0]) for d in drawn]
    assert sizes == [7, 7, 3]


def test_a_record_without_lanes(tmp_path: Path) -> None:
    rows = (
        {"figure": "minutes per scan", "verdict": "pass", "measured_s": 12.5},
        {"figure": "images per second", "verdict": "not comparable", "measured_s": None},
    )
    record = make_record([], kind="targets", tables={"targets": rows})
    (path,) = write_page(record, tmp_path)
    words = " ".join(Page(path.read_text()).words)
    assert "minutes per scan" in words
    assert "| minutes per scan | pass | 12.5 |" in markdown(record)


def test_markdown_holds_every_table(record: Record) -> None:
    found = markdown(record)
    assert found.startswith("# Cxr-severity under load\n")
    heads = re.findall(r"^## (.*)$", found, re.MULTILINE)
    assert heads == [grid.title for grid in grids(record)] + ["Notes"]
    tables = re.findall(r"(?:^\|.*\n)+", found, re.MULTILINE)
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1
    assert found.rstrip().endswith("Not a medical device. For research only.")
    assert "¹ Closed loop" in found


def test_pipes_and_lines_break_no_table() -> None:
    rows = ({"a|b": "x|y", "c": "line\nbreak"},)
    found = markdown(make_record([], tables={"odd": rows}))
    assert "| a\\|b | c |" in found
    assert "| x\\|y | line break |" in found


def test_columns_without_a_value_are_left_out(record: Record) -> None:
    assert "deviation" in lane_grid(record.lanes).head
    assert "deviation" not in lane_grid(record.lanes[:3]).head
    assert "sent (MB)" not in lane_grid(record.lanes[3:]).head


def test_seconds_below_one_are_shown_as_milliseconds(record: Record) -> None:
    (where,) = (grid for grid in grids(record) if grid.title.startswith("Where"))
    assert where.head[1:] == (
        "waiting (ms)", "queue (ms)", "copy (ms)", "infer (ms)", "rest (ms)", "latency (ms)",
    )  # fmt: skip
    assert where.rows[0][1:] == ("0", "3", "2", "43", "6", "54")


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, "–"), (True, "yes"), (0.123456, "0.1235"), (123456.7, "123457"), (2e-6, "2.000e-06"),
     ({"50": 0.5, "99": 2}, "50: 0.5, 99: 2"), ([1, "a"], "1, a"), ([], "–"), (0.0, "0")],
)  # fmt: skip
def test_cells(value: object, expected: str) -> None:
    assert text(value) == expected


def test_estimates_show_their_interval() -> None:
    assert estimate(Estimate(0.0512, 0.0498, 0.0534), 1e3) == "51.2 (49.8–53.4)"
    assert estimate(Estimate(7.0)) == "7"
    assert estimate(None) == "–"


def test_the_command_draws_what_was_written(record: Record, tmp_path: Path) -> None:
    file = write(record, tmp_path / "bench.json")
    assert markdown(read(file)) == markdown(record)
    file = write(make_record(record.lanes[:1]), file)
    done = CliRunner().invoke(app, ["bench", "page", str(file), "--out", str(tmp_path / "out")])
    assert done.exit_code == 0
    assert (tmp_path / "out" / "bench.html").exists()
    assert (tmp_path / "out" / "latency-1.png").exists()
    done = CliRunner().invoke(app, ["bench", "page", str(tmp_path / "no.json"), "--out", "x"])
    assert done.exit_code == 2
