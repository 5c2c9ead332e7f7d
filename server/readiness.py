"""Whether a server answers, and whether it is the one that was meant."""

from __future__ import annotations

import socket

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc


def answers_as(url: str, name: str, timeout: float = 2.0) -> bool:
    """Whether the server at `url` is ready and calls itself `name`.

    The name tells it from another server that took the port first.
    """
    host, _, port = url.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=timeout).close()
    except OSError:
        return False  # still loading: the port is bound when all models are ready
    with grpc.insecure_channel(url, options=[("grpc.enable_http_proxy", 0)]) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        try:
            told = stub.ServerMetadata(_message("ServerMetadataRequest"), timeout=timeout)
            ready = stub.ServerReady(_message("ServerReadyRequest"), timeout=timeout)
        except grpc.RpcError:
            return False
    return told.name == name and ready.ready


def _message(name: str) -> object:
    return getattr(service_pb2, name)()
