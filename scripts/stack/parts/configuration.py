"""Creates `.env`, the secrets and a first certificate if they are missing; overwrites none."""

import os
import secrets
from dataclasses import replace
from pathlib import Path

from stack.commands import engine
from stack.config import environment, secret_files, surroundings
from stack.config.checks import CPU_KEYS
from stack.config.defaults import DEFAULTS
from stack.config.project import (
    BASES,
    OPTIONAL_SECRETS,
    SECRETS,
    Project,
    default_state,
    load,
)
from stack.failure import Failure
from stack.rules.findings import Finding, refuse
from stack.runner import Runner

SECRET_BYTES = 32
CERTIFICATE_DAYS = 365
MOST_OF_A_COMMON_NAME = 64  # the limit of X.509; clients compare the whole name in subjectAltName
# The first start copies these from the environment, so that a second stack needs no edit of .env.
FIRST_KEYS = (
    "COMPOSE_PROJECT_NAME",
    "COMPOSE_FILE",
    "SLIPWAY_IMAGE",
    "SLIPWAY_HOST",
    "HTTP_PORT",
    "HTTPS_PORT",
    "SINK_PORT",
    "RATE_LIMIT_PER_SECOND",
    "STATE_DIR",
    "SECRETS_DIR",
)


def planned_project(root: Path) -> Project:
    """Return the project of `.env`, or of the `.env` that `ensure_environment` will create."""
    if (root / ".env").exists():
        return load(root)
    values = {line.key: line.value for line in environment.parse(_first_text(root))}
    surroundings.refuse(values, os.environ)
    return Project(root, values)


def _first_text(root: Path) -> str:
    text = (root / ".env.example").read_text(encoding="utf-8")
    example = {line.key: line.value for line in environment.parse(text) if line.value}
    given = {key: os.environ[key] for key in FIRST_KEYS if os.environ.get(key)}
    wanted = {**DEFAULTS, **example, **given}
    name = wanted["COMPOSE_PROJECT_NAME"]
    state = wanted["STATE_DIR"] or str(default_state(name))
    values = {**given, "COMPOSE_PROJECT_NAME": name, "STATE_DIR": state}
    if os.cpu_count() == 1:
        values |= dict.fromkeys(CPU_KEYS, "1")  # the engine refuses more CPUs than the host has
    return environment.with_values(text, values)


def ensure_environment(runner: Runner, root: Path) -> Project:
    """Create `.env` from `.env.example` if there is none, and return the project it describes.

    The first start copies FIRST_KEYS from the process environment into `.env`. A copy of
    `.env.example` lacks STATE_DIR, without which Compose reads no compose file.
    """
    if not (root / ".env").exists():
        runner.write(root / ".env", _first_text(root), 0o600)
        if runner.is_dry:
            return planned_project(root)
    project = load(root)
    if project.setting("STATE_DIR"):
        return project
    return set_values(runner, project, {"STATE_DIR": str(project.state)})


def set_values(runner: Runner, project: Project, values: dict[str, str]) -> Project:
    """Write values that a script determined, such as the base images, into `.env`."""
    file = project.root / ".env"
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    runner.write(file, environment.with_values(text, values), 0o600)
    return replace(project, values={**project.values, **values})


def keep_bases(runner: Runner, project: Project, chosen: Project) -> Project:
    """Write the base images of `images.choose_bases` into `.env`; return the project with them."""
    keys = {f"{service.upper()}_IMAGE" for service in BASES}
    names = {key: name for key, name in chosen.values.items() if key in keys}
    if names.items() <= project.values.items():
        return project
    return set_values(runner, project, names)


def ensure_secrets(runner: Runner, project: Project) -> list[str]:
    """Create the missing secret files with strong random values, and return their names."""
    # Compose mounts the files with their modes. The containers' users must be able to read them, so
    # only the mode of the directory protects them.
    runner.make_directory(project.secrets, 0o700)
    created = []
    for name in (*SECRETS, *OPTIONAL_SECRETS):
        path = project.secrets / name
        fault = secret_files.fault(path)
        if fault == secret_files.MISSING:
            content = secrets.token_urlsafe(SECRET_BYTES) + "\n" if name in SECRETS else ""
            runner.write(path, content, 0o444)
            created += [name] if name in SECRETS else []
        elif fault:
            raise Failure(
                f"the secret file {path} {fault}",
                hints=[secret_files.fix(name, fault)],
                runbook=environment.RUNBOOK,
            )
    return created


def check_certificate(runner: Runner, project: Project) -> None:
    """Refuse a certificate that is not for SLIPWAY_HOST, before nginx answers to that name.

    Raises:
        Failure: with the output of openssl.
    """
    if not runner.is_dry:  # in a dry run, there may be no image with openssl yet
        refuse(judge_certificate(runner, project))


def judge_certificate(runner: Runner, project: Project) -> list[Finding]:
    """Return a finding if the certificate is not for SLIPWAY_HOST."""
    words = ["openssl", "x509", "-noout", "-checkhost", project.host, "-in", "/tls/fullchain.pem"]
    command = engine.throwaway(
        project.base("python"),
        words,
        mounts=[f"{project.certificate.parent}:/tls:ro"],
        user=f"{os.geteuid()}:{os.getegid()}",
        environment={},
        answers=(0, 1),  # openssl before 3 ends with 0 in both cases
    )
    shown = runner.read(command)
    if "does match" in shown.out:
        return []
    return [
        Finding(
            "SLIPWAY_HOST",
            f"the certificate in {project.certificate.parent} is not for {project.host}",
            f"put a certificate for {project.host} and its key there; or for a self-signed pair, "
            "move both files away and run ./scripts/up.sh",
            "nginx-refuses-its-configuration",
            evidence=shown.out + shown.err,
        )
    ]


def ensure_certificate(runner: Runner, project: Project) -> bool:
    """Create a self-signed certificate if there is none; return whether one was created."""
    directory = project.certificate.parent
    key = directory / "privkey.pem"
    if project.certificate.exists() and key.exists():
        return False
    if project.certificate.exists() != key.exists():
        present, missing = (
            (project.certificate, key)
            if project.certificate.exists()
            else (key, project.certificate)
        )
        raise Failure(
            f"{present} exists, but {missing} does not",
            hints=[
                "put the matching file there",
                f"or for a self-signed pair: move {present} away, and run this again",
            ],
            runbook="site-down",
        )
    runner.make_directory(directory, 0o755)
    script = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -sha256 "
        f"-days {CERTIFICATE_DAYS} -subj /CN=$NAME -addext subjectAltName=DNS:$HOST "
        "-keyout /tls/privkey.pem.new -out /tls/fullchain.pem.new && chmod 0444 /tls/*.new "
        "&& mv /tls/privkey.pem.new /tls/privkey.pem "
        "&& mv /tls/fullchain.pem.new /tls/fullchain.pem"
    )
    runner.run(
        engine.throwaway(
            project.base("python"),
            ["sh", "-euc", script],
            mounts=[f"{directory}:/tls"],
            user=f"{os.geteuid()}:{os.getegid()}",
            environment={"HOST": project.host, "NAME": project.host[:MOST_OF_A_COMMON_NAME]},
        )
    )
    return True
