"""How the cave's agent dies: `python -m benchmarks.deaths --pretrained cave --out deaths.png`.

Plays greedy episodes and looks back from each crash: what was hit, how wide the tunnel was, and in which frame the
planner (`tfdqn.envs.cave.planner`), which counts the ways out, could have saved the player for the last time. A
*graze* is a crash that could still be avoided in one of the last frames.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfdqn import cli
from tfdqn.config import Config
from tfdqn.errors import EXIT_IO, UserError
from tfdqn.runs import models, named_agent, run_config
from tfdqn.runtime import devices

LOOK_BACK = 40  # frames before a crash that are looked at
GRAZE_FRAMES = 3  # a crash that could be avoided so late is a graze
SHOWN = 8  # deaths in the picture
MOMENTS = (20, 10, 5, 2, 0)  # frames before the crash that it shows
SCALE, MARGIN = 3, 14  # screen pixels a game pixel; room for a line of text


@dataclasses.dataclass(frozen=True)
class Death:
    """A crash, and the states that led to it."""

    frame: int  # of the episode
    cause: str  # "wall" or "block"
    opening: float  # rows between the walls where the player is
    saveable: int  # frames before the crash in which a way out existed for the last time; LOOK_BACK + 1: never seen
    screens: np.ndarray  # [len(MOMENTS), H, W] uint8

    @property
    def kind(self) -> str:
        return "graze" if self.saveable <= GRAZE_FRAMES else "caught"


def parser() -> cli.Parser:
    parser = cli.Parser(prog="python -m benchmarks.deaths", description="Show how the cave's agent dies.")
    named_agent.add_agent_arguments(parser)
    parser.add_argument("--episodes", type=cli.converter("--episodes", int), default=64, help="games, played at once")
    parser.add_argument("--seed", type=cli.converter("--seed", int), default=0, help="seed of the games' draws")
    parser.add_argument("--out", type=cli.path("--out"), default="deaths.png", help="file to write, ending in .png")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse(argv)
    if not 1 <= arguments.episodes <= 4096:
        raise UserError(f"--episodes {arguments.episodes}: must be between 1 and 4096; the default is 64")
    out = Path(arguments.out)
    if out.suffix != ".png" or not out.parent.is_dir():
        raise UserError(f"--out {arguments.out}: must be a file that ends in .png, in a folder that exists")
    folder, config = whole_cave_agent(arguments)
    devices.choose_device("cpu")
    deaths = play(folder, arguments.model, config, arguments.episodes, arguments.seed)
    if not deaths:
        cli.say(f"none of {arguments.episodes} games ended in a crash: nothing to show")
        return 0
    try:
        picture(deaths).quantize(64).save(out, optimize=True)  # a palette: half the size
    except OSError as error:
        raise UserError(f"--out {arguments.out}: {error.strerror or error}", EXIT_IO) from None
    found = summary(deaths, arguments.episodes)
    cli.say(", ".join(f"{name} {value}" for name, value in found.items()) + f"; {out}")
    if arguments.json:
        print(json.dumps(found))
    return 0


def whole_cave_agent(arguments: argparse.Namespace) -> tuple[Path, Config]:
    """Folder and configuration of the chosen agent.

    Raises:
      UserError: it sees or plays something else.
    """
    folder = named_agent.agent_folder(arguments)
    config = run_config.read_config(folder)
    if config.env != "cave" or config.downsample != 1 or config.action_repeat != 1:
        raise UserError(f"{folder}: not an agent that plays every frame of the whole cave; try --pretrained cave")
    return folder, config


def play(folder: Path, model: str, config: Config, episodes: int, seed: int) -> list[Death]:
    """The crashes of so many games from standard starts, in the order in which they happened."""
    import tensorflow as tf

    from tfdqn import seeds
    from tfdqn.envs import make_for
    from tfdqn.envs.rollout import push_frame, stack_frames
    from tfdqn.learners import build_agent
    from tfdqn.runtime import compiled

    env = make_for(config)
    agent = build_agent(config, env)
    models.load_weights(agent, folder / models.MODELS[model])
    act = compiled.xla(lambda history: agent.act(stack_frames(history, config.frame_stride), (), 0.0, [0, 0])[0])
    stream = seeds.stream(seed, "record")
    state = env.compiled_reset(env.sample_noise(seeds.at(stream, 0), episodes))
    depth = (config.frame_stack - 1) * config.frame_stride + 1
    history = tf.tile(env.observe(state)[tf.newaxis], [depth, 1, 1, 1])
    past: collections.deque = collections.deque(maxlen=LOOK_BACK + 1)  # states before each of the last frames
    alive, deaths = np.ones(episodes, bool), []
    for t in range(1, env.time_limit + 1):
        past.append(tf.nest.map_structure(np.asarray, state))
        noise = env.sample_noise(seeds.at(stream, t), episodes)
        state, timestep = env.compiled_step(state, act(history), noise)
        history = push_frame(history, timestep.observation, tf.zeros([episodes], tf.bool))
        crashed = timestep.termination.numpy() & alive
        deaths += [look_back(env, state, past, i) for i in np.flatnonzero(crashed)]
        alive &= ~crashed
        if not alive.any():
            break
    return deaths


def look_back(env: Any, state: Any, past: Sequence[Any], player: int) -> Death:
    """What led to the crash that ended in `state`; `past` are the states before each of the last frames."""
    import tensorflow as tf

    from tfdqn.envs.cave import planner
    from tfdqn.envs.cave import rules as cave

    def of_player(structure):
        return tf.nest.map_structure(lambda field: np.asarray(field)[player : player + 1], structure)

    last, before = of_player(state), [of_player(each) for each in past]
    saveable = LOOK_BACK + 1
    for frames, each in enumerate(reversed(before)):
        if planner.count_safe_plans(each).max() > 0:
            saveable = frames
            break
    made = last.time - (cave.SIZE - 1 - cave.PLAYER_COLUMN)
    screens = [env.observe(([*before, last])[-1 - min(moment, len(before))]).numpy()[0] for moment in MOMENTS]
    return Death(
        frame=int(last.time[0]),
        cause="wall" if cave.hits_wall(last).numpy()[0] else "block",
        opening=float(cave.opening(made).numpy()[0]) / 100 * cave.SIZE,
        saveable=saveable,
        screens=np.stack(screens),
    )


def summary(deaths: Sequence[Death], episodes: int) -> dict[str, Any]:
    """What the deaths have in common."""
    return {
        "games": episodes,
        "deaths": len(deaths),
        "by block": sum(death.cause == "block" for death in deaths),
        "by wall": sum(death.cause == "wall" for death in deaths),
        "in the narrowest tunnel": sum(death.opening < 14.5 for death in deaths),
        "grazes": sum(death.kind == "graze" for death in deaths),
        "median frame": float(np.median([death.frame for death in deaths])),
        "saveable until, median frames before": float(np.median([death.saveable for death in deaths])),
    }


def picture(deaths: Sequence[Death]) -> Any:
    """Some deaths, evenly spaced over their frames: one a row, `MOMENTS` before the crash from left to right."""
    from PIL import Image, ImageDraw

    from tfdqn.envs import make
    from tfdqn.runs.monitor import pictures_of

    ordered = sorted(deaths, key=lambda death: death.frame)
    chosen = [ordered[i] for i in np.linspace(0, len(ordered) - 1, min(SHOWN, len(ordered))).round().astype(int)]
    env = make("cave", super_resolution=True)  # its colours are all that there are
    size = env.observation_shape[0] * SCALE
    image = Image.new("RGB", (len(MOMENTS) * (size + 4) + 4, len(chosen) * (size + MARGIN + 4) + MARGIN), "white")
    draw = ImageDraw.Draw(image)
    for column, moment in enumerate(MOMENTS):
        draw.text((column * (size + 4) + 6, 1), f"{moment} frames before" if moment else "the crash", fill="black")
    for row, death in enumerate(chosen):
        top = row * (size + MARGIN + 4) + MARGIN
        last = f"{death.saveable} before" if death.saveable <= LOOK_BACK else "long before"
        text = (
            f"frame {death.frame}: {death.cause}, opening {death.opening:.1f} rows, last way out {last}, {death.kind}"
        )
        draw.text((6, top), text, fill="black")
        for column, screen in enumerate(death.screens):
            image.paste(
                Image.fromarray(pictures_of(env, screen[np.newaxis], SCALE)[0]), (column * (size + 4) + 4, top + MARGIN)
            )
    return image


if __name__ == "__main__":
    cli.run(main)
