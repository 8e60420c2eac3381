"""A program: joins the Ray cluster of a running service and deploys one of its surfaces again.

As an upgrade does it: Serve takes the replicas away that there are and starts others, with the
settings that they had. Run by tests with the cluster's address and `websocket` or `events`, in the
environment that the cluster was started in.
"""

from __future__ import annotations

import sys
from typing import Any

import ray
from ray import serve
from ray.serve._private.deployment_info import DeploymentInfo
from ray.serve.generated.serve_pb2 import DeploymentRoute

from harmonia_serve import deployments


def main(address: str, kind: str) -> None:
    """Deploy, and return when the new replicas answer."""
    ray.init(address, namespace="serve", log_to_driver=False, logging_level="ERROR")
    controller: Any = ray.get_actor("SERVE_CONTROLLER_ACTOR", namespace="serve")
    name = f"harmonia-{kind}"
    stored = ray.get(controller.get_deployment_info.remote(name, name))
    info = DeploymentInfo.from_proto(DeploymentRoute.FromString(stored).deployment_info)
    settings, _builder = info.replica_config.init_args
    (surface,) = (each for each in deployments.surfaces(settings) if each.name == name)
    serve.run_many([deployments._target(surface, settings)])


if __name__ == "__main__":
    main(*sys.argv[1:])
