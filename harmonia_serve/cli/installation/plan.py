"""What an `up` is to do, worked out from its options and the environment, and checked.

It decides before anything is started, so that a plan that cannot work costs nothing. A plan holds
the store's password once that is known: it travels by pipe, never in arguments or environment.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import SecretStr, ValidationError

from harmonia_actors.settings import Settings
from harmonia_serve.cli.installation.ports import is_loopback
from harmonia_serve.cli.installation.remote import check_services
from harmonia_serve.cli.problems import UsageProblem

__all__ = ["Plan", "data_dir_of", "make_plan", "stop_s_max"]

_STOP_S_MAX = "HARMONIA_UP_STOP_S_MAX"
_SECRETS = ("redis_url", "component_tokens")


@dataclass(frozen=True, slots=True)
class Plan:
    """All that the processes of an installation have to know."""

    settings: Settings
    #: Whether the store is a server of our own.
    embedded: bool
    #: Whether the port was asked for, so that no other will do.
    port_explicit: bool
    #: Address of a running Ray cluster to deploy on; empty: start one.
    address: str = ""
    #: CPUs that the own Ray cluster may use; None: all.
    num_cpus: float | None = None
    #: Return once it is ready and leave it running.
    detach: bool = False
    #: Make another admin key, whatever keys there are.
    new_key: bool = False

    def with_settings(self, **changes: Any) -> Plan:
        """The plan with other values of some settings."""
        return replace(self, settings=self.settings.model_copy(update=changes))

    def to_json(self) -> dict[str, Any]:
        """The plan with its secrets, for a pipe between its own processes."""
        settings = self.settings.model_dump(mode="json")
        settings["redis_url"] = self.settings.redis_url.get_secret_value()
        settings["component_tokens"] = {
            url: token.get_secret_value() for url, token in self.settings.component_tokens.items()
        }
        settings["component_catalogues"] = self.settings.component_catalogues
        return {
            "settings": settings,
            "embedded": self.embedded,
            "port_explicit": self.port_explicit,
            "address": self.address,
            "num_cpus": self.num_cpus,
            "detach": self.detach,
            "new_key": self.new_key,
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Plan:
        """The plan that `to_json` wrote."""
        return cls(**{**document, "settings": Settings(**document["settings"])})


def make_plan(
    options: Mapping[str, Any],
    *,
    address: str = "",
    num_cpus: float | None = None,
    detach: bool = False,
    new_key: bool = False,
    checked: bool = True,
    environ: Mapping[str, str] = os.environ,
) -> Plan:
    """The plan for the given settings (None: not given) over those of the environment.

    Raises UsageProblem for what cannot work. Unless it is `checked`, that is only what no setting
    can be: who ends something, or looks into it, need not be kept from it by what would be unsafe.
    """
    given = {name: value for name, value in options.items() if value is not None}
    try:
        settings = Settings(**given)
    except ValidationError as error:
        raise _not_valid(error) from error
    except ValueError as error:
        # A setting with a structure that could not even be read to be validated.
        raise _not_json(error) from error
    changes: dict[str, Any] = {"data_dir": settings.data_dir.expanduser().resolve()}
    if settings.workspace_dir and "://" not in settings.workspace_dir:
        changes["workspace_dir"] = str(Path(settings.workspace_dir).expanduser().resolve())
    if address:
        # Which proxy it has is that cluster's own affair, and any proxy listens where it is told.
        changes["ingress"] = "python"
    embedded = "redis_url" not in given and not environ.get("HARMONIA_REDIS_URL")
    if settings.store_rewrite is None:
        # A server that is not ours may have much else in it, and its own times for such work.
        changes["store_rewrite"] = embedded
    settings = settings.model_copy(update=changes)
    plan = Plan(
        settings=settings,
        embedded=embedded,
        port_explicit="port" in given or bool(environ.get("HARMONIA_PORT")),
        address=address,
        num_cpus=num_cpus,
        detach=detach,
        new_key=new_key,
    )
    if checked:
        _check(plan)
    return plan


def _not_valid(error: ValidationError) -> UsageProblem:
    first = error.errors(include_url=False)[0]
    name = ".".join(str(part) for part in first["loc"][:1])
    if not name:
        # About several settings at once: their values are all settings, secrets included.
        return UsageProblem(
            first["msg"].removeprefix("Value error, "),
            "Settings come from options and from the environment (HARMONIA_…).",
        )
    shown = "" if name in _SECRETS else f" (it is {first['input']!r})"
    return UsageProblem(
        f"setting {name}: {first['msg']}{shown}",
        f"Settings come from options and from the environment (HARMONIA_{name.upper()}).",
    )


def _not_json(error: ValueError) -> UsageProblem:
    """About a setting that has a structure. The message names its field, and holds no value."""
    found = re.search(r'field "(\w+)"', str(error))
    name = found[1] if found else "of a structure"
    return UsageProblem(
        f"setting {name}: is not JSON",
        f"Settings come from the environment (HARMONIA_{name.upper()}).",
    )


def _check(plan: Plan) -> None:
    settings = plan.settings
    check_services(settings)
    if not plan.embedded:
        _check_redis(settings.redis_url)
    if plan.embedded and plan.address and plan.detach:
        raise UsageProblem(
            "an embedded store needs a process that keeps it, and --address with --detach "
            "leaves none behind",
            "Give the URL of a Redis with --redis-url, or leave out --detach.",
        )
    if is_loopback(settings.host):
        return
    if settings.allow_commands is None:
        raise UsageProblem(
            f"--host {settings.host} lets other machines in, and workflows may run any program "
            "on this one",
            "Say which programs commands may run, for example --allow-commands curl,python3 "
            "(--allow-commands '' for none).",
        )
    if not plan.embedded and not _has_password(settings.redis_url):
        raise UsageProblem(
            f"--host {settings.host} lets other machines in, and the URL of Redis has no password",
            "Set a password in Redis (requirepass or ACL) and in HARMONIA_REDIS_URL.",
        )


def _check_redis(url: SecretStr) -> None:
    try:
        parts = urlsplit(url.get_secret_value())
        # An @ behind the host's place is one of a password, and so is what was taken for the host.
        valid = (parts.port or 1) > 0 and "@" not in f"{parts.path}{parts.query}{parts.fragment}"
    except ValueError:
        valid = False
    if not valid:
        raise UsageProblem(
            "the URL of Redis cannot be read",
            "It has the form redis://[[user]:password@]host[:port][/db]; characters such as "
            "/ @ : # ? % [ in the password must be percent-encoded.",
        )
    if parts.scheme not in ("redis", "rediss", "unix"):
        raise UsageProblem(
            "the URL of Redis does not begin with redis://, rediss:// or unix://",
            "Example: HARMONIA_REDIS_URL=redis://:password@redis.example:6379/0",
        )
    if parts.scheme == "unix" or is_loopback(parts.hostname or ""):
        return
    if not _has_password(url):
        raise UsageProblem(
            f"Redis at {parts.hostname} is not on this machine and its URL has no password",
            "Whoever reaches it could change every execution. Set a password (requirepass or "
            "ACL) and put it into HARMONIA_REDIS_URL.",
        )


def _has_password(url: SecretStr) -> bool:
    parts = urlsplit(url.get_secret_value())
    return bool(parts.password) or "password=" in parts.query or "ssl_certfile=" in parts.query


def stop_s_max(environ: Mapping[str, str] = os.environ) -> float:
    """How long a service may take to stop: the setting, whatever is wrong with all others."""
    try:
        asked = float(environ.get(_STOP_S_MAX, ""))
    except ValueError:
        asked = 0.0
    if 0 < asked < math.inf:
        return asked
    return float(Settings.model_fields["up_stop_s_max"].default)


def data_dir_of(option: Path | None, environ: Mapping[str, str] = os.environ) -> Path:
    """The data directory that a command means."""
    chosen = option or Path(environ.get("HARMONIA_DATA_DIR") or ".harmonia")
    return chosen.expanduser().resolve()
