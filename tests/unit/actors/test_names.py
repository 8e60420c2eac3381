"""Names of actors: unique for ever where they come and go, and told apart by kind."""

from __future__ import annotations

from harmonia_actors.actors.names import (
    broadcaster_name,
    is_execution_actor,
    is_task_actor,
    new_execution_actor_name,
    new_task_actor_name,
    pool_name,
    supervisor_name,
)


def test_no_task_actor_bears_the_name_of_a_former_one() -> None:
    names = {new_task_actor_name("ns") for _ in range(1_000)}
    assert len(names) == 1_000


def test_each_kind_is_known_by_its_name() -> None:
    every = [
        supervisor_name("ns"),
        pool_name("ns"),
        broadcaster_name("ns", 0),
        new_execution_actor_name("ns"),
        new_task_actor_name("ns"),
    ]
    assert [is_task_actor(name, "ns") for name in every] == [False] * 4 + [True]
    assert [is_execution_actor(name, "ns") for name in every] == [False] * 3 + [True, False]
    assert not is_task_actor(new_task_actor_name("other"), "ns")
