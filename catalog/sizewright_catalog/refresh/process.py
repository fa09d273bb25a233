"""The process of a refresh, as whoever starts one sees it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator

from sizewright_catalog.home import Home
from sizewright_catalog.refresh.events import Event, read_line

#: From asking a refresh to stop to ending its process, in seconds.
STOP_SECONDS = 10.0
#: What is kept of its standard error, in characters: its end says why it died.
ERROR_TAIL = 2000


class RefreshProcess:
    """A refresh of one provider in a process of its own.

    Raises OSError when none can be started.
    """

    def __init__(
        self,
        home: Home,
        provider: str,
        *,
        store_url: str | None = None,
        accept_changes: bool = False,
    ) -> None:
        self.provider = provider
        command = [sys.executable, "-m", "sizewright_catalog.refresh"]
        command += ["--home", str(home.root), "--provider", provider]
        command += ["--accept-changes"] if accept_changes else []
        environment = {**os.environ, "SIZEWRIGHT_STORE_URL": store_url or ""}
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self._said = ""
        self._reader = threading.Thread(target=self._read_errors, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def events(self) -> Iterator[Event]:
        """What it tells, until it ends. The last one ends the refresh, whatever became of it."""
        ended = False
        if self._process.stdout is None:
            raise ValueError("the process has no standard output")
        with self._process.stdout as lines:
            for line in lines:
                event = read_line(line)
                ended = event.is_last
                yield event
        status = self._process.wait()
        self._reader.join()
        if not ended:
            how = f"signal {-status}" if status < 0 else f"status {status}"
            words = f"its process ended with {how}"
            tail = self._said.strip().splitlines()
            yield Event(self.provider, "failed", f"{words}: {tail[-1]}" if tail else words)

    def cancel(self) -> None:
        """Asks it to stop, and ends it when it does not. What is served stays as it is."""
        self._process.terminate()
        threading.Thread(target=self._end, daemon=True).start()

    def _end(self) -> None:
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def _read_errors(self) -> None:
        if self._process.stderr is None:
            return
        with self._process.stderr as lines:
            for line in lines:
                self._said = (self._said + line)[-ERROR_TAIL:]
