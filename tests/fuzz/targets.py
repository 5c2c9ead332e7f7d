"""What is fuzzed: sound files of every kind, how each is spoilt, and the entrance that reads it."""

from __future__ import annotations

import functools
import gzip
import io
import json
import os
import pickle
import random
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import dlpe_checkpoints
import mutations
import nibabel as nib
import numpy as np
import pydicom
import standins
import torch
from keras_files import network_arrays, write_keras
from mutations import Mutation
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)
from safetensors.torch import save
from torch import nn

from hilum.catalog import cxr_severity as cxr
from hilum.catalog import dlpe as dlpe_catalog
from hilum.catalog.errors import HilumError, WeightsError
from hilum.export.checkpoints import keras
from hilum.export.store import Card, load_weights
from hilum.export.systems.covid_mtl.checkpoint import read_tensors as read_mtl
from hilum.export.systems.ct_classifier.checkpoint import check_architecture
from hilum.export.systems.cxr_severity.checkpoint import read_checkpoint as read_cxr
from hilum.export.systems.cxr_severity.recipe import core_signature
from hilum.export.systems.dlpe.checkpoint import read_checkpoint as read_dlpe
from hilum.export.systems.lungmask.checkpoint import read_checkpoint as read_lungmask
from hilum.export.user_file import read_user_file
from hilum.preprocessing.covid_mtl.container import container_bytes, is_container, read_container
from hilum.preprocessing.dlpe.ready import read_normalised
from hilum.preprocessing.phantoms.ct import chest_ct
from hilum.preprocessing.phantoms.ct_dicom import write_dicom_series
from hilum.preprocessing.phantoms.xray import chest_xray, write_dicom
from hilum.preprocessing.reading.images import is_xray_file, read_xray
from hilum.preprocessing.reading.series import list_series, open_series
from hilum.preprocessing.reading.slice_pictures import is_slice_picture, read_slice_picture

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Sample:
    """A sound input.

    Attributes
    ----------
    files
        Content by path within the folder that is read.
    mutate
        How one of them is spoilt.
    read
        Reads the folder as users do, to the last pixel.
    """

    files: Mapping[str, bytes]
    mutate: Mutation
    read: Callable[[Path], object]

    def spoilt(self, rng: random.Random) -> dict[str, bytes]:
        """The files, one of them or two changed."""
        files = dict(self.files)
        for name in rng.sample(sorted(files), min(len(files), rng.choice((1, 1, 1, 2)))):
            files[name] = self.mutate(files[name], rng)
        return files


@functools.cache
def samples(kind: str) -> list[Sample]:
    """The sound inputs of a kind."""
    return kinds()[kind][1]()


def kinds() -> dict[str, tuple[int, Callable[[], list[Sample]]]]:
    """By name of the kind: its share among the inputs, and what makes its samples."""
    return {
        "X-ray DICOM": (20, _xrays),
        "CT file": (15, _ct_files),
        "CT series": (10, _ct_series),
        "NIfTI": (12, _niftis),
        "npy, npz": (10, _arrays),
        "PNG, JPEG, BMP": (12, _pictures),
        "COVID-MTL container": (8, _containers),
        "PyTorch checkpoint": (8, _torch_files),
        "Keras checkpoint": (1, _keras_files),
        "weights store": (2, _stores),
        "ONNX": (6, _onnx_files),
    }


def _saved(dataset: Dataset) -> bytes:
    target = io.BytesIO()
    dataset.save_as(target)
    return target.getvalue()


def _syntaxes(plain: bytes) -> list[bytes]:
    """A DICOM file in transfer syntaxes of each kind of reader."""
    found = [plain]
    for syntax, options in (
        (RLELossless, {}),
        (JPEG2000Lossless, {"encoding_plugin": "pylibjpeg"}),
        (JPEGLSLossless, {}),
    ):
        dataset = pydicom.dcmread(io.BytesIO(plain))
        dataset.compress(syntax, **options)
        found.append(_saved(dataset))
    for syntax in (ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian):
        dataset = pydicom.dcmread(io.BytesIO(plain))
        implicit, little = syntax.is_implicit_VR, syntax.is_little_endian
        if not little:
            dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
        dataset.file_meta.TransferSyntaxUID = syntax
        target = io.BytesIO()
        pydicom.dcmwrite(target, dataset, implicit_vr=implicit, little_endian=little)
        found.append(target.getvalue())
    dataset = pydicom.dcmread(io.BytesIO(plain))
    grey = (dataset.pixel_array >> 4).astype(np.uint8)
    stream = cv2.imencode(".jpg", grey)[1].tobytes()
    dataset.PixelData = pydicom.encaps.encapsulate([stream + b"\0" * (len(stream) % 2)])
    dataset["PixelData"].is_undefined_length = True
    dataset["PixelData"].VR = "OB"
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit = 7
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.JPEGBaseline8Bit
    return [*found, _saved(dataset)]


def _xrays() -> list[Sample]:
    phantom = chest_xray(1, height=256, width=260)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "a.dcm")
        write_dicom(phantom, path, window=(2000, 3000))
        plain = path.read_bytes()
    rich = pydicom.dcmread(io.BytesIO(plain))
    for keyword in ("VOILUTSequence", "ModalityLUTSequence"):
        item = Dataset()
        item.LUTDescriptor = [4096, 0, 12]
        item["LUTDescriptor"].VR = "US"
        item.add_new("LUTData", "OW", np.arange(4096, dtype="<u2").tobytes())
        setattr(rich, keyword, [item])
    rich.PatientOrientation = ["L", "F"]
    return [
        Sample({"a.dcm": data}, mutations.dicom, _read_xray)
        for data in (plain, plain, _saved(rich), *_syntaxes(plain))
    ]


def _read_xray(folder: Path) -> None:
    for path in sorted(folder.iterdir()):
        is_xray_file(path.relative_to(folder), folder)
        read_xray(path, mode="corrected")
        read_xray(path.read_bytes())


def _slices(count: int) -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        volume = chest_ct(3, slices=count, size=40).volume
        return [path.read_bytes() for path in write_dicom_series(volume, Path(folder))]


def _ct_files() -> list[Sample]:
    return [
        Sample({"a.dcm": data}, mutations.dicom, _read_ct_file) for data in _syntaxes(_slices(3)[0])
    ]


def _read_ct_file(folder: Path) -> None:
    _read_series(folder / "a.dcm")


def _ct_series() -> list[Sample]:
    files = {f"{k}.dcm": data for k, data in enumerate(_slices(6))}
    return [Sample(files, mutations.dicom, _read_series)]


def _read_series(path: Path) -> None:
    list_series(path)
    series = open_series(path)
    series.volume()
    for k in range(len(series)):
        series.where(k)
        series.stored_slice(k, padding_to_air=True)
    series.numbering()
    series.millilitres(np.ones(series.geometry.shape, bool))


def _niftis() -> list[Sample]:
    voxels = chest_ct(3, slices=6, size=32).volume.voxels.transpose(2, 1, 0)
    samples = []
    for make in (nib.Nifti1Image, nib.Nifti2Image):
        image = make(voxels, np.diag([2.0, 2.0, 3.0, 1.0]))
        image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"a comment"))
        data = image.to_bytes()
        samples.append(Sample({"a.nii": data}, mutations.blind, _read_nifti))
        packed = gzip.compress(data, mtime=0)
        samples.append(Sample({"a.nii.gz": packed}, mutations.inside_gzip, _read_nifti))
    return samples


def _read_nifti(folder: Path) -> None:
    for path in folder.iterdir():
        series = open_series(path)
        series.volume()
        series.millilitres(np.ones(series.geometry.shape, bool))


def _arrays() -> list[Sample]:
    voxels = np.linspace(-1, 2, 32**3, dtype=np.float16).reshape(32, 32, 32)
    plain, packed, pressed = io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.save(plain, voxels)
    np.savez(packed, array=voxels)
    np.savez_compressed(pressed, array=voxels)
    return [
        Sample({"a.npy": plain.getvalue()}, mutations.blind, _read_array),
        Sample({"a.npz": packed.getvalue()}, mutations.inside_zip, _read_array),
        Sample({"a.npz": pressed.getvalue()}, mutations.inside_zip, _read_array),
    ]


def _read_array(folder: Path) -> None:
    for path in folder.iterdir():
        read_normalised(path)


def _pictures() -> list[Sample]:
    grey = chest_xray(2, height=256, width=260).pixels
    deep = grey.astype(np.uint16) << 7
    colour = np.dstack([grey, grey, 255 - grey])
    samples = []
    for picture, suffix, options in (
        (grey, ".png", ()), (deep, ".png", ()), (colour, ".png", ()), (grey, ".jpg", ()),
        (colour, ".jpg", (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)), (colour, ".bmp", ()),
    ):  # fmt: skip
        data = cv2.imencode(suffix, picture, list(options))[1].tobytes()
        how = mutations.png if suffix == ".png" else mutations.blind
        samples.append(Sample({f"a{suffix}": data}, how, _read_picture))
    return samples


def _read_picture(folder: Path) -> None:
    for path in folder.iterdir():
        read_xray(path)
        read_xray(path, mode="corrected")
        if is_slice_picture(path):
            read_slice_picture(path)


def _containers() -> list[Sample]:
    volume = np.random.default_rng(1).integers(0, 2**16, (4, 20, 24)).astype(np.uint16)
    golden = (ROOT / "tests/golden/mtl/tiny.dtm").read_bytes()
    return [
        Sample({"a.dtm": data}, mutations.blind, _read_container)
        for data in (container_bytes(volume), golden)
    ]


def _read_container(folder: Path) -> None:
    for path in folder.iterdir():
        is_container(path.read_bytes())
        read_container(path)


RAN = "code-was-run"
"""Folder that appears when a reader runs what a pickle says."""


class _Call:
    """Pickles as a call of `os.mkdir`."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (RAN,)


def _torch_files() -> list[Sample]:
    state = dlpe_checkpoints.golden_states(ROOT / "tests/golden/dlpe/10_pipeline.npz")
    network = state[_TASK.folder]["X"]
    samples = []
    with tempfile.TemporaryDirectory() as folder:
        for legacy in (False, True):
            path = Path(folder, "a.pth")
            dlpe_checkpoints.write_checkpoint(path, network, legacy=legacy)
            how = mutations.blind if legacy else mutations.inside_zip
            samples.append(Sample({"a.pth": path.read_bytes()}, how, _read_torch))
    for value in (_Call(), {"last.bias": torch.zeros(3), "x": _Call()}):
        target = io.BytesIO()
        torch.save(value, target)
        samples.append(Sample({"a.pth": target.getvalue()}, mutations.inside_zip, _read_torch))
    samples.append(Sample({"a.pth": pickle.dumps(_Call())}, mutations.blind, _read_torch))
    return samples


def _read_torch(folder: Path) -> None:
    """By every system; what the last one makes of it counts."""
    path = folder / "a.pth"
    for read in (
        lambda: read_lungmask(path, allow_unknown=True),
        lambda: read_cxr("fpn", path),
        lambda: read_mtl(path),
    ):
        with suppress(HilumError):
            read()
    read_dlpe(path, _TASK)


_TASK = dlpe_catalog.TASKS["lung"]
_LAYERS = nn.ModuleDict(
    {"conv1": nn.Conv2d(3, 4, 3), "bn1": nn.BatchNorm2d(4), "out": nn.Linear(4, 1)}
)


def _keras_files() -> list[Sample]:
    samples = []
    arrays = network_arrays(dict(_LAYERS.items()))
    with tempfile.TemporaryDirectory() as folder:
        for full in (True, False):
            path = Path(folder, "a.h5")
            write_keras(path, arrays, full=full, config={"class_name": "Model", "config": []})
            samples.append(Sample({"a.h5": path.read_bytes()}, mutations.blind, _read_keras))
    return samples


def _read_keras(folder: Path) -> None:
    path = folder / "a.h5"
    file = keras.read_keras(path)
    keras.state_dict(file, dict(_LAYERS.items()))
    if file.config is not None:
        with suppress(WeightsError):  # no DenseNet
            check_architecture(file.config, path)


def _stores() -> list[Sample]:
    card = Card("lungmask", "r231", "a.pth", "0" * 64, "layout", 2, 6, "2026-01-01", "1")
    tensors = save({"a": torch.zeros(2, 2), "b": torch.ones(2)})
    files = {
        "lungmask/r231.safetensors": tensors,
        "lungmask/r231.json": json.dumps(asdict(card)).encode(),
    }
    return [Sample(files, mutations.blind, lambda folder: load_weights("lungmask", "r231", folder))]


def _onnx_files() -> list[Sample]:
    network = cxr.SYSTEM.network("fpn")
    with tempfile.TemporaryDirectory() as folder:
        data = standins.write_disease(Path(folder, "a.onnx"), 64, 0.9).read_bytes()
    core = core_signature(network)

    def read(folder: Path) -> None:
        read_user_file(folder / "a.onnx", network, core)

    return [Sample({"a.onnx": data}, mutations.blind, read)]
