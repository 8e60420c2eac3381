"""A report before it has a format: sections of blocks, and charts as data.

Frozen, without behaviour. Text in it is plain text: each renderer escapes it for its format.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

__all__ = [
    "Bars",
    "Block",
    "Boxes",
    "Bullets",
    "Chart",
    "Drawing",
    "HeatMap",
    "Histogram",
    "Histograms",
    "KeyFigures",
    "Line",
    "Paragraph",
    "Report",
    "Scatter",
    "Section",
    "Table",
]


@dataclass(frozen=True, slots=True)
class Paragraph:
    """Running text."""

    text: str


@dataclass(frozen=True, slots=True)
class Bullets:
    """A list of sentences."""

    items: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class KeyFigures:
    """A few numbers to be seen first: (value, what it counts)."""

    figures: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Table:
    """Cells are text; `numeric` names the columns (from 0) that are aligned to the right."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: frozenset[int] = frozenset()
    caption: str = ""


@dataclass(frozen=True, slots=True)
class Histogram:
    """Counts between edges (one more edge than counts); edges may be labels of dates."""

    title: str
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    median: float | None = None
    edge_labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Histograms:
    """Small histograms side by side."""

    panels: tuple[Histogram, ...]


@dataclass(frozen=True, slots=True)
class Bars:
    """Panels of horizontal bars: (title, ((label, value), …))."""

    panels: tuple[tuple[str, tuple[tuple[str, float], ...]], ...]
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """Values in order; each series is (name, values)."""

    series: tuple[tuple[str, tuple[float | None, ...]], ...]


@dataclass(frozen=True, slots=True)
class HeatMap:
    """A square matrix of correlations, -1 to 1."""

    names: tuple[str, ...]
    matrix: tuple[tuple[float | None, ...], ...]


@dataclass(frozen=True, slots=True)
class Boxes:
    """Per panel (title, ((group, (min, q1, median, q3, max)), …))."""

    panels: tuple[tuple[str, tuple[tuple[str, tuple[float, float, float, float, float]], ...]], ...]


@dataclass(frozen=True, slots=True)
class Scatter:
    """Points of two measures, in groups: (group, ((x, y), …))."""

    x: str
    y: str
    groups: tuple[tuple[str, tuple[tuple[float, float], ...]], ...]


Drawing = Histograms | Bars | Line | HeatMap | Boxes | Scatter


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing with a caption; `name` is what its file is called, without suffix."""

    name: str
    caption: str
    drawing: Drawing


Block = Paragraph | Bullets | KeyFigures | Table | Chart


@dataclass(frozen=True, slots=True)
class Section:
    """A heading with what belongs to it."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """The whole. `facts` stand under the title: where the data is from, when it was made."""

    title: str
    facts: tuple[str, ...] = ()
    sections: tuple[Section, ...] = field(default=())

    def charts(self) -> Iterator[Chart]:
        """All charts, in order."""
        for section in self.sections:
            for block in section.blocks:
                if isinstance(block, Chart):
                    yield block
