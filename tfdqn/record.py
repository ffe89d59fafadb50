"""Film a trained agent: `python -m tfdqn.record RUN_DIR --out cave.gif`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tfdqn import cli
from tfdqn.errors import EXIT_IO, UserError
from tfdqn.runs import models, named_agent, run_config
from tfdqn.runtime import devices

if TYPE_CHECKING:
    from tfdqn.config import Config
    from tfdqn.envs import Environment
    from tfdqn.learners.base import Agent


def parser() -> cli.Parser:
    parser = cli.Parser(prog="python -m tfdqn.record", description="Film one episode of a trained agent as a GIF.")
    named_agent.add_agent_arguments(parser)
    named_agent.add_code_arguments(parser)
    parser.add_argument("--out", type=cli.path("--out"), default="episode.gif", help="file to write, ending in .gif")
    parser.add_argument("--seed", type=cli.converter("--seed", int), default=0, help="seed of the game's draws")
    parser.add_argument("--start", type=cli.converter("--start", int), default=0, help="first frame to keep")
    parser.add_argument("--frames", type=cli.converter("--frames", int), default=600, help="frames to keep at most")
    parser.add_argument("--scale", type=cli.converter("--scale", int), default=4, help="screen pixels a game pixel")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse(argv)
    for name, low, high in (("frames", 1, 100_000), ("scale", 1, 64), ("start", 0, 100_000), ("seed", 0, 2**31 - 1)):
        if not low <= getattr(arguments, name) <= high:
            raise UserError(f"--{name} {getattr(arguments, name)}: must be between {low} and {high}")
    out = Path(arguments.out)
    if out.suffix != ".gif":
        raise UserError(f"--out {arguments.out}: must end in .gif")
    if not out.parent.is_dir():
        raise UserError(f"--out {arguments.out}: there is no folder {out.parent}")
    folder = named_agent.agent_folder(arguments)
    config = run_config.read_config(folder, named_agent.named_code(arguments)).replace(
        convolution="auto"
    )  # as it suits this device
    device = devices.choose_device("cpu")

    import tensorflow as tf

    from tfdqn.envs import make_for
    from tfdqn.learners import build_agent

    env = make_for(config)
    agent = build_agent(config, env)
    models.load_weights(agent, folder / models.MODELS[arguments.model])
    with tf.device(device):
        frames = film(config, env, agent, arguments.seed, arguments.start + arguments.frames)[arguments.start :]
    if not len(frames):
        raise UserError(f"--start {arguments.start}: the episode ended before that frame; use 0")
    try:
        save_gif(out, env, frames, arguments.scale)
    except OSError as error:
        raise UserError(f"--out {arguments.out}: {error.strerror or error}", EXIT_IO) from None
    cli.say(f"{out}: {len(frames)} frames, {out.stat().st_size / 1e6:.2f} MB")
    return 0


def film(config: Config, env: Environment, agent: Agent, seed: int, max_frames: int) -> np.ndarray:
    """The pictures of one greedy episode, every frame of held actions too, T at most `max_frames`.

    Returns:
      [T, H, W] uint8, levels of the game's palette, where that is how it shows itself; else [T, H, W, 3] uint8.

    Raises:
      UserError: the game has no pictures.
    """
    import tensorflow as tf

    from tfdqn import seeds
    from tfdqn.envs.rollout import push_frame, stack_frames
    from tfdqn.runtime import compiled

    if env.steps_on_host:
        from tfdqn.programs import host

        return host.film(config, env, agent, seed, max_frames)

    @compiled.xla
    def act(history, agent_state, legal):
        return agent.act(stack_frames(history, config.frame_stride), agent_state, 0.0, [0, 0], legal)

    stream = seeds.stream(seed, "record")
    state = env.reset(env.sample_noise(seeds.at(stream, 0), 1))
    frame = env.observe(state)
    history = tf.repeat(frame[tf.newaxis], (config.frame_stack - 1) * config.frame_stride + 1, axis=0)

    def picture(state, observation):
        drawn = observation if env.shows_palette else env.render(state)
        if drawn is None:
            raise UserError(f"{env.name} has no pictures: give it a method render(state) -> [N, H, W, 3] uint8")
        return drawn.numpy()[0]

    screens, action, agent_state, paid = [picture(state, frame)], None, agent.initial_state(1), tf.zeros([1])
    while len(screens) < max_frames:
        decision_frame = (len(screens) - 1) % config.action_repeat
        if decision_frame == 0:
            action, agent_state = act(history, agent_state, env.legal_actions(state))
            paid = tf.zeros([1])
        noise = env.sample_noise(seeds.at(stream, len(screens)), 1)
        state, timestep = env.compiled_step(state, action, noise)
        screens.append(picture(state, timestep.observation))
        paid += timestep.reward
        if decision_frame == config.action_repeat - 1:
            agent_state = agent.rewarded(agent_state, paid)
            history = push_frame(history, timestep.observation, tf.zeros([1], tf.bool))
        if bool(timestep.termination[0] | timestep.truncation[0]):
            break
    return np.stack(screens)


def save_gif(path: Path, env: Environment, frames: np.ndarray, scale: int) -> None:
    """Write the pictures of `film` as a GIF in the game's colours, at the game's speed."""
    from PIL import Image

    palette = [channel for level in range(256) for channel in env.palette.get(level, (0, 0, 0))]
    images = []
    for frame in frames:
        large = frame.repeat(scale, 0).repeat(scale, 1)
        if frame.ndim == 3:
            images.append(Image.fromarray(large, mode="RGB"))
            continue
        image = Image.fromarray(large, mode="P")
        image.putpalette(palette)
        images.append(image)
    duration = round(100 / env.frames_per_second) * 10  # a GIF counts time in hundredths of a second
    images[0].save(path, save_all=True, append_images=images[1:], duration=max(duration, 20), loop=0, optimize=False)


if __name__ == "__main__":
    cli.run(main)
