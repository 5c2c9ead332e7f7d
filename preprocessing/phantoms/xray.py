"""Synthetic chest X-rays: an anatomy drawn from curves, for tests, examples and calibration.

The picture is a sum of X-ray attenuations (soft tissue, air, bone, vessels, opacities) seen through
a film curve. It looks like a frontal chest X-ray but shows nobody; it is no substitute for clinical
images when a network's accuracy is in question.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    generate_uid,
)

from hilum.catalog.errors import InputError

from .xray_drawing import Canvas, Floats, Points, ellipse, fade, spline

MIN_PHANTOM_SIDE = 64


@dataclass(frozen=True, slots=True)
class Phantom:
    """A synthetic frontal chest X-ray with the truth about it.

    Attributes
    ----------
    pixels
        uint8 [H, W], bone bright, air dark.
    lung, disease
        uint8 [H, W], 0 or 1; the disease lies inside the lungs.
    seed, severity
        What it was made from.
    """

    pixels: NDArray[np.uint8]
    lung: NDArray[np.uint8]
    disease: NDArray[np.uint8]
    seed: int
    severity: float


def chest_xray(seed: int, *, height: int = 640, width: int = 640, severity: float = 0.5) -> Phantom:
    """Draw a frontal chest X-ray.

    Parameters
    ----------
    seed
        Patient: build, heart size, rib angles, asymmetry, noise. The same arguments give the same
        picture.
    height, width
        Size in pixels, 64 or more each.
    severity
        From 0 (no opacity, empty disease mask) to 1 (most of both lungs).

    Raises
    ------
    InputError
        For a severity outside 0…1 or a side below 64 pixels.
    """
    if not 0.0 <= severity <= 1.0:
        raise InputError(f"severity {severity} of a phantom: give a number from 0 to 1")
    if min(height, width) < MIN_PHANTOM_SIDE:
        raise InputError(f"phantom of {width}×{height}: give {MIN_PHANTOM_SIDE} pixels or more")
    rng = np.random.default_rng([seed % 2**64, 20220715])
    canvas = Canvas(height, width, rng)
    lungs = [_lung_outline(side, rng) for side in (-1, 1)]
    lung = np.maximum(*(canvas.area(outline) for outline in lungs))
    # Curves are drawn with hard edges; depth makes a lung thin at its rim, as a real one is.
    depth = canvas.depth(lung, reach=0.16)
    density = _soft_tissue(canvas, rng)
    density += _mediastinum(canvas, rng)
    density -= 0.66 * canvas.blur(depth, 0.006)
    density += _vessels(canvas, rng) * canvas.blur(lung, 0.008)
    haze, disease = _opacities(canvas, lung > 0.5, severity, rng)
    density += haze * canvas.blur(np.sqrt(depth), 0.01)
    density += _ribs(canvas, rng) + _clavicles(canvas, rng) + _spine(canvas, rng)
    density -= _trachea(canvas, rng)
    return Phantom(
        _develop(canvas, density, rng), (lung > 0.5).astype(np.uint8), disease, seed, severity
    )


def _lung_outline(side: int, rng: np.random.Generator) -> Points:
    """Outline of one lung; the image-right one makes room for the heart."""
    if side < 0:
        shape = [
            (0.24, 0.105), (0.36, 0.115), (0.47, 0.20), (0.56, 0.34), (0.62, 0.50), (0.655, 0.66),
            (0.675, 0.80), (0.655, 0.845), (0.58, 0.785), (0.45, 0.735), (0.31, 0.725),
            (0.20, 0.765), (0.155, 0.78), (0.15, 0.66), (0.165, 0.54), (0.155, 0.43),
            (0.125, 0.32), (0.12, 0.22), (0.16, 0.135),
        ]  # fmt: skip
    else:
        shape = [
            (0.24, 0.10), (0.36, 0.115), (0.47, 0.20), (0.555, 0.34), (0.615, 0.50), (0.65, 0.66),
            (0.675, 0.825), (0.655, 0.865), (0.59, 0.815), (0.51, 0.775), (0.43, 0.775),
            (0.385, 0.77), (0.375, 0.68), (0.32, 0.58), (0.235, 0.49), (0.18, 0.43),
            (0.195, 0.35), (0.155, 0.27), (0.13, 0.20), (0.16, 0.13),
        ]  # fmt: skip
    points = np.array(shape)
    breadth, base = rng.normal(1.06, 0.04), rng.normal(1.0, 0.035)
    points[:, 1] = 0.1 + (points[:, 1] - 0.1) * base
    points *= 1 + rng.normal(0, 0.011, points.shape)
    points[:, 0] *= breadth * side
    return spline(points, closed=True)


def _soft_tissue(canvas: Canvas, rng: np.random.Generator) -> Floats:
    """Neck, shoulders, trunk, belly; air around them."""
    build = rng.normal(1.0, 0.05)
    half = np.array(
        [(0.30, -0.2), (0.30, 0.0), (0.36, 0.045), (0.66, 0.085), (0.95, 0.15), (1.04, 0.25),
         (0.93, 0.36), (0.87, 0.48), (0.86, 0.7), (0.90, 0.95), (0.92, 1.2)]
    )  # fmt: skip
    half[:, 0] *= build
    right = spline(half, closed=False)
    body = canvas.area(np.concatenate([right, right[::-1] * [-1, 1]]))
    trunk = 0.62 * canvas.depth(body, reach=0.3)
    trunk *= 0.9 + 0.1 * canvas.clouds(rng, 2, 2).clip(-1.5, 1.5) * 0.5
    belly = 0.2 * fade(canvas.y - 0.72, 0.05)
    breast = canvas.blank()
    for side in (-1, 1):
        radius = rng.normal(0.27, 0.02)
        cx, cy = side * rng.normal(0.44, 0.02), rng.normal(0.62, 0.02)
        inside = 1 - ((canvas.x - cx) / radius / 1.05) ** 2 - ((canvas.y - cy) / radius / 0.75) ** 2
        breast += np.sqrt(np.clip(inside, 0, None))
    swell = max(0.0, rng.normal(0.03, 0.05))
    stomach = ellipse(canvas, (rng.normal(0.46, 0.03), rng.normal(0.875, 0.01)), (0.13, 0.032))
    gas = max(0.0, rng.normal(0.1, 0.09))
    return canvas.blur(trunk + belly * body + swell * breast, 0.006) - gas * canvas.blur(
        stomach, 0.012
    )


def _mediastinum(canvas: Canvas, rng: np.random.Generator) -> Floats:
    """Heart, great vessels and hila."""
    size = rng.normal(1.0, 0.07)
    heart = ellipse(canvas, (0.11, 0.655), (0.30 * size, 0.155 * size))
    atrium = ellipse(canvas, (-0.09, 0.65), (0.135 * size, 0.12))
    arch = ellipse(canvas, (0.115, 0.33), (0.085, 0.055))
    column = np.exp(-((canvas.x / 0.15) ** 4)) * (0.75 + 0.15 * canvas.y)
    hila = sum(
        (ellipse(canvas, (side * 0.2, y), (0.07, 0.06)) for side, y in ((-1, 0.455), (1, 0.43))),
        canvas.blank(),
    )
    # The diaphragm's shade takes over where the heart lies on it.
    above = fade(0.755 - canvas.y, 0.02)
    total = (0.21 * np.sqrt(heart) + 0.10 * atrium) * above + 0.12 * arch + 0.10 * hila
    return canvas.blur((total + 0.17 * column).astype(np.float32), 0.008)


def _vessels(canvas: Canvas, rng: np.random.Generator) -> Floats:
    """Two trees that branch and taper from the hila."""
    image = canvas.blank()
    for side, y in ((-1, 0.455), (1, 0.43)):
        for angle in np.linspace(-1.2, 1.3, 7) + rng.normal(0, 0.1, 7):
            _branch(canvas, image, rng, np.array([side * 0.15, y]), side, float(angle), 0.02, 0)
    return 0.14 * canvas.blur(image, 0.002)


def _branch(
    canvas: Canvas,
    image: Floats,
    rng: np.random.Generator,
    start: Points,
    side: int,
    angle: float,
    width: float,
    depth: int,
) -> None:
    length = rng.uniform(0.05, 0.085) * 0.93**depth
    end = start + length * np.array([side * 1.7 * np.cos(angle), np.sin(angle)])
    middle = (start + end) / 2 + rng.normal(0, 0.006, 2)
    points = spline(np.stack([start, middle, end]), closed=False, steps=6)
    np.maximum(image, canvas.line(points, width) * min(1.0, 0.4 + 40 * width), out=image)
    if depth < 4:
        for turn in (-1, 1):
            _branch(
                canvas, image, rng, end, side, angle + turn * rng.uniform(0.12, 0.55),
                width * rng.uniform(0.56, 0.76), depth + 1,
            )  # fmt: skip


def _opacities(
    canvas: Canvas, lung: NDArray[np.bool_], severity: float, rng: np.random.Generator
) -> tuple[Floats, NDArray[np.uint8]]:
    """Patches, mostly peripheral and basal, that cover up to about 85 % of the lungs."""
    field = canvas.clouds(rng, 5, 3) + 0.9 * (canvas.y - 0.5) * 2
    field += 0.8 * (np.abs(canvas.x) - 0.4) * 2 + rng.normal(0, 0.45) * np.sign(canvas.x)
    texture = canvas.clouds(rng, 24, 3)
    if severity == 0 or not lung.any():
        return canvas.blank(), np.zeros(lung.shape, np.uint8)
    edge = np.quantile(field[lung], 1 - 0.85 * severity)
    disease = (lung & (field > edge)).astype(np.uint8)
    grade = np.clip((field - edge) / 0.9 + 0.35, 0, 1)
    haze = grade * (1 + 0.22 * texture) * (0.2 + 0.2 * severity)
    return canvas.blur(np.clip(haze, 0, None).astype(np.float32), 0.005), disease


def _tube(canvas: Canvas, points: Points, width: float) -> Floats:
    """Draw a bone: a filled band with a brighter cortex."""
    band = canvas.blur(canvas.line(points, width), 0.0022)
    marrow = canvas.blur(canvas.line(points, width * 0.55), 0.004)
    return band - 0.38 * marrow


def _ribs(canvas: Canvas, rng: np.random.Generator) -> Floats:
    """Ten pairs: rings in an oblique plane, so the front half hangs lower than the back half."""
    image = canvas.blank()
    wall = np.interp(np.arange(10), (0, 1, 2, 4, 7, 9), (0.3, 0.46, 0.56, 0.66, 0.74, 0.74))
    spread, steep = rng.normal(1.03, 0.03), rng.normal(1.0, 0.1)
    for side in (-1, 1):
        for i in range(10):
            top = 0.075 + 0.0735 * i + rng.normal(0, 0.003)
            drop = (0.14 + 0.022 * i) * steep
            for start, stop, bright in ((0.06, 0.5, 1.0), (0.5, 0.80 - 0.012 * i, 0.5)):
                theta = np.linspace(start, stop, 30) * np.pi
                x = 0.03 + wall[i] * spread * np.sin(theta)
                lift = 0.035 * np.sin(np.clip(theta * 2.2, 0, np.pi))
                y = top + drop * (1 - np.cos(theta)) / 2 - lift
                curve = np.stack([side * x, y], 1)
                width = (0.021 if i else 0.026) * rng.uniform(0.93, 1.07)
                image += bright * _tube(canvas, curve, width)
    # Bones stand out over air, hardly over the heart, the spine and the belly.
    rim = 0.17 + 0.19 * (canvas.x > 0) * fade(canvas.y - 0.52, 0.03)
    shown = (0.25 + 0.75 * fade(np.abs(canvas.x) - rim, 0.025)) * (
        0.35 + 0.65 * fade(0.86 - canvas.y, 0.025)
    )
    return 0.13 * image * shown


def _clavicles(canvas: Canvas, rng: np.random.Generator) -> Floats:
    """Collar bones and the inner borders of the shoulder blades."""
    image = canvas.blank()
    for side in (-1, 1):
        rise = rng.normal(0, 0.008)
        collar = np.array(
            [(0.055, 0.185), (0.17, 0.168), (0.33, 0.135), (0.50, 0.098 + rise),
             (0.66, 0.085 + rise)]
        )  # fmt: skip
        image += _tube(canvas, spline(collar * [side, 1], closed=False), 0.027)
        blade = np.array([(0.70, 0.11), (0.66, 0.2), (0.67, 0.32), (0.73, 0.42), (0.8, 0.30)])
        blade[:, 0] += rng.normal(0, 0.012)
        image += 0.3 * canvas.blur(
            canvas.area(spline(blade * [side, 1], closed=True)), 0.004
        ) + 0.35 * canvas.blur(canvas.line(spline(blade * [side, 1], closed=True), 0.006), 0.003)
        head = ellipse(canvas, (side * 0.86, 0.165 + rise), (0.085, 0.07))
        image += 0.8 * canvas.blur(head, 0.006)
    return 0.17 * image


def _spine(canvas: Canvas, rng: np.random.Generator) -> Floats:
    """Vertebral bodies with darker discs between them, fading behind the heart."""
    period = rng.normal(0.064, 0.003)
    phase = (canvas.y / period + rng.uniform()) % 1
    body = fade(np.minimum(phase, 1 - phase) - 0.09, 1 / 60)
    column = fade(0.075 + 0.012 * (1 - body) - np.abs(canvas.x), 1 / 160)
    process = np.exp(-((canvas.x / 0.014) ** 2)) * np.exp(-(((phase - 0.5) / 0.2) ** 2))
    shown = 1 - 0.5 * fade(canvas.y - 0.5, 1 / 14)
    total = column * (0.5 + 0.5 * body) * shown * 0.10 + 0.05 * process * shown
    return canvas.blur(total.astype(np.float32), 0.003)


def _trachea(canvas: Canvas, rng: np.random.Generator) -> Floats:
    """Draw the windpipe and the two main bronchi: a dark Y."""
    bend = rng.normal(0, 0.008)
    pipe = np.array([(0.0, -0.05), (bend, 0.15), (bend - 0.012, 0.30), (-0.012, 0.385)])
    image = 0.8 * canvas.line(spline(pipe, closed=False), 0.036)
    for end in ((-0.13, 0.445), (0.15, 0.44)):
        tube = np.array([(-0.012, 0.38), ((end[0] - 0.012) / 2, 0.405), end])
        image = np.maximum(image, 0.55 * canvas.line(spline(tube, closed=False), 0.02))
    return 0.14 * canvas.blur(image, 0.005)


def _develop(canvas: Canvas, density: Floats, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Film curve, unevenness, quantum noise, 8 bit."""
    low, high = np.quantile(density, (0.02, 0.995))
    exposure = (density - low) / max(float(high - low), 1e-6)
    exposure = exposure * (0.97 + rng.normal(0, 0.015)) + 0.03 * canvas.clouds(rng, 2, 1) * 0.4
    steep = rng.uniform(4.2, 5.6)
    film = 1 / (1 + np.exp(-steep * (exposure - rng.normal(0.54, 0.03))))
    grain = rng.normal(0, 1, density.shape).astype(np.float32)
    grain = 0.6 * grain + 1.2 * canvas.blur(grain, 0.0016)
    film = film + grain * rng.uniform(0.008, 0.018) * (1.25 - film)
    film = canvas.blur(film.astype(np.float32), 0.0009)
    return np.rint(np.clip(film * 236 + 8, 0, 255)).astype(np.uint8)


def write_png(phantom: Phantom, path: Path) -> None:
    """Write the picture as an 8-bit grey PNG."""
    encoded, data = cv2.imencode(".png", phantom.pixels)
    if not encoded:
        raise InputError("the phantom could not be encoded as PNG")
    path.write_bytes(data.tobytes())


def write_dicom(
    phantom: Phantom,
    path: Path,
    *,
    monochrome1: bool = False,
    bits: int = 12,
    window: tuple[float, float] | None = None,
) -> None:
    """Write the picture as a DICOM digital X-ray whose identifiers all say PHANTOM.

    Parameters
    ----------
    monochrome1
        Store the picture inverted, as many detectors do (MONOCHROME1).
    bits
        Bits stored, 8 to 16; the picture's 0…255 becomes 0…2**bits − 1.
    window
        Window centre and width to write, in stored values; None: no window, as files of some
        detectors have it although the standard asks for one.
    """
    if not 8 <= bits <= 16:
        raise InputError(f"DICOM phantom with {bits} bits: give 8 to 16")
    stored = np.rint(phantom.pixels * ((2**bits - 1) / 255)).astype("<u1" if bits == 8 else "<u2")
    if monochrome1:
        stored = (2**bits - 1) - stored
    dataset = _digital_xray(phantom)
    dataset.Rows, dataset.Columns = stored.shape
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME1" if monochrome1 else "MONOCHROME2"
    dataset.PresentationLUTShape = "INVERSE" if monochrome1 else "IDENTITY"
    dataset.BitsAllocated = 8 if bits == 8 else 16
    dataset.BitsStored, dataset.HighBit = bits, bits - 1
    dataset.PixelRepresentation = 0
    if window is not None:
        dataset.WindowCenter, dataset.WindowWidth = window
    raw = stored.tobytes()
    dataset.PixelData = raw + b"\0" * (len(raw) % 2)
    dataset["PixelData"].VR = "OB" if bits == 8 else "OW"
    dataset.save_as(path, enforce_file_format=True)


def _digital_xray(phantom: Phantom) -> FileDataset:
    """Make a DX image without pixels, with identifiers that nobody can take for a patient's."""
    uids = [
        generate_uid(entropy_srcs=["PHANTOM", str(phantom.seed), str(phantom.severity), level])
        for level in ("study", "series", "image")
    ]
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = uids[2]
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, uids[2]
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = uids[:2]
    dataset.PatientName, dataset.PatientID = "PHANTOM", f"PHANTOM-{phantom.seed}"
    dataset.PatientBirthDate = dataset.PatientSex = dataset.StudyDate = dataset.StudyTime = ""
    dataset.ReferringPhysicianName = dataset.StudyID = dataset.AccessionNumber = ""
    dataset.Manufacturer = "Hilum phantom"
    dataset.Modality, dataset.PresentationIntentType = "DX", "FOR PRESENTATION"
    dataset.SeriesDescription = "PHANTOM chest"
    dataset.SeriesNumber = dataset.InstanceNumber = 1
    dataset.BodyPartExamined, dataset.ViewPosition = "CHEST", "PA"
    dataset.ImageLaterality, dataset.PatientOrientation = "U", ["L", "F"]
    dataset.ImageType = ["DERIVED", "PRIMARY"]
    dataset.DetectorType = dataset.PositionerType = ""
    dataset.PixelIntensityRelationship, dataset.PixelIntensityRelationshipSign = "LOG", 1
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = 0, 1, "US"
    dataset.LossyImageCompression, dataset.BurnedInAnnotation = "00", "NO"
    dataset.PixelSpacing = dataset.ImagerPixelSpacing = [0.6, 0.6]
    dataset.AnatomicRegionSequence = [_code("43799004", "SCT", "Chest")]
    dataset.ViewCodeSequence = [_code("399348003", "SCT", "postero-anterior")]
    dataset.AcquisitionContextSequence = []
    return dataset


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, scheme, meaning
    return code
