"""`hilum doctor` on the repository that is served."""

from __future__ import annotations

import json

from hilum.catalog.errors import ServerError

from ..done import Check, Done, Say
from ..setting import Setting
from .commands import hilum


def run(setting: Setting, say: Say) -> Done:
    """Ask it; only what it calls broken is a failure.

    Raises
    ------
    ServerError
        When it ends without a report.
    """
    say("hilum doctor")
    done = hilum("doctor", "--json", "--repository", str(setting.repository))
    try:
        report = json.loads(done.stdout)
    except json.JSONDecodeError:
        raise ServerError(f"hilum doctor gave no report: {done.stderr.strip()[-300:]}") from None
    rows = tuple(
        {"level": f["level"], "what": f["what"], "why": f["why"], "remedy": f["remedy"]}
        for f in report["findings"]
    )
    broken = [row["what"] for row in rows if row["level"] == "problem"]
    check = Check("hilum doctor finds nothing broken", report["usable"], "; ".join(broken) or "ok")
    return Done(checks=(check,), tables={"doctor": rows})
