"""The Python client: `HarmoniaClient` and `AsyncHarmoniaClient` over the HTTP API.

    from harmonia_serve.client import HarmoniaClient

    with HarmoniaClient() as client:
        execution = client.run("workflow.json", {"name": "Ada"})
        for event in execution.events():
            print(event["type"], event["data"])
        print(execution.result())

It needs nothing of the engine: no Ray, no Redis.
"""

from harmonia_serve.client.asynchronous import AsyncHarmoniaClient
from harmonia_serve.client.errors import (
    ApiError,
    AuthenticationFailed,
    CannotBeSent,
    CheckpointNotFound,
    ClientError,
    ComponentFailed,
    Conflict,
    ExecutionEndedBadly,
    ExecutionFailed,
    ExecutionNotFound,
    InvalidRequest,
    NotConfigured,
    NotFound,
    PermissionDenied,
    RateLimitExceeded,
    ServiceUnavailable,
    ServiceUnreachable,
    TemplateNotFound,
    ValidationFailed,
    WaitTimedOut,
    WorkflowNotFound,
)
from harmonia_serve.client.events import Event, LogLine
from harmonia_serve.client.execution import AsyncExecution, Execution
from harmonia_serve.client.location import Location, locate
from harmonia_serve.client.synchronous import HarmoniaClient

__all__ = [
    "ApiError",
    "AsyncExecution",
    "AsyncHarmoniaClient",
    "AuthenticationFailed",
    "CannotBeSent",
    "CheckpointNotFound",
    "ClientError",
    "ComponentFailed",
    "Conflict",
    "Event",
    "Execution",
    "ExecutionEndedBadly",
    "ExecutionFailed",
    "ExecutionNotFound",
    "HarmoniaClient",
    "InvalidRequest",
    "Location",
    "LogLine",
    "NotConfigured",
    "NotFound",
    "PermissionDenied",
    "RateLimitExceeded",
    "ServiceUnavailable",
    "ServiceUnreachable",
    "TemplateNotFound",
    "ValidationFailed",
    "WaitTimedOut",
    "WorkflowNotFound",
    "locate",
]
