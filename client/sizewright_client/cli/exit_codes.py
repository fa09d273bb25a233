"""What the command's exit code says. These are stable; scripts lean on them."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """The exit codes of every `sizewright` command."""

    OK = 0
    UNEXPECTED = 1
    USAGE = 2
    NOTHING_FITS = 3
    INVALID_REQUEST = 4
    UNAVAILABLE = 5
    DENIED = 6
    CATALOG = 7
    INTERRUPTED = 130


EXIT_CODES_HELP = """\b
Exit codes:
  0    ok; the workload fits, or fits tightly
  1    unexpected: a fault of the program or the server
  2    usage: a wrong option, or a file that cannot be read
  3    nothing fits
  4    invalid request: the file or the workload says something wrong
  5    the server is unavailable, overloaded or too late
  6    not authenticated, or not permitted
  7    the catalog is missing or too old
  130  interrupted
"""
