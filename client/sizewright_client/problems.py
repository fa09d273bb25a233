"""What is wrong with a request file: every problem, each with the path of its field."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One wrong field: its path, what would be right, and the line where one is known."""

    field: str
    description: str
    line: int | None = None

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line is not None else ""
        return (
            f"{where}{self.field}: {self.description}" if self.field else where + self.description
        )


class RequestFileError(ValueError):
    """A request file that says something no request can hold. `problems` names all of it."""

    def __init__(self, file: str, problems: Iterable[Problem]) -> None:
        self.file = file
        self.problems = tuple(problems)
        super().__init__("\n".join(f"{file}: {problem}" for problem in self.problems))


class UnreadableRequestFileError(RequestFileError):
    """A request file that could not be read at all: missing, a directory, not permitted."""


class Problems:
    """Collects problems while a file is read, so that all are reported together."""

    def __init__(self) -> None:
        self._found: list[Problem] = []

    def add(self, field: str, description: str, line: int | None = None) -> None:
        """Note one problem."""
        self._found.append(Problem(field, description, line))

    @property
    def found(self) -> tuple[Problem, ...]:
        """All problems, in the order of the file."""
        return tuple(sorted(self._found, key=lambda problem: problem.line or 0))
