"""What garbage costs a process that makes none: counted looks, and that there are still some."""

from __future__ import annotations

import json
import subprocess
import sys

_PROGRAM = """
import gc, json
from harmonia_actors.runtime.collection import collect_rarely
if {rarely}:
    collect_rarely()
looks = []
gc.callbacks.append(lambda phase, info: looks.append(info["generation"]) if phase == "start" else 0)
kept = [[number] for number in range({count})]
print(json.dumps([len(looks), looks.count(2)]))
"""


def looks(count: int, *, rarely: bool) -> tuple[int, int]:
    """In a process of its own: looks while so many objects come, and looks at all objects."""
    program = _PROGRAM.format(rarely=rarely, count=count)
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    young, all_objects = json.loads(ran.stdout)
    return young, all_objects


def test_a_process_with_much_in_mind_looks_rarely_but_looks() -> None:
    usual, _ = looks(200_000, rarely=False)
    found, of_all = looks(200_000, rarely=True)
    assert usual > 100
    assert 1 <= found <= 5
    assert of_all == 0
