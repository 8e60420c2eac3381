"""Which components there are, and which action a task means.

Components come from the entry point group `harmonia.components` and from the modules that the
setting `components` names. This module must not know Ray, the store or the core, and importing it
must stay cheap: what is slow to load belongs into functions and `Component.preload`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from importlib import import_module, metadata
from types import ModuleType
from typing import Any

from harmonia_actors.components.contract import Action, Component

__all__ = ["ENTRY_POINT_GROUP", "ComponentLoadError", "Registry", "UnknownAction"]

ENTRY_POINT_GROUP = "harmonia.components"


class ComponentLoadError(ValueError):
    """A component that was asked for by entry point or module cannot be had; says which and why."""


class UnknownAction(ValueError):
    """No such component, or it has no such action.

    `field` is "component" or "action", whichever is wrong; `suggestion` is the nearest known name.
    """

    def __init__(self, message: str, *, field: str, suggestion: str | None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.suggestion = suggestion


class Registry:
    """An immutable set of components by name."""

    def __init__(self, components: Iterable[Component]) -> None:
        self._components: dict[str, Component] = {}
        for component in components:
            known = self._components.setdefault(component.name, component)
            if known is not component:
                raise ComponentLoadError(
                    f"two components are called '{component.name}' "
                    f"({_described(known)} and {_described(component)}); rename one"
                )

    @classmethod
    def load(cls, modules: Sequence[str] = (), more: Iterable[Component] = ()) -> Registry:
        """All installed components, those of `modules`, and `more`. Raises ComponentLoadError."""
        points = sorted(metadata.entry_points(group=ENTRY_POINT_GROUP), key=lambda p: p.name)
        found = [_from_entry_point(point) for point in points]
        for name in modules:
            found.extend(_from_module(name))
        return cls([*found, *more])

    def components(self) -> list[Component]:
        """Every component, by name."""
        return [self._components[name] for name in sorted(self._components)]

    def find(self, component: object, name: object) -> Action | None:
        """The action `component.name`, whatever these are; None if there is none."""
        owner = self._components.get(component) if isinstance(component, str) else None
        return owner.actions.get(name) if owner is not None and isinstance(name, str) else None

    def action(self, component: str, name: str) -> Action:
        """The action `component.name`. Raises UnknownAction with the nearest known name."""
        owner = self._components.get(component)
        if owner is None:
            raise _unknown("component", f"component '{component}' is not known", component, self)
        action = owner.actions.get(name)
        if action is None:
            raise _unknown("action", f"component '{component}' has no action '{name}'", name, owner)
        return action

    def catalogue(self) -> list[dict[str, Any]]:
        """Components and actions with their input schemas, as JSON."""
        return [
            {
                "name": component.name,
                "description": component.description,
                "url": component.url or None,
                "actions": [
                    {
                        "name": action.name,
                        "description": action.description,
                        "input_schema": action.input_schema,
                        "is_async": action.is_async,
                        "uses_files": action.uses_files,
                    }
                    for _, action in sorted(component.actions.items())
                ],
            }
            for component in self.components()
        ]

    def preload(self) -> None:
        """Import what actions need and is slow to load, so that first tasks need not wait."""
        for component in self.components():
            if component.preload is not None:
                component.preload()


def _unknown(field: str, problem: str, name: str, among: Registry | Component) -> UnknownAction:
    if isinstance(among, Registry):
        known = [component.name for component in among.components()]
    else:
        known = sorted(among.actions)
    near = get_close_matches(name, known, n=1)
    suggestion = near[0] if near else None
    hint = f"; did you mean '{suggestion}'?" if suggestion else ";"
    listed = ", ".join(known) or "none"
    return UnknownAction(f"{problem}{hint} known: {listed}", field=field, suggestion=suggestion)


def _from_entry_point(point: metadata.EntryPoint) -> Component:
    try:
        loaded = point.load()
    except Exception as error:
        raise ComponentLoadError(
            f"component '{point.name}' ({point.value}) cannot be loaded: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not isinstance(loaded, Component):
        raise ComponentLoadError(
            f"entry point '{point.name}' ({point.value}) is a {type(loaded).__name__}, "
            "not a Component"
        )
    return loaded


def _from_module(name: str) -> list[Component]:
    try:
        module = import_module(name)
    except Exception as error:
        raise ComponentLoadError(
            f"component module '{name}' cannot be imported: {type(error).__name__}: {error}"
        ) from error
    found = _components_in(module)
    if not found:
        raise ComponentLoadError(
            f"component module '{name}' has no module-level Component; "
            "make one: component = Component('name')"
        )
    return found


def _components_in(module: ModuleType) -> list[Component]:
    unique = {id(value): value for value in vars(module).values() if isinstance(value, Component)}
    return list(unique.values())


def _described(component: Component) -> str:
    if component.url:
        return component.url
    modules = sorted({action.function.__module__ for action in component.actions.values()})
    return " and ".join(modules) or "a component without actions"
