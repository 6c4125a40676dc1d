"""The public description of the API, with the errors that every route may answer."""

from typing import Any

from fastapi import FastAPI

from api.requests.errors import ErrorBody, error_responses

# From the API or from nginx: a wrong address or body, a limit, an outage.
ANYWHERE = error_responses(400, 413, 429, 500, 502, 503, 504)
REFUSED_INPUT = {
    "description": "Unprocessable Content",
    "content": {
        "application/json": {"schema": {"$ref": f"#/components/schemas/{ErrorBody.__name__}"}}
    },
}


class DescribedAPI(FastAPI):
    """Describes 422 in our form. FastAPI uses its own, for each route with parameters."""

    def openapi(self) -> dict[str, Any]:
        """Return the description, built once."""
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
