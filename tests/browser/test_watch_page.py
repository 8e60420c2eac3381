"""`examples/watch.html` and WebSockets in a real browser, on a real service: `make test-browser`.

It needs a Chromium on PATH, which the project otherwise does not, and is no part of `make test`.
"""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.chromium import Page, chromium_page, find_chromium
from tests.support.running import ROOT, RunningService, running_service

CHROMIUM = find_chromium()

pytestmark = [
    pytest.mark.timeout(400),
    pytest.mark.skipif(
        not CHROMIUM,
        reason="no Chromium on PATH: install it (apt-get install chromium) to try the page in it",
    ),
]

NOOP = {"component": "harmonia", "action": "noop"}
UNKNOWN = "exec-123e4567-e89b-12d3-a456-426614174999"


class _Silent(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Nobody is interested."""


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The example page at two origins; the service will allow the first."""
    directory = tmp_path_factory.mktemp("site")
    shutil.copy(ROOT / "examples" / "watch.html", directory)
    (directory / "blank.html").write_text("<!doctype html><title>blank</title>")
    handler = partial(_Silent, directory=str(directory))
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), handler) for _ in "ab"]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    allowed, foreign = (f"http://127.0.0.1:{server.server_port}" for server in servers)
    yield allowed, foreign
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory, sites: tuple[str, str]
) -> Iterator[RunningService]:
    data_dir = tmp_path_factory.mktemp("service") / "data"
    with running_service(data_dir, settings={"HARMONIA_ALLOWED_ORIGINS": sites[0]}) as running:
        yield running


@pytest.fixture
def page() -> Iterator[Page]:
    with chromium_page(CHROMIUM) as found:
        yield found


def watch(page: Page, site: str, service: RunningService, execution_id: str) -> None:
    """Fill in the form as a person does. What the page takes in is noted in `taken`."""
    page.open(f"{site}/watch.html")
    form = {"url": service.url, "key": service.key, "execution": execution_id}
    page.tell(f"""
        globalThis.taken = [];
        const take = Execution.prototype.take;
        Execution.prototype.take = function (event) {{
            taken.push(event.seq);
            return take.call(this, event);
        }};
        for (const [name, value] of Object.entries({json.dumps(form)})) byId(name).value = value;
        byId("form").requestSubmit();
    """)


def row(task: str) -> str:
    """The shown status of a task, as an expression."""
    return (
        "[...document.querySelectorAll('#tasks li')].find((item) => "
        f"item.querySelector('.name').textContent === '{task}')?.dataset.status"
    )


def kill_event_replica(service: RunningService) -> None:
    (replica,) = (
        process
        for process in service.processes()
        if " ".join(process.cmdline()).startswith("ray::ServeReplica:harmonia-events")
    )
    replica.kill()
    psutil.wait_procs([replica], timeout=10)


def test_a_run_is_shown_live_and_once_though_the_replica_dies(
    service: RunningService, sites: tuple[str, str], page: Page, tmp_path: Path
) -> None:
    gates = [tmp_path / f"gate{number}" for number in range(3)]
    tasks: dict[str, Any] = {
        f"w{number}": {
            "component": "testing",
            "action": "wait_for_file_async",
            "input": {"path": str(gate)},
            "depends_on": [f"w{number - 1}"] if number else [],
        }
        for number, gate in enumerate(gates)
    }
    steps = {"steps": 5, "pause_seconds": 0.1}
    tasks["steps"] = {"component": "testing", "action": "progress_steps", "input": steps}
    execution_id = service.start(service.create(tasks))
    watch(page, sites[0], service, execution_id)
    page.wait_for(f"{row('w0')} === 'running' && {row('steps')} === 'completed'")
    assert page.tell("byId('status').textContent") == "running"
    assert page.tell("watched.cuts") == 0

    for number in range(2):
        kill_event_replica(service)
        # It goes on while the page cannot hear of it.
        gates[number].touch()
        page.wait_for(f"{row(f'w{number + 1}')} === 'running' && watched.cuts > {number}")
    page.wait_for("byId('problem').hidden")
    gates[2].touch()
    page.wait_for("byId('status').textContent === 'completed'")

    last = service.finish(execution_id)["last_seq"]
    assert page.tell("taken") == list(range(1, last + 1))
    assert page.tell("byId('place').textContent").startswith(f"event {last} · 0 repeated · ")
    assert page.tell("byId('counts').textContent") == "4 completed"
    assert page.tell("byId('share').style.width") == "100%"
    assert {page.tell(row(task)) for task in tasks} == {"completed"}
    assert page.tell("byId('problem').hidden") is True
    assert page.tell("watched.source.readyState === EventSource.CLOSED") is True


def test_a_page_that_is_not_allowed_says_so_and_shows_nothing(
    service: RunningService, sites: tuple[str, str], page: Page
) -> None:
    execution_id = service.run({"only": {"component": "harmonia", "action": "noop"}})[
        "execution_id"
    ]
    watch(page, sites[1], service, execution_id)
    said = page.wait_for("!byId('problem').hidden && byId('problem').textContent")
    assert f"HARMONIA_ALLOWED_ORIGINS names {sites[1]}" in said
    assert page.tell("taken") == []


def test_a_browser_sees_every_close_code_of_a_websocket(
    service: RunningService, sites: tuple[str, str], page: Page
) -> None:
    execution_id = service.run({"only": {"component": "harmonia", "action": "noop"}})[
        "execution_id"
    ]

    def closed(site: str, path: str, key: str) -> list[Any]:
        """How many messages came, and the close."""
        page.open(f"{site}/blank.html")
        url = f"ws{service.url.removeprefix('http')}/ws/harmonia{path}?api_key={key}"
        found: list[Any] = page.tell(f"""new Promise((resolve) => {{
            const socket = new WebSocket({json.dumps(url)});
            let messages = 0;
            socket.onmessage = () => {{ messages += 1; }};
            socket.onclose = (event) => resolve([messages, event.code, event.wasClean]);
        }})""")
        return found

    allowed, foreign = sites
    path = f"/executions/{execution_id}"
    assert closed(allowed, path, service.key) == [4, 1000, True]
    assert closed(allowed, path, "wrong") == [0, 4401, True]
    assert closed(allowed, f"/executions/{UNKNOWN}", service.key) == [0, 4404, True]
    assert closed(foreign, path, service.key) == [0, 4403, True]
