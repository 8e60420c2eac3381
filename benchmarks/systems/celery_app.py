"""The Celery application that client and workers share. Imported by `celery worker`."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery

from benchmarks import actions

_URL = os.environ.get("BENCH_STORE_URL", "redis://127.0.0.1:6379/0")

app = Celery("bench", broker=_URL, backend=_URL)
app.conf.update(
    broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=False,
    worker_prefetch_multiplier=4,
    result_expires=3600,
)


@app.task(name="act")
def act(given: Any, action: str, amount: float, takes: bool) -> actions.Report:
    """One task; `given` is what the one before it has made, or a list of that."""
    reports = given if isinstance(given, list) else [given] if given else []
    return actions.perform(action, amount, [r["value"] for r in reports] if takes else [])
