"""Password hashes: argon2id, in threads, few at once."""

import asyncio

from pwdlib import PasswordHash
from pwdlib.exceptions import UnknownHashError
from pwdlib.hashers.argon2 import Argon2Hasher

HASHES_AT_ONCE = 2  # per process; each takes 64 MiB and about 0.1 s of a core

# Nobody's password. Verified for an unknown address, so that the time of the answer tells nothing.
DUMMY_HASH = "$argon2id$v=19$m=65536,t=3,p=4$guLGDMBPT/LBtaTwz1TAlA$AqCRM5yJMg6BXwF6QWDrymD6kUwVZWcF+JlEMH8fMtQ"


class Passwords:
    def __init__(self) -> None:
        self._hasher = PasswordHash((Argon2Hasher(),))
        self._turns = asyncio.Semaphore(HASHES_AT_ONCE)

    async def hash(self, password: str) -> str:
        async with self._turns:
            return await asyncio.to_thread(self._hasher.hash, password)

    async def verify(self, password: str, password_hash: str | None) -> bool:
        """Tell whether the password fits; None stands for an unknown user and costs as much."""
        async with self._turns:
            fits = await asyncio.to_thread(self._verify, password, password_hash or DUMMY_HASH)
        return fits and password_hash is not None

    def _verify(self, password: str, password_hash: str) -> bool:
        try:
            return self._hasher.verify(password, password_hash)
        except UnknownHashError:
            return False
