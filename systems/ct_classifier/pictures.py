"""Pictures of classified slices: heat maps over the most positive ones, and the curve of all."""

from __future__ import annotations

import itertools
import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hilum.catalog import ct_classifier as catalog
from hilum.postprocessing.ct_classifier.gradcam import heat_map, overlay
from hilum.results.canvas import AMBER, CYAN, GREY, RED, WHITE, Colour
from hilum.results.sections import (
    ORANGE,
    Rect,
    banner,
    enlarge,
    fit,
    grey_to_rgb,
    name_sides,
    paint_labels,
    plain,
)
from hilum.results.sheet import Sheet

from .result import CtClassifierResult, SliceResult

SIDE, THUMB, GAP, ACROSS = 720, 232, 12, 3
"""Sides of the large and the small slices in pixels, and small ones in a row."""

BAR_WIDTH, BAR_HEIGHT = 180, 12

CURVE_WIDTH, CURVE_HEIGHT, STRIP, LEFT_AXIS = 1180, 340, 22, 46

BLUE: Colour = (96, 156, 214)
GRID: Colour = (52, 57, 66)
RUN: Colour = (58, 38, 40)

DOMINANCE: dict[str, Colour] = {"right": CYAN, "left": ORANGE, "bilateral": WHITE, "free": GREY}


def draw_heat(result: CtClassifierResult, note: str) -> Sheet:
    """Draw the slice with the highest probability, and the next ones beside it.

    Slices below the threshold get no heat map.

    Parameters
    ----------
    note
        The weights note.
    """
    top, others = _chosen(result)
    columns = min(ACROSS, len(others))
    sheet = Sheet(
        SIDE + (GAP + THUMB) * columns,
        SIDE + 88,
        title=_headline(result),
        subtitle=plain(
            f"{result.description}; profile {result.profile}, {result.mode}; positive from "
            f"p {result.threshold:g}"
        ),
        note=note,
        accent=AMBER if result.summary.positive else WHITE,
    )
    _slice(sheet, result, top, Rect(0, 0, SIDE, SIDE), size=26)
    for number, one in enumerate(others):
        left = SIDE + GAP + (number % ACROSS) * (THUMB + GAP)
        _slice(sheet, result, one, Rect(left, (number // ACROSS) * (THUMB + GAP), THUMB, THUMB))
    sheet.text((0, SIDE + 10), _sides_in_words(top, result.where(top.index)), size=19)
    if top.positive:
        _colour_bar(sheet, (0, SIDE + 40))
    unusual = "; ".join([*(f.replace("_", " ") for f in result.flags), *result.notes])
    sheet.text((0, SIDE + 68), plain(unusual)[:140], size=15, colour=AMBER if unusual else GREY)
    return sheet


def draw_curve(result: CtClassifierResult, note: str) -> Sheet:
    """Draw the probability of all slices, from the feet to the head, with runs and sides.

    Parameters
    ----------
    note
        The weights note.
    """
    summary = result.summary
    run = f"longest run {summary.longest_run_slices} slice(s)"
    if result.longest_run_mm is not None:
        run += f" ({result.longest_run_mm:.0f} mm)"
    sheet = Sheet(
        LEFT_AXIS + CURVE_WIDTH,
        CURVE_HEIGHT + STRIP + 84,
        title=_headline(result),
        subtitle=f"highest p {summary.maximum:.3f} at {result.where(summary.maximum_at)}; {run}; "
        f"positive from p {result.threshold:g}",
        note=note,
        accent=AMBER if summary.positive else WHITE,
    )
    sheet.paste((LEFT_AXIS, 0), _plot(result))
    for value in (0.0, 0.25, 0.5, 0.75, 1.0):
        at = (LEFT_AXIS - 8, _row(value))
        sheet.text(at, f"{value:g}", size=15, colour=GREY, anchor="rm")
    _slice_axis(sheet, result)
    if result.sides is not None:
        _legend(sheet, CURVE_HEIGHT + STRIP + 58)
    return sheet


def _headline(result: CtClassifierResult) -> str:
    summary = result.summary
    found = f"{summary.positive} of {summary.slices} slice(s) COVID-like ({summary.fraction:.0%})"
    if result.patient_positive is None:
        return found
    verdict = "positive" if result.patient_positive else "negative"
    return f"{found}; patient {verdict} (rule: {result.verdict_run} in a row)"


def _chosen(result: CtClassifierResult) -> tuple[SliceResult, list[SliceResult]]:
    """The slice with the highest probability, and the next positive ones in their order."""
    ranked = sorted(result.slices, key=lambda s: -s.logit)
    top = result.slices[result.summary.maximum_at]
    others = [s for s in ranked if s.positive and s is not top][: ACROSS * ACROSS]
    return top, sorted(others, key=lambda s: s.index)


def _slice(
    sheet: Sheet, result: CtClassifierResult, one: SliceResult, into: Rect, *, size: int = 14
) -> None:
    """One slice with its heat map, the outlines of the lungs, and its number."""
    grey = result.grey(one.index)
    rect = fit((grey.shape[0], grey.shape[1]), into)
    shown = enlarge(grey, rect)
    if one.positive:
        heat = heat_map(result.cam[one.index], (rect.height, rect.width))
        picture = np.ascontiguousarray(overlay(shown, heat))
    else:
        picture = grey_to_rgb(shown)
    if result.lung is not None:
        paint_labels(picture, result.lung[one.index], strength=0, line=1 + size // 20)
    sheet.paste((rect.left, rect.top), picture)
    if result.lung is not None or one.position_mm is not None:
        name_sides(sheet, rect, "RL", size=size)
    at = (rect.left + 8, rect.bottom - 8)
    text = f"slice {one.from_head or one.index + 1}   p {one.probability:.3f}"
    if size > 20:
        text += f"   logit {one.logit:.2f}"
    sheet.text(at, text, size=size, anchor="lb", plate=True)
    if warning := _mask_warning(result, one):
        banner(sheet, rect, warning, size=max(12, size - 6))


def _mask_warning(result: CtClassifierResult, one: SliceResult) -> str | None:
    """The profile needs lungs, and there are (next to) none."""
    if result.profile != catalog.MASKED or one.lung_share is None:
        return None
    if one.lung_share == 0:
        return "lung mask empty: the network saw nothing"
    if one.lung_share < catalog.LOW_LUNG_SHARE:
        return f"lung mask under {catalog.LOW_LUNG_SHARE:.0%} of the slice"
    return None


def _sides_in_words(one: SliceResult, where: str) -> str:
    if one.position_mm is not None:
        where += f" at {one.position_mm:.1f} mm"
    if not one.positive:
        return f"{where}: below the threshold, no heat map"
    if one.sides is None:
        return f"{where}: sides not known"
    share = one.sides.share_right
    if share is None:
        return f"{where}: no heat in the lungs"
    dominance = one.sides.dominance
    lung = "both lungs alike" if dominance == "bilateral" else f"{dominance} lung of the patient"
    return (
        f"{where}: {lung}; heat right {one.sides.right:.0f}, left {one.sides.left:.0f} "
        f"(right {share:.0%})"
    )


def _colour_bar(sheet: Sheet, at: tuple[int, int]) -> None:
    """The colours of the heat map from nothing to the slice's own maximum."""
    ramp = np.tile(np.linspace(0, 1, BAR_WIDTH, dtype=np.float32), (BAR_HEIGHT, 1))
    picture = overlay(np.zeros((BAR_HEIGHT, BAR_WIDTH), np.uint8), ramp, alpha=1)
    sheet.paste(at, np.ascontiguousarray(picture))
    text = "Grad-CAM, from 0 to the maximum of each slice"
    sheet.text((at[0] + BAR_WIDTH + 10, at[1] - 2), text, size=14, colour=GREY)


def _row(probability: float) -> float:
    return 10 + (CURVE_HEIGHT - 20) * (1 - probability)


def _columns(count: int) -> NDArray[np.floating[Any]]:
    """Middle of each slice's column in the plot."""
    return np.linspace(0, CURVE_WIDTH, 2 * count + 1)[1::2]


def _plot(result: CtClassifierResult) -> NDArray[np.uint8]:
    """Curve and strip of sides as a picture."""
    count = len(result.slices)
    x, half = _columns(count), CURVE_WIDTH / count / 2
    plot = np.full((CURVE_HEIGHT + STRIP, CURVE_WIDTH, 3), (24, 27, 32), np.uint8)
    if (run := result.summary.longest_run) is not None:
        plot[:CURVE_HEIGHT, int(x[run[0]] - half) : math.ceil(x[run[1]] + half)] = RUN
    for value in (0.0, 0.25, 0.5, 0.75, 1.0):
        plot[round(_row(value))] = GRID
    level = round(_row(result.threshold))
    for start in range(0, CURVE_WIDTH, 14):
        plot[level : level + 2, start : start + 8] = AMBER
    points = [(float(a), _row(s.probability)) for a, s in zip(x, result.slices, strict=True)]
    breaks = set(result.breaks)
    for index, (a, b) in enumerate(itertools.pairwise(points)):
        if index not in breaks:
            cv2.line(plot, _fixed(a), _fixed(b), BLUE, 2, cv2.LINE_AA, 4)
    radius = int(16 * min(max(half * 0.8, 2.5), 6))
    for point, one in zip(points, result.slices, strict=True):
        cv2.circle(plot, _fixed(point), radius, RED if one.positive else BLUE, -1, cv2.LINE_AA, 4)
    for middle, one in zip(x, result.slices, strict=True):
        if one.positive and one.sides is not None:
            span = slice(int(middle - half), max(int(middle + half), int(middle - half) + 1))
            plot[CURVE_HEIGHT + 4 : -2, span] = DOMINANCE[one.sides.dominance]
    return plot


def _fixed(point: tuple[float, float]) -> tuple[int, int]:
    """A point with four binary digits after the point, as OpenCV takes it."""
    return round(point[0] * 16), round(point[1] * 16)


def _slice_axis(sheet: Sheet, result: CtClassifierResult) -> None:
    count, top = len(result.slices), CURVE_HEIGHT + STRIP + 6
    x = _columns(count)
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 200, 500) if count / s <= 16)
    for number in dict.fromkeys([1, *range(step, count + 1, step)]):
        at = (LEFT_AXIS + x[count - number], top)
        sheet.text(at, str(number), size=15, colour=GREY, anchor="mt")
    sheet.text((LEFT_AXIS, top + 24), "feet", size=15, colour=GREY)
    right = LEFT_AXIS + CURVE_WIDTH
    text = "slice, counted from the head"
    sheet.text((right, top + 24), text, size=15, colour=GREY, anchor="rt")


def _legend(sheet: Sheet, top: int) -> None:
    at = sheet.text((LEFT_AXIS, top), "heat of positive slices mostly in:", size=15, colour=GREY)
    for name, text in (
        ("right", "right lung"), ("left", "left lung"), ("bilateral", "both"), ("free", "neither")
    ):  # fmt: skip
        sheet.rectangle((at + 22, top + 1, at + 36, top + 15), fill=DOMINANCE[name])
        at = sheet.text((at + 42, top), text, size=15)
