"""Peers in this process: PyTorch eager and compiled, ONNX Runtime, OpenVINO.

Each may use all cores. None keeps a core busy while another lane is measured: ONNX Runtime's
threads stop spinning when a run ends, those of PyTorch and OpenVINO sleep soon after.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from torch import Tensor, nn
from tritonclient.grpc import model_config_pb2

from hilum.export.recipes import Arrays, all_inputs, recipe
from hilum.server.machine import cores
from hilum.server.runtime_repository import Resources, configure

from .instrument.variant import IN_PROCESS
from .peer_networks import Subject
from .runs import Run, torch_core

EAGER, COMPILED = "PyTorch eager, as published", "PyTorch compiled"
ORT, ORT_AS_SERVED = "ONNX Runtime in process", "ONNX Runtime in process, set as in the server"
OPENVINO, OPENVINO_BF16 = "OpenVINO in process", "OpenVINO in process, bfloat16"

Core = Callable[[], nn.Module]
"""Gives the network in PyTorch, always the same one."""


@dataclass(frozen=True, slots=True)
class Peer:
    """One way of running a network.

    Attributes
    ----------
    run
        Served inputs → outputs by name.
    transport
        As `Lane.transport`.
    threads
        How many it may use, in words.
    concurrency
        Tasks in flight at once.
    notes
        What a reader must know about it.
    """

    name: str
    run: Run
    transport: str
    precision: str
    threads: str
    concurrency: int = 1
    notes: tuple[str, ...] = ()


class LeftOut(Exception):
    """A peer that cannot run here; says why and what would help."""


def in_process(subject: Subject, weights: str) -> dict[str, Callable[[], Peer]]:
    """What makes each peer of this process, by name; each may raise `LeftOut`."""
    core = functools.cache(lambda: _torch_core(subject, weights))
    return {
        EAGER: lambda: eager(subject, core),
        COMPILED: lambda: compiled(subject, core),
        ORT: lambda: onnx_runtime(subject),
        ORT_AS_SERVED: lambda: onnx_runtime(subject, spinning=False),
        OPENVINO: lambda: openvino(subject, "f32"),
        OPENVINO_BF16: lambda: openvino(subject, "bf16"),
    }


def eager(subject: Subject, core: Core) -> Peer:
    """PyTorch without compilation, one input after the other, as the publications' programs do."""
    torch.set_num_threads(cores())
    return Peer(EAGER, _around(subject, core()), IN_PROCESS, "fp32", _all_cores())


def compiled(subject: Subject, core: Core) -> Peer:
    """PyTorch with `torch.compile`, compiled before this returns.

    Raises
    ------
    LeftOut
        Without a C++ compiler, or when PyTorch cannot compile it.
    """
    if find_compiler() is None:
        raise LeftOut(
            "torch.compile needs a C++ compiler and there is none; install one (Debian, Ubuntu: "
            "`apt install g++`) or name it in CXX"
        )
    torch.set_num_threads(cores())
    _compile_in_this_process()
    run = _around(subject, torch.compile(core()))
    start = time.perf_counter()
    try:
        run(subject.inputs[0])
    except Exception as error:
        raise LeftOut(f"torch.compile failed: {_first_line(error)}") from error
    note = f"compiled in {time.perf_counter() - start:.0f} s, not counted"
    return Peer(COMPILED, run, IN_PROCESS, "fp32", _all_cores(), notes=(note,))


def find_compiler() -> str | None:
    """The C++ compiler that PyTorch would use, None without one."""
    named = os.environ.get("CXX")
    return next(filter(None, map(shutil.which, (named,) if named else ("g++", "clang++"))), None)


def onnx_runtime(subject: Subject, *, spinning: bool = True) -> Peer:
    """ONNX Runtime on the file that Triton serves.

    Parameters
    ----------
    spinning
        Waiting threads spin while a run lasts, which is its default; else everything is set as in
        the server, where they never do.
    """
    options = usual_options() if spinning else served_options(subject.network.model)
    session = open_session(str(subject.file), options)
    names = list(subject.outputs)

    def run(inputs: Arrays) -> Arrays:
        return dict(zip(names, map(np.asarray, session.run(names, inputs)), strict=True))

    threads = _all_cores() + ("" if spinning else ", no spinning")
    name = ORT if spinning else ORT_AS_SERVED
    return Peer(name, run, IN_PROCESS, subject.precision, threads)


def open_session(file: str, options: ort.SessionOptions) -> ort.InferenceSession:
    """A session on the CPU."""
    options.log_severity_level = 3
    return ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def usual_options() -> ort.SessionOptions:
    """ONNX Runtime's defaults on all cores, with threads that rest between runs."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = cores()
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def served_options(model: str) -> ort.SessionOptions:
    """What the server sets for the only session of a Triton model on all cores.

    But for the memory arena, which stays: without one, a thread of this process takes fresh pages
    from the system in every run, which the server's main thread does not.
    """
    protobuf: Any = model_config_pb2  # its classes are made at run time and have no types
    config = protobuf.ModelConfig(name=model, backend="onnxruntime")
    configure(config, Resources.of_machine(1, cores(), gpu=False))
    given = {name: value.string_value for name, value in config.parameters.items()}
    options = ort.SessionOptions()
    options.intra_op_num_threads = int(given["intra_op_thread_count"])
    for name, value in given.items():
        if name.startswith("session."):
            options.add_session_config_entry(name, value)
    return options


def openvino(subject: Subject, hint: str) -> Peer:
    """OpenVINO on the file that Triton serves, its shapes fixed to those of the inputs.

    Parameters
    ----------
    hint
        Precision in which it may compute: "f32" or "bf16".

    Raises
    ------
    LeftOut
        Where it is not installed, the processor has no bfloat16, or it cannot run the file.
    """
    if importlib.util.find_spec("openvino") is None:
        raise LeftOut("OpenVINO is not installed; `pip install 'hilum[bench]'` brings it")
    import openvino as ov

    core = ov.Core()
    able: Any = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if hint == "bf16" and "BF16" not in able:
        raise LeftOut("this processor computes no bfloat16 (neither AMX nor AVX-512 BF16)")
    try:
        model = core.read_model(subject.file)
        model.reshape({name: list(a.shape) for name, a in subject.inputs[0].items()})
        options = {"INFERENCE_PRECISION_HINT": hint, "PERFORMANCE_HINT": "LATENCY"}
        program = core.compile_model(model, "CPU", options)
    except RuntimeError as error:
        raise LeftOut(f"OpenVINO cannot run the file: {_first_line(error)}") from error
    request = program.create_infer_request()
    places = {name: program.output(name) for name in subject.outputs}

    def run(inputs: Arrays) -> Arrays:
        found = request.infer(inputs, share_inputs=True, share_outputs=False)
        return {name: found[place] for name, place in places.items()}

    threads = f"{program.get_property('INFERENCE_NUM_THREADS')} threads"
    precision = "bf16" if hint == "bf16" else subject.precision
    name = OPENVINO_BF16 if hint == "bf16" else OPENVINO
    return Peer(name, run, IN_PROCESS, precision, threads)


def reference_run(file: str, names: list[str]) -> Run:
    """ONNX Runtime for the results that all others are compared with; all outputs."""
    session = open_session(file, usual_options())

    def run(inputs: Arrays) -> Arrays:
        types = {i.name: i.type for i in session.get_inputs()}
        given = {
            n: a.astype(np.float32) if types[n] == "tensor(float)" else a for n, a in inputs.items()
        }  # a reference in FP32 of what is served in FP16
        return dict(zip(names, map(np.asarray, session.run(names, given)), strict=True))

    return run


def _torch_core(subject: Subject, weights: str) -> nn.Module:
    """The network in PyTorch.

    Raises
    ------
    LeftOut
        For a file of the user's.
    """
    if subject.of_user:
        raise LeftOut("the repository serves a file of the user's, of which PyTorch knows nothing")
    return torch_core(subject.system, subject.network, weights)


def _around(subject: Subject, core: Callable[..., tuple[Tensor, ...]]) -> Run:
    """A PyTorch network with what surrounds it in the served graph."""
    how, network = recipe(subject.system), subject.network

    def run(inputs: Arrays) -> Arrays:
        with torch.inference_mode():
            given = all_inputs(how.core_input(network, network.sizes, inputs))
            found = how.outputs(network, core(*given))
        return {name: found[name] for name in subject.outputs}

    return run


def _compile_in_this_process() -> None:
    """Let no helper processes of the compiler stay behind while other lanes are measured."""
    with contextlib.suppress(ImportError):
        from torch._inductor import config

        config.compile_threads = 1


def _all_cores() -> str:
    return f"{cores()} threads"


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), repr(error))
