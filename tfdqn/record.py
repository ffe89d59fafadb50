"""Film a trained agent: `python -m tfdqn.record RUN_DIR --out cave.gif`, or an MP4."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tfdqn import cli, files
from tfdqn.errors import EXIT_IO, UserError
from tfdqn.runs import models, named_agent, run_config
from tfdqn.runtime import devices

if TYPE_CHECKING:
    from tfdqn.config import Config
    from tfdqn.envs import Environment
    from tfdqn.learners.base import Agent


KINDS = (".gif", ".mp4")
LARGEST_GRID = 8  # episodes to a side


def parser() -> cli.Parser:
    parser = cli.Parser(prog="python -m tfdqn.record", description="Film episodes of a trained agent as a GIF or MP4.")
    named_agent.add_agent_arguments(parser)
    named_agent.add_code_arguments(parser)
    parser.add_argument(
        "--out", type=cli.path("--out"), default="episode.gif", help="file to write, ending in .gif or .mp4"
    )
    parser.add_argument("--seed", type=cli.converter("--seed", int), default=0, help="seed of the game's draws")
    parser.add_argument("--start", type=cli.converter("--start", int), default=0, help="first frame to keep")
    parser.add_argument("--frames", type=cli.converter("--frames", int), default=600, help="frames to keep at most")
    parser.add_argument("--scale", type=cli.converter("--scale", int), default=4, help="screen pixels a game pixel")
    parser.add_argument("--grid", default="1x1", help="episodes side by side, rows x columns, such as 3x3")
    parser.add_argument("--overlay", action="store_true", help="write score and action values below the picture")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse(argv)
    for name, low, high in (("frames", 1, 100_000), ("scale", 1, 64), ("start", 0, 100_000), ("seed", 0, 2**31 - 1)):
        if not low <= getattr(arguments, name) <= high:
            raise UserError(f"--{name} {getattr(arguments, name)}: must be between {low} and {high}")
    rows, columns = _grid(arguments.grid)
    out = _checked_out(arguments.out)
    folder = named_agent.agent_folder(arguments)
    config = run_config.read_config(folder, named_agent.named_code(arguments)).replace(
        convolution="auto"
    )  # as it suits this device
    device = devices.choose_device("cpu")

    import tensorflow as tf

    from tfdqn.envs import make_for
    from tfdqn.learners import build_agent
    from tfdqn.shown import film as films

    env = make_for(config)
    agent = build_agent(config, env)
    models.load_weights(agent, folder / models.MODELS[arguments.model])
    first, last = arguments.start, arguments.start + arguments.frames
    is_plain = rows * columns == 1 and not arguments.overlay and out.suffix == ".gif"
    with tf.device(device):
        if is_plain:
            frames = film(config, env, agent, arguments.seed, last)[first:]
        else:
            sheet = films.Sheet(env.action_names, rows, columns, arguments.scale, arguments.overlay)
            shots = films.shots(config, env, agent, arguments.seed, rows * columns)
            frames = [sheet.draw(each) for each in itertools.islice(shots, first, last)]
    if not len(frames):
        raise UserError(f"--start {arguments.start}: the episode ended before that frame; use 0")
    speed = env.frames_per_second

    def write(path: Path) -> None:
        if out.suffix == ".mp4":
            films.save_mp4(path, frames, speed)
        else:
            save_gif(path, env, frames, arguments.scale if is_plain else 1)

    try:
        files.write_atomically(out, write)
    except OSError as error:
        raise UserError(f"--out {arguments.out}: {error.strerror or error}", EXIT_IO) from None
    cli.say(f"{out}: {len(frames)} frames, {out.stat().st_size / 1e6:.2f} MB")
    return 0


def _grid(text: str) -> tuple[int, int]:
    """Rows and columns of "3x3"."""
    found = re.fullmatch(r"(\d+)x(\d+)", text)
    sizes = [int(size) for size in found.groups()] if found else [0]
    if not all(1 <= size <= LARGEST_GRID for size in sizes):
        raise UserError(f"--grid {text}: must be rows x columns, each from 1 to {LARGEST_GRID}, such as 3x3")
    return sizes[0], sizes[1]


def _checked_out(text: str) -> Path:
    """Where the film goes, if one can be made there."""
    out = Path(text)
    if out.suffix not in KINDS:
        raise UserError(f"--out {text}: must end in {' or '.join(KINDS)}")
    if not out.parent.is_dir():
        raise UserError(f"--out {text}: there is no folder {out.parent}")
    if out.suffix == ".mp4":
        try:
            import imageio_ffmpeg

            imageio_ffmpeg.get_ffmpeg_exe()
        except (ImportError, RuntimeError):  # no package, or none of its own for this machine
            raise UserError(
                f'--out {text}: imageio-ffmpeg is not installed; run python -m pip install "tfdqn[mp4]", or name a .gif'
            ) from None
    return out


def film(config: Config, env: Environment, agent: Agent, seed: int, max_frames: int) -> np.ndarray:
    """The pictures of one greedy episode, every frame of held actions too, T at most `max_frames`.

    Returns:
      [T, H, W] uint8, levels of the game's palette, where that is how it shows itself; else [T, H, W, 3] uint8.

    Raises:
      UserError: the game has no pictures.
    """
    from tfdqn.shown import film as films

    shots = films.shots(config, env, agent, seed, levels=env.shows_palette and not env.steps_on_host)
    return np.stack([shot.picture for (shot,) in itertools.islice(shots, max_frames)])


def save_gif(path: Path, env: Environment, frames: Sequence[np.ndarray], scale: int) -> None:
    """Write the pictures of `film` as a GIF in the game's colours, at the game's speed."""
    from PIL import Image

    if frames[0].ndim == 3:
        images = [Image.fromarray(frame.repeat(scale, 0).repeat(scale, 1), mode="RGB") for frame in frames]
    else:
        levels, numbers = np.unique(np.stack(frames), return_inverse=True)  # few colours: a file of half the size
        palette = [channel for level in levels for channel in env.palette.get(int(level), (0, 0, 0))]
        images = []
        for frame in numbers.reshape(np.shape(frames)).astype(np.uint8):
            image = Image.fromarray(frame.repeat(scale, 0).repeat(scale, 1), mode="P")
            image.putpalette(palette)
            images.append(image)
    duration = round(100 / env.frames_per_second) * 10  # a GIF counts time in hundredths of a second
    images[0].save(path, save_all=True, append_images=images[1:], duration=max(duration, 20), loop=0, optimize=False)


if __name__ == "__main__":
    cli.run(main)
