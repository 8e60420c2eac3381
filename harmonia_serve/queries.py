"""Query parameters: which there are for each kind of list, and what is wrong with others.

A parameter that a route does not know, or that is given twice, is refused, because a filter that
is silently ignored answers another question than was asked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Literal

from fastapi import Query
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError, PydanticKnownError
from starlette.requests import HTTPConnection

from harmonia_actors.core.cursors import parse_place
from harmonia_actors.core.errors import Problem, ValidationFailed
from harmonia_actors.settings import Settings
from harmonia_serve.gateway import PageRequest

__all__ = [
    "CheckpointQuery",
    "EventStreamQuery",
    "ExecutionListQuery",
    "ExecutionStreamQuery",
    "FilterQuery",
    "InstallationStreamQuery",
    "OutputsQuery",
    "PageQuery",
    "SortedQuery",
    "StreamQuery",
    "WorkflowListQuery",
    "check_query",
    "nearest",
    "page_request",
    "query_problems",
]

ExecutionStatusName = Literal[
    "pending", "running", "completed", "failed", "cancelling", "cancelled"
]


_NUMBER = re.compile(r"-?[0-9]+")
#: Items on a page, if it is not said how many, and if so many are allowed.
_LIMIT = 20


class _Parameters(BaseModel):
    """Parameters of one route. What is unknown is found by `check_query`, with a better text."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)


def _digits_only(value: Any) -> Any:
    """Of all ways in which Python writes a whole number, the one that everybody does."""
    if isinstance(value, str) and not _NUMBER.fullmatch(value):
        raise PydanticKnownError("int_parsing")
    return value


def _id_of_an_event(value: str | None) -> str | None:
    if value is not None and parse_place(value) is None:
        raise PydanticCustomError("id_of_an_event", "Input should be the id of an event, like 12")
    return value


_Number = Annotated[int, BeforeValidator(_digits_only)]


class PageQuery(_Parameters):
    """Which page of a list."""

    page: _Number = Field(1, ge=1, le=1_000_000_000, description="Page number for pagination")
    limit: _Number = Field(_LIMIT, ge=1, description="Number of items per page")


class SortedQuery(PageQuery):
    """A page of a list that has an order in time."""

    sort_by: Literal["created_at"] = Field("created_at", description="Field to sort by")
    sort_order: Literal["asc", "desc"] = Field("desc", description="Sort order")


class WorkflowListQuery(PageQuery):
    """A page of the workflows."""

    sort_by: Literal["created_at", "updated_at", "name", "version"] = Field(
        "created_at", description="Field to sort by"
    )
    sort_order: Literal["asc", "desc"] = Field("desc", description="Sort order")


class ExecutionListQuery(SortedQuery):
    """A page of the executions, of one workflow or in one status."""

    workflow_id: str | None = Field(None, description="Filter by workflow ID")
    status: ExecutionStatusName | None = Field(None, description="Filter by status")


class CheckpointQuery(SortedQuery):
    """A page of the checkpoints, of one execution or of all."""

    execution_id: str | None = Field(None, description="Filter by execution ID")


class OutputsQuery(_Parameters):
    """Whether a status shows the outputs of the tasks."""

    outputs: Literal["all", "none"] = Field("all", description="`none` leaves the outputs out")


_Filter = Annotated[str | None, Query()]
#: Room for every type of event at once.
_FILTER_LENGTH_MAX = 1_000


class FilterQuery(_Parameters):
    """Which events a stream sends."""

    type: _Filter = Field(
        None,
        max_length=_FILTER_LENGTH_MAX,
        description="Only events of these types, with commas between them",
    )
    task: _Filter = Field(
        None, max_length=_FILTER_LENGTH_MAX, description="Only events of the task with this name"
    )
    status: _Filter = Field(
        None,
        max_length=_FILTER_LENGTH_MAX,
        description="Only events by which a task or an execution comes to one of these statuses, "
        "with commas between them",
    )
    logs: bool = Field(
        False, description="`true`: log lines of tasks are sent, too, as `task_log`, in any case"
    )


class StreamQuery(FilterQuery):
    """Where in the log a stream starts."""

    after: Annotated[str | None, AfterValidator(_id_of_an_event), Query()] = Field(
        None,
        max_length=_FILTER_LENGTH_MAX,
        description="Only events after the one with this id (its seq, and `12-3` for log lines) "
        "are sent; the Last-Event-ID header wins",
    )


class ExecutionStreamQuery(StreamQuery):
    """What of an execution's events is sent."""

    detail: Literal["full", "summary"] = Field(
        "full",
        description="`summary`: in place of the tasks' events, now and then what they come to, as "
        "`execution_progress`",
    )
    until: Annotated[str | None, AfterValidator(_id_of_an_event), Query()] = Field(
        None,
        max_length=_FILTER_LENGTH_MAX,
        description="The stream ends with the event of this id",
    )


class EventStreamQuery(ExecutionStreamQuery):
    """How an SSE stream is written, besides."""

    envelope: bool = Field(
        False,
        description="Whether `data:` holds the whole envelope, with timestamp and execution_id, "
        "instead of the event's data alone",
    )


class InstallationStreamQuery(FilterQuery):
    """Where in the installation's log a stream starts, and which events it sends."""

    after: str | None = Field(
        None,
        max_length=_FILTER_LENGTH_MAX,
        description="Only events after this cursor; 0: all that are kept; without: from now on. "
        "The Last-Event-ID header wins",
    )
    workflow_id: str | None = Field(None, description="Only events of executions of this workflow")
    follow: bool = Field(
        True, description="`false`: end where the log ends now, instead of going on live"
    )


def page_request(query: PageQuery, settings: Settings) -> PageRequest:
    """The page that is asked for. Raises ValidationFailed if it is larger than allowed."""
    limit = query.limit
    if "limit" not in query.model_fields_set:
        limit = min(limit, settings.page_limit_max)
    if limit > settings.page_limit_max:
        problem = Problem(
            "limit", f"must be from 1 to {settings.page_limit_max}, not {query.limit}"
        )
        raise ValidationFailed("query", [problem])
    return PageRequest(
        page=query.page,
        limit=limit,
        sort_by=getattr(query, "sort_by", "created_at"),
        descending=getattr(query, "sort_order", "desc") == "desc",
    )


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the known word that is like `word`, else an empty text."""
    close = get_close_matches(word[:200], list(known), n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else ""


def check_query(connection: HTTPConnection) -> None:
    """Raise ValidationFailed for parameters that the route does not have, or that come twice."""
    items = connection.query_params.multi_items()
    if not items:
        return
    known = _known_parameters(connection.scope["route"])
    problems: dict[str, Problem] = {}
    seen: set[str] = set()
    for name, _ in items:
        shown = name[:100]
        if name not in known:
            there = f"; there are: {', '.join(known)}" if known else ""
            message = f"there is no such query parameter{nearest(name, known) or there}"
            problems[shown] = Problem(shown, message)
        elif name in seen:
            problems[shown] = Problem(shown, "is given more than once")
        seen.add(name)
    if problems:
        raise ValidationFailed("query", problems.values())


def _known_parameters(route: Any) -> tuple[str, ...]:
    names: list[str] = []
    for field in route.dependant.query_params:
        kind = field.field_info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            names.extend(kind.model_fields)
        else:
            names.append(field.alias)
    return tuple(names)


def query_problems(errors: Iterable[Mapping[str, Any]]) -> list[Problem]:
    """FastAPI's complaints about parameters, as problems that name the parameter."""
    found = []
    for error in errors:
        name = str(error["loc"][-1])
        given = error.get("input")
        shown = f", not '{given[:100]}'" if isinstance(given, str) else ""
        message = str(error["msg"]).removeprefix("Input ").removeprefix("should")
        found.append(Problem(name, f"must{message}{shown}" if message[0] == " " else message))
    return found
