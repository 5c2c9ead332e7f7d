"""How results show themselves in a notebook: their line of the table, and a picture."""

from __future__ import annotations

import base64
import html
import io
from typing import ClassVar

from hilum.client.registry import INSTALLED

NO_NOTE = "Whose weights made this is in the server's certificates (client.about())."
"""On pictures of results that do not know it."""


class ShownInNotebook:
    """A result that Jupyter shows with its picture.

    Attributes
    ----------
    system
        Name of the system that draws it.
    """

    __slots__ = ()

    system: ClassVar[str]

    def row(self) -> dict[str, str]:
        """One line of the table, by column."""
        raise NotImplementedError

    def _repr_html_(self) -> str:
        cells = "".join(
            f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>"
            for name, value in self.row().items()
        )
        note = getattr(self, "weights_note", NO_NOTE)
        image = INSTALLED[self.system].draw(self, note)
        if image is None:
            return f"<table>{cells}</table>"
        stream = io.BytesIO()
        image.save(stream, format="PNG")
        data = base64.b64encode(stream.getvalue()).decode("ascii")
        return f'<table>{cells}</table><img src="data:image/png;base64,{data}"/>'
