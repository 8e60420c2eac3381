"""What Ray's errors say of whoever was asked: dead, silent, or alive and unable."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from ray.exceptions import ActorDiedError, RayError, RayTaskError

from harmonia_actors.runtime.silence import Failed, Gone, NotFound, Silent

__all__ = ["asking", "first_line"]


@contextlib.contextmanager
def asking() -> Iterator[None]:
    """Around a look for an actor by its name, and around a call of one."""
    try:
        yield
    except RayTaskError as error:
        # Before all others: what a method has raised is also of the kind that it raised.
        raise Failed(first_line(error.cause or error)) from error
    except ActorDiedError as error:
        raise Gone(first_line(error)) from error
    except (RayError, OSError) as error:
        raise Silent(first_line(error)) from error
    except ValueError as error:
        raise NotFound(first_line(error)) from error


def first_line(error: BaseException) -> str:
    """The error in one line for the log: Ray's own have dozens."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
