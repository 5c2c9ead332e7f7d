"""What went wrong, in words that name the remedy."""

from __future__ import annotations

import re
from collections.abc import Iterable

from tritonclient.utils import InferenceServerException

from hilum.catalog import SYSTEMS, Ensemble
from hilum.catalog.errors import ConnectionFailed, HilumError, InferenceFailed

from .models import ModelState
from .options import ConnectionOptions
from .probe import Listener

_PORT_HINT = "Triton's gRPC endpoint is meant, port 8001 by default (8000 is HTTP, 8002 metrics)"

_ADDITIONS = re.compile(r"\[request id: [^\]]*\] | NOTE: .*", re.DOTALL)
"""What Triton puts around some of its messages."""

_DEAD_PART = re.compile(
    r"(?:\[request id: [^\]]*\] )?(?:in ensemble '[^']*', )?"
    r"(?:Failed to process the request\(s\) for model (?:instance )?'[^']*', message: )?"
    r"(?:Stub process '[^']*' is not healthy"
    r"|Failed to process requests, the stub process is not healthy)"
)


def is_retried(status: str, error: InferenceServerException) -> bool:
    """Whether a request that failed so is sent again: the server is away, or busy."""
    if status not in ("UNAVAILABLE", "RESOURCE_EXHAUSTED"):
        return False
    # Of these three, gRPC and Triton give the same status, and waiting does not help.
    too_long = "larger than max" in (error.message() or "")
    return not (too_long or _is_tls_failure(error) or is_restricted(error))


def is_dead_part(status: str, error: InferenceServerException) -> bool:
    """Whether the process of a model died on the server, which is no fault of this request's.

    Triton then answers every request for the model with INTERNAL and this sentence, from wherever
    it noticed. What a model itself says of an error never begins so.
    """
    return status == "INTERNAL" and _DEAD_PART.match(error.message() or "") is not None


def is_restricted(error: InferenceServerException) -> bool:
    """Whether the server was started with ``--grpc-restricted-protocol`` for this call."""
    return "protocol is restricted" in (error.message() or "")


def client_closed() -> ConnectionFailed:
    """The error of a request on a closed client."""
    return ConnectionFailed("this client is closed; make a new one")


def not_triton(options: ConnectionOptions) -> ConnectionFailed:
    """A gRPC server that does not know Triton's methods."""
    return ConnectionFailed(
        f"at {options.url} a gRPC server answers that is not Triton; {_PORT_HINT}"
    )


def foreign(options: ConnectionOptions, listener: Listener) -> ConnectionFailed:
    """Something other than a gRPC server answers, so that waiting does not help."""
    if listener is Listener.TLS:
        remedy = "turn TLS on: `tls`, with `tls_root_certificates` for a private authority"
    else:
        remedy = _PORT_HINT
    return ConnectionFailed(f"at {options.url} {listener.value}; {remedy}")


def never_answered(
    options: ConnectionOptions, listener: Listener | None, detail: str, waited_s: float
) -> ConnectionFailed:
    """No server was found within the connect window."""
    found = f"at {options.url} {listener.value}" if listener else f"no answer from {options.url}"
    proxy = options.proxy_variable()
    if proxy is not None:
        # What listens was asked directly; the requests of gRPC go to the proxy.
        found = f"no answer from {options.url} through the proxy of the variable {proxy}"
        host = options.endpoint[0] if options.endpoint else "the server's host"
        remedy = f"set no_proxy={host} to reach the server directly, or mend {proxy}"
    elif listener in (Listener.REFUSED, None):
        remedy = "start a server with `hilum serve`, or give the address of one that runs"
    elif listener in (Listener.UNREACHABLE, Listener.UNKNOWN_HOST):
        remedy = "check the host's name, the network and its firewall"
    elif listener is Listener.HTTP2_OVER_TLS:
        remedy = (
            "if it is a proxy, see that the Triton behind it runs; else it may still be loading "
            "its models; look at its log"
        )
    elif listener is Listener.NO_TLS:
        remedy = "check the certificates on both sides, and whether the server speaks TLS at all"
    elif listener is Listener.GRPC:
        remedy = "it may still be loading its models; look at its log"
    else:
        remedy = _PORT_HINT
    return ConnectionFailed(f"{found}, tried for {waited_s:.1f} s; {remedy} ({detail})")


def went_away(options: ConnectionOptions, detail: str, waited_s: float) -> ConnectionFailed:
    """The server had answered before, and did not come back within the retry window."""
    return ConnectionFailed(
        f"the server at {options.url} went away and was not back after {waited_s:.1f} s; look at "
        f"its log, restart it with `hilum serve`, and repeat what failed ({detail})"
    )


def part_stayed_dead(
    options: ConnectionOptions, model: str | None, detail: str, waited_s: float
) -> ConnectionFailed:
    """The process of a model died, and the server was not started again within the window."""
    return ConnectionFailed(
        f"the process of {f'model {model!r}' if model else 'a model'} at {options.url} died and "
        f"was not back after {waited_s:.1f} s; start the server again (`hilum serve` does so by "
        f"itself) and repeat what failed ({detail})"
    )


def kills_parts(url: str, model: str | None, deaths: int, detail: str) -> InferenceFailed:
    """The process of a model died of one request again and again."""
    return InferenceFailed(
        f"the process of {f'model {model!r}' if model else 'a model'} at {url} died {deaths} "
        "times while it had this request, which may be the cause; leave this study out and look "
        f"at the server's log ({detail})"
    )


def busy(options: ConnectionOptions, detail: str, waited_s: float) -> InferenceFailed:
    """The server refused a request for lack of resources, again and again."""
    return InferenceFailed(
        f"the server at {options.url} had no room for the request for {waited_s:.1f} s; send "
        f"fewer at once, or give it more instances ({detail})"
    )


def unknown_model(
    options: ConnectionOptions, model: str, known: Iterable[ModelState]
) -> InferenceFailed:
    """The server is well but does not have the model."""
    known = tuple(known)
    broken = [s.reason for s in known if s.name == model and s.state != "READY" and s.reason]
    ready = sorted({s.name for s in known if s.state == "READY"})
    what = f"could not load {model!r}: {broken[0]}" if broken else f"has no model {model!r}"
    there = f"it has {', '.join(ready)}" if ready else "it has no model that is ready"
    return InferenceFailed(f"the server at {options.url} {what}; {there}. {_how_to_get(model)}")


def refused(
    options: ConnectionOptions, model: str | None, status: str, error: InferenceServerException
) -> HilumError:
    """Any other error: of TLS, or one with which the server answered."""
    message = _ADDITIONS.sub("", error.message() or "no message").strip()
    if _is_tls_failure(error):
        return _tls(options, message)
    if status in ("UNAUTHENTICATED", "PERMISSION_DENIED") or is_restricted(error):
        return ConnectionFailed(
            f"the server at {options.url} does not let this client in; check `metadata` and the "
            f"client certificate ({message})"
        )
    if "larger than max" in message:
        return InferenceFailed(
            f"a gRPC message was too long: {message}; raise `max_message_bytes` on the side that "
            "refused it, or use shared memory"
        )
    where = f"model {model!r} at {options.url}" if model else f"the server at {options.url}"
    if status == "INVALID_ARGUMENT":
        return InferenceFailed(
            f"{where} does not take this request: {message} (if the server serves another "
            "version of Hilum's models, export them again and restart it)"
        )
    return InferenceFailed(f"{where} failed with {status or 'a local error'}: {message}")


def _tls(options: ConnectionOptions, message: str) -> ConnectionFailed:
    if "WRONG_VERSION_NUMBER" in message:
        remedy = "the server speaks without TLS; leave `tls` and the certificates out"
    elif "CERTIFICATE_VERIFY_FAILED" in message:
        remedy = "its certificate is not trusted; give its authority as `tls_root_certificates`"
    elif "ostname" in message or "peer name" in message.lower():
        remedy = "its certificate is for another host; give that name as `tls_server_name`"
    else:
        remedy = "check the certificates on both sides; a server may ask for the client's, too"
    return ConnectionFailed(f"no TLS connection to {options.url}: {remedy} ({message})")


def _is_tls_failure(error: InferenceServerException) -> bool:
    message = error.message() or ""
    return "andshake failed" in message or "ostname Verification Check failed" in message


def _how_to_get(model: str) -> str:
    for system in SYSTEMS.values():
        for declared in system.models():
            if declared.model != model:
                continue
            export = f"hilum export {system.name}"
            networks = [n.name for n in system.networks if n is declared]
            if isinstance(declared, Ensemble):
                called = [call.target for call in declared.calls]
                networks = [n.name for n in system.networks if n in called]
            names = "".join(f" --network {name}" for name in networks)
            return f"Export it with `{export}{names}`, then restart the server with `hilum serve`"
    return "Look at what it serves with `Client.models()`"
