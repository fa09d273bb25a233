"""Page tokens: opaque, bound to the catalog version and the filter they were made for."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from sizewright_server.estimation.problems import Violation
from sizewright_server.wire.violations import RequestInvalid

DEFAULT_PAGE = 100
MAX_PAGE = 1000


class TokenOfAnother(RequestInvalid):
    """A page token that was made for another version or question, or by nobody."""


def page(
    found: NDArray[Any], size: int, token: str, version: str, filters: Sequence[str]
) -> tuple[list[int], str]:
    """One page of indices and the token of the next; empty on the last.

    Raises RequestInvalid for a bad size, or a token of another version, filter or making.
    """
    if not 0 <= size <= MAX_PAGE:
        raise RequestInvalid(
            [Violation("page_size", f"must be from 0 to {MAX_PAGE:,}, not {size}")]
        )
    size = size or DEFAULT_PAGE
    stamp = hashlib.sha256(json.dumps([version, *filters]).encode()).hexdigest()[:16]
    start = _start(token, stamp)
    rows = [int(i) for i in found[start : start + size]]
    after = start + size
    return rows, _token(after, stamp) if after < len(found) else ""


def _token(start: int, stamp: str) -> str:
    return base64.urlsafe_b64encode(f"{start}:{stamp}".encode()).decode()


def _start(token: str, stamp: str) -> int:
    if not token:
        return 0
    try:
        start, made_for = base64.urlsafe_b64decode(token.encode()).decode().split(":")
        if made_for == stamp and start.isdigit():
            return int(start)
    except (ValueError, UnicodeError):
        pass
    words = "is not a token of this listing: pass next_page_token of the same question"
    raise TokenOfAnother([Violation("page_token", words)])
