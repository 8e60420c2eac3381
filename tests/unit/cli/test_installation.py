"""The parts of an installation: lock, ports, records, plan, processes, reports, environment."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harmonia_actors.actors.supervisor_limits import janitor_limits
from harmonia_serve.cli.installation import records, reports
from harmonia_serve.cli.installation.child import Child, log_path, log_tail, open_log
from harmonia_serve.cli.installation.lock import hold, holder_of
from harmonia_serve.cli.installation.plan import Plan, make_plan
from harmonia_serve.cli.installation.ports import (
    choose_port,
    holder_of_port,
    is_free,
    is_loopback,
    service_url,
)
from harmonia_serve.cli.installation.processes import MARKER, end_all, marked, memory_bytes
from harmonia_serve.cli.installation.ray_environment import (
    ray_directory,
    ray_environment,
    remove_scratch,
)
from harmonia_serve.cli.problems import CommandFailed, UsageProblem

EVERYWHERE = "0.0.0.0"  # noqa: S104 - what is to be refused


def plan_for(tmp_path: Path, environ: dict[str, str] | None = None, **options: Any) -> Plan:
    return make_plan({"data_dir": tmp_path, **options}, environ=environ or {})


def test_a_data_directory_is_held_once_and_free_afterwards(tmp_path: Path) -> None:
    with hold(tmp_path):
        holder = holder_of(tmp_path)
        assert holder is not None
        assert holder.pid == os.getpid()
        with pytest.raises(CommandFailed, match=str(os.getpid())), hold(tmp_path):
            pass
    assert holder_of(tmp_path) is None
    with hold(tmp_path):
        pass


def test_a_data_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(CommandFailed, match="file/data") as caught,
        hold(tmp_path / "file" / "data"),
    ):
        pass
    assert "--data-dir" in caught.value.way_out


def test_a_free_port_is_taken_and_a_busy_default_gives_way(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert not is_free("127.0.0.1", port)
        found, claimed = choose_port("127.0.0.1", port, explicit=False)
        with claimed:
            assert found > port
        with pytest.raises(CommandFailed) as caught:
            choose_port("127.0.0.1", port, explicit=True)
        assert f"process {os.getpid()}" in caught.value.message
        assert "--port" in caught.value.way_out
    assert is_free("127.0.0.1", port)
    found, claimed = choose_port("127.0.0.1", port, explicit=True)
    with claimed:
        assert found == port
        with pytest.raises(CommandFailed, match="another `harmonia up`"):
            choose_port("127.0.0.1", port, explicit=True)
    assert holder_of_port(port) == "a process that this user may not see"


def test_a_port_that_was_just_used_is_free(tmp_path: Path) -> None:
    """Closed connections linger in the kernel: they must not push the service to another port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            accepted, _ = listener.accept()
            accepted.close()
    assert is_free("127.0.0.1", port)


def test_an_address_that_is_not_ours_is_refused() -> None:
    with pytest.raises(CommandFailed, match="not an address"):
        is_free("no-such-host.invalid", 8002)
    with pytest.raises(CommandFailed, match=r"'192\.0\.2\.1' is not an address"):
        choose_port("192.0.2.1", 8002, explicit=False)


@pytest.mark.parametrize(
    ("host", "loopback", "url"),
    [
        ("127.0.0.1", True, "http://127.0.0.1:8002"),
        ("localhost", True, "http://localhost:8002"),
        ("::1", True, "http://[::1]:8002"),
        (EVERYWHERE, False, "http://127.0.0.1:8002"),
        ("::", False, "http://[::1]:8002"),
        ("192.168.1.5", False, "http://192.168.1.5:8002"),
    ],
)
def test_how_this_machine_reaches_a_host(host: str, loopback: bool, url: str) -> None:
    assert is_loopback(host) is loopback
    assert service_url(host, 8002) == url


def test_settings_that_cannot_work_are_refused_without_telling_a_secret(tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match=r"setting lease_ms: .* greater than 0 \(it is 0\)"):
        make_plan({"data_dir": tmp_path, "lease_ms": 0}, environ={})
    together = {"execution_actors_min": 9, "execution_actors_max": 2}
    url = "redis://:canary@redis.example:6379/0"
    with pytest.raises(UsageProblem, match="lower the one or raise the other") as caught:
        make_plan({"data_dir": tmp_path, "redis_url": url, **together}, environ={})
    assert "canary" not in caught.value.message + caught.value.way_out


def test_connection_keeps_its_key_and_is_private(tmp_path: Path) -> None:
    path = tmp_path / "connection.json"
    path.write_text("{}")
    path.chmod(0o644)

    def write(url: str, key: str | None, store: str = "embedded") -> bool:
        return records.write_connection(tmp_path, url, key, store=store)

    def written() -> tuple[str, str | None]:
        found = json.loads(path.read_text())
        return found["url"], found["api_key"]

    assert write("http://a:1", None) is False
    assert write("http://a:1", "hk_1") is True
    assert write("http://a:2", None) is True
    assert written() == ("http://a:2", "hk_1")
    assert write("http://a:2", "hk_2", "redis.example:6379/0") is True
    assert written() == ("http://a:2", "hk_2")
    assert write("http://a:2", None) is True
    assert written() == ("http://a:2", "hk_1"), "each store has a key of its own"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["connection.json"]


def test_what_runs_is_written_and_read_back(tmp_path: Path) -> None:
    running = records.Running("http://a:1", 7, 1.5, "harmonia", 8, "", "log")
    records.write_running(tmp_path, running)
    assert records.read_running(tmp_path) == running
    (tmp_path / "up.json").write_text('{"url": 1}')
    assert records.read_running(tmp_path) is None
    records.remove_running(tmp_path)
    records.remove_running(tmp_path)


def test_a_plan_is_embedded_unless_a_redis_is_named(tmp_path: Path) -> None:
    assert plan_for(tmp_path).embedded
    assert not plan_for(tmp_path, redis_url="redis://127.0.0.1:6379/0").embedded
    environ = {"HARMONIA_REDIS_URL": "redis://127.0.0.1:6379/0"}
    assert not plan_for(tmp_path, environ).embedded


def test_only_the_embedded_store_is_asked_to_write_its_file_anew_unless_one_says_so(
    tmp_path: Path,
) -> None:
    given = {"redis_url": "redis://127.0.0.1:6379/0"}
    assert janitor_limits(plan_for(tmp_path).settings).compact_bytes_min == 8_000_000
    assert janitor_limits(plan_for(tmp_path, **given).settings).compact_bytes_min is None
    environ = {"HARMONIA_STORE_REWRITE": "true", "HARMONIA_STORE_REWRITE_BYTES_MIN": "5"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environ.items():
            patch.setenv(name, value)
        assert janitor_limits(plan_for(tmp_path, **given).settings).compact_bytes_min == 5
        patch.setenv("HARMONIA_STORE_REWRITE", "false")
        assert janitor_limits(plan_for(tmp_path).settings).compact_bytes_min is None


def test_a_plan_travels_whole_and_shows_no_secret(tmp_path: Path) -> None:
    plan = plan_for(
        tmp_path, redis_url="redis://:canary@127.0.0.1:6379/0", allow_commands="curl, python3"
    )
    copied = Plan.from_json(json.loads(json.dumps(plan.to_json())))
    assert copied == plan
    assert copied.settings.redis_url.get_secret_value().endswith("canary@127.0.0.1:6379/0")
    assert copied.settings.allow_commands == ("curl", "python3")
    assert "canary" not in repr(plan)


def test_what_services_offer_and_their_tokens_travel_with_the_plan(tmp_path: Path) -> None:
    url = "http://127.0.0.1:9/parts"
    tokens = {"HARMONIA_COMPONENT_TOKENS": json.dumps({url: "canary"})}
    options = {"components": url, "component_tokens": {url: "canary"}}
    plan = plan_for(tmp_path, **options).with_settings(component_catalogues={url: "packed"})
    copied = Plan.from_json(json.loads(json.dumps(plan.to_json()))).settings
    assert copied.component_tokens[url].get_secret_value() == "canary"
    assert copied.component_catalogues == {url: "packed"}
    assert "canary" not in f"{plan} {copied.for_display()}"
    assert "canary" not in str(ray_environment(plan, {**tokens, "PATH": "/bin"}))


@pytest.mark.parametrize("value", ["canary", ["canary"], {"http://a": 5}])
def test_tokens_of_the_wrong_form_are_refused_untold(tmp_path: Path, value: Any) -> None:
    with pytest.raises(UsageProblem, match="setting component_tokens") as caught:
        plan_for(tmp_path, component_tokens=value)
    assert "HARMONIA_COMPONENT_TOKENS)" in caught.value.way_out
    assert "canary" not in caught.value.message
    assert "5" not in caught.value.message


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"host": EVERYWHERE}, "--allow-commands"),
        ({"redis_url": "redis://redis.example:6379/0"}, "password"),
        ({"redis_url": "http://:secret@redis.example"}, "redis://"),
        (
            {"host": EVERYWHERE, "allow_commands": "curl", "redis_url": "redis://127.0.0.1/0"},
            "password",
        ),
        ({"port": 0}, "HARMONIA_PORT"),
    ],
)
def test_unsafe_or_impossible_plans_are_refused(
    tmp_path: Path, options: dict[str, Any], expected: str
) -> None:
    with pytest.raises(UsageProblem) as caught:
        plan_for(tmp_path, **options)
    assert expected in f"{caught.value.message} {caught.value.way_out}"
    assert "secret" not in f"{caught.value.message} {caught.value.way_out}"


@pytest.mark.parametrize(
    "options",
    [
        {"host": EVERYWHERE, "allow_commands": ""},
        {"host": EVERYWHERE, "allow_commands": "curl"},
        {"redis_url": "rediss://:pw@redis.example:6379/0"},
        {"redis_url": "unix:///run/redis.sock"},
    ],
)
def test_safe_plans_are_taken(tmp_path: Path, options: dict[str, Any]) -> None:
    assert plan_for(tmp_path, **options).settings.data_dir == tmp_path.resolve()


def test_only_processes_with_the_mark_and_their_children_are_ours(tmp_path: Path) -> None:
    script = (
        "import subprocess, sys\n"
        "sleeper = [sys.executable, '-c', 'import signal; signal.pause()']\n"
        "child = subprocess.Popen(sleeper, env={})\n"
        "print(child.pid, flush=True)\n"
        "child.wait()\n"
    )
    ours = subprocess.Popen(
        [sys.executable, "-c", script],
        env={**os.environ, MARKER: str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    other = subprocess.Popen(
        [sys.executable, "-c", "import signal; signal.pause()"],
        env={**os.environ, MARKER: f"{tmp_path}/other"},
    )
    assert ours.stdout is not None
    grandchild = int(ours.stdout.readline())
    found = marked(tmp_path)
    assert {process.pid for process in found} == {ours.pid, grandchild}
    assert all(memory_bytes(process) > 0 for process in found)
    assert end_all(found) == 2
    assert ours.wait() == -signal.SIGKILL
    assert other.poll() is None
    other.kill()
    other.wait()
    ours.stdout.close()
    assert marked(tmp_path) == []


def test_reports_travel_whole_and_a_reader_that_left_is_no_harm() -> None:
    reading, writing = os.pipe()
    writer, reader = reports.ReportWriter(writing), reports.ReportReader(reading)
    sent: list[reports.Report] = [
        reports.Step("ä\n" * 10),
        reports.Done("x", 3),
        reports.Note("n", True),
        reports.FirstKey("hk_canary"),
        reports.HeadProcesses({"raylet": 1}),
        reports.Ready("http://a", True),
        reports.Failed("m", "w"),
    ]
    for report in sent:
        writer(report)
    assert reader.read(5) == sent
    assert "canary" not in repr(sent)
    assert reader.read(0) == []
    reader.close()
    writer(reports.Step("nobody"))
    writer(reports.Step("listens"))


def test_workers_get_no_secrets_and_a_token_of_their_own(tmp_path: Path) -> None:
    plan = plan_for(tmp_path)
    environ = {
        "PATH": os.environ["PATH"],
        "HARMONIA_REDIS_URL": "redis://:canary@x",
        "HARMONIA_API_KEY": "canary",
        "RAY_ADDRESS": "elsewhere:1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    found = ray_environment(plan, environ)
    assert "canary" not in str(found)
    assert "RAY_ADDRESS" not in found
    assert "PYTHONDONTWRITEBYTECODE" not in found
    assert found["RAY_AUTH_MODE"] == "token"
    assert found["RAY_USAGE_STATS_ENABLED"] == "0"
    assert found[MARKER] == str(tmp_path.resolve())
    token = Path(found["RAY_AUTH_TOKEN_PATH"])
    assert stat.S_IMODE(token.stat().st_mode) == 0o600
    text = token.read_text()
    assert len(text) >= 64
    assert Path(ray_environment(plan, environ)["RAY_AUTH_TOKEN_PATH"]).read_text() == text
    remove_scratch(plan.settings.data_dir, found)


def test_somebody_elses_cluster_keeps_its_own_token(tmp_path: Path) -> None:
    plan = make_plan({"data_dir": tmp_path}, address="auto", environ={})
    environ = {"RAY_ADDRESS": "here:1", "RAY_AUTH_TOKEN": "theirs", "RAY_AUTH_MODE": "token"}
    found = ray_environment(plan, environ)
    assert {name: found[name] for name in environ} == environ
    assert "RAY_AUTH_TOKEN_PATH" not in found
    assert "RAY_SERVE_ENABLE_HA_PROXY" not in found


def test_ray_gets_a_short_private_directory(tmp_path: Path) -> None:
    directory = ray_directory(tmp_path)
    try:
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert len(str(directory)) <= 43
        assert ray_directory(tmp_path) == directory
        assert ray_directory(tmp_path / "other") != directory
    finally:
        remove_scratch(tmp_path, {})
        remove_scratch(tmp_path / "other", {})
    assert not directory.exists()


def test_a_child_that_fails_leaves_its_words_in_the_log(tmp_path: Path) -> None:
    child = Child("no_such_module", {}, tmp_path, os.environ)
    while child.exit_code is None:
        child.read(0.1)
    child.kill()
    assert child.exit_code == 1
    assert "no_such_module" in log_tail(tmp_path)


def test_the_log_is_private_and_does_not_grow_for_ever(tmp_path: Path) -> None:
    os.close(open_log(tmp_path))
    assert stat.S_IMODE(log_path(tmp_path).stat().st_mode) == 0o600
    with log_path(tmp_path).open("wb") as file:
        file.truncate(10_000_001)
    os.close(open_log(tmp_path))
    assert log_path(tmp_path).stat().st_size == 0
