"""Page cursors: the id of the last row seen, opaque to clients so that it can change."""

import base64
import binascii
from uuid import UUID

from api.requests.errors import ApiError

CURSOR = (
    "^[A-Za-z0-9_-]{21}[AQgw]$"  # 16 bytes in base64, which leave two bits to the last character
)


def encode_cursor(last_id: UUID) -> str:
    return base64.urlsafe_b64encode(last_id.bytes).decode().rstrip("=")


def decode_cursor(cursor: str) -> UUID:
    try:
        last_id = UUID(bytes=base64.b64decode(cursor + "==", altchars=b"-_", validate=True))
    except (binascii.Error, ValueError):
        last_id = None
    if last_id is None or encode_cursor(last_id) != cursor:
        raise ApiError(422, "invalid_cursor", "The cursor is not one of ours.")
    return last_id
