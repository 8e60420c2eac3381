"""The installation's own secrets are where they belong and nowhere else. Runs last, too."""

from __future__ import annotations

from tests.acceptance.service.test_z_canary import found_at
from tests.support.running import RunningService


def test_the_store_s_password_and_ray_s_token_leave_no_trace(service: RunningService) -> None:
    config = service.data_dir / "store" / "server.conf"
    password = next(
        line.split()[1] for line in config.read_text().splitlines() if "requirepass" in line
    )
    token = service.data_dir / "ray_token"
    for secret, home in ((password, config), (token.read_text().strip(), token)):
        assert len(secret) >= 32
        told = {
            path: service.api.get(path).text for path in ("/metrics", "/service", "/openapi.json")
        }
        assert found_at(service, secret, told) == [f"data directory: {home}"]
