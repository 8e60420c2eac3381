"""The environment of each peer, made of its requirements when they have changed."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

from benchmarks.catalogue import Entry

__all__ = ["FOLDER", "python_of"]

FOLDER = Path(__file__).parent / "peers"
_STAMP = "installed"


def python_of(entry: Entry) -> Path:
    """The interpreter that runs a system; its packages are installed first if need be."""
    if not entry.peer:
        return Path(sys.executable)
    requirements = FOLDER / entry.peer / "requirements.txt"
    environment = FOLDER / entry.peer / ".venv"
    python = environment / "bin" / "python"
    stamp = environment / _STAMP
    wanted = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()
    if stamp.is_file() and stamp.read_text() == wanted:
        return python
    print(f"installing {', '.join(requirements.read_text().split())} …", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(environment)], check=True)
    pip = [str(python), "-m", "pip", "install", "-qq", "--disable-pip-version-check"]
    subprocess.run([*pip, "--requirement", str(requirements)], check=True)
    stamp.write_text(wanted)
    return python
