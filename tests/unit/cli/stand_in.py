"""Stands in for the Ray process: real processes and a real port, but no Ray.

It serves `/health`, has one child that it calls its raylet, and ends when its input is closed,
as the real one does; with STAND_IN_DEAF it does not notice that, with STAND_IN_SLOW it is never
ready. STAND_IN_FAILS names starts, from 0, that fail as Ray does on a machine under load; in those
that STAND_IN_ENDS_STORE names the store ends, and it waits for it as actors do, and is then busy
for longer than the watchdog listens at a time. In those that
STAND_IN_LOSES_RAYLET names its raylet ends, before it is told of or afterwards, and it does not
notice. Told to take down a Harmonia on a cluster, it writes down which.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import redis

from harmonia_serve.cli.installation import reports
from harmonia_serve.cli.installation.plan import Plan
from harmonia_serve.cli.installation.ports import service_url

_BUSY_S = 1.5


class Health(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(503 if Path("sick").exists() else 200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        return


def await_store_anew(url: str) -> None:
    """End the store, and wait until there is one again."""
    client = redis.Redis.from_url(url)
    client.shutdown(nosave=True, now=True)
    while True:
        try:
            client.ping()
        except redis.RedisError:
            threading.Event().wait(0.02)
        else:
            return


def lose(raylet: subprocess.Popen[bytes]) -> None:
    raylet.kill()
    raylet.wait()


def main() -> None:
    report = reports.ReportWriter(int(sys.argv[1]))
    order = json.loads(sys.stdin.buffer.readline())
    plan = Plan.from_json(order["plan"])
    settings = plan.settings
    if settings.namespace == "broken":
        report(reports.Failed("the stand-in is broken", "mend it"))
        sys.exit(1)
    if order["task"] == "take_down":
        taken_down = {"address": plan.address, "namespace": settings.namespace}
        (settings.data_dir / "taken_down").write_text(json.dumps(taken_down))
        return
    report(reports.Step("starting the stand-in"))
    raylet = subprocess.Popen(
        [sys.executable, "-c", "import signal; signal.pause()"], stdin=subprocess.DEVNULL
    )
    tries = settings.data_dir / "tries"
    number = len(tries.read_text()) if tries.exists() else 0
    tries.write_text("x" * (number + 1))
    when, _, start = os.environ.get("STAND_IN_LOSES_RAYLET", "").partition(" ")
    if (when, start) == ("before", str(number)):
        lose(raylet)
    report(reports.HeadProcesses({"raylet": raylet.pid}))
    if start == str(number):
        lose(raylet)
        signal.pause()
    if str(number) in os.environ.get("STAND_IN_FAILS", "").split(","):
        report(reports.Failed("the current node timed out during startup", again=True))
        sys.exit(1)
    if str(number) in os.environ.get("STAND_IN_ENDS_STORE", "").split(","):
        await_store_anew(settings.redis_url.get_secret_value())
        threading.Event().wait(_BUSY_S)
    if "STAND_IN_SLOW" in os.environ:
        signal.pause()
    if not (settings.data_dir / "connection.json").exists():
        report(reports.FirstKey("hk_first"))
    server = ThreadingHTTPServer((settings.host, settings.port), Health)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    report(reports.Ready(service_url(settings.host, settings.port)))
    while sys.stdin.buffer.read(1) or "STAND_IN_DEAF" in os.environ:
        threading.Event().wait(0.05)
    raylet.kill()
    raylet.wait()
    report(reports.Done("stand-in stopped", 0))


if __name__ == "__main__":
    main()
