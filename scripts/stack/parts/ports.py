"""Checks that the published ports of the front door are free, before nginx is replaced."""

import socket

from stack.config.project import Project
from stack.failure import Failure
from stack.parts import observation
from stack.runner import Runner


def check(runner: Runner, project: Project) -> None:
    """Refuse a port on which another program listens, before nginx is replaced.

    Compose removes the nginx that serves, and finds only then that the new one has no port.
    """
    running = [
        service
        for service in observation.services(runner, project)
        if service.name == "nginx" and service.state == "running"
    ]
    own = frozenset[tuple[str, int]]().union(*(service.ports for service in running))
    if running and not own:
        return  # an engine that does not list the ports
    for key in ("HTTP", "HTTPS"):
        bound, port = project.setting(f"{key}_BIND"), project.port(f"{key}_PORT")
        if port in {published for _, published in own}:
            continue  # nginx itself listens there
        with socket.socket(socket.AF_INET6 if ":" in bound else socket.AF_INET) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind((bound, port))
            except PermissionError:
                continue  # the engine may bind the port even if this user may not
            except OSError as error:
                raise Failure(
                    f"nginx cannot use port {port} of {bound}: {error.strerror}",
                    hints=[
                        f"ss --listening --tcp --processes 'sport = {port}'",
                        f"or set {key}_PORT in .env",
                    ],
                    runbook="site-down",
                ) from None
