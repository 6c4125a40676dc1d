"""Alembic finds the tables of a new domain by its folder, without a list of domains."""

import os
import subprocess
import sys
from pathlib import Path

import api

ROOT = Path(api.__file__).parents[1]
MODELS = """
from sqlalchemy.orm import Mapped, mapped_column

from api.storing.database import Base


class Parcel(Base):
    __tablename__ = "parcels"

    id: Mapped[int] = mapped_column(primary_key=True)
"""
# Alembic's own environment runs: --sql needs no database.
CODE = """
import sys
import api
api.__path__.extend(sys.argv[1:])
from api import migrate
assert migrate.main(["--sql", "base:head"]) == 0
from api.storing.database import Base
print("tables:", *sorted(Base.metadata.tables))
"""


def tables(*folders: Path) -> set[str]:
    """Return the tables that Alembic finds when `folders` are added to the folders of api/."""
    argv = [sys.executable, "-c", CODE, *map(str, folders)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run(
        argv, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert run.returncode == 0, run.stderr
    return set(run.stdout.splitlines()[-1].split()[1:])


def test_alembic_knows_the_tables_of_every_domain() -> None:
    declared = {
        line.split('"')[1]
        for path in (ROOT / "api").glob("*/models.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if "__tablename__" in line
    }
    assert {"items", "users"} <= declared
    assert tables() == declared


def test_alembic_knows_the_tables_of_a_new_domain(tmp_path: Path) -> None:
    domain = tmp_path / "parcels"
    domain.mkdir()
    (domain / "__init__.py").touch()
    (domain / "models.py").write_text(MODELS, encoding="utf-8")
    assert tables(tmp_path) - tables() == {"parcels"}
