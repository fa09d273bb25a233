"""A server that speaks the protocols of EC2, the price list and savings plans, page by page.

It answers with payloads as AWS sends them: EC2's XML, JSON 1.1 and REST JSON, written by moto's
serializers from botocore's own models, so that what a real client reads here it reads there.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

from moto.core.serialize import EC2Serializer
from moto.core.utils import get_service_model

TOKENS = {"GetProducts": "NextToken", "DescribeSavingsPlansOfferingRates": "nextToken"}


class AwsStandIn:
    """Answers operations with the pages it was given. Use it as a context manager."""

    def __init__(self) -> None:
        self.pages: dict[str, Sequence[Mapping[str, Any]]] = {}
        self.failures: dict[str, list[tuple[int, str]]] = {}
        self.asked: list[tuple[str, dict[str, Any]]] = []
        #: Operations whose last page leads to itself.
        self.circles: set[str] = set()
        #: Operations whose answers break off after so many bytes, as a lost connection does.
        self.cut: dict[str, int] = {}
        #: What each call was signed for: key/day/region/service/aws4_request.
        self.scopes: list[str] = []
        self._ec2 = get_service_model("ec2")
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> AwsStandIn:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def fail(self, operation: str, status: int, code: str, times: int = 1000) -> None:
        """The next answers of an operation are errors."""
        self.failures[operation] = [(status, code)] * times

    def answer(self, operation: str, given: dict[str, Any]) -> tuple[int, str]:
        """Status and body of one call."""
        self.asked.append((operation, given))
        failing = self.failures.get(operation)
        if failing:
            status, code = failing.pop()
            if operation in TOKENS:
                return status, json.dumps({"__type": code, "message": "as told"})
            error = f"<Errors><Error><Code>{code}</Code><Message>as told</Message></Error></Errors>"
            return status, f"<Response>{error}<RequestID>r</RequestID></Response>"
        key = TOKENS.get(operation, "NextToken")
        number = int(given.get(key) or 0)
        pages = self.pages.get(operation, ({},))
        page = {k: v for k, v in pages[number].items() if k != key}
        if number + 1 < len(pages) or operation in self.circles:
            page[key] = str(min(number + 1, len(pages) - 1))
        if operation in TOKENS:
            return 200, json.dumps(page)
        body = EC2Serializer(self._ec2.operation_model(operation)).serialize(page)["body"]
        return 200, str(body)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                signed = self.headers.get("Authorization", "").partition("Credential=")[2]
                stand_in.scopes.append(signed.partition(",")[0])
                target = self.headers.get("X-Amz-Target", "")
                if target or self.path != "/":
                    operation = (target or self.path).replace("/", ".").rsplit(".", 1)[-1]
                    given = json.loads(body or "{}")
                else:
                    given = {name: values[0] for name, values in parse_qs(body).items()}
                    operation = given["Action"]
                status, text = stand_in.answer(operation, given)
                answer = text.encode()
                self.send_response(status)
                self.send_header("Content-Type", "text/xml" if text[:1] == "<" else "text/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer[: stand_in.cut.get(operation, len(answer))])
                if operation in stand_in.cut:
                    self.close_connection = True

            def log_message(self, format: str, *args: object) -> None:
                """Quiet."""

        return Handler
