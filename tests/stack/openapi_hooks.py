"""Facts about this API that schemathesis cannot know, for tests/stack/test_openapi.py."""

import json
import re
from typing import Any

import schemathesis
from email_validator import EmailNotValidError, validate_email
from hypothesis import strategies as st
from schemathesis.core.failures import Failure
from schemathesis.core.transport import Response

from api.items.etags import CONDITION

RIGHT = {
    "idempotency_key_reused",  # schemathesis sends one key with several bodies
    "item_changed",  # schemathesis invents ETags
    "webhook_url_refused",  # schemathesis invents hosts that no name server knows
}


def is_deliverable(address: str) -> bool:
    """Whether the API accepts an address; it refuses reserved domains such as `test`."""
    try:
        validate_email(address, check_deliverability=False)
    except EmailNotValidError:
        return False
    return True


schemathesis.openapi.format("email", st.emails().filter(is_deliverable))


@schemathesis.hook
def filter_failure(
    context: schemathesis.HookContext,
    failure: Failure,
    case: schemathesis.Case[Any],
    response: Response,
) -> bool:
    """Drop the failure of the check that expects success, where the refusal is correct."""
    if type(failure).__name__ != "RejectedPositiveData":
        return True
    if json.loads(response.content)["error"] in RIGHT:
        return False
    # schemathesis reads "0" as JSON and sends 0, which does not match the description.
    headers: dict[str, str] = dict(case.headers or {})
    return re.fullmatch(CONDITION, headers.get("If-Match", "*")) is not None
