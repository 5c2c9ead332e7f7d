"""Every text that a page may show is there in German: errors, options, values, flags, notes."""

from __future__ import annotations

import ast
import dataclasses
import pkgutil
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

import pytest

import hilum
from hilum.catalog import ct_angel, cxr_severity
from hilum.catalog.covid_mtl import HEADS
from hilum.catalog.dlpe import Cohort
from hilum.catalog.errors import HilumError
from hilum.catalog.terms import Mode
from hilum.client.protocols import AnySystem
from hilum.client.registry import INSTALLED
from hilum.desk.limits import REFUSALS
from hilum.desk.web import PAGE
from hilum.desk.work import _kind as kind_at_the_desk
from hilum.gateway.worker import _kind as kind_at_a_gateway
from hilum.postprocessing.ct_classifier.gradcam import SHELLS, Dominance
from hilum.postprocessing.dlpe.lesions import Radiomics
from hilum.preprocessing.reading import ct_words, image_headers
from hilum.results.schema import ResultFile
from hilum.systems.covid_mtl.options import Placement
from hilum.systems.ct_classifier.scores import LungSource

ROOMS = Path(hilum.__file__).parents[1]

_NUMBER = r"[-−]?\d+(?:[.,]\d+)?%?"

_PAIR = re.compile(r'"((?:[^"\\]|\\.)*)":\s*"((?:[^"\\]|\\.)*)"')

SILENT = ("pictures.py", "dicom.py", "files.py", "options.py", "sections.py", "system.py",
          "quantity_pictures.py", "comparison_picture.py", "dicom_lesions.py", "dicom_lungs.py",
          "stored.py", "notebook.py", "meshes.py", "overlay.py", "follow_up_set.py")  # fmt: skip
"""Modules of systems whose sentences go into pictures, objects and files, or are help texts."""


def shaped(text: str) -> str:
    """A text as the page looks it up."""
    return re.sub(_NUMBER, "#", text.replace("_", " "))


PAIRS = _PAIR.findall((PAGE / "german.js").read_text())

GERMAN = {shaped(english): german for english, german in PAIRS}


def errors(kind: type[HilumError] = HilumError) -> Iterator[type[HilumError]]:
    yield kind
    for one in kind.__subclasses__():
        yield from errors(one)


@pytest.fixture(scope="module")
def codes() -> set[str]:
    """Codes of all errors of the rooms that a page or a gateway runs."""
    for room in ("catalog", "client", "preprocessing", "postprocessing", "results", "systems",
                 "gateway", "archive", "desk", "export", "server"):  # fmt: skip
        package = import_module(f"hilum.{room}")
        for found in pkgutil.iter_modules(package.__path__, f"hilum.{room}."):
            if found.name.rpartition(".")[2] in ("outcomes", "repository", "meshes", "pacs"):
                import_module(found.name)
    return {one.code for one in errors() if one.__module__.startswith("hilum.")}


def test_every_kind_of_error_has_a_code_of_its_own(codes: set[str]) -> None:
    own = [one for one in errors() if "code" in vars(one)]
    assert len({one.code for one in own}) == len(own) > 25
    assert {"input", "damaged", "pacs", "disk", "other-weights", "order", "export"} <= codes


def test_every_kind_of_error_says_what_to_do_in_both_languages(codes: set[str]) -> None:
    said = set(re.findall(r'"?why_([\w-]+)"?: \["', (PAGE / "text.js").read_text()))
    plain = [one("x") for one in errors() if one.__init__ is Exception.__init__]
    kinds = {kind_at_a_gateway(one)[0] for one in plain} | {kind_at_the_desk(one) for one in plain}
    assert len(kinds) > 4
    wanted = codes | kinds | {*REFUSALS.values(), "crash", "fault", "pacs", "connection"}
    assert wanted - said == set()
    assert said - wanted == set()


def test_a_text_and_its_german_hold_the_same_numbers_and_places() -> None:
    assert len(PAIRS) > 300
    assert len({english for english, _ in PAIRS}) == len(PAIRS)
    assert len(GERMAN) == len(PAIRS)
    for english, german in PAIRS:
        assert german, english
        assert shaped(german).count("*") == shaped(english).count("*"), english
        if "#" in english:
            assert shaped(german).count("#") == shaped(english).count("#"), english


def hidden() -> set[str]:
    """Fields that the page leaves to the files."""
    code = (PAGE / "values.js").read_text()
    listed = re.search(r"HIDDEN = new Set\(\[(.*?)\]\)", code, re.DOTALL)
    assert listed
    return set(re.findall(r'"(\w+)"', listed[1]))


def test_every_option_of_every_system_has_a_german_name() -> None:
    names = {field.name for system in INSTALLED.values()
             for field in dataclasses.fields(system.options_type)
             if "from" not in field.metadata}  # fmt: skip
    assert len(names) > 40
    assert {name for name in names if shaped(name) not in GERMAN} == set()


def reported(system: AnySystem) -> Any:
    return import_module(f"hilum.systems.{system.name.replace('-', '_')}.reported").Report


def test_every_value_of_every_system_has_a_german_name() -> None:
    names = {name for system in INSTALLED.values() for name in reported(system).__annotations__}
    names |= set(ResultFile.__annotations__)
    # What lies within them, as their descriptions list it.
    for system in INSTALLED.values():
        source = Path(str(import_module(reported(system).__module__).__file__)).read_text()
        for field, text in re.findall(r'\n    (\w+): dict.*?\n    """(.*?)"""', source, re.DOTALL):
            if field not in hidden():
                names |= set(re.findall(r"``([a-z]\w+)``", text))
    names |= {field.name for field in dataclasses.fields(Radiomics)}
    names -= hidden() | {"hilum_version"}
    assert len(names) > 90
    assert {name for name in names if shaped(name) not in GERMAN} == set()


def test_every_word_that_a_value_may_be_is_there_in_german() -> None:
    words = {*SHELLS, *get_args(Dominance), *ct_angel.QUADRANTS, *ct_angel.PATIENT_QUADRANTS,
             *HEADS, *(name for head in HEADS.values() for name in head.classes),
             *ct_words._DESCRIBED, *image_headers._PNG_COLOURS.values(),
             *(flag.name.lower() for flag in cxr_severity.Flag if flag.name)}  # fmt: skip
    for kind in (Mode, Cohort, Placement, LungSource, ct_angel.SizeMode, ct_angel.ValidMode,
                 ct_angel.QuadrantMode):  # fmt: skip
        words |= set(get_args(kind))
    assert len(words) > 60
    assert {word for word in words if shaped(word) not in GERMAN} == set()


INTERNAL = {
    # fields of NIfTI headers, of hidden counts, and of `hilum dlpe compare`
    "qform_code", "qoffset_x", "qoffset_y", "qoffset_z", "quatern_b", "quatern_c", "quatern_d",
    "sform_code", "srow_x", "srow_y", "srow_z", "bytes_received", "bytes_sent", "most_in_flight",
    "published_passes", "min_voxels", "lesion_voxels", "lung_area", "baseline_shift_hu",
    "different_inflation", "lesion_ratio_remaining", "lung_volume_ratio",
    "median_severity_change_hu", "share_change", "total_severity_change_hu_ml", "volume_change_ml",
}  # fmt: skip
"""Names in functions about flags that are none, and that no page shows."""


def code(*rooms: str) -> Iterator[ast.Module]:
    for room in rooms:
        for path in sorted((ROOMS / room).rglob("*.py")):
            if "phantoms" not in path.parts and path.name not in SILENT:
                yield ast.parse(path.read_text())


def test_every_flag_is_there_in_german() -> None:
    """A flag is a name with lines below, in a function about flags or in a constant."""
    found = set()
    for tree in code("preprocessing", "postprocessing", "systems"):
        for one in ast.walk(tree):
            about = isinstance(one, ast.FunctionDef) and "flag" in ast.unparse(one).lower()
            constant = isinstance(one, ast.Assign) and isinstance(
                one.value, (ast.Constant, ast.Tuple)
            )
            if about or constant:
                texts = (n.value for n in ast.walk(one) if isinstance(n, ast.Constant))
                found |= {t for t in texts if re.fullmatch(r"[a-z]+(_[a-z0-9]+)+", str(t))}
    assert {"doubtful_hu", "no_right_lung", "few_samples", "cut_by_box", "uneven_slices"} <= found
    unknown = {flag for flag in found if shaped(flag) not in GERMAN}
    assert unknown - hidden() == INTERNAL


NOT_NOTES = {
    # parts of what is there as a whole
    " from the head", " {} mm apart", ", with {} gap(s) above {} times the median of {} mm",
    "uneven slices: {} to {} mm apart", "no. {}, {}; --series N chooses another",
    "{} DICOM file(s) cannot be used (no. {} by name): {}",
    "{}; volumes and lengths go by each slice's own step, files of voxels by the mean of {} mm, "
    "up to {} mm off within",
    # how an X-ray was decoded, which the page leaves to the files
    "0.5th to 99.5th percentile, {} to {}", "DICOM, {}, {} of {} bits",
    "VOI LUT Function unknown: taken as LINEAR", "full 16-bit range, as declared",
    "no window: 0.5th to 99.5th percentile, {} to {}", "raw detector image (FOR PROCESSING)",
    "rows and columns exchanged (PatientOrientation)", "window {} / {}, {}",
    "turned upside down (PatientOrientation)", "window of an invalid width: passed over",
    # parts of errors
    "CT slices stored as MONOCHROME1 or in colour; export the series as MONOCHROME2",
    "DICOM: damaged pixel data; transfer or export the file again",
    "NIfTI: the file is damaged; export it again", "a nuclear medicine image",
    "an image of another or unknown modality", "file {}{} in the order of names",
    "choose mode corrected, which goes by the positions", "give the whole series, or {}",
    "give a DICOM or NIfTI file, a folder, the bytes of a file, a NumPy array in HU (with spacing= "
    "or affine=), an image of nibabel or SimpleITK, or one or several datasets of pydicom",
    "multiples of {} up to {}", "the container is damaged or truncated; transfer it again",
    "no readable {} file of one array; write it with numpy.save, or numpy.savez with the key {}",
    "no usable RescaleSlope or RescaleIntercept (0028,1053 and 1052), so there are no Hounsfield "
    "units; export the series again", "{} voxels in one line",
    "shorter than the pixels that the header declares; transfer it again",
    "the file is truncated; transfer or export it again",
    "whose numbers are HU + 1024, or choose mode corrected, which converts them",
}  # fmt: skip
"""Sentences in the code of these rooms that are no notes."""


def sentence(node: ast.AST) -> str | None:
    """A text of the code, {} for what is filled in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(
            v.value if isinstance(v, ast.Constant) and isinstance(v.value, str) else "{}"
            for v in node.values
        )
    return None


def sentences(tree: ast.Module) -> Iterator[str]:
    """The texts of four words and more, but those of docstrings and of errors."""
    passed: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Raise, ast.Expr)) and not (
            isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
        ):
            passed |= set(ast.walk(node))
        elif isinstance(node, ast.JoinedStr):
            passed |= set(node.values)
    for node in ast.walk(tree):
        text = sentence(node)
        if node not in passed and text and text.count(" ") >= 3:
            yield text


def known(text: str) -> bool:
    """Whether the page finds it, as a whole or as the list that it is."""
    form = r"(#|\*)".join(re.escape(shaped(part)) for part in text.split("{}"))
    if any(re.fullmatch(form, key) for key in (*GERMAN, "#", "*")):
        return True
    return any(
        all(known(part) for part in text.split(between))
        for between in ("; ", ", ")
        if between in text
    )


def test_every_note_is_there_in_german() -> None:
    found = {text for tree in code("preprocessing", "postprocessing", "systems")
             for text in sentences(tree)}  # fmt: skip
    assert len(found) > 80
    assert {text for text in found if not known(text)} == NOT_NOTES
