"""Standard output is for data, standard error for everything else."""

from __future__ import annotations

import os
import sys


def emit(text: str) -> None:
    """Write data to standard output. A reader that has gone away is no failure."""
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        # A sign that the terminal's encoding lacks becomes "?", never an exception.
        reconfigure(errors="replace")
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        # What is still buffered goes nowhere, so that the flush at exit stays quiet too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say(line: str) -> None:
    """Write a line to standard error, without what would steer a terminal."""
    safe = "".join(letter if letter.isprintable() else "?" for letter in line)
    try:
        sys.stderr.write(safe.encode("utf-8", "replace").decode() + "\n")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
