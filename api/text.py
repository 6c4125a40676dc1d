"""Text as Postgres can store it: any Unicode but NUL and lone surrogates, both of which JSON can carry."""

import re
from typing import Annotated

from pydantic import AfterValidator

NOT_STORABLE = re.compile(r"[\x00\ud800-\udfff]")


def _storable(text: str) -> str:
    if NOT_STORABLE.search(text):
        raise ValueError("must not contain NUL characters or lone surrogates")
    return text


Text = Annotated[str, AfterValidator(_storable)]
