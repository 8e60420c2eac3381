"""Work that goes on beside: what becomes of it is heard, and it keeps nobody from ending."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from harmonia_serve.beside import begun

_ENDS = """
import threading
from harmonia_serve.beside import begun
begun(threading.Event().wait)
print("ends")
"""


def test_whoever_waits_hears_what_became_of_it() -> None:
    go = threading.Event()
    future = begun(lambda: go.wait(10) and None)
    assert not future.done()
    go.set()
    assert future.result(10) is None


def test_what_went_wrong_is_raised_where_it_is_waited_for() -> None:
    def fail() -> None:
        raise RuntimeError("no proxy")

    with pytest.raises(RuntimeError, match="no proxy"):
        begun(fail).result(10)


def test_a_process_ends_although_it_goes_on() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _ENDS], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "ends\n"
