"""The environment that Ray's processes are started in, and where they keep their files.

A raylet hands its environment on to every worker, and workers run other people's commands: what is
secret is taken out here. This module must not import Ray.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

from harmonia_serve.cli.installation.plan import Plan
from harmonia_serve.cli.installation.processes import MARKER
from harmonia_serve.cli.problems import CommandFailed
from harmonia_serve.ingress import IngressError, serve_environment

__all__ = ["ray_directory", "ray_environment", "remove_scratch"]

_TOKEN_FILE = "ray_token"  # noqa: S105 - the name of a file
#: A unix socket's path has 107 characters at most, and Ray adds a session's name and the socket's.
_DIRECTORY_LENGTH_MAX = 107 - len(
    "/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
)

#: Where the ingress keeps its files, if it was given a directory of its own.
_PROXY_DIRECTORY = "RAY_SERVE_HAPROXY_SERVER_STATE_BASE"

#: Never for workers: they would be in the environment of every command.
_SECRETS = ("HARMONIA_REDIS_URL", "HARMONIA_API_KEY", "HARMONIA_COMPONENT_TOKENS")
#: Would lead Ray or Python astray: another cluster, another token, no compiled bytecode.
_ASTRAY = (
    "RAY_ADDRESS",
    "RAY_AUTH_TOKEN",
    "RAY_AUTH_TOKEN_PATH",
    "RAY_NAMESPACE",
    "RAY_TMPDIR",
    "PYTHONDONTWRITEBYTECODE",
)

_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_USAGE_STATS_PROMPT_ENABLED": "0",
    "RAY_LOG_TO_DRIVER": "0",
    "RAY_SCHEDULER_EVENTS": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_enable_metrics_collection": "0",
}


def ray_environment(plan: Plan, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment of the Ray process, and by inheritance of all that it starts.

    On a cluster that is already there its own token and settings are left as they are.
    """
    data_dir = plan.settings.data_dir
    found = {name: value for name, value in environ.items() if name not in _SECRETS}
    found |= _QUIET | {MARKER: str(data_dir), "PYTHONUNBUFFERED": "1"}
    if plan.settings.components:
        # Further components are named as `python -m` would find them: from where `up` was typed.
        path = [str(Path.cwd()), environ.get("PYTHONPATH", "")]
        found["PYTHONPATH"] = os.pathsep.join(filter(None, path))
    if plan.address:
        found.pop("PYTHONDONTWRITEBYTECODE", None)
        if "RAY_AUTH_TOKEN_PATH" in found:
            found["RAY_AUTH_TOKEN_PATH"] = str(Path(found["RAY_AUTH_TOKEN_PATH"]).resolve())
        return found
    found = {name: value for name, value in found.items() if name not in _ASTRAY}
    found |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(_token_file(data_dir))}
    try:
        return found | serve_environment(plan.settings)
    except IngressError as error:
        raise CommandFailed(str(error)) from error


def _token_file(data_dir: Path) -> Path:
    """The file with the cluster's token, made at the first start; only this user may read it."""
    path = data_dir / _TOKEN_FILE
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        path.chmod(0o600)
        return path
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(32))
    return path


def ray_directory(data_dir: Path) -> Path:
    """Where Ray keeps sockets and logs: short, private, the same for the same data directory.

    Made if it is not there. Raises CommandFailed if it belongs to somebody else.
    """
    name = "harmonia-ray-" + hashlib.sha256(str(data_dir).encode()).hexdigest()[:10]
    directory = Path(tempfile.gettempdir()) / name
    if len(str(directory)) > _DIRECTORY_LENGTH_MAX:
        directory = Path("/tmp") / name  # noqa: S108 - made private below
    directory.mkdir(mode=0o700, exist_ok=True)
    found = directory.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise CommandFailed(f"{directory} belongs to somebody else", "Remove it, or set TMPDIR.")
    directory.chmod(0o700)
    return directory


def remove_scratch(data_dir: Path, environ: Mapping[str, str]) -> None:
    """Remove what Ray and its proxy have left; of no use once their processes are gone."""
    shutil.rmtree(ray_directory(data_dir), ignore_errors=True)
    if _PROXY_DIRECTORY in environ:
        shutil.rmtree(environ[_PROXY_DIRECTORY], ignore_errors=True)
