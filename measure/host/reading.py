"""The kernel's own figures of this process, and marks over a run."""

from __future__ import annotations

from pathlib import Path

STATUS = Path("/proc/self/status")


def status_bytes(field: str) -> int:
    """A field of the process status, such as VmRSS or VmHWM. Raises KeyError when it is missing."""
    for line in STATUS.read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(field)


class Marks:
    """Resident and high-water bytes at named moments."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, int]] = {}

    def set(self, name: str) -> None:
        """Notes the moment."""
        self.rows[name] = {
            "resident_bytes": status_bytes("VmRSS"),
            "high_water_bytes": status_bytes("VmHWM"),
        }
