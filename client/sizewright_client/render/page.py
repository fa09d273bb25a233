"""A page of output: the console it is laid out on, its glyphs, and the text that comes out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TextIO

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from sizewright_client.render.figures import printable

_EIGHTHS = "▏▎▍▌▋▊▉█"
_NARROWEST = 60
_WIDEST = 120


@dataclass(frozen=True, slots=True)
class Glyphs:
    """The signs a terminal can show."""

    unicode: bool

    @property
    def times(self) -> str:
        """Between a count and what is counted."""
        return "\N{MULTIPLICATION SIGN}" if self.unicode else "x"

    @property
    def pointer(self) -> str:
        """In front of what matters on a line."""
        return "◄" if self.unicode else "<"

    @property
    def bullet(self) -> str:
        """In front of each of several sentences."""
        return "•" if self.unicode else "-"

    def bar(self, share: float, width: int) -> str:
        """A bar over `share` of `width` columns; anything above nothing shows."""
        filled = min(max(share, 0.0), 1.0) * width
        if not self.unicode:
            whole = round(filled)
            return "#" * (max(whole, 1) if share > 0 else 0)
        eighths = round(filled * 8)
        if share > 0:
            eighths = max(eighths, 1)
        rest = _EIGHTHS[eighths % 8 - 1] if eighths % 8 else ""
        return "█" * (eighths // 8) + rest


class Page:
    """Collects one answer and gives it back as text, coloured only where colour is wanted."""

    def __init__(self, *, width: int, colour: bool, unicode: bool) -> None:
        self.width = max(_NARROWEST, min(width, _WIDEST))
        self.glyphs = Glyphs(unicode)
        self._colour = colour
        self._console = Console(
            width=self.width,
            color_system="standard" if colour else None,
            force_terminal=colour,
            no_color=not colour,
            legacy_windows=False,
            highlight=False,
            markup=False,
            emoji=False,
            record=False,
        )
        self._blocks: list[str] = []

    def put(self, block: RenderableType, *, indent: int = 0) -> None:
        """Add a block below what is there."""
        with self._console.capture() as capture:
            self._console.print(Padding(block, (0, 0, 0, indent)) if indent else block)
        text = capture.get()
        if not self._colour:
            text = "".join(line.rstrip() + "\n" for line in text.splitlines())
        self._blocks.append(text)

    def say(self, sentence: str, *, style: str = "", indent: int = 0) -> None:
        """Add a sentence from anywhere; it wraps, and what would steer a terminal is taken out."""
        self.put(Text(printable(sentence), style=style), indent=indent)

    def heading(self, words: str) -> None:
        """Add an empty line and a heading."""
        self._blocks.append("\n" if self._blocks else "")
        self.say(words, style="bold")

    def points(self, sentences: list[str], *, style: str = "") -> None:
        """Add sentences, each with a bullet, wrapped under its own start."""
        grid = grid_of(("bullet", "left"), ("sentence", "left"))
        for sentence in sentences:
            grid.add_row(self.glyphs.bullet, Text(printable(sentence), style=style))
        self.put(grid, indent=2)

    def text(self) -> str:
        """The page as text, with its last line ended."""
        return "".join(self._blocks)


def grid_of(*columns: tuple[str, str]) -> Table:
    """A table without lines or head, two blanks between its columns."""
    grid = Table.grid(padding=(0, 2, 0, 0), pad_edge=False)
    for name, justify in columns:
        wraps = name in ("sentence", "name")
        grid.add_column(
            justify="right" if justify == "right" else "left",
            no_wrap=not wraps,
            overflow="fold",
        )
    return grid


def page_for(stream: TextIO, environment: Mapping[str, str] | None = None) -> Page:
    """A page that suits where it will be shown: its width, colours and signs.

    NO_COLOR and TERM=dumb take colour away, FORCE_COLOR gives it to a pipe; NO_COLOR wins.
    """
    env = os.environ if environment is None else environment
    terminal = stream.isatty()
    dumb = env.get("TERM", "") in ("dumb", "unknown")
    colour = not env.get("NO_COLOR") and (bool(env.get("FORCE_COLOR")) or (terminal and not dumb))
    encoding = (stream.encoding or "ascii").lower()
    return Page(
        width=_width(stream, env, terminal),
        colour=colour,
        unicode=encoding.startswith("utf") and not dumb,
    )


def _width(stream: TextIO, env: Mapping[str, str], terminal: bool) -> int:
    if env.get("COLUMNS", "").isdecimal():
        return int(env["COLUMNS"])
    if terminal:
        try:
            return os.get_terminal_size(stream.fileno()).columns or 80
        except OSError:
            return 80
    return 80
