"""No container sends its requests inside the stack to a proxy.

Docker's client passes the proxies of its own settings to each container that it creates.
"""

import ast
import re

from tests.contracts.compose_files import SERVICES
from tests.contracts.documents import DOCUMENTS, commands
from tests.contracts.tree import nodes, text

DIRECT = {"NO_PROXY": "*", "no_proxy": "*"}
# Programs and modules that send HTTP requests and read the variables of a proxy.
CLIENTS = re.compile(r"\b(?:curl|wget|urllib\.request|http://)")
SOURCES = ("api/**/*.py", "backup/**/*.py", "counter/**/*.py", "worker/**/*.py")
IN_A_CONTAINER = re.compile(r"docker compose exec (?:--\S+ )*([\w-]+) (.*)")


def in_health_checks() -> set[str]:
    """Return the services whose health check, or the file that it runs, sends HTTP requests."""
    named = set()
    for name, service in SERVICES.items():
        check = " ".join(service["healthcheck"].get("test", []))
        for path in re.findall(r"(?:/app|/opt/slipway)/(\S+\.py)", check):
            check += text(path)
        if CLIENTS.search(check):
            named.add(name)
    return named


def in_sources() -> set[str]:
    """Return the services whose own code imports urllib.request, as for `backup status`."""
    folders = {
        path.parts[0]
        for path, node in nodes(*SOURCES)
        if isinstance(node, ast.Import | ast.ImportFrom)
        and re.search(r"import urllib\.request|from urllib(\.| import )request", ast.unparse(node))
    }
    return {name for name in SERVICES if name.partition("-")[0] in folders}


def in_scripts() -> set[str]:
    """Return the services in which a module of the scripts that knows a client runs commands."""
    named = set()
    for path, node in nodes("scripts/stack/**/*.py"):
        if not isinstance(node, ast.Call) or not ast.unparse(node.func).endswith("exec_in"):
            continue
        if CLIENTS.search(text(path)) and isinstance(node.args[0], ast.Constant):
            named.add(str(node.args[0].value))
    return named


def in_documents() -> set[str]:
    """Return the services in which a command of a page sends HTTP requests."""
    return {
        match[1]
        for path in DOCUMENTS
        for command in commands(path)
        for match in [IN_A_CONTAINER.search(command)]
        if match and CLIENTS.search(match[2])
    }


def test_a_container_that_sends_requests_inside_the_stack_uses_no_proxy() -> None:
    assert in_health_checks() >= {"nginx"}
    assert in_scripts() >= {"nginx"}
    assert in_documents() >= {"nginx"}
    assert in_sources() >= {"backup"}
    for name in in_health_checks() | in_sources() | in_scripts() | in_documents():
        assert DIRECT.items() <= SERVICES[name]["environment"].items(), name
