"""Frames a death in the narrowest tunnel, counted by the benchmark and by hand."""

import numpy as np
import pytest
import tensorflow as tf

from benchmarks import tunnel
from tests.envs.helpers import restarted, to_numpy
from tfdqn import seeds
from tfdqn.envs import make_for
from tfdqn.envs.cave import rules as cave
from tfdqn.errors import UserError
from tfdqn.learners.dqn.building import build_agent
from tfdqn.runs import models, run_config

FRAMES, GAMES, SEED = 1200, 32, 3


@pytest.mark.slow
def test_deaths_are_counted_as_by_hand(monkeypatch):
    """The packaged agent in a tunnel narrower than the game's, where it dies often, one frame at a time.

    Most games come to a limit, brought near, at which the benchmark sets their clocks back.
    """
    folder = models.PRETRAINED / "cave"
    monkeypatch.setattr(cave, "TIME_LIMIT", 2600)
    monkeypatch.setattr(cave, "MIN_OPENING", 27)
    config = run_config.read_config(folder)
    counted = tunnel.play(folder, "best", config, FRAMES, SEED, GAMES)

    env = make_for(config)
    agent = build_agent(config, env)
    models.load_weights(agent, folder / models.BEST_MODEL)
    act = tf.function(lambda screens: agent.act(screens, (), 0.0, [0, 0])[0], autograph=False)
    start = env.compiled_reset(env.sample_noise(seeds.at(seeds.stream(SEED, "record"), 0), GAMES))
    start = start._replace(time=start.time + 48 + 51 * 28, block_tops=tf.fill([GAMES, 3], cave.NOWHERE))
    start = env.first_seen(start)
    begin = env.observe(start).numpy()
    state, frames, age, deaths, total = start, [begin] * config.frame_stack, np.zeros(GAMES, int), 0, 0
    for t in range(1, FRAMES + 1):
        noise = env.sample_noise(seeds.at(seeds.stream(SEED, "record"), t), GAMES)
        state, timestep = env.compiled_step(state, act(tf.stack(frames, axis=-1)), noise)
        crash = timestep.termination.numpy()
        deaths += (crash & (age >= tunnel.SETTLING)).sum()
        total += (age >= tunnel.SETTLING).sum()
        age = np.where(crash, 0, age + 1)
        state = restarted(crash, to_numpy(start), to_numpy(state))
        frames = [np.where(crash[:, None, None], begin, frame) for frame in [*frames[1:], timestep.observation.numpy()]]
    assert deaths > 10 and age.max() > 2600 - 1476
    assert counted == (deaths, total)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pretrained", "catch8"], "not an agent that plays every frame"),
        (["--pretrained", "cave", "--frames", "64"], "--frames 64: must be between 65"),
    ],
)
def test_what_it_cannot_count_is_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        tunnel.main(arguments)
