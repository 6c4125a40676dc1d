"""The tables of every domain, which Alembic compares with the tables of the database."""

from sqlalchemy import MetaData

import api
from api.configuring.domains import import_from_domains
from api.storing.database import Base


def all_tables() -> MetaData:
    """Import `models` of every folder of api/; return the tables that they define."""
    import_from_domains(api, "models")
    return Base.metadata
