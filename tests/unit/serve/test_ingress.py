"""Which proxy takes the requests, and what is set for it before Ray starts."""

from __future__ import annotations

import os
import socket
import stat
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from ray._common.utils import import_attr
from ray.serve._private.common import RequestProtocol
from ray.serve._private.haproxy import HAProxyManager
from ray.serve.schema import TargetGroup

from harmonia_actors.settings import Settings
from harmonia_serve.connections import bound_proxy
from harmonia_serve.deployments import surfaces
from harmonia_serve.ingress import (
    IngressError,
    choose_ingress,
    connections_max,
    fit_streams,
    own_url,
    private_directory,
    serve_environment,
)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A place for private directories that is short enough for sockets."""
    found = Path("/tmp") / f"hm-test-{os.getpid()}"  # noqa: S108 - sockets need a short path
    found.mkdir(mode=0o700, exist_ok=True)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(found))
    return found


@pytest.fixture(autouse=True)
def _emptied(short: Path) -> object:
    yield
    for directory in short.iterdir():
        directory.rmdir()
    short.rmdir()


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8002"),
        ("0.0.0.0", "http://127.0.0.1:8002"),  # noqa: S104 - nothing is bound
        ("::1", "http://[::1]:8002"),
        ("::", "http://[::1]:8002"),
        ("2001:db8::7", "http://[2001:db8::7]:8002"),
        ("example.test", "http://example.test:8002"),
    ],
)
def test_an_address_of_ipv6_has_brackets_in_a_url(host: str, url: str) -> None:
    assert own_url(host, 8002) == url
    assert httpx.URL(f"{url}/health").port == 8002


def settings(data_dir: Path, **given: object) -> Settings:
    return Settings.model_validate({"data_dir": data_dir, **given})


def test_haproxy_is_the_default_and_serve_itself_stays_on_loopback(tmp_path: Path) -> None:
    for host in ("127.0.0.1", "0.0.0.0"):  # noqa: S104 - the front's, not bound here
        wanted = settings(tmp_path, host=host, port=8123)
        assert choose_ingress(wanted).kind == "haproxy"
        assert choose_ingress(wanted).serve_host == "127.0.0.1"
        assert serve_environment(wanted)["HARMONIA_INGRESS_LISTEN"] == f"{host}:8123"


@pytest.mark.parametrize("ingress", ["auto", "python"])
def test_replicas_take_the_largest_body_from_serves_own_proxy(ingress: str, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, ingress=ingress, body_bytes_max=50_000_000)  # type: ignore[arg-type]
    environment = serve_environment(settings)
    assert int(environment["RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH"]) > 50_000_000


def test_the_program_before_haproxy_can_be_run(tmp_path: Path) -> None:
    program = serve_environment(settings(tmp_path))["RAY_SERVE_HAPROXY_BINARY_PATH"]
    assert os.access(program, os.X_OK)


def test_the_fronts_address_may_be_version_6(tmp_path: Path) -> None:
    environment = serve_environment(settings(tmp_path, host="::1", port=8123))
    assert environment["HARMONIA_INGRESS_LISTEN"] == "[::1]:8123"


def test_haproxy_knows_which_applications_are_ours(tmp_path: Path) -> None:
    """By the names under which Serve's configuration has them."""
    wanted = settings(tmp_path, namespace="my-own")
    serve: Any = HAProxyManager.__ray_metadata__.modified_class  # type: ignore[attr-defined]
    groups = [
        TargetGroup(
            targets=[],
            route_prefix=surface.prefix,
            app_name=surface.name,
            protocol=RequestProtocol.HTTP,
        )
        for surface in surfaces(wanted)
    ]
    names = [serve._generate_backend_name(serve, group) for group in groups]
    assert serve_environment(wanted)["HARMONIA_INGRESS_BACKENDS"].split(",") == names


def test_streams_leave_room_for_requests_whatever_the_system_lets_haproxy_open(
    tmp_path: Path,
) -> None:
    for files_max in (1_000, 4_096, 20_000, 1_048_576):
        for replicas in (1, 4):
            wanted = settings(tmp_path, stream_replicas=replicas)
            fitted, told = fit_streams(wanted, files_max)
            streams = 2 * fitted.streams_per_replica_max * replicas
            most = connections_max(wanted, files_max)
            assert 0 < streams <= most - min(1_000, most // 4)
            # Two descriptors for each connection, and half of one for a pipe between them.
            assert most * 5 // 2 < files_max
            if fitted.streams_per_replica_max < wanted.streams_per_replica_max:
                assert f"{files_max:,}" in told
                assert f"{fitted.streams_per_replica_max:,}" in told
                assert f"{wanted.streams_per_replica_max:,}" in told
            else:
                assert (fitted, told) == (wanted, "")
                assert most - streams >= 1_000


def test_only_haproxy_limits_what_is_open_at_a_time(tmp_path: Path) -> None:
    wanted = settings(tmp_path, ingress="python")
    assert fit_streams(wanted, 1_000) == (wanted, "")


def test_the_python_proxy_can_be_chosen(tmp_path: Path) -> None:
    wanted = settings(tmp_path, ingress="python", host="10.1.2.3")
    assert choose_ingress(wanted).kind == "python"
    assert choose_ingress(wanted).serve_host == "10.1.2.3"
    environment = serve_environment(wanted)
    assert environment["RAY_SERVE_ENABLE_HA_PROXY"] == "0"
    path = environment["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"]
    assert import_attr(path) is bound_proxy
    assert environment["HARMONIA_PROXY_UNREAD_MS"] == "60000"
    # Nobody is believed who claims to forward for somebody else.
    assert environment["FORWARDED_ALLOW_IPS"] == ""


def test_where_haproxy_cannot_run_python_steps_in_unless_haproxy_is_demanded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    chosen = choose_ingress(settings(tmp_path))
    assert (chosen.kind, "darwin" in chosen.reason) == ("python", True)
    with pytest.raises(IngressError, match=r"HARMONIA_INGRESS=haproxy.*darwin.*use auto"):
        serve_environment(settings(tmp_path, ingress="haproxy"))


def test_sockets_lie_in_a_directory_that_only_the_owner_enters(tmp_path: Path) -> None:
    environment = serve_environment(settings(tmp_path))
    directory = private_directory(settings(tmp_path))
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    paths = [value for name, value in environment.items() if name.endswith(("_PATH", "_LOC"))]
    paths.remove(environment["RAY_SERVE_HAPROXY_BINARY_PATH"])
    assert {Path(path).parent for path in paths} == {directory}
    node_id = "f" * 56
    for path in paths:
        longest = Path(path).parent / node_id / (Path(path).name + ".4194304.tmp")
        assert len(str(longest)) < 108


def test_installations_on_one_machine_do_not_share_a_directory(tmp_path: Path) -> None:
    first, second = settings(tmp_path / "a"), settings(tmp_path / "b")
    other_name = settings(tmp_path / "a", namespace="other")
    found = {private_directory(each) for each in (first, second, other_name)}
    assert len(found) == 3
    assert private_directory(first) in found


def test_a_directory_left_open_is_closed(tmp_path: Path) -> None:
    directory = private_directory(settings(tmp_path))
    directory.chmod(0o777)
    assert stat.S_IMODE(private_directory(settings(tmp_path)).stat().st_mode) == 0o700


def test_a_link_laid_in_the_directorys_place_is_refused(tmp_path: Path) -> None:
    directory = private_directory(settings(tmp_path))
    directory.rmdir()
    directory.symlink_to(tmp_path)
    try:
        with pytest.raises(IngressError, match="belongs to somebody else"):
            serve_environment(settings(tmp_path))
    finally:
        directory.unlink()


def test_a_port_that_is_taken_is_passed_over(tmp_path: Path) -> None:
    name = "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT"
    port = int(serve_environment(settings(tmp_path))[name])
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        assert int(serve_environment(settings(tmp_path))[name]) != port


def test_streams_outlive_a_reload(tmp_path: Path) -> None:
    environment = serve_environment(settings(tmp_path, stream_age_s_max=7200))
    assert int(environment["RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S"]) > 7200


def test_haproxy_keeps_whoever_reads_nothing_no_longer_than_the_service_does(
    tmp_path: Path,
) -> None:
    """Not for the age of a stream: connections are few. But a WebSocket's pings are 20 s apart."""
    name = "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S"
    assert serve_environment(settings(tmp_path))[name] == "60"
    assert serve_environment(settings(tmp_path, stream_send_timeout_s=1))[name] == "60"
    # To send, to say farewell and to let go may take this long each.
    assert serve_environment(settings(tmp_path, stream_send_timeout_s=33.5))[name] == "101"
    # A body may come slowly.
    assert serve_environment(settings(tmp_path, body_read_timeout_s=200))[name] == "200"
