"""The one Python model: runs any `PythonStep` of the catalog inside Triton.

A step's ``1/model.py`` is one line, ``from hilum.server.python_step import TritonPythonModel``.
Which step it is follows from the model's name.
"""

from __future__ import annotations

import importlib
import json
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils  # pyright: ignore[reportMissingImports]

from hilum.catalog import HilumError, PythonStep, find_model
from hilum.catalog.errors import CatalogError

from .triton_arrays import DTYPES, answer, as_array, as_tensor, is_question, refusal

Arrays = dict[str, np.ndarray]
StepFunction = Callable[..., Mapping[str, np.ndarray]]

_LONGEST_MESSAGE = 500

_WIDE = "TYPE_INT32"
"""What tensors declared as `Tensor.wide` are for engines."""


@dataclass(frozen=True, slots=True)
class _Output:
    """An output as the repository configures it: sizes there may differ from the catalog's."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    def check(self, array: np.ndarray, where: str) -> None:
        fits = len(array.shape) == len(self.shape) and all(
            want in (-1, have) for want, have in zip(self.shape, array.shape, strict=True)
        )
        if array.dtype != self.dtype or not fits:
            raise CatalogError(
                f"{where} returned {self.name!r} as {array.dtype} {list(array.shape)}, declared is "
                f"{self.dtype} {list(self.shape)}"
            )


class TritonPythonModel:
    """The step that the catalog declares under this model's name."""

    @staticmethod
    def declaration(name: str) -> PythonStep:
        """Look the step called `name` up; a model of one's own overrides this."""
        return _declared(name)

    def initialize(self, args: Mapping[str, str]) -> None:
        """Resolve the step's function and compare the configuration with the catalog."""
        name = args["model_name"]
        config = json.loads(args["model_config"])
        step = self.declaration(name)
        self._where = step.function
        self._batched = int(config["max_batch_size"]) > 0
        _check_tensors(step, config)
        self._outputs = tuple(
            _Output(
                tensor["name"],
                np.dtype(DTYPES[tensor["data_type"]]),
                tuple(int(d) for d in tensor["dims"]),
            )
            for tensor in config["output"]
        )
        wide = {t.name for t in step.outputs if t.wide}
        self._widened = [o.name for o in self._outputs if o.name in wide and o.dtype == np.int32]
        function = _resolve(step.function)
        self._function: StepFunction = (
            function(Path(args["model_repository"])) if step.factory else function
        )

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request on its own: one that fails leaves its neighbours alone."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        if request.is_cancelled():
            return refusal("cancelled by the client", pb_utils.TritonError.CANCELLED)
        if is_question(request):
            return answer([])
        try:
            inputs = {tensor.name(): as_array(tensor) for tensor in request.inputs()}
            outputs = self._run_batch(inputs) if self._batched else self._run(inputs)
            wanted = set(request.requested_output_names()) or set(outputs)
            return answer([as_tensor(n, a) for n, a in outputs.items() if n in wanted])
        except CatalogError as fault:  # of the step, not of the request
            pb_utils.Logger.log_error(str(fault))
            return refusal(str(fault), pb_utils.TritonError.INTERNAL)
        except HilumError as refused:
            return refusal(str(refused), pb_utils.TritonError.INVALID_ARG)
        except Exception as failure:  # noqa: BLE001 - whatever it is, it is this request's alone
            message = f"{self._where}: {type(failure).__name__}: {failure}"[:_LONGEST_MESSAGE]
            frames = "".join(traceback.format_tb(failure.__traceback__))
            pb_utils.Logger.log_error(f"{message}\n{frames}")
            return refusal(message, pb_utils.TritonError.INTERNAL)

    def _run_batch(self, inputs: Arrays) -> Arrays:
        """Call the function for each image and stack what it returns."""
        size = len(next(iter(inputs.values())))
        images = [self._run({name: a[i] for name, a in inputs.items()}) for i in range(size)]
        if size == 1:
            return {name: array[np.newaxis] for name, array in images[0].items()}
        return {
            output.name: np.stack([image[output.name] for image in images])
            for output in self._outputs
        }

    def _run(self, inputs: Arrays) -> Arrays:
        returned = self._function(**inputs)
        names = {output.name for output in self._outputs}
        if set(returned) != names:
            raise CatalogError(
                f"{self._where} returned {sorted(returned)}, declared are {sorted(names)}"
            )
        arrays = {output.name: np.asarray(returned[output.name]) for output in self._outputs}
        for name in self._widened:
            arrays[name] = arrays[name].astype(np.int32)
        for output in self._outputs:
            output.check(arrays[output.name], self._where)
        return arrays


def _declared(name: str) -> PythonStep:
    try:
        step = find_model(name)
    except KeyError as unknown:
        raise CatalogError(
            f"{unknown.args[0]}: the repository was written by another version of Hilum; "
            "write it again with `hilum export`"
        ) from None
    if not isinstance(step, PythonStep):
        raise CatalogError(f"{name} is not a Python step in the catalog")
    return step


def _check_tensors(step: PythonStep, config: Mapping[str, Any]) -> None:
    for kind, tensors in (("input", step.inputs), ("output", step.outputs)):
        types = {t["name"]: t["data_type"] for t in config[kind]}
        # A repository for engines has these wider; the step itself knows nothing of that.
        declared = {
            (t.name, _WIDE if t.wide and types.get(t.name) == _WIDE else f"TYPE_{t.dtype}")
            for t in tensors
        }
        configured = set(types.items())
        for name, _ in sorted(declared ^ configured):
            raise CatalogError(
                f"{step.model}: {kind} {name!r} differs between config.pbtxt and the catalog; "
                "write the repository again with `hilum export`"
            )


def _resolve(path: str) -> Callable[..., Any]:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)
