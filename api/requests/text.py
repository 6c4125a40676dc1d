"""Text that Postgres can store: any Unicode but NUL and lone surrogates, which JSON can contain."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field

NOT_STORABLE = re.compile(r"[\x00\ud800-\udfff]")


def _storable(text: str) -> str:
    if NOT_STORABLE.search(text):
        raise ValueError("must not contain NUL characters or lone surrogates")
    return text


# The pattern is for clients. JSON Schema has no pattern for a lone surrogate, which is refused,
# too.
Text = Annotated[
    str, AfterValidator(_storable), Field(json_schema_extra={"pattern": r"^[^\u0000]*$"})
]
