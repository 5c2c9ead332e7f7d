"""A real PACS for tests: Orthanc with its DICOMweb plugin on the loopback, in its own folder."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from hilum.server.ports import free_ports

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
USER, PASSWORD = "hilum", "test"


def free_port() -> int:
    return free_ports(1)[0]


@dataclass
class Orthanc:
    """One server; it may be killed and started again."""

    folder: Path
    stable_s: int = 1
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def rest(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def dicomweb(self) -> str:
        return f"{self.rest}/dicom-web"

    def start(self) -> Orthanc:
        program = shutil.which("Orthanc")
        if program is None or not PLUGIN.is_file():
            pytest.skip("Orthanc and its DICOMweb plugin are not installed")
        settings = {
            "Name": "test", "StorageDirectory": f"{self.folder}/db",
            "IndexDirectory": f"{self.folder}/db", "RemoteAccessAllowed": False,
            "AuthenticationEnabled": True, "RegisteredUsers": {USER: PASSWORD},
            "HttpPort": self.port, "DicomServerEnabled": False, "OverwriteInstances": False,
            "StableAge": self.stable_s, "Plugins": [str(PLUGIN)],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        }  # fmt: skip
        (self.folder / "orthanc.json").write_text(json.dumps(settings))
        self.process = subprocess.Popen(
            [program, str(self.folder / "orthanc.json")],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
            time.sleep(0.05)
        raise AssertionError("Orthanc does not listen")

    def stop(self, how: int = signal.SIGTERM) -> None:
        if self.process is not None:
            os.kill(self.process.pid, how)
            self.process.wait(20)
            self.process = None

    def client(self) -> Any:
        from dicomweb_client import DICOMwebClient
        from dicomweb_client.session_utils import create_session_from_user_pass

        session = create_session_from_user_pass(USER, PASSWORD)
        return DICOMwebClient(self.dicomweb, session=session)

    def store(self, files: Sequence[Path]) -> None:
        answer = self.client().store_instances([dcmread(path) for path in files])
        assert len(answer.get("FailedSOPSequence", [])) == 0

    def file(self, instance: str) -> bytes:
        """The file of an instance as the server keeps it."""
        from dicomweb_client.session_utils import create_session_from_user_pass

        session = create_session_from_user_pass(USER, PASSWORD)
        (found,) = session.post(f"{self.rest}/tools/lookup", instance, timeout=20).json()
        return session.get(f"{self.rest}/instances/{found['ID']}/file", timeout=20).content

    def lookup(self, uid: str) -> list[str]:
        """The server's own identifiers of what has a UID."""
        from dicomweb_client.session_utils import create_session_from_user_pass

        session = create_session_from_user_pass(USER, PASSWORD)
        found = session.post(f"{self.rest}/tools/lookup", uid, timeout=20).json()
        return [one["ID"] for one in found]

    def series(self, study: str) -> dict[str, list[str]]:
        """SOPInstanceUIDs of each series of a study."""
        found: dict[str, list[str]] = {}
        for row in self.client().search_for_instances(study):
            uid = row["0020000E"]["Value"][0]
            found.setdefault(uid, []).append(row["00080018"]["Value"][0])
        return found
