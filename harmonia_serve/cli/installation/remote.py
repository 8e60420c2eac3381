"""Remote components at the start: which services there are, and what they offer.

They are asked before anything is started, and once: what they said goes with the plan to every
process, also to those that are started again when a service is away. What this needs is imported
late, because most installations have no remote components.
"""

from __future__ import annotations

import asyncio

from harmonia_actors.settings import Settings
from harmonia_serve.cli.problems import CommandFailed, UsageProblem

__all__ = ["check_services", "has_services", "offered", "with_catalogues"]

_WAY_OUT = (
    "Start the service, mend it, or leave its URL out of the components "
    "(--components, HARMONIA_COMPONENTS)."
)


def has_services(settings: Settings) -> bool:
    """Whether the settings name a service, or a token for one."""
    return bool(settings.component_tokens) or any("://" in name for name in settings.components)


def check_services(settings: Settings) -> None:
    """Raise UsageProblem for a URL or a token that cannot be used; nobody is asked."""
    if not has_services(settings):
        return
    from harmonia_actors.components.registry import ComponentLoadError
    from harmonia_actors.runtime.remote_components import services

    try:
        services(settings)
    except ComponentLoadError as error:
        raise UsageProblem(
            str(error),
            "Components come from --components or HARMONIA_COMPONENTS, their tokens from "
            "HARMONIA_COMPONENT_TOKENS.",
        ) from error


def with_catalogues(settings: Settings) -> Settings:
    """The settings with what their services offer. Raises CommandFailed."""
    if not has_services(settings):
        return settings
    from harmonia_actors.components.registry import ComponentLoadError
    from harmonia_actors.runtime.remote_components import ask_services

    try:
        return asyncio.run(ask_services(settings))
    except ComponentLoadError as error:
        raise CommandFailed(str(error), _WAY_OUT) from error


def offered(settings: Settings) -> list[str]:
    """A line for each service whose catalogue is known: where it is and what it offers."""
    from harmonia_actors.runtime.remote_components import remote_components

    names: dict[str, list[str]] = {}
    for component in remote_components(settings):
        names.setdefault(component.url, []).append(component.name)
    return [f"{url}: {', '.join(sorted(found))}" for url, found in names.items()]
