"""X-rays from DICOM: grey values, windows, inversion, refusals."""

from __future__ import annotations

import io

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from hilum.catalog import HilumError
from hilum.preprocessing.phantoms.xray import chest_xray, write_dicom
from hilum.preprocessing.reading.dicom_xray import window
from hilum.preprocessing.reading.images import read_xray

PHANTOM = chest_xray(4, height=300, width=288)


def dicom_bytes(
    tmp_path, *, bits=12, monochrome1=False, window_=None, implicit=False, **changes
) -> bytes:
    path = tmp_path / "phantom.dcm"
    write_dicom(PHANTOM, path, bits=bits, monochrome1=monochrome1, window=window_)
    dataset = pydicom.dcmread(path)
    for keyword, value in changes.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
            if keyword == "PixelPaddingValue":
                dataset[keyword].VR = "US"
    if implicit:
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


def grey(xray) -> np.ndarray:
    assert xray.pixels.shape == (300, 288, 3)
    assert (xray.pixels == xray.pixels[:, :, :1]).all()
    return xray.pixels[:, :, 0].astype(int)


def off_by(xray, wanted=None) -> int:
    wanted = PHANTOM.pixels if wanted is None else wanted
    return int(np.abs(grey(xray) - wanted.astype(int)).max())


def full_window(bits: int) -> tuple[float, float]:
    return 2.0 ** (bits - 1), 2.0**bits


@pytest.mark.parametrize("mode", ["parity", "corrected"])
@pytest.mark.parametrize("bits", [8, 12, 16])
@pytest.mark.parametrize("monochrome1", [False, True])
def test_bone_is_bright_at_every_depth(tmp_path, mode, bits, monochrome1) -> None:
    data = dicom_bytes(tmp_path, bits=bits, monochrome1=monochrome1, window_=full_window(bits))
    xray = read_xray(data, mode=mode)
    assert off_by(xray) <= 1
    assert any("inverted (MONOCHROME1)" in step for step in xray.decode) == monochrome1
    assert any("window" in step for step in xray.decode)


@pytest.mark.parametrize("monochrome1", [False, True])
def test_without_a_window_the_percentiles_decide(tmp_path, monochrome1) -> None:
    xray = read_xray(dicom_bytes(tmp_path, monochrome1=monochrome1))
    low, high = np.percentile(PHANTOM.pixels, [0.5, 99.5])
    wanted = np.clip((PHANTOM.pixels - low) / (high - low) * 255, 0, 255)
    assert off_by(xray, np.rint(wanted)) <= 3
    assert any("percentile" in step for step in xray.decode)


def test_presentation_lut_shape_inverse_inverts_once(tmp_path) -> None:
    options = {"window_": full_window(12)}
    inverse = dicom_bytes(tmp_path, PresentationLUTShape="INVERSE", **options)
    assert off_by(read_xray(inverse), 255 - PHANTOM.pixels) <= 1
    both = dicom_bytes(tmp_path, monochrome1=True, PresentationLUTShape="INVERSE", **options)
    assert off_by(read_xray(both)) <= 1
    only = dicom_bytes(tmp_path, monochrome1=True, PresentationLUTShape=None, **options)
    assert off_by(read_xray(only)) <= 1


def test_rescale_comes_before_the_window(tmp_path) -> None:
    data = dicom_bytes(
        tmp_path, window_=(2 * 2048 - 1000, 2 * 4096), RescaleSlope=2, RescaleIntercept=-1000
    )
    assert off_by(read_xray(data)) <= 1


def test_signed_pixels(tmp_path) -> None:
    stored = np.rint(PHANTOM.pixels * (4095 / 255)).astype(int) - 2048
    packed = (stored & 0x0FFF).astype("<u2").tobytes()
    data = dicom_bytes(tmp_path, window_=(0, 4096), PixelRepresentation=1, PixelData=packed)
    assert off_by(read_xray(data)) <= 1


def test_unsigned_pixels_that_are_called_signed_are_refused(tmp_path) -> None:
    data = dicom_bytes(tmp_path, PixelRepresentation=1)
    with pytest.raises(HilumError, match=r"PixelRepresentation \(0028,0103\) says"):
        read_xray(data)


def test_a_path_may_be_a_text(tmp_path) -> None:
    dicom_bytes(tmp_path)
    (path,) = tmp_path.glob("*.dcm")
    assert read_xray(str(path)).size == read_xray(path).size


def test_first_of_several_windows(tmp_path) -> None:
    data = dicom_bytes(tmp_path, WindowCenter=[2048, 100], WindowWidth=[4096, 10])
    assert off_by(read_xray(data)) <= 1


@pytest.mark.parametrize("function", ["LINEAR_EXACT", "SIGMOID"])
def test_voi_functions(tmp_path, function) -> None:
    data = dicom_bytes(tmp_path, window_=(2000, 1500), VOILUTFunction=function)
    x = np.rint(PHANTOM.pixels * (4095 / 255))
    wanted = (
        np.clip((x - 2000) / 1500 + 0.5, 0, 1) * 255
        if function == "LINEAR_EXACT"
        else 255 / (1 + np.exp(-4 * (x - 2000) / 1500))
    )
    assert off_by(read_xray(data), np.rint(wanted)) <= 1


def test_windows_of_the_standard() -> None:
    # PS3.3 C.11.2.1.2: centre 2048 and width 4096 map 0…4095 exactly to the whole range.
    assert window(np.float32([0, 4095]), 2048, 4096).tolist() == [0, 255]
    assert window(np.float32([-1, 0, 1]), 0, 1).tolist() == [0, 255, 255]
    assert window(np.float32([0, 50, 100]), 50, 100, "LINEAR_EXACT").tolist() == [0, 127.5, 255]
    sigmoid = window(np.float32([-1e9, 50, 1e9]), 50, 100, "SIGMOID")
    np.testing.assert_allclose(sigmoid, [0, 127.5, 255], atol=1e-9)


@pytest.mark.parametrize("as_bytes", [False, True])
@pytest.mark.parametrize("implicit", [False, True])
def test_voi_lut_wins_over_the_window(tmp_path, as_bytes, implicit) -> None:
    table = (np.arange(4096) ** 2 >> 12).astype(np.uint16)
    item = Dataset()
    item.LUTDescriptor = [4096, 0, 12]
    item["LUTDescriptor"].VR = "US"
    item.add_new("LUTData", "OW", table.tobytes()) if as_bytes else item.add_new(
        "LUTData", "US", table.tolist()
    )
    xray = read_xray(
        dicom_bytes(tmp_path, window_=(5, 10), implicit=implicit, VOILUTSequence=[item])
    )
    stored = np.rint(PHANTOM.pixels * (4095 / 255)).astype(int)
    assert off_by(xray, np.rint(table[stored] / 4095 * 255)) <= 1
    assert "VOI LUT" in xray.decode


def test_damaged_voi_lut_is_refused(tmp_path) -> None:
    item = Dataset()
    item.LUTDescriptor = [4096, 0, 12]
    item["LUTDescriptor"].VR = "US"
    item.add_new("LUTData", "US", [1, 2, 3])
    with pytest.raises(HilumError, match="VOI LUT is damaged"):
        read_xray(dicom_bytes(tmp_path, VOILUTSequence=[item]))


@pytest.mark.parametrize("implicit", [False, True])
def test_padding_does_not_move_the_percentiles(tmp_path, implicit) -> None:
    stored = np.rint(PHANTOM.pixels * (4095 / 255)).astype(np.uint16) // 2 + 1000
    stored[:, :60] = 0
    data = dicom_bytes(tmp_path, implicit=implicit, PixelData=stored.tobytes(), PixelPaddingValue=0)
    shown = grey(read_xray(data))
    inner = shown[:, 60:]
    assert (shown[:, :60] == 0).all()
    assert inner.min() == 0
    assert inner.max() == 255
    assert np.median(inner) > 60


@pytest.mark.parametrize("syntax", [pydicom.uid.RLELossless, pydicom.uid.JPEG2000Lossless])
def test_compressed_xray(tmp_path, syntax) -> None:
    dataset = pydicom.dcmread(io.BytesIO(dicom_bytes(tmp_path, window_=full_window(12))))
    dataset.compress(syntax, generate_instance_uid=False)
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    assert off_by(read_xray(buffer.getvalue())) <= 1


def test_found_by_content_whatever_the_name(tmp_path) -> None:
    path = tmp_path / "IM000001"
    write_dicom(PHANTOM, path, window=full_window(12))
    assert off_by(read_xray(path)) <= 1
    path = tmp_path / "picture.png"
    write_dicom(PHANTOM, path, window=full_window(12))
    assert off_by(read_xray(path)) <= 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"Modality": "CT"}, "a CT slice"),
        ({"Modality": "MR"}, "an MR image"),
        ({"Modality": "PT"}, "a PET slice"),
        ({"Modality": "MG"}, "a mammogram"),
        ({"Modality": "XX"}, "another or unknown modality"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2"}, "a CT slice"),
        ({"ViewPosition": "LL"}, "lateral or oblique"),
        ({"ViewPosition": "RL"}, "lateral or oblique"),
        ({"ViewPosition": "LATERAL"}, "lateral or oblique"),
        ({"ViewPosition": "RAO"}, "lateral or oblique"),
        ({"PatientOrientation": ["A", "F"]}, "lateral or oblique"),
        ({"PatientOrientation": ["P", "F"]}, "lateral or oblique"),
        ({"NumberOfFrames": 3}, "3 frames"),
    ],
)
def test_what_is_no_frontal_xray_is_refused(tmp_path, changes, message) -> None:
    with pytest.raises(HilumError, match=message):
        read_xray(dicom_bytes(tmp_path, **changes))


def test_lateral_view_code_is_refused(tmp_path) -> None:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = (
        "399198007",
        "SCT",
        "Right Lateral",
    )
    with pytest.raises(HilumError, match="lateral"):
        read_xray(dicom_bytes(tmp_path, ViewPosition="", ViewCodeSequence=[code]))


@pytest.mark.parametrize(
    "changes",
    [
        {"ViewPosition": "AP"},
        {"ViewPosition": None, "ViewCodeSequence": None, "PatientOrientation": None},
        {"Modality": "CR"},
        {"Modality": None},
        {"PatientOrientation": ["LH", "F"]},
    ],
)
def test_frontal_views_are_taken(tmp_path, changes) -> None:
    assert off_by(read_xray(dicom_bytes(tmp_path, window_=full_window(12), **changes))) <= 1


def test_no_modality_and_no_xray_class_is_refused(tmp_path) -> None:
    with pytest.raises(HilumError, match="unknown modality"):
        read_xray(dicom_bytes(tmp_path, Modality=None, SOPClassUID="1.2.840.10008.5.1.4.1.1.7"))


def test_ct_slices_are_refused_as_such(shared) -> None:
    files = sorted((shared / "data" / "dicom-transfer-syntaxes").glob("*.dcm"))
    assert len(files) == 16
    for path in files:
        with pytest.raises(HilumError, match="a CT slice; give a frontal"):
            read_xray(path)


def test_messages_hold_no_identifiers(tmp_path) -> None:
    data = dicom_bytes(tmp_path, PatientName="Secret^Name", PatientID="S-1", Modality="CT")
    path = tmp_path / "Secret_Name.dcm"
    path.write_bytes(data)
    with pytest.raises(HilumError) as refused:
        read_xray(path)
    assert "Secret" not in str(refused.value)
    assert "S-1" not in str(refused.value)


@pytest.mark.parametrize(("declared", "real"), [(16, 12), (16, 10), (12, 10), (8, 12), (12, 12)])
def test_a_voi_lut_counts_by_the_depth_of_its_entries(tmp_path, declared, real) -> None:
    table = (np.arange(4096) * (2**real - 1) // 4095).astype("<u2")
    item = Dataset()
    item.LUTDescriptor = [4096, 0, declared]
    item["LUTDescriptor"].VR = "US"
    item.add_new("LUTData", "OW", table.tobytes())
    assert off_by(read_xray(dicom_bytes(tmp_path, VOILUTSequence=[item]))) <= 1


@pytest.mark.parametrize(
    ("orientation", "back"),
    [
        (["L", "F"], lambda p: p),
        (["R", "F"], lambda p: p[:, ::-1]),
        (["L", "H"], lambda p: p[::-1]),
        (["R", "H"], lambda p: p[::-1, ::-1]),
        (["F", "L"], lambda p: p.T),
        (["F", "R"], lambda p: p.T[:, ::-1]),
        (["H", "L"], lambda p: p.T[::-1]),
        (["H", "R"], lambda p: p.T[::-1, ::-1]),
        (["LF", "FR"], lambda p: p),
    ],
)
def test_patient_orientation_is_followed(tmp_path, orientation, back) -> None:
    data = dicom_bytes(tmp_path, window_=full_window(12), PatientOrientation=orientation)
    xray = read_xray(data)
    assert np.abs(xray.pixels[:, :, 0].astype(int) - back(PHANTOM.pixels)).max() <= 1
    moved = any("PatientOrientation" in step for step in xray.decode)
    assert moved == (orientation[0][0] != "L" or orientation[1][0] != "F")


@pytest.mark.parametrize("orientation", [["L", "R"], ["ZZDOE", "F"], ["L"], ["H", "F"], ["X", ""]])
def test_an_orientation_of_no_frontal_view_is_refused(tmp_path, orientation) -> None:
    with pytest.raises(HilumError, match="PatientOrientation") as refused:
        read_xray(dicom_bytes(tmp_path, PatientOrientation=orientation))
    assert "ZZDOE" not in str(refused.value)


def test_an_unknown_voi_function_is_linear(tmp_path) -> None:
    known = read_xray(dicom_bytes(tmp_path, window_=(2000, 1500), VOILUTFunction="LINEAR"))
    other = read_xray(dicom_bytes(tmp_path, window_=(2000, 1500), VOILUTFunction="ZZDOE"))
    assert np.array_equal(known.pixels, other.pixels)
    assert any("unknown" in step for step in other.decode)
    assert not any("ZZDOE" in step for step in other.decode)


@pytest.mark.parametrize(("width", "function"), [(0.5, "LINEAR"), (0.5, "ODD"), (-4, "SIGMOID")])
def test_a_window_of_an_invalid_width_is_passed_over(tmp_path, width, function) -> None:
    data = dicom_bytes(tmp_path, window_=(2000, width), VOILUTFunction=function)
    xray = read_xray(data)
    assert np.array_equal(xray.pixels, read_xray(dicom_bytes(tmp_path)).pixels)
    assert any("invalid width" in step for step in xray.decode)


@pytest.mark.parametrize("limits", [(0, 60), (60, 0)])
def test_a_range_of_padding_does_not_move_the_percentiles(tmp_path, limits) -> None:
    stored = np.rint(PHANTOM.pixels * (4095 / 255)).astype(np.uint16) // 2 + 1000
    stored[:, :60] = np.arange(60)
    changes = {"PixelData": stored.tobytes(), "PixelPaddingValue": limits[0]}
    one = dicom_bytes(tmp_path, **changes)
    dataset = pydicom.dcmread(io.BytesIO(one))
    dataset.add_new("PixelPaddingRangeLimit", "US", limits[1])
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    inner = grey(read_xray(buffer.getvalue()))[:, 60:]
    assert inner.min() == 0
    assert np.median(inner) > 60
