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
    "idempotency_key_reused",  # it sends one key with several bodies
    "item_changed",  # it makes ETags up
    "webhook_url_refused",  # it makes hosts up, which no name server knows
}


def is_deliverable(address: str) -> bool:
    """Whether the API accepts an address: reserved domains such as `test` are refused."""
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
    """Drop what the check that expects success holds against a refusal that is right."""
    if type(failure).__name__ != "RejectedPositiveData":
        return True
    if json.loads(response.content)["error"] in RIGHT:
        return False
    # It takes "0" for JSON and sends 0, which does not fit the description any more.
    headers: dict[str, str] = dict(case.headers or {})
    return re.fullmatch(CONDITION, headers.get("If-Match", "*")) is not None
