"""Page cursors: the id of a page's last row, in a form that clients cannot rely on."""

import base64
import binascii
from uuid import UUID

from api.requests.errors import ApiError

# 16 bytes in base64: the last character encodes only two bits, hence its four possible values.
CURSOR = "^[A-Za-z0-9_-]{21}[AQgw]$"


def encode_cursor(last_id: UUID) -> str:
    """Return the cursor of the page that follows this row."""
    return base64.urlsafe_b64encode(last_id.bytes).decode().rstrip("=")


def decode_cursor(cursor: str) -> UUID:
    """Return the id in a cursor; raise ApiError 422 for any other text."""
    try:
        last_id = UUID(bytes=base64.b64decode(cursor + "==", altchars=b"-_", validate=True))
    except (binascii.Error, ValueError):
        last_id = None
    if last_id is None or encode_cursor(last_id) != cursor:
        raise ApiError(422, "invalid_cursor", "The cursor is not valid.")
    return last_id
