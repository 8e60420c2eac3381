"""The configuration for Ray's cluster launcher is one that Ray takes, and keeps its promises."""

from __future__ import annotations

import copy
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest
import typer
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.scripts.scripts import start as ray_start

from harmonia_actors.actors.capacity import node_types_of_config
from harmonia_actors.core.resources import Capacity, ResourceRequest
from harmonia_serve.cli.main import app

PATH = Path(__file__).parents[2] / "cluster.yaml"
TEXT = PATH.read_text("utf-8")
START_LISTS = ("head_start_ray_commands", "worker_start_ray_commands")
COMMAND_LISTS = ("setup_commands", "head_setup_commands", "worker_setup_commands", *START_LISTS)


@pytest.fixture(scope="module")
def written() -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load(TEXT)
    return config


@pytest.fixture(scope="module")
def prepared(written: dict[str, Any]) -> dict[str, Any]:
    config: dict[str, Any] = prepare_config(copy.deepcopy(written))
    return config


def commands(config: dict[str, Any]) -> list[str]:
    return [command for name in COMMAND_LISTS for command in config[name]]


def arguments(commands: list[str], program: str) -> list[list[str]]:
    """Arguments of each call of a program, up to the end of the command."""
    found = []
    for command in commands:
        _, called, rest = command.partition(f"~/harmonia/bin/{program} ")
        if called:
            found.append(shlex.split(rest))
    return found


def test_ray_takes_it(prepared: dict[str, Any]) -> None:
    validate_config(prepared)


def test_ray_refuses_what_it_does_not_know(written: dict[str, Any]) -> None:
    with pytest.raises(Exception, match="not_a_field"):
        validate_config(prepare_config({**copy.deepcopy(written), "not_a_field": 1}))


def test_every_command_is_a_shells(written: dict[str, Any]) -> None:
    for command in commands(written):
        subprocess.run(["/bin/bash", "-n", "-c", command], check=True)


def test_every_ray_start_is_one_that_this_ray_knows(written: dict[str, Any]) -> None:
    starts = [
        words
        for name in START_LISTS
        for words in arguments(written[name], "ray")
        if words[0] == "start"
    ]
    assert len(starts) == 2
    contexts = [ray_start.make_context("start", words[1:]) for words in starts]
    head, worker = (context.params for context in contexts)
    assert head["head"]
    assert head["num_cpus"] == 0
    assert head["dashboard_host"] == "127.0.0.1"
    assert head["autoscaling_config"] == "~/ray_bootstrap_config.yaml"
    assert worker["address"] == "$RAY_HEAD_IP:6379"
    assert head["disable_usage_stats"]
    assert worker["disable_usage_stats"]


def test_harmonia_is_started_as_its_command_line_has_it(written: dict[str, Any]) -> None:
    (words,) = arguments(written["head_start_ray_commands"], "harmonia")
    group = typer.main.get_command(app)
    up: click.Command = group.commands["up"]  # type: ignore[attr-defined]
    given = up.make_context("up", words[1:]).params
    assert words[0] == "up"
    assert (given["address"], given["host"], given["detach"]) == ("auto", "127.0.0.1", True)


def test_the_commands_that_its_head_names_work_as_they_are_written(
    written: dict[str, Any],
) -> None:
    group = typer.main.get_command(app)
    (line,) = re.findall(r"^# +(harmonia keys create.*)$", TEXT, re.MULTILINE)
    program, *words = shlex.split(line)
    assert program == "harmonia"
    keys: click.Group = group.commands[words[0]]  # type: ignore[attr-defined]
    # What a command requires is asked for here, as when it is run.
    given = keys.commands[words[1]].make_context(words[1], words[2:]).params
    (up,) = arguments(written["head_start_ray_commands"], "harmonia")
    assert str(given["data_dir"]) == up[up.index("--data-dir") + 1]
    assert "harmonia keys" not in TEXT.replace(line, "")


def test_everything_that_starts_ray_demands_the_token(written: dict[str, Any]) -> None:
    starting = [
        command
        for command in commands(written)
        if "bin/ray start" in command or "harmonia up" in command
    ]
    assert len(starting) == 3
    assert all("RAY_AUTH_MODE=token" in command for command in starting)
    assert "~/.ray/auth_token" in written["file_mounts"]
    for command in starting[:1] + starting[2:]:
        assert "RAY_USAGE_STATS_ENABLED=0" in command
        assert "ulimit -n 65536" in command


def test_nothing_is_open_to_the_world(written: dict[str, Any], prepared: dict[str, Any]) -> None:
    everywhere = "0.0.0" + ".0"
    assert everywhere not in TEXT
    assert everywhere not in str(commands(prepared))
    assert written["provider"]["use_internal_ips"] is True
    for node_type in written["available_node_types"].values():
        # Without a group of its own Ray makes one that lets the world in by SSH.
        assert node_type["node_config"]["SecurityGroupIds"]
        assert node_type["node_config"]["MetadataOptions"]["HttpTokens"] == "required"


def test_no_secret_is_an_argument(written: dict[str, Any]) -> None:
    assert not re.search(r"rediss?://|--redis-url|AUTH_TOKEN=", str(commands(written)))
    assert "~/harmonia-install/harmonia.env" in written["file_mounts"]


def test_what_a_person_must_fill_in_says_so(written: dict[str, Any]) -> None:
    values = set(re.findall(r"REPLACE-ME-[a-z-]+", TEXT))
    assert values == {
        "REPLACE-ME-id-of-a-private-subnet",
        "REPLACE-ME-id-of-your-security-group",
        "REPLACE-ME-arn-of-an-instance-profile",
    }


def test_workers_with_and_without_gpus_may_be_added(prepared: dict[str, Any]) -> None:
    types = node_types_of_config(prepared)
    assert types == ({"CPU": 8.0}, {"CPU": 4.0, "GPU": 1.0})
    capacity = Capacity(nodes={"head": {}}, node_types=types)
    assert capacity.can_ever_meet(ResourceRequest.parse({"num_cpus": 8}))
    assert capacity.can_ever_meet(ResourceRequest.parse({"num_gpus": 0.5}))
    assert not capacity.can_ever_meet(ResourceRequest.parse({"num_gpus": 2}))


def test_all_nodes_install_the_wheel_and_the_locked_versions(written: dict[str, Any]) -> None:
    installing = "\n".join(written["setup_commands"])
    assert "harmonia-install/requirements.lock" in installing
    assert "harmonia-install/dist/harmonia-*.whl" in installing
    root = PATH.parent
    assert (root / written["file_mounts"]["~/harmonia-install/requirements.lock"]).is_file()
