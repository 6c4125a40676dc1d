"""The application's public description, exact about errors: every route may fail in the same few ways."""

from typing import Any

from fastapi import FastAPI

from api.requests.errors import ErrorBody, error_responses

# The API's own or nginx's: an address or a body that cannot be taken, a limit, an outage.
ANYWHERE = error_responses(400, 413, 429, 500, 502, 503, 504)
REFUSED_INPUT = {
    "description": "Unprocessable Content",
    "content": {
        "application/json": {"schema": {"$ref": f"#/components/schemas/{ErrorBody.__name__}"}}
    },
}


class DescribedAPI(FastAPI):
    """FastAPI says of each route that has parameters that it answers 422, in a form that is not ours."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema:
            return self.openapi_schema
        schema = super().openapi()
        for methods in schema["paths"].values():
            for operation in methods.values():
                if "422" in operation["responses"]:
                    operation["responses"]["422"] = REFUSED_INPUT
        for name in ("HTTPValidationError", "ValidationError"):
            schema["components"]["schemas"].pop(name, None)
        return schema
