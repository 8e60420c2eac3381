"""Which font can show which character. The fonts are those that matplotlib brings along."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["BODY", "BOLD", "HEADING", "drawable", "register", "runs"]

#: Names under which reportlab knows the fonts.
BODY, BOLD, HEADING = "HarmoniaBody", "HarmoniaBold", "HarmoniaHeading"

_FILES = {BODY: "DejaVuSans.ttf", BOLD: "DejaVuSans-Bold.ttf", HEADING: "DejaVuSans-Bold.ttf"}
#: Not embedded: the reader's program has to have them. Better than an empty box.
_CHINESE_JAPANESE, _KOREAN = "STSong-Light", "HYSMyeongJo-Medium"
_MISSING = "\u25af"


@functools.cache
def register() -> Any:
    """Make the fonts known to reportlab, once; the body font."""
    import matplotlib
    from reportlab.pdfbase import pdfmetrics
    from reportlab.pdfbase.cidfonts import UnicodeCIDFont
    from reportlab.pdfbase.ttfonts import TTFont

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    for name, file in _FILES.items():
        pdfmetrics.registerFont(TTFont(name, str(folder / file)))
    pdfmetrics.registerFontFamily(BODY, normal=BODY, bold=BOLD, italic=BODY, boldItalic=BOLD)
    for name in (_CHINESE_JAPANESE, _KOREAN):
        pdfmetrics.registerFont(UnicodeCIDFont(name))
    return pdfmetrics.getFont(BODY)


def drawable(text: str) -> str:
    """The text with what the chart font lacks, and line breaks, replaced."""
    known = register().face.charToGlyph
    return "".join(
        char if ord(char) in known else (" " if char.isspace() else _MISSING) for char in text
    )


def runs(text: str) -> Iterator[tuple[str | None, str]]:
    """The text in pieces of one font each: (font, or None for the paragraph's own, piece)."""
    font: str | None = None
    piece: list[str] = []
    for char in text:
        wanted, shown = _font_of(char)
        if wanted != font and piece:
            yield font, "".join(piece)
            piece = []
        font = wanted
        piece.append(shown)
    if piece:
        yield font, "".join(piece)


def _font_of(char: str) -> tuple[str | None, str]:
    code = ord(char)
    if code in register().face.charToGlyph or char in "\n\t ":
        return None, char
    if 0xAC00 <= code <= 0xD7A3:
        return _KOREAN, char
    if 0x3000 <= code <= 0x9FFF or 0xFF00 <= code <= 0xFFEF:
        return _CHINESE_JAPANESE, char
    return None, " " if char.isspace() else _MISSING
