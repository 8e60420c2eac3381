"""What the README tells a reader to type, typed at the real service."""

from __future__ import annotations

from pathlib import Path

from tests.support.readme_blocks import run_blocks
from tests.support.running import RunningService


def test_a_reader_can_follow_every_step(service: RunningService, tmp_path: Path) -> None:
    run_blocks(["walkthrough"], tmp_path, service.url, service.key)


def test_the_data_directory_is_the_reader_s_alone(service: RunningService) -> None:
    assert service.data_dir.stat().st_mode & 0o077 == 0
    for name in ("connection.json", "ray_token", "harmonia.log"):
        assert (service.data_dir / name).stat().st_mode & 0o077 == 0, name
