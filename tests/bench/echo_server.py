"""The floor: a gRPC server that answers a request with as many bytes as the real answer has.

`python -m tests.bench.echo_server THREADS WORKERS` prints its port, which so many processes share.
The request begins with the length of the answer, so that one server stands in for answers of every
size.
"""

from __future__ import annotations

import multiprocessing
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

#: What requests are sent to; the first eight bytes of a request are the length of its answer.
METHOD = "/bench.Echo/Call"
LENGTH_BYTES = 8
LONGEST_ANSWER = 16 * 2**20


def main() -> None:
    """Serves until its standard input ends."""
    threads, workers = int(sys.argv[1]), int(sys.argv[2])
    context = multiprocessing.get_context("spawn")
    port, ready = context.Value("i", 0), context.Semaphore(0)
    processes = []
    for _ in range(workers):
        processes.append(context.Process(target=serve, args=(threads, port, ready), daemon=True))
        processes[-1].start()
        # The first one chooses the port.
        ready.acquire()
    print(port.value, flush=True)
    sys.stdin.read()
    for process in processes:
        process.kill()


def serve(threads: int, port: Any, ready: Any) -> None:
    """One process, on the port that is there or on one of its own choice."""
    blank = bytes(LONGEST_ANSWER)

    def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
        return blank[: int.from_bytes(request[:LENGTH_BYTES], "big")]

    pool = ThreadPoolExecutor(max_workers=threads)
    server = grpc.server(pool, options=(("grpc.so_reuseport", 1),))
    handler: Any = grpc.unary_unary_rpc_method_handler(answer)
    _, service, name = METHOD.split("/")
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(service, {name: handler})]
    )
    port.value = server.add_insecure_port(f"127.0.0.1:{port.value}")
    server.start()
    ready.release()
    server.wait_for_termination()


if __name__ == "__main__":
    main()
