"""Watch a trained agent play in the terminal: `python -m tfdqn.watch RUN_DIR`."""

from __future__ import annotations

import collections
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tfdqn import cli
from tfdqn.errors import UserError
from tfdqn.runs import models, named_agent, run_config
from tfdqn.runtime import devices
from tfdqn.shown import screen as screens

if TYPE_CHECKING:
    from tfdqn.shown.games import AgentPlayer, OneGame

FASTEST, SLOWEST = 16.0, 1 / 16  # times the game's own speed
OVER_SECONDS = 1.5  # that the end of an episode stays
BAR_FRAMES = 60  # whose least and largest action value the bars go from and to
PAUSE_SECONDS = 1.0  # between looks at the terminal's size while nothing happens


def parser() -> cli.Parser:
    parser = cli.Parser(
        prog="python -m tfdqn.watch", description="Watch a trained agent play in the terminal, with its action values."
    )
    named_agent.add_agent_arguments(parser)
    named_agent.add_code_arguments(parser)
    parser.add_argument("--seed", type=cli.converter("--seed", int), default=0, help="seed of the game's draws")
    parser.add_argument(
        "--speed", type=cli.converter("--speed", float), default=1.0, help="times the game's own speed, to begin with"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse(argv)
    if not 0 <= arguments.seed < 2**31:
        raise UserError(f"--seed {arguments.seed}: must be between 0 and {2**31 - 1}; the default is 0")
    if not SLOWEST <= arguments.speed <= FASTEST:
        raise UserError(f"--speed {arguments.speed}: must be between {SLOWEST} and {FASTEST:g}; the default is 1")
    folder = named_agent.agent_folder(arguments)
    config = run_config.read_config(folder, named_agent.named_code(arguments)).replace(convolution="auto")
    screens.require()
    device = devices.choose_device("cpu")
    cli.say("loading ...")

    import tensorflow as tf

    from tfdqn.envs import make_for
    from tfdqn.learners import build_agent
    from tfdqn.shown import games

    env = make_for(config)
    agent = build_agent(config, env)
    models.load_weights(agent, folder / models.MODELS[arguments.model])
    with tf.device(device):
        game, player = games.OneGame(config, env, arguments.seed), games.AgentPlayer(config, agent)
        try:
            scores = _watch(
                game, player, config.env if arguments.pretrained else f"{config.env}  {folder.name}", arguments.speed
            )
        finally:
            game.close()
    if scores:
        cli.say(f"{len(scores)} episodes watched: mean score {sum(scores) / len(scores):.2f}")
    return 0


def _watch(game: OneGame, player: AgentPlayer, name: str, speed: float) -> list[float]:
    """Show episodes until it is enough; the scores of those that ended."""
    import numpy as np

    from tfdqn.shown import stage

    env, scores, episode, is_paused = game.env, [], 0, False
    player.begin(game)
    player.play(game)  # compiles, while the terminal still shows that it is loading
    game.begin(0)
    player.begin(game)
    clock, seen = screens.Clock(), collections.deque(maxlen=BAR_FRAMES)
    with screens.Screen() as screen:
        while True:
            mean = f"  mean of {len(scores)}: {sum(scores) / len(scores):,.1f}" if scores else ""
            title = f"{name}  episode {episode + 1}  score {game.score:,.6g}{mean}"
            words = [f"frame {game.frames:,}", f"speed {speed:g}{', paused' if is_paused else ''}", ""]
            if game.frames:
                seen.append(player.values)
                bars = stage.value_lines(env.action_names, player.values, player.action, np.min(seen), np.max(seen))
                words += ["action values", *bars]
            if game.is_over:
                words += ["", "the episode is over"]
            stage.show(screen, title, game.picture(), words, "q quit  space pause  + - speed  n next episode")
            pressed = screen.wait(PAUSE_SECONDS if is_paused else clock.left)
            if "q" in pressed or "escape" in pressed:
                return scores
            if "space" in pressed:
                is_paused = not is_paused
            if "+" in pressed or "=" in pressed:
                speed = min(speed * 2, FASTEST)
            if "-" in pressed:
                speed = max(speed / 2, SLOWEST)
            if "n" not in pressed and (is_paused or clock.left):
                continue
            if game.is_over or "n" in pressed:
                scores += [game.score] if game.is_over else []
                episode += 1
                seen.clear()
                game.begin(episode)
                player.begin(game)
            else:
                player.play(game)
            clock.begin(OVER_SECONDS if game.is_over else 1 / (env.frames_per_second * speed))


if __name__ == "__main__":
    cli.run(main)
