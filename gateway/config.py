"""The settings of a gateway: one TOML file, checked when it is read."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

import msgspec

from hilum.catalog.errors import InputError
from hilum.client.registry import INSTALLED, find_system
from hilum.systems.given import options_from


class _Table(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the file; a name that it does not know is an error."""


class Web(_Table, frozen=True, kw_only=True):
    """A DICOMweb service, and how to enter it.

    Attributes
    ----------
    dicomweb
        Root of QIDO, WADO and STOW: ``https://pacs.example/dicom-web``.
    user, password, token
        Basic authentication, or a bearer token. Secrets are ``env:NAME`` or ``file:PATH``, never
        the secret itself.
    tls_ca, tls_cert, tls_key
        PEM files: authorities to trust, and the gateway's own certificate.
    timeout_s
        For one answer.
    """

    dicomweb: str = ""
    user: str = ""
    password: str = ""
    token: str = ""
    tls_ca: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    timeout_s: float = 60.0


class Source(Web, frozen=True, kw_only=True):
    """Where studies come from: a PACS, or a folder that is watched.

    Attributes
    ----------
    orthanc
        Root of Orthanc's own REST interface: its list of changes says what is new at once.
    days
        Without it, studies of the last days are asked for (QIDO, StudyDate); 0 asks for all.
    folder
        A folder that is watched, instead of a service.
    """

    orthanc: str = ""
    days: int = 2
    folder: str = ""


class Target(Web, frozen=True, kw_only=True):
    """Where results go: the PACS of the source if nothing is given, or a folder.

    Attributes
    ----------
    folder
        A folder that results are written to, instead of a service.
    withdraw
        Whether an earlier result of a series that grew is withdrawn by a key object note.
    """

    folder: str = ""
    withdraw: bool = True


class Trigger(_Table, frozen=True, kw_only=True):
    """When a series is complete.

    Attributes
    ----------
    idle_s
        So many seconds nothing of it has come.
    force_s
        So many seconds after it was first seen, whatever still comes.
    poll_s
        Seconds between two looks at the source.
    """

    idle_s: float = 60.0
    force_s: float = 5400.0
    poll_s: float = 5.0


class Rule(_Table, frozen=True, kw_only=True):
    """Which series a system processes. What is not given is not asked.

    Texts are compared without regard to case. `modality`, `body_part` and `aet` must be one of the
    texts; `description` must hold one of them, `description_not` none.

    Attributes
    ----------
    name
        Of the rule, for messages; each its own.
    systems
        Systems that run on a series that the rule takes.
    modality
        Modality: ``CT``, ``CR``, ``DX``.
    body_part
        BodyPartExamined.
    description, description_not
        Parts of the description of series or protocol, one of which must be in it; none of which
        may be.
    aet
        Who sent the series; needs `orthanc` in the source.
    min_slices, max_slices
        Instances of the series.
    slice_thickness_min, slice_thickness_max
        Limits in mm; 0 for none.
    options
        By system, its options: ``options.dlpe.mode = "corrected"``.
    """

    name: str
    systems: list[str]
    modality: list[str] = []
    body_part: list[str] = []
    description: list[str] = []
    description_not: list[str] = []
    aet: list[str] = []
    min_slices: int = 1
    max_slices: int = 3000
    slice_thickness_min: float = 0.0
    slice_thickness_max: float = 0.0
    options: dict[str, dict[str, Any]] = {}


class Servers(_Table, frozen=True, kw_only=True):
    """Triton servers that run (`urls`), or the repository of one that the gateway starts.

    Attributes
    ----------
    urls
        ``host:port`` of each.
    repository
        Model repository of the server that the gateway starts, instead.
    tls_ca, tls_cert, tls_key
        PEM files: authorities to trust, and the gateway's own certificate.
    retry_window_s
        How long a server that went away is waited for.
    deadline_s
        For one request.
    """

    urls: list[str] = []
    repository: str = ""
    tls_ca: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    retry_window_s: float = 30.0
    deadline_s: float = 300.0


class Limits(_Table, frozen=True, kw_only=True):
    """How much at once, and how long is tried.

    Attributes
    ----------
    weight_in_flight
        Sum of the weights of jobs that run at once; a system's weight is 4 divided by the studies
        that it has in flight by itself, so 4 X-rays or one DLPE weigh 4.
    spool_gb, watermark
        Nothing more is fetched when the spool holds so much, or this share of its disk is full.
    first_retry_s, longest_retry_s, give_up_h
        Retries double their distance from the first to the longest, with jitter, until so many
        hours after the first failure.
    crashes
        A study that runs while the gateway dies this often is set aside.
    keep_days
        How long results of jobs that are done stay in the spool.
    """

    weight_in_flight: float = 4.0
    spool_gb: float = 50.0
    watermark: float = 0.9
    first_retry_s: float = 30.0
    longest_retry_s: float = 900.0
    give_up_h: float = 24.0
    crashes: int = 3
    keep_days: float = 7.0


class Operation(_Table, frozen=True, kw_only=True):
    """Where state lies, and where metrics and health are served.

    Attributes
    ----------
    folder
        Of ledger and spool; without it, below the user's state.
    host, port
        Where ``/metrics``, ``/live`` and ``/ready`` are served.
    drain_s
        How long jobs that run may take when the gateway ends.
    """

    folder: str = ""
    host: str = "127.0.0.1"
    port: int = 8050
    drain_s: float = 60.0


class Settings(_Table, frozen=True, kw_only=True):
    """The whole file."""

    rule: list[Rule]
    source: Source = Source()
    target: Target = Target()
    trigger: Trigger = Trigger()
    servers: Servers = Servers()
    limits: Limits = Limits()
    operation: Operation = Operation()

    @property
    def folder(self) -> Path:
        """Where ledger and spool lie."""
        given = self.operation.folder
        if given:
            return Path(given).expanduser()
        home = os.environ.get("XDG_STATE_HOME") or Path("~/.local/state").expanduser()
        return Path(home) / "hilum" / "gateway"

    @property
    def out(self) -> Web:
        """The service that results go to, when they do not go to a folder."""
        return self.target if self.target.dicomweb else self.source


def read_settings(path: Path) -> Settings:
    """Read a file and check everything that can be checked without a connection.

    Raises
    ------
    InputError
        Naming the place in the file and what is wrong there.
    """
    try:
        settings = msgspec.convert(tomllib.loads(path.read_text()), Settings)
    except OSError as failure:
        raise InputError(
            f"{path}: {failure.strerror}; `hilum gateway init` writes a file to begin with"
        ) from failure
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as failure:
        raise InputError(f"{path}: {failure}") from failure
    for problem in _problems(settings):
        raise InputError(f"{path}: {problem}")
    return settings


def options_of(rule: Rule, system: str) -> Any:
    """The options that a rule gives a system.

    Raises
    ------
    InputError
        For an unknown system, an unknown option, or a value that it does not take.
    """
    try:
        return options_from(find_system(system), rule.options.get(system, {}))
    except InputError as failure:
        raise InputError(f"rule {rule.name!r}: {failure}") from failure


def secret(text: str) -> str:
    """The secret that ``env:NAME`` or ``file:PATH`` stands for.

    Raises
    ------
    InputError
        When it is not there, or the text is none of the two.
    """
    kind, _, where = text.partition(":")
    if kind == "env":
        value = os.environ.get(where, "")
        if not value:
            raise InputError(f"the environment has no {where}, which the settings name")
        return value
    if kind == "file":
        try:
            return Path(where).read_text().strip()
        except OSError as failure:
            raise InputError(f"{where}: {failure.strerror}; the settings name it") from failure
    raise InputError("a secret is given as env:NAME or file:PATH, not as itself")


def _problems(settings: Settings) -> list[str]:
    source, target = settings.source, settings.target
    found: list[str] = []
    if bool(source.dicomweb) == bool(source.folder):
        found.append("[source] needs either dicomweb or folder")
    if source.folder and not (target.dicomweb or target.folder):
        found.append("[target] needs dicomweb or folder, since the source is a folder")
    if target.dicomweb and target.folder:
        found.append("[target] has dicomweb and folder; give one")
    if bool(settings.servers.urls) == bool(settings.servers.repository):
        found.append("[servers] needs either urls or repository")
    if not settings.rule:
        found.append("there is no [[rule]], so nothing would be processed")
    names = [rule.name for rule in settings.rule]
    found += [f"two rules have the name {n!r}" for n in sorted(set(names)) if names.count(n) > 1]
    for rule in settings.rule:
        if not rule.systems:
            found.append(f"rule {rule.name!r} names no system")
        for system in rule.systems:
            if system not in INSTALLED:
                found.append(
                    f"rule {rule.name!r}: no system {system!r}; there are {', '.join(INSTALLED)}"
                )
                continue
            try:
                options_of(rule, system)
            except InputError as problem:
                found.append(str(problem))
        for system in rule.options:
            if system not in rule.systems:
                found.append(f"rule {rule.name!r} has options of {system!r}, which it does not run")
    for table, web in (("source", source), ("target", target)):
        for name in ("password", "token"):
            value = getattr(web, name)
            if value and not value.startswith(("env:", "file:")):
                found.append(f"[{table}] {name} is env:NAME or file:PATH, never the secret itself")
    trigger, limits = settings.trigger, settings.limits
    if min(trigger.poll_s, trigger.idle_s, limits.first_retry_s, limits.weight_in_flight) <= 0:
        found.append("poll_s, idle_s, first_retry_s and weight_in_flight are above 0")
    if trigger.force_s < trigger.idle_s:
        found.append("[trigger] force_s is shorter than idle_s")
    if not 0 < limits.watermark <= 1:
        found.append("[limits] watermark is a share between 0 and 1")
    return found


TEMPLATE = """\
# Settings of `hilum gateway`; `hilum gateway check` tries them. Research use only, not a medical
# device.

[source]
dicomweb = "http://127.0.0.1:8042/dicom-web"   # a PACS, or an Orthanc at the door
orthanc = "http://127.0.0.1:8042"              # Orthanc's list of changes; leave out elsewhere
user = "hilum"
password = "env:HILUM_PACS_PASSWORD"           # or file:PATH; a token = "env:…" instead
# folder = "/incoming"                         # a watched folder, instead of dicomweb

[target]                                       # without dicomweb or folder: the source
withdraw = true                                # earlier results of a series that grew

[trigger]
idle_s = 60                                    # a series is complete after this without change
force_s = 5400                                 # and so long after its first instance at most

[servers]
urls = ["127.0.0.1:8001"]                      # of `hilum serve`; or repository = "DIR"

[[rule]]
name = "chest CT"
modality = ["CT"]
body_part = ["CHEST", "THORAX"]
description_not = ["scout", "topo"]
min_slices = 30
slice_thickness_max = 5.0
systems = ["lungmask"]
# options.lungmask.mode = "corrected"

[[rule]]
name = "chest X-ray"
modality = ["CR", "DX"]
body_part = ["CHEST", "THORAX"]
systems = ["cxr-severity"]

[limits]
weight_in_flight = 4                           # four X-rays, or one DLPE
spool_gb = 50
watermark = 0.9                                # share of the disk above which intake waits

[operation]
port = 8050                                    # /metrics, /live and /ready on the loopback
"""
"""What `hilum gateway init` writes."""
