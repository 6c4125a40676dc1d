"""The deployments that were live, recorded without the product's ledger, to check rollbacks.

A deployment is an image with the service's settings.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.simulator.containers import SLOTS, Container, Engine


@dataclass
class Deployment:
    """One deployment that was live.

    Attributes:
        number: the number that the product gave it.
        image: the content of its image; a build from the same inputs has the same content.
        is_good: None if nothing judged it, as after a kill or the loss of the ledger.
    """

    number: int
    release: str
    image: tuple[str, ...]
    settings: Mapping[str, str]
    is_good: bool | None = True

    def is_of(self, engine: Engine, container: Container) -> bool:
        """Whether a container runs this deployment."""
        image = engine.images[container.image].content
        return (self.image, self.settings) == (image, container.settings)

    def has_name(self, engine: Engine) -> bool:
        """Whether its image has a name besides those of the slots."""
        slots = {f"slipway/app:{slot}" for slot in SLOTS}
        return any(
            engine.images[identifier].content == self.image and name not in slots
            for name, identifier in engine.tags.items()
        )


@dataclass
class Deployments:
    """All deployments of a history, in the order in which they were last live."""

    listed: list[Deployment] = field(default_factory=list)
    candidates: list[Deployment] = field(default_factory=list)  # while the present command runs
    is_forgotten: bool = False  # whether the ledger was lost

    @property
    def live(self) -> Deployment | None:
        """The live deployment."""
        return self.listed[-1] if self.listed else None

    def add(self, engine: Engine, container: Container, *, is_good: bool | None) -> None:
        """Add the live deployment."""
        self.listed.append(deployment_of(engine, container, is_good=is_good))

    def see(self, engine: Engine, container: Container) -> None:
        """Remember that a container serves, while a command runs."""
        if not self.candidates or self.candidates[-1].number != container.number:
            self.candidates.append(deployment_of(engine, container, is_good=None))

    def judge_seen(self, *, is_taken_back: bool) -> None:
        """List the deployments that served only while the command ran, unless it rolled back."""
        for deployment in () if is_taken_back else self.candidates:
            if not any(
                d.number == deployment.number and d.image == deployment.image for d in self.listed
            ):
                self.listed.append(deployment)
        self.candidates.clear()

    def find(self, engine: Engine, container: Container) -> Deployment | None:
        """Return the deployment that a container runs."""
        same = [d for d in self.listed if d.is_of(engine, container)]
        numbered = [d for d in same if d.number == container.number]
        best = numbered or same
        return best[-1] if best else None

    def move_to_end(self, deployment: Deployment) -> None:
        """Make a listed deployment the live one."""
        self.listed = [d for d in self.listed if d is not deployment] + [deployment]

    def targets(
        self, engine: Engine, name: str = "", idle_image: tuple[str, ...] = ()
    ) -> list[Deployment]:
        """Return the possible targets of a rollback, the best first.

        A number names a deployment, and a release its last good one. Otherwise the target is the
        newest good deployment that is not live; a newer deployment that nothing judged is allowed
        too.
        """
        newest_first = list(reversed(self.listed))
        if name.isdecimal():
            return [d for d in newest_first if d.number == int(name)]
        if name:
            named = [d for d in newest_first if d.release == name]
            return [d for d in named if d.is_good is not False] or named[:1]
        allowed = []
        for deployment in newest_first[1:]:
            if deployment.is_good is not False and deployment.has_name(engine):
                allowed.append(deployment)
                if deployment.is_good:
                    break
        if not any(deployment.is_good for deployment in allowed):
            # Only the release of the idle slot is left; somebody may have rolled back from it.
            allowed += [d for d in newest_first[1:] if d.image == idle_image]
            if self.is_forgotten and idle_image:
                # After the loss of the ledger, nothing records that it was rolled back.
                allowed.append(Deployment(0, "", idle_image, {}, is_good=None))
        return sorted(allowed, key=lambda d: d.is_good is not True)

    def forget_judgements(self) -> None:
        """Take the loss of the ledger into account."""
        self.is_forgotten = True
        for deployment in self.listed:
            deployment.is_good = None


def deployment_of(engine: Engine, container: Container, *, is_good: bool | None) -> Deployment:
    """Return the deployment of a container."""
    image = engine.images[container.image]
    return Deployment(container.number, image.release, image.content, container.settings, is_good)
