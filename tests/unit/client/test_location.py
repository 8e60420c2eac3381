"""Where the client finds the service, and to whom it gives the key."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harmonia_serve.client import HarmoniaClient, NotConfigured, locate


def connection(directory: Path, url: str = "http://127.0.0.1:9000", key: str = "hk_file") -> Path:
    directory.mkdir(exist_ok=True)
    (directory / "connection.json").write_text(json.dumps({"url": url, "api_key": key}))
    return directory


def test_arguments_come_first(tmp_path: Path) -> None:
    environ = {"HARMONIA_URL": "http://b:2", "HARMONIA_API_KEY": "hk_env"}
    found = locate("http://a:1/", "hk_argument", environ=environ)
    assert (found.url, found.api_key) == ("http://a:1", "hk_argument")


def test_the_environment_comes_before_the_data_directory(tmp_path: Path) -> None:
    data_dir = connection(tmp_path / "data")
    environ = {
        "HARMONIA_URL": "http://b:2",
        "HARMONIA_API_KEY": "hk_env",
        "HARMONIA_DATA_DIR": str(data_dir),
    }
    found = locate(environ=environ)
    assert (found.url, found.api_key) == ("http://b:2", "hk_env")


def test_a_named_data_directory_comes_before_the_environment(tmp_path: Path) -> None:
    data_dir = connection(tmp_path / "data")
    found = locate(data_dir=data_dir, environ={"HARMONIA_URL": "http://b:2"})
    assert (found.url, found.api_key) == ("http://127.0.0.1:9000", "hk_file")


def test_the_key_of_a_data_directory_goes_to_its_own_url_only(tmp_path: Path) -> None:
    data_dir = connection(tmp_path / "data")
    assert locate("http://evil:1", data_dir=data_dir, environ={}).api_key is None
    assert locate("http://127.0.0.1:9000/", data_dir=data_dir, environ={}).api_key == "hk_file"


def test_the_documented_base_url_is_taken_as_well() -> None:
    assert locate("http://localhost:8002/api/harmonia/", environ={}).url == "http://localhost:8002"


def test_a_key_alone_means_the_default_url(tmp_path: Path) -> None:
    environ = {"HARMONIA_API_KEY": "k", "HARMONIA_DATA_DIR": str(tmp_path)}
    assert locate(environ=environ).url == "http://127.0.0.1:8002"


def test_nothing_known_is_said_with_the_place_that_was_looked_at(tmp_path: Path) -> None:
    with pytest.raises(NotConfigured, match=r"connection\.json"):
        locate(environ={"HARMONIA_DATA_DIR": str(tmp_path)})


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8002",
        "ftp://x",
        "ftp://user:pw@x",
        "http://",
        "http://user:pw@host",
        "http://user:pw@host:abc",
        "http://user:pw@[x",
        "http://127.0.0.1:abc",
        "http://127.0.0.1:65536",
        "http://[x",
        "http://a b",
        "http://a\x00b",
        "http://☃.\u200b",
        "wss://x/?api_key=pw",
    ],
)
def test_unusable_urls_are_refused(url: str) -> None:
    with pytest.raises(NotConfigured) as caught:
        HarmoniaClient(url, "hk_1")
    assert "pw" not in str(caught.value)
    assert "URL" in str(caught.value)


def test_a_broken_connection_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "connection.json").write_text("{")
    with pytest.raises(NotConfigured, match=r"connection\.json"):
        locate(data_dir=tmp_path, environ={})


def test_the_key_is_not_in_the_repr() -> None:
    assert "hk_secret" not in repr(locate("http://a:1", "hk_secret", environ={}))


@pytest.mark.parametrize("written", ["hk_1\n", " hk_1", "hk_1\r\n", "\thk_1 "])
def test_space_around_a_key_is_no_part_of_it(tmp_path: Path, written: str) -> None:
    data_dir = connection(tmp_path / "data", key=written)
    assert locate("http://a:1", written, environ={}).api_key == "hk_1"
    assert locate("http://a:1", environ={"HARMONIA_API_KEY": written}).api_key == "hk_1"
    assert locate(data_dir=data_dir, environ={}).api_key == "hk_1"


@pytest.mark.parametrize(
    "key", ["hk_canary\nx", "hk_canäry", "hk_can ary", "hk_canary\x00", "hk_“"]
)
def test_what_cannot_be_a_key_is_refused_and_not_shown(tmp_path: Path, key: str) -> None:
    data_dir = connection(tmp_path / "data", key=key)
    for refused in (
        lambda: locate("http://a:1", key, environ={}),
        lambda: locate("http://a:1", environ={"HARMONIA_API_KEY": key}),
        lambda: locate(data_dir=data_dir, environ={}),
    ):
        with pytest.raises(NotConfigured, match="API key") as caught:
            refused()
        assert "hk_" not in f"{caught.value!r} {caught.value.__cause__!r}"


def test_an_empty_key_is_none(tmp_path: Path) -> None:
    data_dir = connection(tmp_path / "data")
    environ = {"HARMONIA_API_KEY": "\n", "HARMONIA_DATA_DIR": str(data_dir)}
    assert locate(environ=environ).api_key == "hk_file"


def test_the_home_directory_is_what_a_tilde_means(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    connection(tmp_path / "data")
    assert locate(data_dir="~/data", environ={}).api_key == "hk_file"
    assert locate(environ={"HARMONIA_DATA_DIR": "~/data"}).api_key == "hk_file"


def test_a_broken_connection_file_is_no_harm_to_whom_needs_it_not(tmp_path: Path) -> None:
    (tmp_path / "connection.json").write_text("{")
    environ = {"HARMONIA_DATA_DIR": str(tmp_path)}
    assert locate("http://a:1", "hk_1", environ=environ).url == "http://a:1"
    named = {**environ, "HARMONIA_URL": "http://a:1", "HARMONIA_API_KEY": "hk_1"}
    assert locate(environ=named).url == "http://a:1"
    with pytest.raises(NotConfigured, match=r"connection\.json"):
        locate("http://a:1", environ=environ)


def test_a_connection_file_with_a_wrong_url_is_named(tmp_path: Path) -> None:
    data_dir = connection(tmp_path / "data", url="nowhere")
    with pytest.raises(NotConfigured, match=r"connection\.json"):
        locate(data_dir=data_dir, environ={})
