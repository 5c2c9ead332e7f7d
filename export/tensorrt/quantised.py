"""INT8 graphs for NVIDIA's compiler alone: random weights, calibrated on a synthetic chest.

They have the operators, types and shapes of an INT8 export, which needs the user's CTs and keeps
only networks that stay within the tolerance. They are not judged and not to be served.
"""

from __future__ import annotations

import json
from pathlib import Path

from hilum.catalog import Network, System

from ..certificate import CERTIFICATE, MODEL_FILE, Weights, certificate, served_file
from ..graph import OPSET, main_opset
from ..int8 import TENSORRT, to_int8
from ..systems.dlpe import graph as dlpe_graph
from ..systems.dlpe import random as dlpe_random
from ..systems.dlpe.network import task_of
from ..systems.dlpe.phantom import SIDE, phantom

SEED = 0

NOT_JUDGED = "made for a compiler to look at, not judged and not to be served"


def write_quantised(system: System, network: Network, folder: Path) -> None:
    """Write the INT8 graph of one of DLPE's networks, with its certificate.

    Parameters
    ----------
    folder
        Of the model's version; made if it is not there.
    """
    core, source = dlpe_random.random_core(network, SEED)
    chest, direction = phantom(SEED, SIDE), network.name[-1]
    chosen = dlpe_random.slices(chest, direction)
    images = dlpe_random.cut(chest, task_of(network), direction, chosen).numpy()
    whole = dlpe_graph.to_onnx(core, OPSET)
    model = to_int8(whole, lambda: (image[None] for image in images), TENSORRT)
    served = dlpe_graph.wrap(model, network, network.sizes)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / MODEL_FILE
    path.write_bytes(served.SerializeToString())
    file = served_file(path, main_opset(served), served.ir_version)
    weights = Weights(network.name, source, "", "random")
    int8 = {"accepted": False, "reason": NOT_JUDGED}
    found = certificate(
        system.name, network, network.sizes, file, weights, "int8", None, {"int8": int8}
    )
    (folder / CERTIFICATE).write_text(json.dumps(found, indent=2) + "\n")
