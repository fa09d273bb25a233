"""Refreshes in processes that are killed: at a stage, at a write to the disk, or by whoever waits.

A server of forks starts each in milliseconds, and none shares a thread with the test.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import sys
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from typing import Any

from sizewright_catalog.home import Home
from sizewright_catalog.refresh.events import Event
from sizewright_catalog.refresh.run import Options, Refresh
from stand_in_provider import StandIn

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["doomed"])

#: What the interpreter tells of before it does it, where a file or the store may change.
WRITES = ("open", "os.rename", "os.remove", "os.mkdir", "sqlite3.connect", "os.truncate")
#: How long a refresh may take that takes half a second, before a test gives up.
PATIENCE_SECONDS = 60.0


@dataclass(frozen=True)
class Doom:
    """When a refresh dies: at a stage, or at its nth write; and how large its files may grow."""

    stage: str = ""
    write: int = 0
    file_bytes: int | None = None


class _Dying:
    """Counts writes to the disk and kills at one of them."""

    def __init__(self, doom: Doom, counted: Any) -> None:
        self.doom, self.counted = doom, counted
        self.writes = 0

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in WRITES or (event == "open" and not _writes(arguments)):
            return
        self.writes += 1
        self.counted.value = self.writes
        if self.writes == self.doom.write:
            os.kill(os.getpid(), signal.SIGKILL)

    def tell(self, event: Event) -> None:
        if event.stage == self.doom.stage:
            os.kill(os.getpid(), signal.SIGKILL)


def _writes(arguments: tuple[Any, ...]) -> bool:
    mode, flags = arguments[1], arguments[2]
    if isinstance(mode, str):
        return any(letter in mode for letter in "wax+")
    return bool(flags & (os.O_WRONLY | os.O_RDWR))


def _refresh(
    home: Home, url: str, doom: Doom, counted: Any, said: Any, store_url: str | None
) -> None:
    dying = _Dying(doom, counted)
    if doom.file_bytes is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (doom.file_bytes, doom.file_bytes))
    sys.addaudithook(dying.audit)
    options = Options(settings={"endpoint_url": url}, store_url=store_url)
    last = Refresh(home, StandIn(), options, dying.tell).run()
    said.put((last.stage, last.message, last.already_running))


class Doomed:
    """A refresh in a process of its own."""

    def __init__(
        self, home: Home, url: str, doom: Doom = Doom(), *, store_url: str | None = None
    ) -> None:
        self._counted = _FORKS.Value("i", 0)
        self._said = _FORKS.SimpleQueue()
        self.process: BaseProcess = _FORKS.Process(
            target=_refresh, args=(home, url, doom, self._counted, self._said, store_url)
        )
        self.process.start()

    @property
    def writes(self) -> int:
        """Writes to the disk that it came to."""
        return int(self._counted.value)

    def wait(self) -> int:
        """Its exit code, once it has ended; minus nine where it was killed."""
        self.process.join(PATIENCE_SECONDS)
        code = self.process.exitcode
        assert code is not None, "the refresh hangs"
        return code

    def last(self) -> tuple[str, str, bool]:
        """Stage and message of its last event, and whether another was running."""
        assert self.wait() == 0
        stage, message, running = self._said.get()
        return stage, message, running

    def kill(self) -> None:
        """Kills it now."""
        self.process.kill()
        self.process.join(PATIENCE_SECONDS)
