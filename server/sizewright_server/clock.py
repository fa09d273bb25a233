"""The one clock that ages and days in answers are told by."""

from __future__ import annotations

import time
from datetime import UTC, date, datetime


def now() -> float:
    """Unix time, seconds."""
    return time.time()


def utc_today() -> date:
    """The day it is now, UTC."""
    return datetime.fromtimestamp(now(), tz=UTC).date()
