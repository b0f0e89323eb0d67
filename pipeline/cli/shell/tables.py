"""Tables and facts for people, as wide as the terminal: 80 columns where there is none.

Nothing is ever cut. A table that is too wide first wraps its headings and its text at spaces; then it goes on below,
with its first column again. Only what has no space to be wrapped at, such as a long path, may stand out to the right.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

from ....errors import visible

WIDTH = 80
GAP = 2
_NARROW = 12  # a column of text is not wrapped to less, unless its words are shorter


class Grid:
    """Rows of cells under headings, each column to the left or to the right."""

    def __init__(self, heads: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[bool]) -> None:
        self.heads, self.rows, self.right = list(heads), [list(row) for row in rows], list(right)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Its lines."""
        width = options.max_width if console.is_terminal else WIDTH
        for number, block in enumerate(self._blocks(width)):
            if number:
                yield Text("")
            yield from self._drawn(block, self._widths(block, width))

    def _columns(self, column: int) -> list[str]:
        return [self.heads[column], *(row[column] for row in self.rows)]

    def _least(self, column: int) -> int:
        """What a column takes when its text is wrapped as far as it should be."""
        cells = self._columns(column)
        word = max((cell_len(word) for cell in cells for word in cell.split()), default=0)
        if self.right[column]:
            return word
        return max(word, min(_NARROW, max(map(cell_len, cells), default=0)))

    def _blocks(self, width: int) -> Iterator[list[int]]:
        """The columns that stand beside each other; all of them when they can."""
        block: list[int] = []
        for column in range(len(self.right)):
            if len(block) > 1 and self._taken([self._least(each) for each in (*block, column)]) > width:
                yield block
                block = [0]
            block.append(column)
        yield block

    @staticmethod
    def _taken(widths: Sequence[int]) -> int:
        return sum(widths) + GAP * (len(widths) - 1)

    def _widths(self, block: Sequence[int], width: int) -> list[int]:
        """Each column's: all that it wants, or, from the widest on, less until they fit."""
        widths = [max(map(cell_len, self._columns(column)), default=0) for column in block]
        least = [self._least(column) for column in block]
        while (over := self._taken(widths) - width) > 0:
            spare = [have - need for have, need in zip(widths, least, strict=True)]
            if not any(spare):
                break
            widest = max((k for k in range(len(block)) if spare[k]), key=lambda k: widths[k])
            others = [widths[k] for k in range(len(block)) if spare[k] and widths[k] < widths[widest]]
            down_to = max([least[widest], widths[widest] - over, *others]) if others else widths[widest] - over
            widths[widest] = max(least[widest], min(down_to, widths[widest] - 1))
        return widths

    def _drawn(self, block: Sequence[int], widths: Sequence[int]) -> Iterator[Text]:
        yield from self._lines(self.heads, block, widths, style="bold")
        for row in self.rows:
            yield from self._lines(row, block, widths)

    def _lines(
        self, row: Sequence[str], block: Sequence[int], widths: Sequence[int], style: str = ""
    ) -> Iterator[Text]:
        """A row's lines; short headings stand at the foot of theirs."""
        wrapped = [_wrapped(row[column], width) for column, width in zip(block, widths, strict=True)]
        high = max(map(len, wrapped))
        for number in range(high):
            line = Text(style=style, no_wrap=True, overflow="ignore")
            for column, lines, width in zip(block, wrapped, widths, strict=True):
                at = number - (high - len(lines)) if row is self.heads else number
                text = lines[at] if 0 <= at < len(lines) else ""
                pad = " " * max(0, width - cell_len(text))
                line.append((pad + text if self.right[column] else text + pad) + " " * GAP)
            line.rstrip()
            yield line


def _wrapped(cell: str, width: int) -> list[str]:
    """A cell's lines; words that are longer than the column stay whole."""
    if cell_len(cell) <= width:
        return [cell]
    lines: list[str] = []
    for word in cell.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and cell_len(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines or [""]


class Facts:
    """Names and what they are, one below the other; a terminal has long values wrapped, below each other."""

    def __init__(self, rows: Iterable[tuple[str, str]]) -> None:
        self.rows = list(rows)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Its lines."""
        width = options.max_width if console.is_terminal else sys.maxsize
        names = max((cell_len(name) for name, _ in self.rows), default=0)
        for name, value in self.rows:
            lines = [line for part in value.split("\n") for line in _wrapped(part, width - names - GAP)]
            for number, line in enumerate(lines):
                shown = name if number == 0 else ""
                text = Text(no_wrap=True, overflow="ignore")
                text.append(shown, style="bold")
                text.append(" " * (names - cell_len(shown) + GAP) + line)
                text.rstrip()
                yield text


def table(*columns: str, rows: Iterable[Sequence[object]]) -> Grid:
    """Rows under headings; text to the left, numbers to the right."""
    rows = list(rows)
    right = [all(isinstance(row[k], int | float) for row in rows) for k in range(len(columns))]
    shown = [[f"{cell:.1f}" if isinstance(cell, float) else visible(str(cell)) for cell in row] for row in rows]
    return Grid(columns, shown, right)


def facts(*rows: tuple[str, object]) -> Facts:
    """Names and what they are, one below the other."""
    return Facts((name, visible(str(value))) for name, value in rows)
