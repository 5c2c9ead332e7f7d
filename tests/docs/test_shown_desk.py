"""The page: started as its page says, and asked with curl."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("starlette", reason="the extra desk is not installed")

from chest_repository import export_chest
from manual import Typist, shown

from hilum.desk.web import VIEWER
from hilum.preprocessing.phantoms.ct import chest_ct
from hilum.preprocessing.phantoms.ct_dicom import write_dicom_series
from hilum.server.launcher import TritonServer

pytestmark = pytest.mark.skipif(not shutil.which("curl"), reason="no curl on this machine")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    with TritonServer(export_chest(tmp_path_factory.mktemp("chest")), grace=0) as server:
        yield server


def test_a_program_sends_a_study_and_runs_a_system(server: TritonServer, tmp_path: Path) -> None:
    if not VIEWER.is_file():
        pytest.skip("the viewer is not there: make desk")
    _, joining, starting = shown("docs/how-to/page.md", "Use the page in the browser", "sh")[
        0
    ].splitlines()
    send, put, run, events = shown("docs/how-to/page.md", "For programs", "sh")[0].splitlines()
    volume = chest_ct(1, slices=3, size=96, lesions=0).volume
    write_dicom_series(volume, tmp_path / "series")
    shutil.copy(next((tmp_path / "series").iterdir()), tmp_path / "1.dcm")
    starter = Typist(tmp_path, XDG_STATE_HOME=str(tmp_path / "state"))
    with starter.going(joining, {"127.0.0.1:8001": server.grpc_url}) as desk:
        assert desk.stdout is not None
        place, _, token = desk.stdout.readline().strip().partition("/#token=")
        asking = {"TOKEN": token, "PORT": place.rpartition(":")[2]}
        quiet = {"curl": "curl --silent"}
        study = json.loads(Typist(tmp_path, **asking).type(send, quiet))
        caller = Typist(tmp_path, **asking, ID=study["id"])
        caller.type(put, quiet)
        assert "job" in caller.type(run, quiet)
        heard = caller.type(events, {"curl": "curl --silent --max-time 5"}, 0, 28)
        assert "data:" in heard
    (tmp_path / "models").symlink_to(Path(server.repository))
    with starter.going(starting) as desk:
        assert desk.stdout is not None
        assert desk.stdout.readline().startswith("http://127.0.0.1:")
