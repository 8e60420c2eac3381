"""Lets an actor that Ray restarts begin its work by itself.

Ray runs only the constructor again, where no loop runs yet, so the rest is a call to itself. Such
a call may be lost: while an actor is on its way back, Ray refuses calls to it, its own included.
"""

from __future__ import annotations

import threading
import time
from typing import Any, Final

import ray
from ray.exceptions import RayError

__all__ = ["begin_by_itself"]

_ANSWER_S: Final = 10.0
_AGAIN_S: Final = 0.2


def begin_by_itself() -> None:
    """From an actor's constructor: call its method `begin` until that has returned once.

    `begin` must be harmless when it is called again.
    """
    this_actor = ray.get_runtime_context().current_actor
    threading.Thread(target=_call_until_done, args=(this_actor,), daemon=True).start()


def _call_until_done(this_actor: Any) -> None:
    while True:
        try:
            ray.get(this_actor.begin.remote(), timeout=_ANSWER_S)
        except RayError:
            time.sleep(_AGAIN_S)
        else:
            return
