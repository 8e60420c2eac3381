"""Ids that follow from what they are for, so that whoever makes it again means the same one."""

from __future__ import annotations

import uuid

__all__ = ["derived_uuid"]


def derived_uuid(digest: bytes) -> uuid.UUID:
    """A UUID of version 8, which RFC 9562 leaves to the application, of a digest's first bits."""
    value = int.from_bytes(digest[:16], "big")
    value = value & ~(0xF << 76) | 0x8 << 76
    value = value & ~(0b11 << 62) | 0b10 << 62
    return uuid.UUID(int=value)
