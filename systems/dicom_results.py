"""From a result to the DICOM objects of its study: what the command line and a program ask for."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from PIL import Image

from hilum.catalog.errors import InputError
from hilum.catalog.extras import require
from hilum.client.protocols import AnySystem
from hilum.results.key import content_hash, study_key
from hilum.results.provenance import weights_entries, weights_note

if TYPE_CHECKING:
    from hilum.results.dicom.content import Provenance
    from hilum.results.dicom.writer import Choice


@dataclass(frozen=True, slots=True)
class Origin:
    """The run that a result comes from.

    Attributes
    ----------
    study
        What was processed; None for what is no file or folder.
    about
        Asks the server about its weights.
    """

    system: AnySystem
    study: str | Path | None
    options: Any
    about: Callable[[], dict[str, Any] | None]


class DicomResult:
    """A result that can be written as DICOM objects; a client says where it comes from."""

    __slots__ = ("_origin",)

    system: ClassVar[str]

    def to_dicom(
        self, folder: Path | str, choice: Choice | None = None, *, pictures: bool = True
    ) -> list[Path]:
        """Write the DICOM objects of the study below ``folder/dicom``, all of them or none.

        The same study, options and weights give the same bytes as `hilum run --dicom`. The study's
        files are read again. Needs the extra ``dicom``, and the client, still open, says whose
        weights made the result. It waits: with `AsyncClient`,
        ``await asyncio.to_thread(result.to_dicom, folder)``.

        Parameters
        ----------
        folder
            Where the folder ``dicom`` is made.
        choice
            Which objects, and how segmentations are stored; see `results.dicom.writer.Choice`.
        pictures
            Draw the pictures, for secondary captures.

        Returns
        -------
        list of Path
            The files that were written.

        Raises
        ------
        InputError
            When the study was not read from DICOM files, lacks what results refer to, or the
            result does not come from a client.
        OutputError
            When the folder cannot be written.
        """
        require("to_dicom", "highdicom")
        origin: Origin | None = getattr(self, "_origin", None)
        if origin is None:
            raise InputError(
                "this result does not know its study: call to_dicom on what a client returned, "
                "not on a copy of it"
            )
        place = Path(folder)
        head, key = _run_of(origin, place)
        with tempfile.TemporaryDirectory() as drawn:
            if pictures and origin.study is not None:
                note = head["weights_note"]
                origin.system.write(self, Path(drawn), note=note, pictures=True)  # type: ignore[arg-type]
            written = write_dicom(
                origin.system, origin.study, self, place,
                pictures=Path(drawn), head=head, key=key, choice=choice,
            )  # fmt: skip
        return [place / name for name in written]

    def comes_from(self, origin: Origin) -> None:
        """Keep the run that the result comes from; results are frozen but for it.

        Parameters
        ----------
        origin
            System, study and options of the run.
        """
        object.__setattr__(self, "_origin", origin)


def write_dicom(
    system: AnySystem,
    study: Any,
    result: Any,
    place: Path,
    *,
    pictures: Path,
    head: Mapping[str, Any],
    key: Mapping[str, Any] | None,
    choice: Choice | None,
    earlier: Path | None = None,
) -> list[str]:
    """Write the DICOM objects of a study into its folder; returns their names.

    Parameters
    ----------
    pictures
        A folder whose PNG files become secondary captures.
    head
        Of the report: whose weights, which mode.
    key
        Of the study; identifiers follow from it.
    earlier
        Folder of an earlier result of the study, see `results.dicom.writer.write_objects`.

    Raises
    ------
    InputError
        For a study that was not read from DICOM, or lacks what results refer to.
    OutputError
        When a file cannot be written.
    """
    from hilum.results.dicom.writer import write_objects  # of an extra

    files = () if study is None else system.dicom_files(study, result)
    content = system.dicom_content(result, files) if files else None
    if content is None or key is None:
        raise InputError(
            f"no DICOM objects: {system.name} has none, or the study was not read from DICOM files"
        )
    drawn = {
        path.stem: np.asarray(Image.open(path).convert("RGB"))
        for path in sorted(pictures.glob("*.png"))
    }
    content = dataclasses.replace(content, pictures=drawn)
    provenance = provenance_of(system, head, key)
    return write_objects(content, files, provenance, place, choice, earlier)


def provenance_of(system: AnySystem, head: Mapping[str, Any], key: Mapping[str, Any]) -> Provenance:
    """Where a result comes from, by the head of its report and its study's key."""
    from hilum.results.dicom.content import Provenance  # of an extra

    models = {str(network.name): network.model for network in system.declared.networks}
    without = {name: value for name, value in key.items() if name != "files"}
    return Provenance(
        key=hashlib.sha256(json.dumps(without, sort_keys=True).encode()).hexdigest(),
        mode=str(head["mode"]),
        version=str(head["hilum_version"]),
        weights={
            models.get(str(w["network"]), str(w["network"])): str(w["sha256"])
            for w in head["weights"]
        },
        weights_note=str(head["weights_note"]),
    )


def _run_of(origin: Origin, place: Path) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """What the report of a run has for all studies, and the study's key; of `hilum run` alike."""
    weights = weights_entries(origin.system.networks(origin.options), origin.about())
    head = {
        "mode": origin.options.mode,
        "hilum_version": version("hilum"),
        "weights": weights,
        "weights_note": weights_note(weights),
    }
    if origin.study is None:
        return head, None
    content = content_hash(Path(origin.study), without=place)
    return head, study_key(content, origin.options, weights, {})
