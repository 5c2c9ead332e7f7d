"""The ten networks of X-ray severity scoring in PyTorch (spec cxr §7, §12)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from hilum.catalog import cxr_severity as catalog

from ...compat import declare_torchvision_operators

ARCHITECTURES = {
    "Unet": "Unet",
    "Unet++": "UnetPlusPlus",
    "DeepLabV3": "DeepLabV3",
    "DeepLabV3+": "DeepLabV3Plus",
    "FPN": "FPN",
    "Linknet": "Linknet",
    "PSPNet": "PSPNet",
    "PAN": "PAN",
    "MAnet": "MAnet",
}
"""Published names of the architectures → classes of segmentation-models-pytorch."""

GATE = {"pooling": "avg", "dropout": 0.2, "activation": "sigmoid", "classes": 1}
"""The classification head of a stage II network."""


class Core(nn.Module):
    """A network with the signature of a core: normalised image in, a tuple of probabilities out.

    Takes float32 [N, 3, S, S], returns ``(mask,)`` or ``(mask, cls)``: mask float32 [N, 1, S, S],
    cls float32 [N, 1].
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Probabilities of one batch."""
        out = self.network(image)
        return out if isinstance(out, tuple) else (out,)


def parts(name: str) -> tuple[str, str]:
    """Published names of the architecture and the encoder of the network called `name`."""
    if name == catalog.LUNG.name:
        return catalog.LUNG_ARCHITECTURE, catalog.LUNG_ENCODER
    facts = catalog.DISEASE[name]
    return facts.architecture, facts.encoder


def build(name: str) -> Core:
    """The network called `name` in the catalog, in eval mode, with torch's own initial weights.

    Nothing is downloaded. Input sides must be multiples of 32.
    """
    declare_torchvision_operators()
    import segmentation_models_pytorch as smp

    architecture, encoder = parts(name)
    make: Callable[..., nn.Module] = getattr(smp, ARCHITECTURES[architecture])
    options: dict[str, Any] = {} if name == catalog.LUNG.name else {"aux_params": dict(GATE)}
    # SMP knows the RegNets of the paper by their timm names behind "tu-"; "timm-" warns.
    encoder = encoder.replace("timm-regnet", "tu-regnet")
    network = make(
        encoder, encoder_weights=None, in_channels=3, classes=1, activation="sigmoid", **options
    )
    if encoder.startswith("efficientnet"):
        restore_padding(network)
    return Core(network).eval()


def restore_padding(network: nn.Module) -> None:
    """Give EfficientNet's strided depthwise convolutions the padding of the published program.

    That program derived every padding from an even nominal size: k − 2 zeros in all, the odd one
    right and below. SMP 0.6.0 tracks the shrinking size and pads some blocks of b1 and b2
    symmetrically (spec cxr §12.3). Blocks whose stride became a dilation keep theirs.
    """
    for module in network.modules():
        convolution = getattr(module, "_depthwise_conv", None)
        if convolution is None or tuple(convolution.stride) != (2, 2):
            continue
        total = convolution.kernel_size[0] - 2
        before, after = total // 2, total - total // 2
        convolution.static_padding = nn.ZeroPad2d((before, after, before, after))


def published_name(network: str, tensor: str) -> str:
    """Name in a published checkpoint of the `tensor` in the core of `network`.

    Two later renamings are undone: timm RegNets lived in ``encoder.``, now in ``encoder.model.``;
    the decoder of DeepLabV3 was a plain sequence (spec cxr §12.5).
    """
    name = tensor.removeprefix("network.").replace("encoder.model.", "encoder.", 1)
    if parts(network)[0] == "DeepLabV3":
        for new, old in (("aspp", "0"), ("conv", "1"), ("bn", "2")):
            if name.startswith(f"decoder.{new}."):
                return name.replace(f"decoder.{new}.", f"decoder.{old}.", 1)
    return name


def skeleton(name: str) -> Core:
    """The network without memory for its weights, to ask for names and shapes."""
    with torch.device("meta"):
        return build(name)
