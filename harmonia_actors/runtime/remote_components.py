"""The components of an installation: those of this process, and those of services elsewhere.

Whoever starts Harmonia asks the services once (`ask_services`) and hands on what they said in the
settings; every other process makes the same components of that (`load_registry`), and needs no
service to be there for it. What speaks HTTP and judges schemas is slow to load, and is loaded
where there are such services. This module must not know Ray or the store.
"""

from __future__ import annotations

import asyncio
import base64
import zlib
from collections.abc import Iterator
from typing import Any

from harmonia_actors.components.contract import Component
from harmonia_actors.components.registry import ComponentLoadError, Registry
from harmonia_actors.components.remote.service import (
    RemoteLimits,
    RemoteService,
    is_url,
    service_url,
    urls_among,
)
from harmonia_actors.core import jsontext
from harmonia_actors.core.errors import ServiceUnavailable
from harmonia_actors.core.jsontext import nests_deeper
from harmonia_actors.settings import Settings

__all__ = ["PACKED_BYTES_MAX", "ask_services", "load_registry", "remote_components", "services"]

#: Ray keeps arguments of up to 100 KiB with the actor. Larger ones it keeps as objects of whoever
#: started the actor, so that none could be started again once that process has ended.
PACKED_BYTES_MAX = 64_000


def services(settings: Settings) -> list[RemoteService]:
    """The services that the settings name. Raises ComponentLoadError."""
    urls = urls_among(settings.components)
    tokens = {service_url(url): token for url, token in settings.component_tokens.items()}
    for url in tokens:
        if url not in urls:
            raise ComponentLoadError(
                f"HARMONIA_COMPONENT_TOKENS has a token for {url}, which is not among the "
                f"components; the services there are: {', '.join(urls) or 'none'}"
            )
    limits = RemoteLimits(
        connect_s_max=settings.remote_connect_s_max,
        silence_s_max=settings.remote_silence_s_max,
        answer_bytes_max=settings.output_bytes_max,
        catalogue_s_max=settings.remote_catalogue_s_max,
        catalogue_bytes_max=settings.remote_catalogue_bytes_max,
    )
    return [
        RemoteService(url, tokens[url].get_secret_value() if url in tokens else "", limits)
        for url in urls
    ]


def remote_components(settings: Settings) -> list[Component]:
    """The remote components, as their services have said. Raises ComponentLoadError."""
    return [component for service in services(settings) for component in _known(service, settings)]


def _known(service: RemoteService, settings: Settings) -> list[Component]:
    if service.url not in settings.component_catalogues:
        raise ComponentLoadError(f"nobody has asked {service.url} for its catalogue")
    from harmonia_actors.components.remote.catalogue import components_of

    return components_of(service, _unpacked(settings.component_catalogues[service.url]))


def _packed(catalogue: Any) -> str:
    return base64.b64encode(zlib.compress(jsontext.encode_canonical(catalogue), 9)).decode("ascii")


def _unpacked(text: str) -> Any:
    return jsontext.decode(zlib.decompress(base64.b64decode(text)))


def load_registry(settings: Settings) -> Registry:
    """All components that are installed or configured. Raises ComponentLoadError."""
    modules = [entry for entry in settings.components if not is_url(entry)]
    return Registry.load(modules, remote_components(settings))


async def ask_services(settings: Settings) -> Settings:
    """The settings with what their services offer, all of it checked. Raises ComponentLoadError.

    Modules are not loaded: they may be such that only the processes that use them can.
    """
    from harmonia_actors.components.remote.catalogue import components_of, fetch_catalogue

    asked = services(settings)
    found = await asyncio.gather(*map(fetch_catalogue, asked), return_exceptions=True)
    catalogues: dict[str, str] = {}
    for service, catalogue in zip(asked, found, strict=True):
        if isinstance(catalogue, BaseException):
            raise catalogue
        if nests_deeper(catalogue, settings.json_depth_max):
            raise ComponentLoadError(
                f"the catalogue of {service.url} cannot be used: "
                f"it is nested more than {settings.json_depth_max} deep"
            )
        components_of(service, catalogue)
        catalogues[service.url] = _packed(catalogue)
    size = sum(map(len, catalogues.values()))
    if size > PACKED_BYTES_MAX:
        raise ComponentLoadError(
            f"the catalogues of {', '.join(catalogues)} have {size} bytes together, compressed; at "
            f"most {PACKED_BYTES_MAX} are carried to every process. Offer less, or leave one out"
        )
    known = settings.model_copy(update={"component_catalogues": catalogues})
    components = remote_components(known)
    Registry.load((), components)
    await _check_schemas(components, known)
    return known


async def _check_schemas(components: list[Component], settings: Settings) -> None:
    from harmonia_actors.runtime.service.schema_checks import SchemaChecks
    from harmonia_actors.runtime.service.schema_process import CheckLimits

    checks = SchemaChecks(
        CheckLimits(settings.schema_check_cpu_s_max, settings.schema_check_memory_bytes_max)
    )
    for component, name, schema in _schemas(components):
        try:
            found = await checks.of_schema(schema)
        except ServiceUnavailable as error:
            raise ComponentLoadError(
                f"the input_schema of {component.name}.{name} at {component.url}: {error}"
            ) from error
        for where, message in found:
            raise ComponentLoadError(
                f"the catalogue of {component.url} cannot be used: components.{component.name}."
                f"actions.{name}.input_schema{where} {message}"
            )


def _schemas(components: list[Component]) -> Iterator[tuple[Component, str, dict[str, Any]]]:
    for component in components:
        for name, action in component.actions.items():
            yield component, name, action.input_schema
