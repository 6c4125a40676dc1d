"""Checks that the published ports of the front door are free, also while nginx runs."""

import socket

from stack.config.project import Project
from stack.parts import observation
from stack.rules.findings import Finding
from stack.runner import Runner

KEYS = ("HTTP", "HTTPS")


def judge(runner: Runner, project: Project) -> list[Finding]:
    """Return the wanted ports on which another program listens.

    Without this check, Compose would remove the serving nginx before the port of the new one fails.
    """
    wanted = {key: (_address(project, key), project.port(f"{key}_PORT")) for key in KEYS}
    if wanted["HTTP"] == wanted["HTTPS"]:
        port = project.port("HTTPS_PORT")
        return [Finding("HTTPS_PORT", f"HTTP_PORT is {port}, too", "set another port in .env")]
    running = [
        service
        for service in observation.services(runner, project)
        if service.name == "nginx" and service.state == "running"
    ]
    own = frozenset[tuple[str, int]]().union(*(service.ports for service in running))
    if running and not own:
        return []  # an engine that does not list the ports
    findings = []
    for key, (address, port) in wanted.items():
        if port in {published for _, published in own}:
            continue  # nginx itself listens there
        reason = _reason_against(address, port)
        if reason:
            findings.append(
                Finding(
                    f"{key}_PORT",
                    f"nginx cannot use port {port} of {address}: {reason}",
                    f"ss --listening --tcp --processes 'sport = {port}' shows who does; "
                    f"or set {key}_PORT in .env",
                    "site-down",
                )
            )
    return findings


def _address(project: Project, key: str) -> str:
    return project.setting(f"{key}_BIND").strip("[]")


def _reason_against(address: str, port: int) -> str:
    """Return why no program can listen on a port now; empty if one can."""
    try:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with socket.socket(family) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((address, port))
    except PermissionError:
        return ""  # the engine may bind the port even if this user may not
    except OSError as error:
        return str(error.strerror)
    return ""
