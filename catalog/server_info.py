"""The model through which a running server reports what it serves."""

from __future__ import annotations

from .types import PythonStep, Tensor

ABOUT = PythonStep(
    model="hilum_about",
    title="What this server serves: the certificates of its networks",
    function="hilum.server.server_info:about",
    factory=True,
    inputs=(Tensor("query", "UINT8", (1,), "0: everything"),),
    outputs=(
        Tensor(
            "json",
            "UINT8",
            (-1,),
            "UTF-8 JSON: Hilum's version and, by model, the parity certificate with the weights' "
            "source and sha256, and the backend that serves it",
        ),
    ),
    max_batch=0,
)
"""Any Triton that serves the repository answers it, so reports can name the weights behind them."""
