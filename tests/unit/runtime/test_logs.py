"""What is written to a log: from its level on, and no key, wherever in it that stands."""

from __future__ import annotations

import subprocess
import sys

import pytest

from harmonia_actors.runtime.logs import without_keys

SECRET = "s3cret-_" * 5
KEY = f"hk_0123456789ab_{SECRET}"

#: What libraries do on DEBUG: headers, whole scopes, tracebacks that tell of arguments.
SCRIPT = f"""
import logging
from harmonia_actors.runtime.logs import log_to_stderr

log_to_stderr("LEVEL")
log_to_stderr("ERROR")
logging.getLogger("websockets.server").debug("< Authorization: Bearer %s", "{KEY}")
logging.getLogger("httpcore").debug("{KEY}")
logging.getLogger("x").info("%r", {{"headers": [(b"x-api-key", b"{KEY}")]}})
logging.getLogger("x").warning("plain")
try:
    raise ValueError("not a key: {KEY}")
except ValueError:
    logging.exception("it failed")
"""


@pytest.mark.parametrize(
    ("level", "seen"),
    [
        ("DEBUG", {"DEBUG websockets.server:", "INFO x:", "WARNING x: plain", "ERROR root:"}),
        ("INFO", {"INFO x:", "WARNING x: plain", "ERROR root:"}),
        ("WARNING", {"WARNING x: plain", "ERROR root:"}),
        ("ERROR", {"ERROR root:"}),
    ],
)
def test_lines_from_the_level_on_are_written_without_keys(level: str, seen: set[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.replace("LEVEL", level)],
        capture_output=True,
        text=True,
        check=True,
    )
    starts = ("DEBUG", "INFO", "WARNING", "ERROR")
    lines = [line for line in done.stderr.splitlines() if any(f" {one} " in line for one in starts)]
    assert {one for one in seen if any(one in line for line in lines)} == seen
    assert len(lines) == len(seen)
    assert SECRET not in done.stderr
    assert "ValueError: not a key: hk_0123456789ab_***" in done.stderr


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (KEY, "hk_0123456789ab_***"),
        (f"api_key%3D{KEY}", "api_key%3Dhk_0123456789ab_***"),
        (f"'{KEY}', {KEY}x", "'hk_0123456789ab_***', hk_0123456789ab_***"),
        ("hk_0123456789ab is the id of a key", "hk_0123456789ab is the id of a key"),
        ("", ""),
    ],
)
def test_of_a_key_its_name_is_left(text: str, expected: str) -> None:
    assert without_keys(text) == expected
