"""`python -m api.users.first_user`: creates the user whose credentials come on standard input.

`service.toml` names this command; scripts/up.sh runs it on a new stack, in a separate container.
It may run twice: if the user exists with this password, it changes nothing. Status 3 means that
the user exists with another password.
"""

import asyncio
import sys
import time

from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from api.configuring.settings import Settings, load_settings
from api.requests.errors import ApiError
from api.storing.database import Database
from api.users.passwords import Passwords
from api.users.schemas import NewUser
from api.users.service import SELECT_LOGIN, register

PATIENCE_SECONDS, PAUSE_SECONDS = 30.0, 0.5
EXISTS = 3  # Partner: EXISTS in scripts/stack/config/service.py


async def ensure_with_patience(settings: Settings, user: NewUser) -> bool:
    """Retry after a failure of Postgres, for PATIENCE_SECONDS; a repetition does no harm.

    The pool waits POOL_SECONDS for a connection: enough for a request, and too short for a busy
    machine that has just started the whole stack.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return await ensure(settings, user)
        except SQLAlchemyError:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(PAUSE_SECONDS)


async def ensure(settings: Settings, user: NewUser) -> bool:
    """Create the user if the address has none; return whether the password is the user's."""
    database, passwords = Database(settings, pool_size=1), Passwords()
    try:
        try:
            await register(database, passwords, user)
        except ApiError as error:
            if error.status_code != 409:
                raise
            async with database.read() as connection:
                login = (await connection.execute(SELECT_LOGIN, {"email": user.email})).one()
            return await passwords.verify(user.password, login.password_hash)
        return True
    finally:
        await database.close()


def main() -> int:
    try:
        user = NewUser.model_validate_json(sys.stdin.read())
    except ValidationError as error:
        # The message leaves out the input, which contains a password.
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'input'}: {fault['msg']}"
            for fault in error.errors(include_input=False, include_context=False)
        )
        sys.stderr.write(f"error: the credentials cannot be used: {faults}\n")
        return 1
    settings = load_settings()
    try:
        return 0 if asyncio.run(ensure_with_patience(settings, user)) else EXISTS
    except SQLAlchemyError as error:
        sys.stderr.write(f"error: Postgres does not answer: {type(error).__name__}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
