"""How often a process looks for garbage that refers to itself.

Python looks after each 700 objects more, and at all there are after a hundred such looks. A process
with ten thousand tasks in mind, none of which refers to itself, looks in vain: a fifth of its time.
This module must not know what the process does.
"""

from __future__ import annotations

import gc
from typing import Final

__all__ = ["collect_rarely"]

_OBJECTS: Final = 50_000
_YOUNG_LOOKS: Final = 20
_ALL_LOOKS: Final = 50


def collect_rarely() -> None:
    """Look after many objects more, and never again at what is there now: code, for the most part.

    For processes of our own code. Where users' code runs, what it leaves behind may be large.
    """
    gc.freeze()
    gc.set_threshold(_OBJECTS, _YOUNG_LOOKS, _ALL_LOOKS)
