"""The forms of the values of `.env`: each function parses a text, or names the fault in it.

A form raises ValueError with the rest of a sentence that begins with the key: "not a number".
"""

import re
import shlex
from ipaddress import ip_address

# Not \d, which also matches digits of other alphabets: Compose does not accept those.
NUMBER, WHOLE, SHELL_WHOLE = r"[0-9]+(\.[0-9]+)?", r"[0-9]+", r"0|[1-9][0-9]*"
HOST = r"(?=.*[A-Za-z])[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?"
LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
PROJECT_NAME = r"[a-z0-9][a-z0-9_-]*"
UNITS = {"": 1, "b": 1, "k": 1024, "m": 1024**2, "g": 1024**3}
LEAST_MEMORY_BYTES = 6 * 1024**2  # the engine's own least


def text(value: str) -> str:
    """Return any text; the program that uses it checks it."""
    return value


def setting(value: str) -> str:
    """Return a text for the service, which checks it; `parts/slot_files.py` writes it in quotes.

    The readers of that file escape a quote and end a line in different ways.
    """
    if "'" in value or not value.isprintable():
        raise ValueError("not one line without single quotes")
    if value.endswith("\\"):
        raise ValueError("not a text that ends without a backslash")
    return value


def number(value: str) -> float:
    """Return a number that may have a fraction."""
    if not re.fullmatch(NUMBER, value):
        raise ValueError("not a number")
    return float(value)


def whole(value: str) -> int:
    """Return a whole number."""
    if not re.fullmatch(WHOLE, value):
        raise ValueError("not a whole number")
    return int(value)


def shell_whole(value: str) -> int:
    """Return a whole number for a key that a shell also reads; to a shell, 08 is not a number."""
    if not re.fullmatch(SHELL_WHOLE, value):
        raise ValueError("not a whole number")
    return int(value)


def positive(value: str) -> int:
    """Return a whole number above 0."""
    if not re.fullmatch(WHOLE, value) or int(value) < 1:
        raise ValueError("not a whole number above 0")
    return int(value)


def port(value: str) -> int:
    """Return a port."""
    if not re.fullmatch(WHOLE, value) or not 0 < int(value) < 65536:
        raise ValueError("not a port")
    return int(value)


def cpus(value: str) -> float:
    """Return a number of CPUs."""
    return number(value)


def memory(value: str) -> int:
    """Return a limit of memory in bytes."""
    size = re.fullmatch(r"([0-9]+)([bkmg]?)b?", value.lower())
    if not size:
        raise ValueError("not a size such as 256m or 1g")
    amount = int(size[1]) * UNITS[size[2]]
    if amount < LEAST_MEMORY_BYTES:
        raise ValueError("less than 6m, the engine's minimum: write a unit, such as 256m")
    return amount


def memory_text(size_bytes: int) -> str:
    """Return the text of a limit of memory, the reverse of `memory`."""
    megabytes, rest = divmod(size_bytes, UNITS["m"])
    return f"{size_bytes}b" if rest else f"{megabytes}m"


def host(value: str) -> str:
    """Return a host name: labels of up to 63 characters, 253 in all."""
    if not re.fullmatch(HOST, value):
        raise ValueError("not a host name (TLS has no server name for an IP address)")
    if len(value) > 253:
        raise ValueError("longer than 253 characters, the maximum for a host name")
    if not all(re.fullmatch(LABEL, label) for label in value.split(".")):
        raise ValueError("not a host name: each part has 1 to 63 letters, digits and inner -")
    return value


def address(value: str) -> str:
    """Return an address to publish a port on; Compose needs brackets around an IPv6 address."""
    inner = value[1:-1] if value.startswith("[") and value.endswith("]") else value
    try:
        version = ip_address(inner).version
    except ValueError:
        raise ValueError("not an IP address") from None
    if (version == 6) != (inner != value):
        raise ValueError("not an IPv4 address, or an IPv6 address in brackets: [2001:db8::2]")
    return value


def compose_files(value: str) -> str:
    """Return the names of the compose files."""
    if "compose.prod.yaml" in value and "compose.dev.yaml" in value:
        raise ValueError("a list with compose.prod.yaml and compose.dev.yaml: name one of them")
    if not all(value.split(":")):
        raise ValueError("a list with an empty name, which Compose reads as the folder")
    return value


def project_name(value: str) -> str:
    """Return a name that Compose accepts for a project."""
    if not re.fullmatch(PROJECT_NAME, value):
        raise ValueError("not a name of lower-case letters, digits, - and _")
    return value


def requests(value: str) -> tuple[tuple[str, int], ...]:
    """Return each path of the smoke test with the status that its answer must have."""
    # A query is refused: in /x?size=200 the number could be the status, or part of the path.
    pairs = [re.fullmatch(r"(/[^\s=?]*)(?:=([1-5][0-9]{2}))?", word) for word in value.split()]
    if not all(pairs):
        raise ValueError(
            "not PATH=STATUS, separated by spaces (write a path with a query in service.toml)"
        )
    return tuple((pair[1], int(pair[2] or 200)) for pair in pairs if pair)


def command(value: str) -> tuple[str, ...]:
    """Return the words of a command, as a shell splits them."""
    try:
        return tuple(shlex.split(value))
    except ValueError as error:
        raise ValueError(f"not a command: {error}") from None


def directory(value: str) -> str:
    """Return an absolute path below the root."""
    if not value.startswith("/"):
        raise ValueError("not an absolute path: begin it with /, without ~ and variables")
    return _below_the_root(value)


def folder(value: str) -> str:
    """Return an absolute path, or a path that begins with ./ or ../ and starts at the checkout."""
    if not value.startswith(("/", "./", "../")):
        raise ValueError("not a path that begins with /, ./ or ../ (Compose would use a volume)")
    return _below_the_root(value)


def _below_the_root(value: str) -> str:
    if not value.strip("/"):
        raise ValueError("the root of the file system: name a folder below it")
    if ":" in value:
        raise ValueError("a path with a colon, which Compose splits there")
    return value
