"""Text as Postgres can store it: any Unicode but NUL and lone surrogates, both of which JSON can carry."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field

NOT_STORABLE = re.compile(r"[\x00\ud800-\udfff]")


def _storable(text: str) -> str:
    if NOT_STORABLE.search(text):
        raise ValueError("must not contain NUL characters or lone surrogates")
    return text


# The pattern tells clients; a lone surrogate, of which no pattern can speak in JSON Schema, is refused all the same.
Text = Annotated[
    str, AfterValidator(_storable), Field(json_schema_extra={"pattern": r"^[^\u0000]*$"})
]
