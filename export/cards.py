"""Model cards: the README beside every served network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hilum.catalog import Network, System


def card(system: System, network: Network, certificate: Mapping[str, Any]) -> str:
    """Markdown text: what the network is, its signature, how to call it, whose weights it has."""
    weights = certificate["weights"]
    published = "".join(
        f"| {f.quantity} | {f.value:g} {f.unit} | {f.hardware} |\n" for f in network.published
    )
    parts = [
        f"# {network.model}: {network.title}\n",
        f"A network of **{system.title}** ({system.summary}).\n{system.paper}.\n",
        "Not a medical device. For research only.\n",
        f"## Weights\n\n{_sentence(weights['source'])}\n\n"
        f"sha256 `{weights['sha256']}`; precision {certificate['precision']}.\n",
        _signature(network, certificate),
        _parity(certificate),
        _calls(network, certificate),
    ]
    if published:
        parts.append(
            "## Published figures\n\nOf the authors' weights on the authors' hardware.\n\n"
            f"| | | hardware |\n|---|---|---|\n{published}"
        )
    return "\n".join(parts)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def _signature(network: Network, certificate: Mapping[str, Any]) -> str:
    batch = ["N"] if network.max_batch else []
    rows = "".join(
        f"| {kind} | `{t['name']}` | {t['dtype']} | {[*batch, *t['shape']]} |\n".replace("'", "")
        for kind in ("inputs", "outputs")
        for t in certificate[kind]
    )
    return f"## Signature\n\n| | name | type | shape |\n|---|---|---|---|\n{rows}"


def _parity(certificate: Mapping[str, Any]) -> str:
    parity = certificate["parity"]
    if parity is None:
        return "## Parity\n\nThe file is served as it was given; nothing was compared.\n"
    rows = "".join(
        f"| `{name}` | {value:.2g} |\n" for name, value in parity["largest_difference"].items()
    ) + "".join(
        f"| `{name}` | {count} of {parity['compared_pixels'][name]} pixels |\n"
        for name, count in parity["differing_pixels"].items()
    )
    return (
        f"## Parity\n\nONNX Runtime on `model.onnx` against {parity['reference']}, on "
        f"{parity['inputs']} (seed {parity['seed']}).\n\n"
        f"| output | largest difference |\n|---|---|\n{rows}"
    )


def _calls(network: Network, certificate: Mapping[str, Any]) -> str:
    shapes = {t.name: network.example_shape(t, certificate["sizes"]) for t in network.inputs}
    arguments = " ".join(f"--shape {n}:{','.join(map(str, s))}" for n, s in shapes.items())
    dtypes = {t["name"]: t["dtype"] for t in certificate["inputs"]}
    batch = [1] if network.max_batch else []
    lines = "\n".join(
        f'    InferInput("{name}", {[*batch, *shape]}, "{dtypes[name]}"),'
        for name, shape in shapes.items()
    )
    return f"""## Calls

```
curl -s localhost:8000/v2/models/{network.model}
perf_analyzer -m {network.model} -i grpc {arguments}
```

```python
from tritonclient.grpc import InferenceServerClient, InferInput

inputs = [
{lines}
]
for tensor, array in zip(inputs, arrays):  # arrays: numpy, in this order
    tensor.set_data_from_numpy(array)
result = InferenceServerClient("localhost:8001").infer("{network.model}", inputs)
print(result.as_numpy("{network.outputs[0].name}").shape)
```
"""
