"""The source of the stand-in provider: a local HTTP server that can go wrong in every known way."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

REGIONS = ("east-1", "north-1", "west-1")
PAGE = 10

Answer = dict[str, Any]


def types() -> list[Answer]:
    """Twelve processor types and twelve with GPUs."""
    made: list[Answer] = [
        {"name": f"c.{n}", "vcpus": 2 * n, "memory_gib": 8 * n} for n in range(1, 13)
    ]
    for n, gpu, gib in (
        (1, "L4", 24), (2, "L4", 24), (4, "L4", 24), (8, "L4", 24),
        (1, "A100-80GB-SXM", 80), (2, "A100-80GB-SXM", 80),
        (4, "A100-80GB-SXM", 80), (8, "A100-80GB-SXM", 80),
        (1, "H100-SXM", 80), (2, "H100-SXM", 80), (4, "H100-SXM", 80), (8, "H100-SXM", 80),
    ):  # fmt: skip
        name = f"g.{gpu.split('-')[0].lower()}.{n}"
        gpus = {"gpu": gpu, "gpus": n, "gpu_gib": gib}
        made.append({"name": name, "vcpus": 12 * n, "memory_gib": 128 * n, **gpus})
    return made


def hourly(item: Answer, term: str) -> str:
    """A price that its device can have."""
    each = {"L4": 0.7, "A100-80GB-SXM": 3.5, "H100-SXM": 6.0}.get(item.get("gpu", ""), 0.0)
    dollars = 0.04 * item["vcpus"] + each * item.get("gpus", 0)
    return f"{dollars * (0.4 if term == 'spot' else 1):.4f}"


@dataclass
class Source:
    """What the source says. Tests change it, or put a way to go wrong in its place."""

    day: str = "2026-11-24"
    price_factor: float = 1.0
    #: Takes each region's rows and may change them.
    change: Callable[[str, list[Answer], list[Answer]], None] = lambda *_: None
    #: Answers a request instead; True when it has.
    instead: Callable[[BaseHTTPRequestHandler, str], bool] = lambda *_: False
    requests: list[str] = field(default_factory=list)
    regions: tuple[str, ...] = REGIONS

    def rows(self, region: str) -> tuple[list[Answer], list[Answer]]:
        """Types and offers of a region."""
        kinds = types()
        offers = [
            {
                "type": item["name"],
                "zones": "ab",
                "term": term,
                "price": f"{float(hourly(item, term)) * self.price_factor:.6f}",
                "day": self.day,
            }
            for item in kinds
            for term in ("on-demand", "spot")
        ]
        kinds, offers = deepcopy(kinds), deepcopy(offers)
        self.change(region, kinds, offers)
        return kinds, offers

    def answer(self, path: str) -> Answer:
        """The whole answer of a path."""
        parts = urlsplit(path)
        name = parts.path.strip("/")
        if name == "regions":
            return {"regions": list(self.regions)}
        number = int(parts.query.removeprefix("page=") or 0)
        kinds, offers = self.rows(name)
        start = number * PAGE
        return {
            "types": kinds if number == 0 else [],
            "offers": offers[start : start + PAGE],
            "more": start + PAGE < len(offers),
        }


@contextmanager
def serving(source: Source) -> Iterator[str]:
    """The source's address while it serves."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            source.requests.append(self.path)
            if source.instead(self, self.path):
                return
            body = json.dumps(source.answer(self.path)).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def status(code: int, **headers: str) -> Callable[[BaseHTTPRequestHandler, str], bool]:
    """Answers nothing but a status."""

    def instead(handler: BaseHTTPRequestHandler, _path: str) -> bool:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return True

    return instead


def body(text: bytes, *, announce: int | None = None) -> Callable[..., bool]:
    """Answers these bytes, of `announce` that are announced; regions are answered as usual."""

    def instead(handler: BaseHTTPRequestHandler, path: str) -> bool:
        if path.startswith("/regions"):
            return False
        handler.send_response(200)
        handler.send_header("Content-Length", str(announce or len(text)))
        handler.end_headers()
        handler.wfile.write(text)
        handler.close_connection = True
        return True

    return instead


def silence(seconds: float) -> Callable[[BaseHTTPRequestHandler, str], bool]:
    """Takes the connection and says nothing."""

    def instead(_handler: BaseHTTPRequestHandler, _path: str) -> bool:
        time.sleep(seconds)
        return True

    return instead
