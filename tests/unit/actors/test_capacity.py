"""Node types from the file that an autoscaler was started with, whatever is in it."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from harmonia_actors.actors.capacity import node_types_of_config


def test_types_without_workers_and_the_heads_own_are_not_counted() -> None:
    config = {
        "max_workers": 4,
        "head_node_type": "head",
        "available_node_types": {
            "head": {"resources": {"CPU": 8}},
            "off": {"resources": {"CPU": 16}, "max_workers": 0},
            "cpu": {"resources": {"CPU": 4}},
        },
    }
    assert node_types_of_config(config) == ({"CPU": 4.0},)
    assert node_types_of_config({**config, "max_workers": 0}) == ()
    assert node_types_of_config({}) == ()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing yet",
        "[]",
        "word",
        "available_node_types:",
        "available_node_types: []",
        "available_node_types: {worker: }",
        "available_node_types: {worker: {resources: }, head: {}}\nhead_node_type: head",
    ],
)
def test_a_file_that_says_nothing_names_no_resources(text: str) -> None:
    found = node_types_of_config(yaml.safe_load(text))
    assert [entry for entry in found if entry] == []


@pytest.mark.parametrize("amount", ["many", None, [1]])
def test_an_amount_that_is_no_number_is_left_out(amount: Any) -> None:
    config = {"available_node_types": {"w": {"resources": {"CPU": amount, "GPU": 1}}}}
    assert node_types_of_config(config) == ({"GPU": 1.0},)
