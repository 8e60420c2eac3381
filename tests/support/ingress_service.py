"""A program: Ray with Serve behind the ingress of the settings, and three small applications.

Started by tests of the ingress with a directory and a port; says READY, and ends in order when its
standard input does. The applications note in the file `ended` which of their calls have ended.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from harmonia_actors.settings import Settings
from harmonia_serve.ingress import choose_ingress, keep_replica_port_at, serve_environment
from tests.support.ingress_apps import events_app, rest_app, websocket_app


def main(directory: Path, port: int) -> None:
    """Serve until standard input ends."""
    settings = Settings(data_dir=directory / "data", port=port)
    os.environ |= serve_environment(settings)
    # Only now: Ray and Serve read the environment when they are imported.
    import ray
    from ray import serve

    def target(name: str, prefix: str, builder: Any) -> Any:
        @serve.deployment(
            name=name,
            max_ongoing_requests=100,
            graceful_shutdown_timeout_s=1,
            ray_actor_options={"num_cpus": 0},
            logging_config={"enable_access_log": False},
        )
        @serve.ingress(lambda: builder(directory / "ended"))
        class Application:
            async def __init__(self) -> None:
                keep_replica_port_at(ray.util.get_node_ip_address())

        return serve.RunTarget(Application.bind(), name=name, route_prefix=prefix)

    with tempfile.TemporaryDirectory(prefix="hm-ray-", dir="/tmp") as ray_directory:
        ray.init(
            num_cpus=2,
            object_store_memory=80 * 2**20,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            _node_ip_address="127.0.0.1",
            _temp_dir=ray_directory,
        )
        serve.start(
            proxy_location="HeadOnly",
            http_options={"host": choose_ingress(settings).serve_host, "port": port},
        )
        serve.run_many(
            [
                target("rest", "/", rest_app),
                target("websocket", "/ws/harmonia", websocket_app),
                target("events", "/events/harmonia", events_app),
            ]
        )
        sys.stdout.write("READY\n")
        sys.stdout.flush()
        sys.stdin.read()
        serve.shutdown()
        ray.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
