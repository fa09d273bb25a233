"""A server that answers for Compute Engine and the billing catalog over REST, page by page."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit


class GcpStandIn:
    """Answers paths with the pages it was given. Use it as a context manager."""

    def __init__(self) -> None:
        self.pages: dict[str, Sequence[Mapping[str, Any]]] = {}
        self.failures: dict[str, tuple[int, str, str]] = {}
        self.asked: list[str] = []
        #: The last page leads back to the first.
        self.circles = False
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> GcpStandIn:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def fail(self, ending: str, status: int, reason: str, body: str = "") -> None:
        """Answers of paths with that ending are errors, or that body."""
        self.failures[ending] = (status, reason, body)

    def answer(self, path: str, token: str) -> tuple[int, str]:
        """Status and body of one call."""
        self.asked.append(path)
        for ending, (status, reason, body) in self.failures.items():
            if path.endswith(ending):
                error = {"code": status, "message": "as told", "errors": [{"reason": reason}]}
                return status, body or json.dumps({"error": error})
        for ending, pages in self.pages.items():
            if path.endswith(ending):
                number = int(token or 0)
                page = {k: v for k, v in pages[number].items() if k != "nextPageToken"}
                if number + 1 < len(pages) or self.circles:
                    page["nextPageToken"] = str((number + 1) % len(pages))
                return 200, json.dumps(page)
        return 404, json.dumps({"error": {"code": 404, "message": path}})

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                token = parse_qs(parts.query).get("pageToken", [""])[0]
                status, text = stand_in.answer(parts.path, token)
                answer = text.encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: object) -> None:
                """Quiet."""

        return Handler
