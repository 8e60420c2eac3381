"""Draws charts with matplotlib's objects alone: no pyplot, no global state, so any thread may.

Text is drawn as it is, never as mathematics, whatever dollar signs it holds.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from harmonia_actors.components.reports import fonts
from harmonia_actors.components.reports.model import (
    Bars,
    Boxes,
    Drawing,
    HeatMap,
    Histogram,
    Histograms,
    Line,
    Scatter,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["PALETTE", "WIDTH_INCHES", "draw", "png", "svg"]

WIDTH_INCHES = 6.7
PNG_DPI = 220

INK, FAINT, GRID = "#22303c", "#6b7884", "#e3e8ec"
PALETTE = ("#2a6f97", "#e08e45", "#5a9367", "#b5556b", "#7c6a9c", "#8d8741", "#4f9da6", "#9a7b66")
_LABEL_LENGTH_MAX = 22
_TEXT_SIZE = 7.5


def draw(drawing: Drawing) -> Figure:
    """The drawing as a figure of the page's width."""
    match drawing:
        case Histograms():
            figure = _grid(drawing.panels, 1.55, _histogram)
        case Bars():
            figure = _bars(drawing)
        case Boxes():
            narrow = all(len(groups) <= 4 for _, groups in drawing.panels)
            figure = _grid(drawing.panels, 1.9, _boxes, across=4 if narrow else 3)
        case HeatMap():
            figure = _heat_map(drawing)
        case Scatter():
            figure = _scatter(drawing)
        case Line():
            figure = _line(drawing)
    return _finish(figure)


def png(drawing: Drawing) -> bytes:
    """The drawing as a PNG for print."""
    return _saved(draw(drawing), "png", dpi=PNG_DPI)


def svg(drawing: Drawing) -> bytes:
    """The drawing as an SVG whose text is drawn, so that it looks the same everywhere."""
    return _saved(draw(drawing), "svg", metadata={"Date": None})


def _saved(figure: Figure, form: str, **options: Any) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    target = io.BytesIO()
    figure.savefig(target, format=form, facecolor="white", **options)
    return target.getvalue()


def _figure(height: float) -> Figure:
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(wspace=0.06, hspace=0.08)
    return Figure(figsize=(WIDTH_INCHES, height), layout=layout)


def _finish(figure: Figure) -> Figure:
    """One look for all text, and none of it read as a formula."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_parse_math(False)
        text.set_fontfamily("DejaVu Sans")
    return figure


def _style(axes: Axes, title: str = "", *, grid: Literal["x", "y"] = "y") -> None:
    for side in ("top", "right", "left" if grid == "y" else "bottom"):
        axes.spines[side].set_visible(False)
    for spine in axes.spines.values():
        spine.set_color(FAINT)
        spine.set_linewidth(0.6)
    axes.tick_params(labelsize=_TEXT_SIZE - 0.5, length=0, colors=FAINT, labelcolor=FAINT, pad=3)
    axes.grid(visible=True, axis=grid, color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    if title:
        axes.set_title(
            _label(title, 40), fontsize=_TEXT_SIZE + 0.7, color=INK, loc="left", weight="bold"
        )


def _label(text: str, length: int = _LABEL_LENGTH_MAX) -> str:
    shown = fonts.drawable(text)
    return shown if len(shown) <= length else shown[: length - 1] + "…"


def _grid(
    panels: Sequence[Any], row_height: float, draw_panel: Any, across: int | None = None
) -> Figure:
    """Panels in rows, each drawn by `draw_panel`; two or three to a row unless told otherwise."""
    if across is None:
        across = 2 if len(panels) in (2, 4) else 3
    across = min(across, len(panels))
    down = -(-len(panels) // across)
    figure = _figure(row_height * down + 0.1)
    for at, panel in enumerate(panels):
        draw_panel(figure.add_subplot(down, across, at + 1), panel)
    return figure


def _histogram(axes: Axes, panel: Histogram) -> None:
    from matplotlib.ticker import MaxNLocator

    edges = panel.edges
    widths = [right - left for left, right in itertools.pairwise(edges)]
    axes.bar(
        edges[:-1],
        panel.counts,
        width=widths,
        align="edge",
        color=PALETTE[0],
        edgecolor="white",
        linewidth=0.6,
    )
    if panel.median is not None:
        axes.axvline(panel.median, color=PALETTE[1], linewidth=1.2, linestyle=(0, (4, 2)))
    _style(axes, panel.title)
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    if panel.edge_labels:
        axes.set_xticks([edges[0], edges[-1]])
        labels = axes.set_xticklabels([panel.edge_labels[0], panel.edge_labels[-1]])
        labels[0].set_horizontalalignment("left")
        labels[-1].set_horizontalalignment("right")
    else:
        axes.xaxis.set_major_locator(MaxNLocator(5))


def _bars(drawing: Bars) -> Figure:
    longest = max(len(bars) for _, bars in drawing.panels)
    single = len(drawing.panels) == 1

    def panel_of(axes: Axes, panel: tuple[str, tuple[tuple[str, float], ...]]) -> None:
        title, bars = panel
        places = range(len(bars))
        values = [value for _, value in bars]
        drawn = axes.barh(places, values, height=0.66, color=PALETTE[0])
        _style(axes, title, grid="x")
        axes.set_yticks(places, [_label(label) for label, _ in bars], color=INK)
        # The same height for bars in all panels, however many there are.
        axes.set_ylim((longest if single else max(longest, 3)) - 0.4, -0.6)
        axes.grid(visible=False)
        axes.set_xticks([])
        axes.margins(x=0.18)
        axes.bar_label(
            drawn,
            [_number(value) + drawing.unit for value in values],
            padding=3,
            fontsize=_TEXT_SIZE - 0.5,
            color=FAINT,
        )

    row = 0.18 * longest + 0.25 if single else 0.2 * max(longest, 3) + 0.4
    return _grid(drawing.panels, row, panel_of)


def _number(value: float) -> str:
    if abs(value) >= 1e15:
        return f"{value:.4g}"
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 1000 else f"{value:.4g}"


def _boxes(axes: Axes, panel: tuple[str, tuple[tuple[str, tuple[float, ...]], ...]]) -> None:
    title, groups = panel
    keys = ("whislo", "q1", "med", "q3", "whishi")
    boxes = axes.bxp(
        [dict(zip(keys, five, strict=True)) for _, five in groups],
        showfliers=False,
        patch_artist=True,
        widths=0.5,
        medianprops={"color": "white", "linewidth": 1.4},
        whiskerprops={"color": FAINT, "linewidth": 0.9},
        capprops={"color": FAINT, "linewidth": 0.9},
    )
    for at, box in enumerate(boxes["boxes"]):
        box.set(facecolor=PALETTE[at % len(PALETTE)], edgecolor="none")
    _style(axes, title)
    crowded = len(groups) > 4
    axes.set_xticks(
        range(1, len(groups) + 1),
        [_label(group, 12) for group, _ in groups],
        color=INK,
        rotation=40 if crowded else 0,
        ha="right" if crowded else "center",
    )


def _heat_map(drawing: HeatMap) -> Figure:
    count = len(drawing.names)
    figure = _figure(min(6.2, 1.3 + 0.42 * count))
    axes = figure.add_subplot()
    matrix = [[float("nan") if v is None else v for v in row] for row in drawing.matrix]
    image = axes.imshow(matrix, cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto" if count < 6 else 1)
    labels = [_label(name) for name in drawing.names]
    axes.set_xticks(range(count), labels, rotation=30, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(count), labels)
    axes.tick_params(length=0, labelsize=_TEXT_SIZE, labelcolor=INK)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_xticks([at - 0.5 for at in range(1, count)], minor=True)
    axes.set_yticks([at - 0.5 for at in range(1, count)], minor=True)
    axes.grid(which="minor", color="white", linewidth=2)
    axes.tick_params(which="minor", length=0)
    if count <= 12:
        for i, row in enumerate(drawing.matrix):
            for j, value in enumerate(row):
                if value is not None:
                    axes.text(
                        j,
                        i,
                        f"{value:.2f}".replace("-", "−"),
                        ha="center",
                        va="center",
                        fontsize=_TEXT_SIZE,
                        color="white" if abs(value) > 0.6 else INK,
                    )
    bar = figure.colorbar(image, ax=axes, fraction=0.035, pad=0.02, ticks=[-1, -0.5, 0, 0.5, 1])
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=_TEXT_SIZE - 0.5, length=0, labelcolor=FAINT)
    return figure


def _scatter(drawing: Scatter) -> Figure:
    figure = _figure(3.1)
    axes = figure.add_subplot()
    for at, (group, points) in enumerate(drawing.groups):
        axes.scatter(
            [x for x, _ in points],
            [y for _, y in points],
            s=15,
            color=PALETTE[at % len(PALETTE)],
            alpha=0.75,
            linewidths=0,
            label=_label(group),
        )
    _style(axes)
    axes.spines["left"].set_visible(True)
    axes.grid(visible=True, axis="both", color=GRID, linewidth=0.7)
    axes.set_xlabel(_label(drawing.x, 60), fontsize=_TEXT_SIZE, color=INK)
    axes.set_ylabel(_label(drawing.y, 40), fontsize=_TEXT_SIZE, color=INK)
    if len(drawing.groups) > 1:
        axes.legend(
            fontsize=_TEXT_SIZE, frameon=False, labelcolor=INK, handletextpad=0.2, loc="best"
        )
    return figure


def _line(drawing: Line) -> Figure:
    figure = _figure(2.3)
    axes = figure.add_subplot()
    for at, (name, values) in enumerate(drawing.series):
        shown = [float("nan") if value is None else value for value in values]
        axes.plot(shown, color=PALETTE[at % len(PALETTE)], linewidth=1.5, label=_label(name))
    _style(axes)
    if len(drawing.series) > 1:
        axes.legend(fontsize=_TEXT_SIZE, frameon=False, labelcolor=INK)
    return figure
