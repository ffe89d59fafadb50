"""One run on several devices: which settings its replicas have parts of. Nothing here imports TensorFlow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tfdqn import population
from tfdqn.errors import UserError
from tfdqn.settings import flag_of, room, setting

if TYPE_CHECKING:
    from tfdqn.config import Config

# What replicas have equal parts of, and must come out even: environments, and the rows of an update.
EVEN = ("num_envs", "batch_size")
NO_COLLECTIVES = "--exchange collective: XLA knows no collectives on a CPU; add --no-jit, or use --exchange average"
# What may be rounded up.
PARTS = (*EVEN, "replay_capacity", "replay_min_rows")


@room("replicas", "several devices")
class Replicas:
    replicas: int = setting(
        0,
        "devices that share the run, each with its part of the environments, the replay and the batch, or of a "
        "population's members; 0: one, or with --device gpu every GPU, and for a population on a CPU its cores",
        low=0,
        high=4096,
        common=True,
    )
    exchange: str = setting(
        "average",
        "what they exchange: weights and optimizer, every exchange_every_rounds rounds, or (collective) the gradients "
        "of each update",
        choices=("average", "collective"),
        common=True,
    )
    exchange_every_rounds: int = setting(
        100,
        "rounds (the decisions before updates are due, and these) that replicas go on without looking up",
        low=1,
        high=1_000_000,
    )

    def check(self, config: Any) -> None:
        if population.is_one(config) and self.exchange != "average":
            raise UserError(f"--exchange {self.exchange}: agents side by side exchange nothing; leave it out")
        if not is_one(config):
            return
        count = self.replicas
        if population.is_one(config):
            if not population.divides(config, count):
                fewer = next(each for each in range(count, 0, -1) if population.divides(config, each))
                raise UserError(
                    f"--replicas {count}: the agents side by side do not go into so many equal parts; use {fewer}"
                )
            return
        if self.exchange == "collective" and config.device == "cpu" and config.jit and not config.eager:
            raise UserError(NO_COLLECTIVES)
        for name in EVEN:
            whole = getattr(config, name, count)
            if whole % count:
                fewer = next(each for each in range(count, 0, -1) if whole % each == 0)
                raise UserError(
                    f"--replicas {count}: {flag_of(name)} {whole} does not go into so many equal parts; use {fewer}, "
                    f"or {flag_of(name)} {-(-whole // count) * count}"
                )

    def ways_to_fit(self, config: Any) -> Iterator[dict[str, Any]]:
        if not is_one(config) or population.is_one(config):
            return
        for name in EVEN:
            whole = getattr(config, name, self.replicas)
            if whole % self.replicas:
                yield {name: -(-whole // self.replicas) * self.replicas}
        if self.exchange == "collective" and config.device == "cpu" and config.jit and not config.eager:
            yield {"exchange": "average"}
            yield {"jit": False}
        part = config_of(config)
        for each in part.rooms.values():
            for way in each.ways_to_fit(part) if hasattr(each, "ways_to_fit") else ():
                yield {name: value * self.replicas if name in PARTS else value for name, value in way.items()}


def is_one(config: Config) -> bool:
    """Whether a configuration trains on several devices."""
    return config.replicas > 1


def config_of(config: Config) -> Config:
    """What one replica is made from, but for its seed; of a run on one device, what there is."""
    if not is_one(config):
        return config
    if population.is_one(config):
        return population.parts(config.replace(replicas=0, pbt=False), config.replicas)[0]  # it selects among all
    parts = {name: -(-getattr(config, name) // config.replicas) for name in PARTS if hasattr(config, name)}
    return config.replace(**parts, replicas=1)
