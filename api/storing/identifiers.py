"""Primary keys: UUIDs of version 7 (RFC 9562). They sort by time: B-trees grow at one end."""

import secrets
import time
import uuid


def new_id() -> uuid.UUID:
    """Return a new UUID of version 7: milliseconds, then 74 random bits."""
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds << 80) | secrets.randbits(80)
    value = (value & ~(0xF << 76)) | (0x7 << 76)
    value = (value & ~(0x3 << 62)) | (0x2 << 62)
    return uuid.UUID(int=value)
