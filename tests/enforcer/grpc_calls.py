"""gRPC without protobuf: a server, and a client that calls it in every way; each a process, since gRPC has threads.

What lives here: `serve CERTIFICATE KEY PORT` and `call ADDRESS:PORT TRUST`; without certificates ("-") in clear. What must
not: capd.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import grpc

SERVICE = "test.Calls"
LARGE_BYTES = 3 << 20
SECONDS = 120


def _large(_request: bytes, _context: grpc.ServicerContext) -> bytes:
    return bytes(LARGE_BYTES)


def _upper(request: bytes, context: grpc.ServicerContext) -> bytes:
    context.set_trailing_metadata((("x-sum", "7"),))
    return request.upper()


def _fail(_request: bytes, context: grpc.ServicerContext) -> bytes:
    context.abort(grpc.StatusCode.NOT_FOUND, "no such thing: 5 % of \u00e4")
    raise AssertionError


def _chat(requests: Iterator[bytes], _context: grpc.ServicerContext) -> Iterator[bytes]:
    for request in requests:
        yield b"heard " + request


def serve(certificate: str, key: str, port: str) -> None:
    """Serve until killed."""
    server = grpc.server(futures.ThreadPoolExecutor(8))
    handlers = {
        "Upper": grpc.unary_unary_rpc_method_handler(_upper),
        "Large": grpc.unary_unary_rpc_method_handler(_large),
        "Fail": grpc.unary_unary_rpc_method_handler(_fail),
        "denied": grpc.unary_unary_rpc_method_handler(_upper),
        "Chat": grpc.stream_stream_rpc_method_handler(_chat),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    where = f"127.0.0.1:{port}"
    if certificate == "-":
        found = server.add_insecure_port(where)
    else:
        shown = (Path(key).read_bytes(), Path(certificate).read_bytes())
        found = server.add_secure_port(where, grpc.ssl_server_credentials([shown]))
    server.start()
    print(f"ready {found}", flush=True)  # noqa: T201 - who started us waits for it
    server.wait_for_termination()


def call(where: str, trust: str) -> None:
    """Call everything, and print what came of it."""
    options = [("grpc.max_receive_message_length", -1), ("grpc.default_authority", f"api.test:{where.rpartition(':')[2]}")]
    if trust == "-":
        channel = grpc.insecure_channel(where, options)
    else:
        own = ("grpc.ssl_target_name_override", "api.test")
        channel = grpc.secure_channel(where, grpc.ssl_channel_credentials(Path(trust).read_bytes()), [*options, own])
    with channel:
        print(json.dumps(_calls(channel)))  # noqa: T201 - what whoever started us reads


def _calls(channel: grpc.Channel) -> dict[str, object]:
    def unary(name: str, request: bytes) -> tuple[object, ...]:
        try:
            answer, about = channel.unary_unary(f"/{SERVICE}/{name}").with_call(request, timeout=SECONDS)
        except grpc.RpcError as error:
            return error.code().name, error.details(), dict(error.trailing_metadata() or ()).get("x-capd-rule")
        return len(answer), answer[:20].decode(), dict(about.trailing_metadata())

    more = threading.Semaphore(0)

    def say() -> Iterator[bytes]:
        for number in range(5):
            more.acquire()
            yield b"%d" % number

    answers = channel.stream_stream(f"/{SERVICE}/Chat")(say(), timeout=SECONDS)
    heard = []
    for _ in range(5):
        more.release()
        heard.append(next(answers).decode())
    with futures.ThreadPoolExecutor(8) as pool:
        many = list(pool.map(lambda number: unary("Upper", b"n%d" % number)[1], range(200)))
    return {
        "upper": unary("Upper", b"word"),
        "large": unary("Large", b""),
        "sent": unary("Upper", b"z" * LARGE_BYTES),
        "fail": unary("Fail", b""),
        "denied": unary("denied", b""),
        "heard": heard,
        "many": many == [f"N{number}" for number in range(200)],
    }


if __name__ == "__main__":
    (serve if sys.argv[1] == "serve" else call)(*sys.argv[2:])
