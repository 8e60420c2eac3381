"""What a component is: named actions, each a typed Python function, and the context they are given.

    component = Component("greeter", description="Says hello")

    @component.action
    def greet(name: str, *, context: TaskContext) -> dict[str, str]:
        '''Greet somebody.'''
        context.progress(0.5, "warming up")
        return {"greeting": f"Hello {name}"}

The signature is the input schema: parameters without a default are required, annotations are
checked and coerced by pydantic, a parameter named `context` receives the TaskContext and is not
part of the input. `async def` actions share one process with others and must not block; `def`
actions have a process of their own while they run, which is killed if they do not stop when told.

This module must not know Ray, the store or the core.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol, overload

from pydantic import BaseModel as _Model
from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError, create_model

__all__ = [
    "Action",
    "ActionError",
    "Component",
    "TaskContext",
    "WorkspaceLike",
]


#: Pydantic makes an error of every wrong value; of more than this, only a part is told.
_ERRORS_MAX = 1_000
_UNKNOWN_MAX = 50
_FEW = 50
#: Stands for the name of an input where it is not known which.
_ANY_INPUT = "*"


class ActionError(Exception):
    """Raised by an action to fail its attempt with a code and details that clients see.

    `code` is UPPER_SNAKE_CASE, as in `FILE_NOT_FOUND`. With `retriable=False` no retry is made,
    whatever the retry policy says.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str = "ACTION_FAILED",
        details: Mapping[str, Any] | None = None,
        retriable: bool = True,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.details = dict(details or {})
        self.retriable = retriable

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild_action_error, (self.message, self.code, self.details, self.retriable)


def _rebuild_action_error(
    message: str, code: str, details: dict[str, Any], retriable: bool
) -> ActionError:
    return ActionError(message, code=code, details=details, retriable=retriable)


class WorkspaceLike(Protocol):
    """The directory of an execution, and which other directories its actions may touch."""

    @property
    def directory(self) -> Path:
        """Absolute path of the execution's working directory; it exists."""
        ...

    def resolve(self, path: str, *, write: bool) -> Path:
        """The absolute path that `path` means, symlinks and `..` resolved.

        Relative paths live in the workspace. Raises ActionError (code PATH_NOT_ALLOWED) if it is
        neither in the workspace nor in a configured directory.
        """
        ...

    def open_read(self, path: str) -> BinaryIO:
        """Open a regular file for reading; safe against a path that changes after the check.

        Raises ActionError (PATH_NOT_ALLOWED, FILE_NOT_FOUND, FILE_NOT_READABLE).
        """
        ...

    def write_file(self, path: str, content: bytes) -> Path:
        """Put a file there whole, or not at all; returns its absolute path.

        Missing directories are made. Raises ActionError (PATH_NOT_ALLOWED, FILE_NOT_WRITABLE).
        """
        ...


class TaskContext(Protocol):
    """What an action can know and do besides computing. Safe to use from any thread."""

    @property
    def execution_id(self) -> str: ...

    @property
    def workflow_id(self) -> str: ...

    @property
    def task_name(self) -> str: ...

    @property
    def attempt(self) -> int:
        """1 for the first try of this task; grows with each retry and each lost attempt."""
        ...

    @property
    def idempotency_key(self) -> str:
        """`execution/task`: the same for all attempts of one task of one execution."""
        ...

    @property
    def workspace(self) -> WorkspaceLike: ...

    @property
    def allowed_commands(self) -> frozenset[str] | None:
        """Programs that commands may run; None means any."""
        ...

    @property
    def cancelled(self) -> bool:
        """True once the attempt is to stop: cancelled or timed out. Poll it in long loops."""
        ...

    def on_cancel(self, callback: Callable[[], None]) -> None:
        """Call `callback` (from another thread, at most once) when the attempt is to stop.

        It is called at once if that has happened already.
        """
        ...

    def progress(self, fraction: float, message: str = "") -> None:
        """Report progress, 0.0 to 1.0. Cheap: reports are coalesced, the latest one wins."""
        ...

    def log(
        self, message: str, level: Literal["debug", "info", "warning", "error"] = "info"
    ) -> None:
        """Write a line to the log of the attempt, which clients can read, and to the service's.

        Cheap: lines are told together, at a set rate. A text of several lines is several lines.
        """
        ...

    def relay(self, stream: Literal["stdout", "stderr"], chunk: bytes) -> None:
        """Tell what a program has written, in whatever pieces it comes, in the attempt's log."""
        ...


@dataclass(frozen=True)
class Action:
    """A callable of a component, with what its signature says of its input."""

    name: str
    function: Callable[..., Any]
    description: str
    is_async: bool
    #: True if it reads or writes files in the workspace, so that it must run where that is.
    uses_files: bool
    takes_context: bool
    model: type[_Model]
    #: Keys whose text is not one value but made of words split before substitution (argv).
    argv_inputs: frozenset[str] = frozenset()
    #: The schema of the input, if it comes from elsewhere: then `model` says nothing of it, and
    #: whoever runs the action judges by it, within bounds of time and memory.
    foreign_schema: Mapping[str, Any] | None = None

    @property
    def input_schema(self) -> dict[str, Any]:
        """JSON Schema of the input."""
        if self.foreign_schema is not None:
            return dict(self.foreign_schema)
        return self.model.model_json_schema()

    def parse(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """Check and coerce an input. Raises ActionError (code INVALID_INPUT, not retriable)."""
        try:
            parsed = self._validate(raw)
        except ValidationError as error:
            raise self.refusal(self._describe(_errors(error))) from None
        return {name: getattr(parsed, name) for name in type(parsed).model_fields}

    def refusal(self, problems: Sequence[Mapping[str, str]]) -> ActionError:
        """The error for an input with these problems: [{field, message}]."""
        first = problems[0]
        return ActionError(
            f"input of action '{self.name}' is not valid: {first['field']}: {first['message']}",
            code="INVALID_INPUT",
            details={"errors": problems},
            retriable=False,
        )

    def problems(
        self, template: Mapping[str, Any], is_dynamic: Callable[[Any], bool]
    ) -> list[dict[str, str]]:
        """What is wrong with an input before its references have values: [{field, message}].

        A value for which `is_dynamic` is true is not judged, only that its key exists.
        """
        try:
            self._validate(template)
        except ValidationError as error:
            found = _errors(error)
            return [
                problem
                for problem, item in zip(self._describe(found), found, strict=True)
                if item["type"] in ("missing", "extra_forbidden")
                or not is_dynamic(_value_at(template, str(item["loc"][0])))
            ]
        return []

    def _validate(self, values: Mapping[str, Any]) -> _Model:
        """Raises ValidationError, with no more than a part of very many errors if it can be."""
        known = self.model.model_fields
        unknown = islice((name for name in values if name not in known), _UNKNOWN_MAX)
        looked_at = {name: values[name] for name in known if name in values}
        looked_at |= {name: values[name] for name in unknown}
        try:
            return self.model.model_validate(looked_at)
        except ValidationError as error:
            if error.error_count() > _ERRORS_MAX:
                self.model.model_validate(_beginning(looked_at))
            raise

    def _describe(self, errors: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
        described = []
        for item in errors:
            field_path = ".".join(str(part) for part in item["loc"])
            message = item["msg"]
            if item["type"] == "missing":
                message = f"action '{self.name}' needs it"
            elif item["type"] == "extra_forbidden" and len(item["loc"]) == 1:
                message = self._unknown_input(field_path)
            described.append({"field": field_path, "message": message})
        return described

    def _unknown_input(self, key: str) -> str:
        known = list(self.model.model_fields)
        near = get_close_matches(key, known, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        takes = ", ".join(known) or "none"
        return f"action '{self.name}' has no such input{hint} It takes: {takes}"


def _errors(error: ValidationError) -> Sequence[Mapping[str, Any]]:
    """The errors, each with its place and text; of too many, one that says how many."""
    count = error.error_count()
    if count <= _ERRORS_MAX:
        return error.errors(include_url=False, include_input=False)
    message = f"has {count} wrong values, too many to tell which"
    return [{"type": "too_many", "loc": (_ANY_INPUT,), "msg": message}]


def _value_at(values: Mapping[str, Any], name: str) -> Any:
    return dict(values) if name == _ANY_INPUT else values.get(name)


def _beginning(value: Any) -> Any:
    """A value whose objects and arrays have no more than their first few values."""
    if isinstance(value, dict):
        return {key: _beginning(value[key]) for key in islice(value, _FEW)}
    if isinstance(value, list):
        return [_beginning(item) for item in value[:_FEW]]
    return value


@dataclass
class Component:
    """A named set of actions. Registered by the entry point group `harmonia.components`."""

    name: str
    description: str = ""
    actions: dict[str, Action] = field(default_factory=dict)
    #: Imports what its actions need and is slow to load; called in processes kept warm.
    preload: Callable[[], None] | None = None
    #: The service that carries out its actions; empty if they are functions of this process.
    url: str = ""

    @overload
    def action(self, function: Callable[..., Any], /) -> Callable[..., Any]: ...

    @overload
    def action(
        self,
        /,
        *,
        name: str | None = None,
        uses_files: bool = False,
        argv_inputs: tuple[str, ...] = (),
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]: ...

    def action(
        self,
        function: Callable[..., Any] | None = None,
        /,
        *,
        name: str | None = None,
        uses_files: bool = False,
        argv_inputs: tuple[str, ...] = (),
    ) -> Any:
        """Register a function as an action, under its own name unless `name` is given."""

        def register(target: Callable[..., Any]) -> Callable[..., Any]:
            made = _make_action(name or target.__name__, target, uses_files, argv_inputs)
            if made.name in self.actions:
                raise ValueError(f"component '{self.name}' already has an action '{made.name}'")
            self.actions[made.name] = made
            return target

        return register if function is None else register(function)


#: Action parameters may be called `model_name` and the like; JSON has neither NaN nor Infinity.
_INPUT_CONFIG = ConfigDict(extra="forbid", protected_namespaces=(), allow_inf_nan=False)


def _make_action(
    name: str, function: Callable[..., Any], uses_files: bool, argv_inputs: tuple[str, ...]
) -> Action:
    signature = inspect.signature(function, eval_str=True)
    fields: dict[str, Any] = {}
    for parameter in signature.parameters.values():
        if parameter.name == "context":
            continue
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise TypeError(f"action '{name}': *args and **kwargs have no schema; name each input")
        annotation = Any if parameter.annotation is parameter.empty else parameter.annotation
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[parameter.name] = (annotation, default)
    try:
        model = create_model(f"{name}_input", __config__=_INPUT_CONFIG, **fields)
        TypeAdapter(model).json_schema()
    except PydanticUserError as error:
        raise TypeError(f"action '{name}' has an input that has no JSON Schema: {error}") from error
    return Action(
        name=name,
        function=function,
        description=inspect.getdoc(function) or "",
        is_async=inspect.iscoroutinefunction(function),
        uses_files=uses_files,
        takes_context="context" in signature.parameters,
        model=model,
        argv_inputs=frozenset(argv_inputs),
    )
