"""The watch over store and Ray, with a real store and a stand-in for Ray's processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import redis

from harmonia_serve.cli.installation.lock import holder_of
from harmonia_serve.cli.installation.plan import make_plan
from harmonia_serve.cli.installation.ports import is_free
from harmonia_serve.cli.installation.processes import end_all, marked, runs
from harmonia_serve.cli.installation.records import read_running
from persistence.embedded import reap
from tests.unit.cli.conftest import Harmonia

DEADLINE_S = 30.0


class Up:
    """A watchdog in a process of its own, and what it has said."""

    def __init__(self, data_dir: Path, **environ: str) -> None:
        options = {"data_dir": data_dir, "up_health_interval_s": 0.2, "up_restarts_max": 2}
        plan = make_plan(options, environ={})
        plan = plan.with_settings(namespace=environ.pop("NAMESPACE", "harmonia"))
        self.data_dir = data_dir
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.unit.cli.watch", json.dumps(plan.to_json())],
            stdout=subprocess.PIPE,
            text=True,
            # The stand-in is found from the project's root, the only place it is known.
            env={**os.environ, "PYTHONPATH": str(Path.cwd()), **environ},
        )
        self.reports: list[tuple[str, dict[str, Any]]] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            kind, fields = json.loads(line)
            self.reports.append((kind, fields))

    def all(self, kind: str) -> list[dict[str, Any]]:
        return [fields for found, fields in self.reports if found == kind]

    def until(self, condition: Callable[[], Any]) -> Any:
        """Wait until a condition holds; its value."""
        deadline = time.monotonic() + DEADLINE_S
        while not (value := condition()):
            if time.monotonic() > deadline:
                raise AssertionError(f"not in time; reports: {self.reports}")
            self._reader.join(0.02)
        return value

    def until_ready(self, times: int = 1) -> str:
        ready = self.until(lambda: self.all("Ready")[times - 1 :])
        return str(ready[0]["url"])

    def wait(self) -> int:
        code = self.process.wait(DEADLINE_S)
        self._reader.join(DEADLINE_S)
        return code


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    directory = tmp_path / "data"
    yield directory
    holder = holder_of(directory)
    if holder is not None:
        os.kill(holder.pid, signal.SIGKILL)
    end_all(marked(directory))
    reap(directory)


def processes(data_dir: Path) -> list[psutil.Process]:
    """Everything that belongs to the installation, the store included."""
    running = read_running(data_dir)
    store = [running.store_pid] if running and psutil.pid_exists(running.store_pid) else []
    return [*marked(data_dir), *(psutil.Process(pid) for pid in store)]


def test_it_starts_says_who_holds_it_and_ends_without_leaving_anything(data_dir: Path) -> None:
    up = Up(data_dir)
    url = up.until_ready()
    assert httpx.get(f"{url}/health").status_code == 200
    assert up.all("FirstKey") == [{"api_key": "hk_first"}]
    connection = data_dir / "connection.json"
    assert json.loads(connection.read_text()) == {
        "url": url,
        "api_key": "hk_first",
        "keys": {"embedded harmonia": "hk_first"},
    }
    assert connection.stat().st_mode & 0o777 == 0o600
    started = processes(data_dir)
    assert len(started) == 3

    second = Up(data_dir)
    assert second.wait() == 1
    failure = second.all("Failed")[0]
    assert f"process {up.process.pid}" in failure["message"]
    assert "harmonia down" in failure["way_out"]

    up.process.send_signal(signal.SIGINT)
    assert up.wait() == 0
    assert not any(runs(process) for process in started)
    assert read_running(data_dir) is None
    assert holder_of(data_dir) is None
    assert "hk_first" in connection.read_text()
    assert b"hk_first" not in (data_dir / "harmonia.log").read_bytes()


def test_a_store_that_dies_comes_back_at_the_same_place_with_its_data(data_dir: Path) -> None:
    up = Up(data_dir)
    up.until_ready()
    config = (data_dir / "store" / "server.conf").read_text()
    words = dict(line.split(" ", 1) for line in config.splitlines() if line)
    client = redis.Redis(port=int(words["port"]), password=words["requirepass"])
    client.set("kept", "yes")
    first = processes_by_name(data_dir, "valkey-server", "redis-server")[0]
    first.kill()
    up.until(lambda: any("store ended" in note["text"] for note in up.all("Note")))

    def answers() -> bool:
        try:
            return bool(client.get("kept") == b"yes")
        except redis.RedisError:
            return False

    up.until(answers)
    assert (data_dir / "store" / "server.conf").read_text() == config
    up.process.terminate()
    assert up.wait() == 0


def processes_by_name(data_dir: Path, *names: str) -> list[psutil.Process]:
    return [process for process in processes(data_dir) if process.name() in names]


def test_ray_that_dies_is_started_again_and_nothing_of_the_old_stays(data_dir: Path) -> None:
    up = Up(data_dir)
    url = up.until_ready()
    before = marked(data_dir)
    raylet = next(process for process in before if process.cmdline()[1] == "-c")
    raylet.kill()
    assert up.until_ready(times=2) == url
    assert any("raylet ended" in note["text"] for note in up.all("Note"))
    assert not any(runs(process) for process in before)

    child = next(process for process in marked(data_dir) if "-m" in process.cmdline())
    child.kill()
    up.until_ready(times=3)
    assert len(marked(data_dir)) == 2
    assert up.all("FirstKey") == [{"api_key": "hk_first"}]
    up.process.send_signal(signal.SIGTERM)
    assert up.wait() == 0
    assert marked(data_dir) == []


def test_a_start_that_fails_under_load_is_tried_once_more(data_dir: Path) -> None:
    up = Up(data_dir, STAND_IN_FAILS="0")
    up.until_ready()
    assert any("timed out during startup; trying once more" in n["text"] for n in up.all("Note"))
    up.process.terminate()
    assert up.wait() == 0
    assert marked(data_dir) == []


def test_a_restart_that_fails_is_tried_again(data_dir: Path) -> None:
    up = Up(data_dir, STAND_IN_FAILS="1")
    up.until_ready()
    raylet = next(process for process in marked(data_dir) if process.cmdline()[1] == "-c")
    raylet.kill()
    up.until_ready(times=2)
    assert len(marked(data_dir)) == 2, "nothing is left of the start that failed"
    up.process.terminate()
    assert up.wait() == 0


@pytest.mark.parametrize("start", ["0", "1"])
def test_a_store_that_dies_while_ray_starts_comes_back_at_once(data_dir: Path, start: str) -> None:
    """What Ray starts waits for the store: nobody may wait for Ray first."""
    up = Up(data_dir, STAND_IN_ENDS_STORE=start)
    if start == "1":
        up.until_ready()
        raylet = next(process for process in marked(data_dir) if process.cmdline()[1] == "-c")
        raylet.kill()
    up.until(lambda: any("store ended" in note["text"] for note in up.all("Note")))
    up.until_ready(times=int(start) + 1)
    assert len(processes(data_dir)) == 3
    up.process.terminate()
    assert up.wait() == 0


def test_the_time_that_the_store_takes_to_come_back_is_no_silence_of_ray(data_dir: Path) -> None:
    """It may have a long log to read, and all that Ray starts waits for it."""
    up = Up(data_dir, STAND_IN_ENDS_STORE="0", WATCH_STORE_TAKES="100000")
    up.until_ready()
    notes = [note["text"] for note in up.all("Note")]
    assert any("store ended" in text for text in notes)
    assert not any("trying once more" in text for text in notes)
    up.process.terminate()
    assert up.wait() == 0


@pytest.mark.parametrize("start", ["0", "1"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_raylet_that_dies_while_ray_starts_is_not_waited_for(
    data_dir: Path, when: str, start: str
) -> None:
    """Ray's driver may take minutes to notice, and says nothing meanwhile."""
    up = Up(data_dir, STAND_IN_LOSES_RAYLET=f"{when} {start}")
    if start == "1":
        up.until_ready()
        raylet = next(process for process in marked(data_dir) if process.cmdline()[1] == "-c")
        raylet.kill()
    up.until_ready(times=int(start) + 1)
    assert any("raylet ended while" in note["text"] for note in up.all("Note"))
    assert len(marked(data_dir)) == 2, "nothing is left of the start that failed"
    up.process.terminate()
    assert up.wait() == 0


def test_an_ingress_that_answers_for_a_dead_service_is_no_answer(data_dir: Path) -> None:
    up = Up(data_dir)
    up.until_ready()
    (data_dir / "sick").touch()
    up.until(lambda: any("does not answer" in note["text"] for note in up.all("Note")))
    (data_dir / "sick").unlink()
    up.until(lambda: any("answers again" in note["text"] for note in up.all("Note")))
    up.process.terminate()
    assert up.wait() == 0


def test_restarts_are_bounded(data_dir: Path) -> None:
    up = Up(data_dir)
    for number in range(1, 4):
        up.until_ready(times=number)
        raylet = next(process for process in marked(data_dir) if process.cmdline()[1] == "-c")
        raylet.kill()
    assert up.wait() == 1
    assert "after 2 restarts" in up.all("Failed")[0]["message"]
    assert processes(data_dir) == []


def test_after_a_kill_the_next_one_ends_what_was_left_and_goes_on(data_dir: Path) -> None:
    up = Up(data_dir, STAND_IN_DEAF="1")
    url = up.until_ready()
    left = processes(data_dir)
    innocent = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    up.process.kill()
    up.wait()
    assert all(runs(process) for process in left)

    again = Up(data_dir)
    assert again.until_ready() == url
    assert not any(runs(process) for process in left)
    assert any("had left" in note["text"] for note in again.all("Note"))
    assert again.all("FirstKey") == []
    assert again.all("Ready")[0]["has_key"] is True
    assert innocent.poll() is None
    innocent.kill()
    innocent.wait()
    again.process.terminate()
    assert again.wait() == 0


def test_a_killed_watchdog_takes_the_ray_process_with_it(data_dir: Path) -> None:
    up = Up(data_dir)
    up.until_ready()
    left = marked(data_dir)
    up.process.kill()
    up.wait()
    assert left
    up.until(lambda: not any(map(runs, left)))


def test_a_failed_start_tells_why_and_leaves_nothing(data_dir: Path) -> None:
    up = Up(data_dir, NAMESPACE="broken")
    assert up.wait() == 1
    failed = {"message": "the stand-in is broken", "way_out": "mend it", "again": False}
    assert up.all("Failed") == [failed]
    assert processes(data_dir) == []
    assert is_free("127.0.0.1", 8002)


def test_an_interrupt_while_it_starts_leaves_nothing(data_dir: Path) -> None:
    up = Up(data_dir, STAND_IN_SLOW="1")
    up.until(lambda: any("stand-in" in step["text"] for step in up.all("Step")))
    up.until(lambda: len(marked(data_dir)) == 2)
    up.process.send_signal(signal.SIGINT)
    assert up.wait() == 0
    assert up.all("Ready") == []
    assert marked(data_dir) == []
    assert reap(data_dir) is None
    assert holder_of(data_dir) is None


def test_down_stops_it_and_waits_until_it_has_ended(data_dir: Path, harmonia: Harmonia) -> None:
    up = Up(data_dir)
    up.until_ready()
    started = processes(data_dir)
    stopping = harmonia("down", "--data-dir", str(data_dir), "--json")
    assert stopping.code == 0
    assert stopping.json == {"ended": [f"harmonia up (process {up.process.pid}) has stopped"]}
    assert up.wait() == 0
    assert not any(map(runs, started))
    assert "nothing runs" in harmonia("down", "--data-dir", str(data_dir)).out


def test_down_ends_what_a_killed_one_has_left(data_dir: Path, harmonia: Harmonia) -> None:
    up = Up(data_dir, STAND_IN_DEAF="1")
    up.until_ready()
    left = processes(data_dir)
    up.process.kill()
    up.wait()
    said = harmonia("down", "--data-dir", str(data_dir)).out
    assert said.startswith("3 processes")
    assert not any(map(runs, left))
    assert read_running(data_dir) is None


def test_status_names_the_processes_and_says_what_does_not_answer(
    data_dir: Path, harmonia: Harmonia
) -> None:
    """The stand-in is no Harmonia, so the service itself does not answer as one would."""
    up = Up(data_dir)
    url = up.until_ready()
    found = harmonia("status", "--data-dir", str(data_dir), "--json")
    assert found.code == 1
    document: Any = found.json
    assert document["url"] == url
    assert document["up"]["pid"] == up.process.pid
    assert len(document["processes"]) == 4
    assert all(item["memory_bytes"] > 0 for item in document["processes"])
    assert "does not answer" in harmonia("status", "--data-dir", str(data_dir)).out
    up.process.terminate()
    assert up.wait() == 0
