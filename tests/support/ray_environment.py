"""What Ray must find in the environment before any test imports it. Imports nothing of Ray."""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import tempfile
from pathlib import Path

__all__ = ["prepare_ray_environment"]


def prepare_ray_environment() -> None:
    """Let every Ray cluster of this test run demand one token, made for the run.

    Ray reads the mode when it is imported and the token once in a process, so that neither can
    come later or change. Child processes inherit both.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if os.environ.get("HARMONIA_TEST_RAY_TOKEN") == os.environ.get("RAY_AUTH_TOKEN_PATH", "none"):
        return
    directory = Path(tempfile.mkdtemp(prefix="harmonia-token-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    token = directory / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN_PATH"] = os.environ["HARMONIA_TEST_RAY_TOKEN"] = str(token)
    os.environ.pop("RAY_AUTH_TOKEN", None)
