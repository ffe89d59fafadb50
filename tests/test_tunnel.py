"""Frames a death in the narrowest tunnel, counted by the benchmark and by hand."""

import numpy as np
import pytest
import tensorflow as tf

from benchmarks import tunnel
from tests.envs.helpers import restarted, to_numpy
from tfdqn import runs, seeds
from tfdqn.envs import cave, make
from tfdqn.errors import UserError
from tfdqn.training import build_agent

FRAMES, GAMES, SEED = 500, 64, 3


def test_deaths_are_counted_as_by_hand():
    """The packaged agent where it dies often, one frame at a time; screens are stacked here."""
    folder, opening = runs.PRETRAINED / "cave", 26
    config = runs.read_config(folder)
    counted = tunnel.play(folder, "best", config, opening, FRAMES, SEED, GAMES)

    env = make("cave")
    agent = build_agent(config, env)
    runs.load_weights(agent, folder / runs.BEST_MODEL)
    start = env.compiled_reset(env.sample_noise(seeds.at(seeds.stream(SEED, "record"), 0), GAMES))
    start = start._replace(
        time=start.time + 48 + 51 * 29,
        block_tops=tf.fill([GAMES, 3], cave.NOWHERE),
        least_opening=tf.fill([GAMES], opening),
    )
    begin = env.observe(start).numpy()
    state, frames, age, deaths, total = start, [begin] * config.frame_stack, np.zeros(GAMES, int), 0, 0
    for t in range(1, FRAMES + 1):
        action, _ = agent.act(np.stack(frames, axis=-1), (), 0.0, [0, 0])
        noise = env.sample_noise(seeds.at(seeds.stream(SEED, "record"), t), GAMES)
        state, timestep = env.compiled_step(state, action, noise)
        crash = timestep.termination.numpy()
        deaths += (crash & (age >= tunnel.SETTLING)).sum()
        total += (age >= tunnel.SETTLING).sum()
        age = np.where(crash, 0, age + 1)
        state = restarted(crash, to_numpy(start), to_numpy(state))
        frames = [np.where(crash[:, None, None], begin, frame) for frame in [*frames[1:], timestep.observation.numpy()]]
    assert deaths > 10
    assert counted == (deaths, total)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pretrained", "catch8"], "not an agent that plays every frame"),
        (["--pretrained", "cave", "--opening", "31"], "--opening 31: must be between 25 and 30"),
        (["--pretrained", "cave", "--frames", "64"], "--frames 64: must be between 65"),
    ],
)
def test_what_it_cannot_count_is_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        tunnel.main(arguments)
