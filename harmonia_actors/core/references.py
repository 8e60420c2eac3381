"""`${...}`: parsing references once per workflow, resolving them in a single pass per task run.

    ${workflow.input.PATH}             an input of the execution
    ${tasks.NAME.output.PATH}          what a task returned; NAME may hold dots
    ${tasks["NAME"].output.PATH}       the same, quoted
    PATH: .key, [n] and ["key.with.dots"], any number of them
    ${REF ?? DEFAULT}                  if REF is missing or null; JSON, a bare word, or another REF
    $${                                a literal ${

A string that is one reference keeps the JSON type of its value; inside a longer string, strings
stay as they are and everything else becomes compact JSON. Values are never expanded again. There
is no eval and no attribute access: a path walks JSON objects and arrays, nothing else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from harmonia_actors.core import jsontext

__all__ = [
    "INPUT",
    "BadReference",
    "MissingValue",
    "Reference",
    "ResolvedTooLarge",
    "Template",
    "compile_template",
    "resolve",
]

#: Longest part of a reference before its `??`, and most of those that may follow one another:
#: what a client sends must not cost more than its length.
_TARGET_CHARS_MAX = 2_000
_FALLBACKS_MAX = 16

_KEY = re.compile(r"[^.\[\]\s\"'{}$?]+")
_INDEX = re.compile(r"\[(\d{1,9})\]")
_BARE = re.compile(r"[\w .:/@%+,;=#&*()!|~^<>-]*")
_QUOTED = re.compile(r'\["((?:[^"\\]|\\.)*)"\]')


class BadReference(ValueError):
    """A reference that cannot be understood, or that names something unknown."""


class MissingValue(LookupError):
    """A reference without a default whose path is not there at run time."""


class ResolvedTooLarge(ValueError):
    """The values that the references stand for are larger than the limit."""


@dataclass(frozen=True, slots=True)
class Reference:
    """One `${...}`. `task` is the task it names, or None for the workflow's input."""

    text: str
    task: str | None
    path: tuple[str | int, ...]
    has_default: bool = False
    default: Any = None
    #: Looked up in place of `default` if this one has no value.
    fallback: Reference | None = None

    def chain(self) -> Iterator[Reference]:
        """The reference itself and those that stand in for it, in order."""
        link: Reference | None = self
        while link is not None:
            yield link
            link = link.fallback


#: What `lookup` is asked for to get the execution's input.
INPUT = None

Lookup = Callable[[str | None], Any]


@dataclass(frozen=True, slots=True)
class _Whole:
    reference: Reference


@dataclass(frozen=True, slots=True)
class _Text:
    parts: tuple[str | Reference, ...]


@dataclass(frozen=True, slots=True)
class _Object:
    members: tuple[tuple[str, Any], ...]


@dataclass(frozen=True, slots=True)
class _Array:
    items: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Template:
    """A JSON value whose references have been parsed. Without references it is a constant."""

    node: Any
    references: tuple[Reference, ...]

    @property
    def is_constant(self) -> bool:
        """True if resolving gives the value as it was written."""
        return not self.references

    def tasks(self) -> set[str]:
        """Names of all tasks that are referred to."""
        return {
            link.task
            for reference in self.references
            for link in reference.chain()
            if link.task is not None
        }


def compile_template(
    value: Any,
    tasks: Collection[str],
    on_error: Callable[[str, str], None] | None = None,
    judge: Callable[[Reference], str] | None = None,
) -> Template:
    """Parse all references in a JSON value.

    `tasks` holds the names that references may use. Errors go to `on_error(where, message)`, with
    `where` like `.data[0]`; without it the first one raises BadReference. What `judge` says of a
    reference is an error, too, unless it is empty.
    """
    compiler = _Compiler(tasks, on_error, judge)
    node = compiler.build(value, "")
    return Template(node if compiler.found else _literal(node), tuple(compiler.found))


@dataclass
class _Compiler:
    """Walks a JSON value and parses the strings in it."""

    tasks: Collection[str]
    on_error: Callable[[str, str], None] | None
    judge: Callable[[Reference], str] | None
    found: list[Reference] = field(default_factory=list)

    def build(self, node: Any, where: str) -> Any:
        if isinstance(node, str):
            return self._text(node, where)
        if isinstance(node, dict):
            for key in node:
                if "${" in key:
                    self._report(where, f"key {key!r}: references are not expanded in keys")
            return _Object(
                tuple((key, self.build(item, f"{where}.{key}")) for key, item in node.items())
            )
        if isinstance(node, list):
            return _Array(tuple(self.build(item, f"{where}[{i}]") for i, item in enumerate(node)))
        return node

    def _text(self, text: str, where: str) -> Any:
        if "${" not in text:
            return text
        try:
            parts = _parse_text(text, self.tasks)
        except BadReference as error:
            self._report(where, str(error))
            return text
        for part in parts:
            if isinstance(part, Reference):
                self.found.append(part)
                if self.judge is not None and (message := self.judge(part)):
                    self._report(where, message)
        if len(parts) == 1:
            only = parts[0]
            return _Whole(only) if isinstance(only, Reference) else only
        return _Text(tuple(parts))

    def _report(self, where: str, message: str) -> None:
        if self.on_error is None:
            raise BadReference(f"{where or 'value'}: {message}")
        self.on_error(where, message)


def _literal(node: Any) -> Any:
    """A tree without references, back as plain JSON."""
    if isinstance(node, _Object):
        return {key: _literal(item) for key, item in node.members}
    if isinstance(node, _Array):
        return [_literal(item) for item in node.items]
    return node


def _parse_text(text: str, tasks: Collection[str]) -> list[str | Reference]:
    parts: list[str | Reference] = []
    literal: list[str] = []
    position = 0
    while True:
        at = text.find("${", position)
        if at < 0:
            literal.append(text[position:])
            break
        if at > position and text[at - 1] == "$":
            literal.append(text[position : at - 1] + "${")
            position = at + 2
            continue
        literal.append(text[position:at])
        end = _closing_brace(text, at)
        if joined := "".join(literal):
            parts.append(joined)
        literal = []
        parts.append(_parse_reference(text[at : end + 1], text[at + 2 : end].strip(), tasks))
        position = end + 1
    if joined := "".join(literal):
        parts.append(joined)
    return parts or [""]


def _closing_brace(text: str, start: int) -> int:
    """Position of the `}` that ends the reference at `start`; quotes and nesting are respected."""
    depth = 0
    quoted = False
    at = start + 2
    while at < len(text):
        char = text[at]
        if quoted:
            if char == "\\":
                at += 1
            elif char == '"':
                quoted = False
        elif char == '"':
            quoted = True
        elif char == "{":
            depth += 1
        elif char == "}":
            if depth == 0:
                return at
            depth -= 1
        at += 1
    shown = text[start : start + 40]
    raise BadReference(f"'{shown}' has no closing brace; write $${{ for a literal ${{")


def _parse_reference(text: str, body: str, tasks: Collection[str], fallbacks: int = 0) -> Reference:
    if fallbacks > _FALLBACKS_MAX:
        raise BadReference(f"'{text}' has more than {_FALLBACKS_MAX} references after ??")
    chosen, separator, rest = _split_default(body)
    if len(chosen) > _TARGET_CHARS_MAX:
        raise BadReference(
            f"'{text[:40]}…' has {len(chosen)} characters; at most {_TARGET_CHARS_MAX} are allowed"
        )
    if not separator:
        task, path = _parse_target(text, chosen, tasks)
        return Reference(text, task, path)
    if not rest:
        raise BadReference(f"'{text}' has no default after ??")
    task, path = _parse_target(text, chosen, tasks)
    if rest.startswith(("workflow.", "tasks.", "tasks[")):
        fallback = _parse_reference(text, rest, tasks, fallbacks + 1)
        return Reference(text, task, path, fallback=fallback)
    return Reference(text, task, path, has_default=True, default=_parse_default(text, rest))


def _split_default(body: str) -> tuple[str, str, str]:
    """Split at the first `??` that is not inside quotes."""
    quoted = False
    at = 0
    while at < len(body):
        char = body[at]
        if quoted and char == "\\":
            at += 1
        elif char == '"':
            quoted = not quoted
        elif char == "?" and not quoted and body[at : at + 2] == "??":
            return body[:at].strip(), "??", body[at + 2 :].strip()
        at += 1
    return body, "", ""


def _parse_default(text: str, rest: str) -> Any:
    try:
        value = jsontext.decode(rest)
        jsontext.encode(value)
    except (ValueError, RecursionError):
        if _BARE.fullmatch(rest):
            return rest
        message = f"the default in '{text}' is neither JSON nor a plain word"
        raise BadReference(message) from None
    return value


def _parse_target(
    text: str, target: str, tasks: Collection[str]
) -> tuple[str | None, tuple[str | int, ...]]:
    if target == "workflow.input" or target.startswith(("workflow.input.", "workflow.input[")):
        return INPUT, _parse_path(text, target[len("workflow.input") :])
    if target.startswith("tasks["):
        return _parse_quoted_task(text, target, tasks)
    if target.startswith("tasks."):
        return _parse_dotted_task(text, target[len("tasks.") :], tasks)
    raise BadReference(
        f"'{text}' does not start with workflow.input or tasks.NAME.output, the only roots"
    )


def _parse_quoted_task(
    text: str, target: str, tasks: Collection[str]
) -> tuple[str, tuple[str | int, ...]]:
    match = _QUOTED.match(target, len("tasks"))
    if match is None:
        raise BadReference(f"'{text}': expected tasks[\"NAME\"]")
    name = _unquote(text, match.group(1))
    rest = target[match.end() :]
    if name not in tasks:
        raise BadReference(_unknown_task(text, name))
    if rest != ".output" and not rest.startswith((".output.", ".output[")):
        raise BadReference(f"'{text}': of a task only .output can be referred to")
    return name, _parse_path(text, rest[len(".output") :])


def _parse_dotted_task(
    text: str, rest: str, tasks: Collection[str]
) -> tuple[str, tuple[str | int, ...]]:
    """Names may hold dots, even `.output`: of all readings that name a task, the longest wins."""
    chosen = None
    at = rest.find(".output")
    while at >= 0:
        end = at + len(".output")
        if (end == len(rest) or rest[end] in ".[") and rest[:at] in tasks:
            chosen = at
        at = rest.find(".output", at + 1)
    if chosen is not None:
        return rest[:chosen], _parse_path(text, rest[chosen + len(".output") :])
    ends = [match.start() for match in re.finditer(r"[.\[]|$", rest)]
    if any(rest[:end] in tasks for end in ends):
        raise BadReference(f"'{text}': of a task only .output can be referred to")
    head, found, _ = rest.partition(".output")
    raise BadReference(_unknown_task(text, head if found else rest))


def _unknown_task(text: str, name: str) -> str:
    return f"'{text}' names task '{name}', which the workflow does not have"


def _parse_path(text: str, path: str) -> tuple[str | int, ...]:
    steps: list[str | int] = []
    at = 0
    while at < len(path):
        if path[at] == ".":
            match = _KEY.match(path, at + 1)
            if match is None:
                raise BadReference(f"'{text}': a key is missing after '.'")
            steps.append(match.group())
        elif match := _INDEX.match(path, at):
            steps.append(int(match.group(1)))
        elif match := _QUOTED.match(path, at):
            steps.append(_unquote(text, match.group(1)))
        else:
            raise BadReference(
                f"'{text}': cannot read the path at '{path[at : at + 20]}'; "
                'write .key, [0] or ["key.with.dots"]'
            )
        at = match.end()
    return tuple(steps)


def _unquote(text: str, quoted: str) -> str:
    try:
        key = str(json.loads(f'"{quoted}"'))
    except ValueError:
        raise BadReference(f"'{text}': the quoted key is not valid JSON text") from None
    if any("\ud800" <= char <= "\udfff" for char in key):
        # Such a key is in no input and no output, and what names it could not be stored.
        raise BadReference(
            f"'{text}': the quoted key holds half a surrogate pair; "
            "write both halves, or the character itself"
        )
    return key


def resolve(template: Template, lookup: Lookup, *, limit_bytes: int) -> Any:
    """The template's value with every reference replaced, in one pass.

    `lookup(task)` gives a task's output, `lookup(INPUT)` the execution's input; it raises
    MissingValue for a task without one. Raises MissingValue, ResolvedTooLarge.
    """
    if template.is_constant:
        return template.node
    budget = _Budget(limit_bytes)
    return _fill(template.node, lookup, budget)


class _Budget:
    """How many bytes of JSON the values that are filled in may still take."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.left = limit
        self.sizes: dict[str, int] = {}

    def spend(self, reference: Reference, value: Any) -> None:
        if isinstance(value, str):
            size = len(value if value.isascii() else value.encode("utf-8", "surrogatepass"))
        elif isinstance(value, (dict, list)):
            known = self.sizes.get(reference.text)
            if known is None:
                known = self.sizes[reference.text] = len(jsontext.encode_text(value))
            size = known
        else:
            size = 8
        self.left -= size
        if self.left < 0:
            raise ResolvedTooLarge(
                f"the input is larger than {self.limit} bytes once '{reference.text}' is filled in"
            )


def _fill(node: Any, lookup: Lookup, budget: _Budget) -> Any:
    if isinstance(node, _Whole):
        value = _value(node.reference, lookup)
        budget.spend(node.reference, value)
        return value
    if isinstance(node, _Text):
        return "".join(
            part if isinstance(part, str) else _as_text(part, lookup, budget) for part in node.parts
        )
    if isinstance(node, _Object):
        return {key: _fill(item, lookup, budget) for key, item in node.members}
    if isinstance(node, _Array):
        return [_fill(item, lookup, budget) for item in node.items]
    return node


def _as_text(reference: Reference, lookup: Lookup, budget: _Budget) -> str:
    value = _value(reference, lookup)
    budget.spend(reference, value)
    return value if isinstance(value, str) else jsontext.encode_text(value)


def _value(reference: Reference, lookup: Lookup) -> Any:
    missing: MissingValue | None = None
    for link in reference.chain():
        try:
            value = _walk(lookup(link.task), link)
        except MissingValue as error:
            missing = error
        else:
            # As elsewhere, `??` also stands in for a null.
            if value is not None or not (link.has_default or link.fallback):
                return value
            missing = None
        if link.has_default:
            return link.default
    if missing is None:
        return None
    raise missing


def _walk(value: Any, reference: Reference) -> Any:
    for depth, step in enumerate(reference.path):
        if isinstance(step, int):
            if not isinstance(value, list):
                raise MissingValue(_missing(reference, depth, f"{_kind(value)} has no items"))
            if step >= len(value):
                raise MissingValue(
                    _missing(reference, depth, f"there are {len(value)} items, counted from 0")
                )
            value = value[step]
        else:
            if not isinstance(value, dict):
                raise MissingValue(_missing(reference, depth, f"{_kind(value)} has no keys"))
            if step not in value:
                there = ", ".join(sorted(map(str, value))[:10]) or "none"
                raise MissingValue(_missing(reference, depth, f"the keys are: {there}"))
            value = value[step]
    return value


def _missing(reference: Reference, depth: int, why: str) -> str:
    step = reference.path[depth]
    shown = f"[{step}]" if isinstance(step, int) else f"'{step}'"
    return f"{reference.text} has no value: nothing at {shown}; {why}"


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, str):
        return "a string"
    return "an array" if isinstance(value, list) else "an object"
