"""Password hashes: argon2id, computed in threads, a few at a time."""

import asyncio
import fcntl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import argon2
import argon2.exceptions
from pwdlib import PasswordHash
from pwdlib.exceptions import UnknownHashError
from pwdlib.hashers.argon2 import Argon2Hasher

# OWASP's profile of argon2id: 19 MiB and two passes, about 0.02 s of a core. A stored hash names
# its own profile, so hashes of other profiles still verify. A hash that takes more memory waits for
# its turn among all processes.
HASH_KIBIBYTES = 19_456
PASSES = 2
LANES = 1
# (!) Per process; there is a process per core.
# Partner: WORKER_BYTES in api/server/gunicorn_conf.py
HASHES_AT_ONCE = 1
COSTLY_LOCK = Path(tempfile.gettempdir()) / "costly-hash.lock"

# A hash of no password, verified for an unknown address, so that the time of an answer reveals
# nothing.
DUMMY_HASH = (
    "$argon2id$v=19$m=19456,t=2,p=1$r7xUw0JhEvWII0jvYeCpug"
    "$jTi4ogMC8jQrHiCKhF7B0tXZex59txoz8THsQH2Ymoc"
)


class Passwords:
    """Hashes and verifies passwords outside of the event loop."""

    def __init__(self) -> None:
        self._hasher = PasswordHash((Argon2Hasher(PASSES, HASH_KIBIBYTES, LANES),))
        self._turns = asyncio.Semaphore(HASHES_AT_ONCE)

    async def hash(self, password: str) -> str:
        """Return the hash to store."""
        async with self._turns:
            return await asyncio.to_thread(self._hasher.hash, password)

    async def verify(self, password: str, password_hash: str | None) -> bool:
        """Tell whether the password is right; without a hash it is wrong, after the same time."""
        async with self._turns:
            fits = await asyncio.to_thread(self._verify, password, password_hash or DUMMY_HASH)
        return fits and password_hash is not None

    def _verify(self, password: str, password_hash: str) -> bool:
        try:
            with lock_of_container() if takes_more(password_hash) else nullcontext():
                return self._hasher.verify(password, password_hash)
        except UnknownHashError:
            return False


def takes_more(password_hash: str) -> bool:
    """Tell whether a hash takes more memory than HASH_KIBIBYTES."""
    try:
        return argon2.extract_parameters(password_hash).memory_cost > HASH_KIBIBYTES
    except argon2.exceptions.InvalidHashError:
        return False


@contextmanager
def lock_of_container() -> Iterator[None]:
    """Let one thread pass at a time: the container has no memory for two hashes of 64 MiB."""
    # Opened each time: the kernel's lock belongs to the open file, which a fork would share.
    with COSTLY_LOCK.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
