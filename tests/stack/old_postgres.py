"""A base image with the major version of Postgres from the previous Debian release."""

import tempfile
from pathlib import Path

from stack.commands import engine, host
from stack.parts import images
from stack.runner import RealRunner

from tests.stack.harness import ROOT

RELEASE, MAJOR = "bookworm", 15
IMAGE = f"slipway-base/postgres:debian-{RELEASE}"


def ensure_image() -> str:
    """Return the name of the image; build a missing image in the same way as scripts/up.sh."""
    runner = RealRunner()
    if runner.read(engine.inspect_image(IMAGE)).code == 0:
        return IMAGE
    root = f"slipway-base/debian:debian-{RELEASE}"
    with tempfile.TemporaryDirectory() as directory:
        archive = Path(directory) / "root.tar"
        sources = host.bootstrap_sources(images._debian_mirrors(runner), RELEASE)
        seconds = images.BUILD_SECONDS
        runner.run(host.bootstrap(str(archive), RELEASE, timeout_seconds=seconds, stdin=sources))
        runner.run(engine.import_image(archive, root))
    with images.build_secrets(
        apt_conf=host.apt_settings(runner.read(host.APT_SETTINGS).out)
    ) as secrets:
        command = engine.build_image(
            ROOT / "scripts/base-images",
            [IMAGE],
            {"DEBIAN": root, "POSTGRES_MAJOR": str(MAJOR)},
            {"ca": secrets["ca"], "apt.conf": secrets["apt.conf"]},
            target="postgres",
            pass_on=images._proxies(),
            timeout_seconds=images.BUILD_SECONDS,
        )
        runner.run(command)
    return IMAGE
