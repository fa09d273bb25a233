"""The floor: a gRPC server that answers a request with as many bytes as the real answer has.

`python -m tests.bench.echo_server THREADS` prints its port. The request begins with the length of
the answer, so that one server stands in for answers of every size.
"""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

#: What requests are sent to; the first eight bytes of a request are the length of its answer.
METHOD = "/bench.Echo/Call"
LENGTH_BYTES = 8
LONGEST_ANSWER = 16 * 2**20


def main() -> None:
    """Serves until its standard input ends."""
    blank = bytes(LONGEST_ANSWER)

    def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
        return blank[: int.from_bytes(request[:LENGTH_BYTES], "big")]

    server = grpc.server(ThreadPoolExecutor(max_workers=int(sys.argv[1])))
    handler: Any = grpc.unary_unary_rpc_method_handler(answer)
    _, service, name = METHOD.split("/")
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(service, {name: handler})]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    threading.Event().wait() if sys.stdin is None else sys.stdin.read()
    server.stop(None)


if __name__ == "__main__":
    main()
