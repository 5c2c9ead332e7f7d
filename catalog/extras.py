"""Which extra of Hilum brings a library that is missing, as one line that says what to install."""

from __future__ import annotations

from importlib.util import find_spec

from .errors import MissingLibrary

_EXTRAS = {
    "cupy": "gpu", "dicomweb_client": "gateway", "h5py": "export", "highdicom": "dicom",
    "huggingface_hub": "export",
    "matplotlib": "bench", "msgspec": "gateway", "onnx": "export", "onnxruntime": "export",
    "fsspec": "s3", "onnxscript": "export", "openvino": "openvino", "pyarrow": "cluster",
    "pynvml": "gpu",
    "pytriton": "server", "pywt": "radiomics", "radiomics": "radiomics", "ray": "cluster",
    "s3fs": "s3", "safetensors": "export", "scipy": "scipy", "skimage": "radiomics",
    "starlette": "desk", "torch": "export", "tqdm": "export", "uvicorn": "desk",
    "yaml": "export",
}  # fmt: skip
"""By the name that a library is imported by."""

_ALONE = ("segmentation_models_pytorch", "timm", "torchvision")
"""Installed without their dependencies, which would bring a second build of torch."""


def remedy(library: str) -> str | None:
    """What to install for a library, in words; None for one that Hilum does not know."""
    library = library.partition(".")[0]
    if library in _ALONE:
        names = " ".join(_ALONE).replace("_", "-")
        return f"pip install 'hilum[export]' && pip install --no-deps {names}"
    extra = _EXTRAS.get(library)
    return extra and f"pip install 'hilum[{extra}]'"


def require(purpose: str, *libraries: str) -> None:
    """Refuse to begin what needs libraries that are not installed; `purpose` says what that is.

    Raises
    ------
    InputError
        With what to install.
    """
    for library in libraries:
        if find_spec(library) is None:
            raise MissingLibrary(f"{purpose}: {library} is not installed; {remedy(library)}")
