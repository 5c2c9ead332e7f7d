"""Executed notebooks as pages: text, code, what it printed, and what it showed."""

from __future__ import annotations

import json
import re
from typing import Any

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def page(text: str) -> str:
    """A notebook in Markdown; pictures are in the page itself."""
    parts: list[str] = []
    for cell in json.loads(text)["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
        else:
            parts += [f"```python\n{source}\n```", *map(_shown, cell["outputs"])]
    return "\n\n".join(part for part in parts if part) + "\n"


def _shown(output: dict[str, Any]) -> str:
    data = output.get("data", {})
    if "text/html" in data:
        return f"<div>{''.join(data['text/html'])}</div>".replace("\n", "")
    if "image/png" in data:
        source = f"data:image/png;base64,{data['image/png'].strip()}"
        return f'<img alt="What the code above shows" src="{source}"/>'
    text = "".join(output.get("text", data.get("text/plain", "")))
    return f'```text title="Output"\n{_COLOURS.sub("", text).strip()}\n```' if text.strip() else ""
