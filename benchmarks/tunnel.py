"""How safe a cave agent flies: `python -m benchmarks.tunnel --pretrained cave`.

An agent that mostly reaches the limit of 10,000 frames leaves few deaths to count, so its mean score says little about
how good it is. Here every game takes place where games are decided, in the narrowest tunnel, and begins again after a
crash: what is counted is frames a death. A beginning is a straight piece of tunnel without blocks on the screen, and
its first `SETTLING` frames and crashes in them are left out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks.deaths import whole_cave_agent
from tfdqn import cli
from tfdqn.config import Config
from tfdqn.errors import UserError
from tfdqn.runs import models, named_agent
from tfdqn.runtime import devices

GAMES = 512  # played side by side
SETTLING = 64  # frames: the straight beginning has left the screen, and two or three blocks have come


def parser() -> cli.Parser:
    parser = cli.Parser(prog="python -m benchmarks.tunnel", description="Frames a death in the narrowest tunnel.")
    named_agent.add_agent_arguments(parser)
    parser.add_argument("--frames", type=cli.converter("--frames", int), default=2000, help=f"of each of {GAMES} games")
    parser.add_argument("--seed", type=cli.converter("--seed", int), default=0, help="seed of the games' draws")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse(argv)
    if not SETTLING < arguments.frames <= 1_000_000:
        raise UserError(f"--frames {arguments.frames}: must be between {SETTLING + 1} and 1000000; the default is 2000")
    folder, config = whole_cave_agent(arguments)
    devices.choose_device("cpu")
    deaths, frames = play(folder, arguments.model, config, arguments.frames, arguments.seed)
    found = {
        "deaths": deaths,
        "frames": frames,
        "frames a death": frames / deaths if deaths else None,
    }
    each = f"{frames / deaths:,.0f} frames a death, uncertain by {100 / deaths**0.5:.0f}%" if deaths else "no death"
    cli.say(f"{deaths} deaths in {frames:,} frames, {each}")
    if arguments.json:
        print(json.dumps(found))
    return 0


def play(folder: Path, model: str, config: Config, frames: int, seed: int, games: int = GAMES) -> tuple[int, int]:
    """Deaths, and the frames in which they happened, of so many games of so many frames."""
    import tensorflow as tf

    from tfdqn import seeds
    from tfdqn.envs import make_for
    from tfdqn.envs.cave import rules as cave
    from tfdqn.envs.rollout import push_frame, select, stack_frames
    from tfdqn.learners import build_agent
    from tfdqn.runtime import compiled

    env = make_for(config)
    agent = build_agent(config, env)
    models.load_weights(agent, folder / models.MODELS[model])
    stream = seeds.stream(seed, "record")
    depth = (config.frame_stack - 1) * config.frame_stride + 1

    def begin(noise: cave.Noise) -> cave.State:
        state = env.reset(noise)
        # All that is on the screen was made when the tunnel was as narrow already.
        time = cave.SIZE + cave.WALL_SHRINK_PERIOD * (cave.START_OPENING - cave.MIN_OPENING)
        nowhere = tf.fill(tf.shape(state.block_tops), cave.NOWHERE)
        return env.first_seen(state._replace(time=state.time + time, block_tops=nowhere))

    @compiled.xla
    def run(count: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        def frame(t, state, history, age, deaths, counted):
            action, _ = agent.act(stack_frames(history, config.frame_stride), (), 0.0, [0, 0])
            noise = env.sample_noise(seeds.at(stream, t), games)
            state, timestep = env.step(state, action, noise)
            # No game ends but by a crash: one at its limit stays there, with the same phase of walls and blocks.
            period = cave.WALL_SHRINK_PERIOD * cave.BLOCK_PERIOD
            state = state._replace(time=tf.where(state.time >= cave.TIME_LIMIT, state.time - period, state.time))
            is_settled = age >= SETTLING
            deaths += tf.reduce_sum(tf.cast(timestep.termination & is_settled, tf.int64))
            counted += tf.reduce_sum(tf.cast(is_settled, tf.int64))
            state = select(timestep.termination, begin(noise), state)
            history = push_frame(history, env.observe(state), timestep.termination)
            return t + 1, state, history, tf.where(timestep.termination, 0, age + 1), deaths, counted

        state = begin(env.sample_noise(seeds.at(stream, 0), games))
        history = tf.tile(env.observe(state)[tf.newaxis], [depth, 1, 1, 1])
        zero = tf.zeros([], tf.int64)
        start = (tf.ones([], tf.int64), state, history, tf.zeros([games], tf.int32), zero, zero)
        return tf.while_loop(lambda t, *_: t <= count, frame, start)[-2:]

    return tuple(int(total) for total in run(tf.constant(frames, tf.int64)))


if __name__ == "__main__":
    cli.run(main)
