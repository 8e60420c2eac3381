"""A report as PDF, set with reportlab's platypus."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

from harmonia_actors.components.reports import charts, fonts
from harmonia_actors.components.reports.model import (
    Bullets,
    Chart,
    KeyFigures,
    Paragraph,
    Report,
    Section,
    Table,
)

if TYPE_CHECKING:
    from reportlab.platypus import Flowable

__all__ = ["render_pdf"]

_INK, _FAINT, _RULE, _BAND = "#22303c", "#6b7884", "#d5dce2", "#f4f6f8"
_ACCENT = charts.PALETTE[0]
_MARGIN_MM = 21
#: A cell that is longer, or higher (in points), is cut: a row must fit on a page with the head.
_CELL_LENGTH_MAX = 600
_CELL_HEIGHT_MAX, _HEAD_HEIGHT_MAX = 360, 100
_CELL_SIZE, _CELL_LEADING, _CELL_PADDING = 7.5, 10, 6
#: Points that a column keeps if it needs them, however much the others hold.
_COLUMN_WIDTH_MIN = 48
#: Points of a picture, which must fit on a page with its caption.
_PICTURE_HEIGHT_MAX = 600
#: Tables of fewer columns are as wide as they need to be.
_FULL_WIDTH_COLUMNS = 5
#: Points of a table that is kept on one page; a higher one may go over pages.
_UNBROKEN_HEIGHT_MAX = 400
#: Points that must be left on a page for a section to start there.
_ROOM_FOR_HEADING = 90


def render_pdf(report: Report, pictures: Mapping[str, bytes]) -> bytes:
    """The report as a PDF file, with its title and an outline of its sections.

    `pictures` has each chart's PNG by the chart's name.
    """
    from reportlab.lib.pagesizes import A4
    from reportlab.lib.units import mm
    from reportlab.platypus import BaseDocTemplate, Frame, PageTemplate

    fonts.register()
    target = io.BytesIO()
    margin = _MARGIN_MM * mm
    document = BaseDocTemplate(
        target,
        pagesize=A4,
        title=_whole(report.title),
        author="Harmonia",
        lang="en",
        leftMargin=margin,
        rightMargin=margin,
    )
    width = A4[0] - 2 * margin
    frame = Frame(margin, 20 * mm, width, A4[1] - 40 * mm, 0, 0, 0, 0, id="body")
    page = PageTemplate(id="page", frames=[frame], onPage=_furniture(report.title))
    document.addPageTemplates([page])
    story = _Story(width, pictures)
    story.title(report)
    for number, section in enumerate(report.sections, start=1):
        story.section(number, section)
    document.build(story.flowables, canvasmaker=_counting_canvas())
    return target.getvalue()


def _furniture(title: str) -> Any:
    """Draws what every page has besides its text: from the second page on, the title on top."""

    def draw(canvas: Any, document: Any) -> None:
        if document.page == 1:
            return
        width, height = canvas._pagesize
        margin = document.leftMargin
        canvas.setFont(fonts.BODY, 7)
        canvas.setFillColor(_FAINT)
        shown = fonts.drawable(title)
        canvas.drawString(margin, height - 38, shown if len(shown) < 90 else shown[:89] + "…")
        canvas.setStrokeColor(_RULE)
        canvas.setLineWidth(0.5)
        canvas.line(margin, height - 44, width - margin, height - 44)

    return draw


def _counting_canvas() -> Any:
    """A canvas that writes `page of pages`, for which all pages must be known first."""
    from reportlab.pdfgen.canvas import Canvas

    class CountingCanvas(Canvas):
        def __init__(self, *given: Any, **named: Any) -> None:
            super().__init__(*given, **named)
            self._pages: list[dict[str, Any]] = []

        def showPage(self) -> None:  # noqa: N802 - reportlab's name
            self._pages.append(dict(self.__dict__))
            self._startPage()  # type: ignore[attr-defined]

        def save(self) -> None:
            for number, page in enumerate(self._pages, start=1):
                self.__dict__.update(page)
                self.setFont(fonts.BODY, 7)
                self.setFillColor(_FAINT)
                width = self._pagesize[0]  # type: ignore[attr-defined]
                self.drawCentredString(width / 2, 32, f"{number} / {len(self._pages)}")
                super().showPage()
            super().save()

    return CountingCanvas


class _Story:
    """Collects flowables of one text width."""

    def __init__(self, width: float, pictures: Mapping[str, bytes]) -> None:
        self._pictures = pictures
        self.flowables: list[Flowable] = []
        self._width = width
        self._styles = _styles()
        self._figures = 0

    def title(self, report: Report) -> None:
        from reportlab.platypus import HRFlowable, Spacer

        self.flowables += [
            self._text(report.title, "title"),
            *(self._text(fact, "fact") for fact in report.facts),
            Spacer(1, 9),
            HRFlowable(width="100%", thickness=1.4, color=_ACCENT, spaceBefore=0, spaceAfter=4),
        ]

    def section(self, number: int, section: Section) -> None:
        from reportlab.platypus import CondPageBreak

        heading = _outlined(self._text(section.title, "heading"), section.title, f"s{number}")
        self.flowables.append(CondPageBreak(_ROOM_FOR_HEADING))
        before: list[Flowable] = [heading]
        for block in section.blocks:
            parts = self._block(block)
            # A heading stays with what it announces; tables and charts stay in one piece.
            self.flowables += self._together(block, [*before, *parts])
            before = []

    def _together(self, block: Any, parts: list[Flowable]) -> list[Flowable]:
        from reportlab.platypus import CondPageBreak, KeepTogether

        if not isinstance(block, Table):
            return [KeepTogether(parts)]
        heights = [
            part.wrap(self._width, _UNBROKEN_HEIGHT_MAX)[1]
            + (part.getSpaceBefore() + part.getSpaceAfter())
            for part in parts
        ]
        if sum(heights) <= _UNBROKEN_HEIGHT_MAX:
            return [KeepTogether(parts)]
        # The heading at least stays with the table's head and its first row.
        at, rows = next(
            (n, p._rowHeights) for n, p in enumerate(parts) if hasattr(p, "_rowHeights")
        )
        return [CondPageBreak(sum(heights[:at]) + sum(rows[:2])), *parts]

    def _block(self, block: Any) -> list[Flowable]:
        match block:
            case Paragraph():
                return [self._text(block.text, "body")]
            case Bullets():
                return [self._text(item, "bullet", bullet=True) for item in block.items]
            case KeyFigures():
                return self._key_figures(block)
            case Table():
                return self._table(block)
            case Chart():
                return self._chart(block)
        raise TypeError(f"no such block: {type(block).__name__}")

    def _key_figures(self, block: KeyFigures) -> list[Flowable]:
        from reportlab.platypus import Spacer
        from reportlab.platypus import Table as Grid

        row = [
            [self._text(value, "figure"), self._text(label, "figure_label")]
            for value, label in block.figures
        ]
        grid = Grid([row], colWidths=[self._width / len(row)] * len(row), hAlign="LEFT")
        grid.setStyle(
            [
                ("BACKGROUND", (0, 0), (-1, -1), _BAND),
                ("LINEAFTER", (0, 0), (-2, -1), 3, "white"),
                ("TOPPADDING", (0, 0), (-1, -1), 7),
                ("BOTTOMPADDING", (0, 0), (-1, -1), 9),
                ("LEFTPADDING", (0, 0), (-1, -1), 10),
            ]
        )
        return [grid, Spacer(1, 9)]

    def _table(self, block: Table) -> list[Flowable]:
        from reportlab.platypus import Spacer
        from reportlab.platypus import Table as Grid

        widths = self._widths(block)
        cells = [
            [
                self._cell(text, self._cell_style(at in block.numeric, head), widths[at])
                for at, text in enumerate(row)
            ]
            for head, row in ((n == 0, row) for n, row in enumerate((block.head, *block.rows)))
        ]
        grid = Grid(cells, colWidths=widths, repeatRows=1, hAlign="LEFT")
        grid.setStyle(
            [
                ("LINEBELOW", (0, 0), (-1, 0), 0.9, _INK),
                ("LINEBELOW", (0, 1), (-1, -1), 0.4, _RULE),
                ("VALIGN", (0, 0), (-1, -1), "TOP"),
                ("TOPPADDING", (0, 0), (-1, -1), 2.5),
                ("BOTTOMPADDING", (0, 0), (-1, -1), 3.5),
                ("LEFTPADDING", (0, 0), (-1, -1), _CELL_PADDING),
                ("RIGHTPADDING", (0, 0), (-1, -1), _CELL_PADDING),
            ]
        )
        parts: list[Flowable] = [grid]
        if block.caption:
            parts.append(self._text(block.caption, "caption"))
        parts.append(Spacer(1, 8))
        return parts

    def _chart(self, block: Chart) -> list[Flowable]:
        from reportlab.lib.utils import ImageReader
        from reportlab.platypus import Image

        picture = self._pictures[block.name]
        pixels_wide, pixels_high = ImageReader(io.BytesIO(picture)).getSize()
        scale = min(self._width / pixels_wide, _PICTURE_HEIGHT_MAX / pixels_high)
        self._figures += 1
        caption = f"Figure {self._figures}. {block.caption}"
        image = Image(io.BytesIO(picture), pixels_wide * scale, pixels_high * scale)
        return [image, self._text(caption, "caption")]

    def _cell_style(self, numeric: bool, head: bool) -> str:
        return ("head" if head else "cell") + ("_right" if numeric else "")

    def _cell(self, text: str, style: str, width: float) -> Any:
        """The text as a cell, as much of it as the height allows."""
        height_max = _HEAD_HEIGHT_MAX if style.startswith("head") else _CELL_HEIGHT_MAX
        length = _CELL_LENGTH_MAX
        while True:
            shown = text if len(text) <= length else text[: length - 1] + "…"
            cell = self._text(shown, style)
            # No more lines than characters: most cells need not be measured.
            if len(shown) * _CELL_LEADING <= height_max:
                return cell
            _, height = cell.wrap(width - 2 * _CELL_PADDING, height_max)
            if height <= height_max:
                return cell
            length = int(len(shown) * 0.95 * height_max / height)

    def _widths(self, block: Table) -> list[float]:
        """Column widths by what stands in them; a table of few columns need not fill the page."""
        wanted = []
        for at, head in enumerate(block.head):
            texts = [row[at] for row in block.rows if at < len(row)]
            lines = [line for text in texts for line in text.split("\n")[:50]]
            widest = max((_cell_width(line, fonts.BODY) for line in lines), default=0.0)
            widest = max(widest, _cell_width(head, fonts.BOLD), _COLUMN_WIDTH_MIN / 2)
            wanted.append(min(widest, self._width * 0.6))
        if sum(wanted) > self._width:
            words = [
                max((_cell_width(word, fonts.BOLD) for word in head.split()), default=0.0)
                for head in block.head
            ]
            return self._narrowed(wanted, words)
        stretch = self._width / sum(wanted)
        if len(wanted) < _FULL_WIDTH_COLUMNS:
            stretch = min(stretch, 1.5)
        return [width * stretch for width in wanted]

    def _narrowed(self, wanted: list[float], words: list[float]) -> list[float]:
        """What narrow columns want they keep; the wide ones share out what is left.

        A heading's longest word stays whole if there is room for all of them.
        """
        floor = min(_COLUMN_WIDTH_MIN, self._width / len(wanted))
        kept = [min(width, max(floor, word)) for width, word in zip(wanted, words, strict=True)]
        if sum(kept) > self._width:
            kept = [min(width, floor) for width in wanted]
        share = (self._width - sum(kept)) / (sum(wanted) - sum(kept))
        return [low + share * (width - low) for low, width in zip(kept, wanted, strict=True)]

    def _text(self, text: str, style: str, *, bullet: bool = False) -> Any:
        from reportlab.platypus import Paragraph as Set

        mark = "•" if bullet else None
        return Set(_markup(text) or "&nbsp;", self._styles[style], bulletText=mark)


def _cell_width(line: str, font: str) -> float:
    """Points of a column that has room for the line, or for its start if it is long."""
    from reportlab.pdfbase.pdfmetrics import stringWidth

    width: float = stringWidth(_whole(line[:100]), font, _CELL_SIZE)
    return width + 2 * _CELL_PADDING + 1


def _whole(text: str) -> str:
    """The text without halves of surrogate pairs, which no file can hold."""
    return text.encode("utf-8", "replace").decode()


def _markup(text: str) -> str:
    """Text as reportlab's mark-up: escaped, line breaks kept, each run in a font that has it."""
    pieces = []
    for font, piece in fonts.runs(text):
        escaped = escape(piece).replace("\n", "<br/>")
        pieces.append(f'<font name="{font}">{escaped}</font>' if font else escaped)
    return "".join(pieces)


def _outlined(flowable: Any, title: str, key: str) -> Any:
    """The heading, which also enters itself into the file's outline when it is drawn."""
    draw = flowable.draw

    def draw_and_enter() -> None:
        canvas = flowable.canv
        canvas.bookmarkPage(key)
        canvas.addOutlineEntry(_whole(title), key, level=0, closed=False)
        draw()

    flowable.draw = draw_and_enter
    return flowable


def _styles() -> dict[str, Any]:
    from reportlab.lib.enums import TA_RIGHT
    from reportlab.lib.styles import ParagraphStyle

    def style(name: str, size: float, leading: float, **more: Any) -> ParagraphStyle:
        options: dict[str, Any] = {"fontName": fonts.BODY, "textColor": _INK}
        return ParagraphStyle(name, fontSize=size, leading=leading, **(options | more))

    cell = {"fontName": fonts.BODY}
    head = {"fontName": fonts.BOLD, "textColor": _INK}
    return {
        "title": style("title", 22, 27, fontName=fonts.HEADING, spaceAfter=4),
        "fact": style("fact", 8, 12, textColor=_FAINT),
        "heading": style(
            "heading",
            13,
            17,
            fontName=fonts.HEADING,
            textColor=_ACCENT,
            spaceBefore=13,
            spaceAfter=6,
        ),
        "body": style("body", 9, 13.5, spaceAfter=5),
        "bullet": style(
            "bullet", 9, 13.2, leftIndent=12, bulletIndent=2, bulletColor=_ACCENT, spaceAfter=2.5
        ),
        "caption": style("caption", 7.5, 11, textColor=_FAINT, spaceBefore=3, spaceAfter=9),
        "figure": style("figure", 15, 19, fontName=fonts.BOLD, textColor=_ACCENT),
        "figure_label": style("figure_label", 7.5, 10, textColor=_FAINT),
        "cell": style("cell", _CELL_SIZE, _CELL_LEADING, **cell),
        "cell_right": style("cell_right", _CELL_SIZE, _CELL_LEADING, alignment=TA_RIGHT, **cell),
        "head": style("head", _CELL_SIZE, _CELL_LEADING, **head),
        "head_right": style("head_right", _CELL_SIZE, _CELL_LEADING, alignment=TA_RIGHT, **head),
    }
