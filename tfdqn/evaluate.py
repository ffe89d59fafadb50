"""Evaluate a trained agent: `python -m tfdqn.evaluate RUN_DIR`."""

from __future__ import annotations

import functools
import importlib
import json
import time
from collections.abc import Sequence
from typing import Any

import tfdqn
from tfdqn import cli
from tfdqn import config as configuration
from tfdqn.envs import registry
from tfdqn.errors import UserError
from tfdqn.runs import models, named_agent, run_config
from tfdqn.runtime import devices
from tfdqn.settings import check_value

EPISODES, PLANNER_EPISODES = 256, 8


def parser() -> cli.Parser:
    parser = cli.Parser(prog="python -m tfdqn.evaluate", description="Play whole episodes with a trained agent.")
    named_agent.add_agent_arguments(parser)
    parser.add_argument(
        "--player",
        choices=["agent", "planner"],
        default="agent",
        help="planner: a scripted player that looks ahead, of games that have one (cave)",
    )
    named_agent.add_code_arguments(parser)
    parser.add_argument(
        "--episodes",
        type=cli.converter("--episodes", int),
        default=None,
        help=f"episodes to play ({EPISODES}, or {PLANNER_EPISODES} of the planner, which is slow)",
    )
    parser.add_argument("--seed", type=cli.converter("--seed", int), default=0, help="seed of the games' draws")
    parser.add_argument("--epsilon", type=cli.converter("--epsilon", float), default=0.0, help="random actions")
    parser.add_argument("--device", default="auto", help="where to play: auto, cpu, gpu or, of several, gpu:1")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def main(argv: Sequence[str] | None = None, start_seconds: float | None = None) -> int:
    """Play, and return the exit code; the arguments are those of `tfdqn.train.main`."""
    start_seconds = time.monotonic() if start_seconds is None else start_seconds
    arguments = parser().parse(argv)
    if arguments.episodes is None:
        arguments.episodes = PLANNER_EPISODES if arguments.player == "planner" else EPISODES
    if not 1 <= arguments.episodes <= 1_000_000:
        raise UserError(f"--episodes {arguments.episodes}: must be between 1 and 1000000; the default is {EPISODES}")
    if not 0 <= arguments.epsilon <= 1:
        raise UserError(f"--epsilon {arguments.epsilon}: must be between 0 and 1; the default is 0")
    if not 0 <= arguments.seed < 2**31:
        raise UserError(f"--seed {arguments.seed}: must be between 0 and {2**31 - 1}; the default is 0")
    check_value(configuration.FIELDS["device"], arguments.device)
    env, device, summary = _planner_scores(arguments) if arguments.player == "planner" else _agent_scores(arguments)
    cli.say(
        f"{env}: mean score {summary['score_mean']:.2f} over {summary['episodes']} episodes (std "
        f"{summary['score_std']:.2f}, median {summary['score_median']:g}, min {summary['score_min']:g}, max "
        f"{summary['score_max']:g})"
    )
    if arguments.json:
        seconds = round(time.monotonic() - start_seconds, 3)
        cli.print_result(json.dumps({"env": env, "device": device, "wall_seconds": seconds, **summary}) + "\n")
    return 0


def _agent_scores(arguments: Any) -> tuple[str, str, dict[str, float]]:
    folder = named_agent.agent_folder(arguments)
    # Compiled, and as it suits this device; but as exactly as it was trained and scored.
    config = run_config.read_config(folder, named_agent.named_code(arguments))
    together = min(config.eval_episodes, arguments.episodes)  # nobody waits for episodes that are not asked for
    config = config.replace(jit=True, eager=False, convolution="auto", eval_episodes=together)
    device = devices.choose_device(arguments.device, config.deterministic, config.threads)

    from tfdqn.envs import make_for
    from tfdqn.learners import build_agent
    from tfdqn.programs import evaluator_of

    env = make_for(config)
    agent = build_agent(config, env)
    models.load_weights(agent, folder / models.MODELS[arguments.model])
    scores = evaluator_of(env)(config, env, agent, device).evaluate(
        arguments.episodes, arguments.seed, epsilon=arguments.epsilon
    )
    return config.env, device, scores.summary()


def _planner_scores(arguments: Any) -> tuple[str, str, dict[str, float]]:
    if arguments.run_dir is not None or arguments.pretrained is not None:
        raise UserError("--player planner: plays by itself; leave out the run's folder and --pretrained")
    planned = [game.name for game in registry.games() if game.planner]
    if arguments.env not in planned:
        hint = " or ".join(f"--env {name}" for name in planned)
        raise UserError(f"--player planner: plays {', '.join(planned)} only, not {arguments.env}; use {hint}")
    if arguments.episodes > 10_000:
        raise UserError(f"--episodes {arguments.episodes}: the planner plays at most 10000 at a time; use 8")
    if devices.is_gpu(arguments.device) or arguments.model != "best":
        raise UserError("--player planner: runs on the CPU and has no model; leave out --device and --model")
    if arguments.epsilon:
        raise UserError(f"--epsilon {arguments.epsilon}: the planner plays no random actions; leave it out")
    device = devices.choose_device("cpu")

    from tfdqn.programs.evaluation import summary_of

    planner = importlib.import_module(registry.entry(arguments.env).planner)
    scores = planner.play(arguments.episodes, arguments.seed, progress=cli.say)
    return arguments.env, device, summary_of(scores)


if __name__ == "__main__":
    cli.run(functools.partial(main, start_seconds=tfdqn.PROCESS_START_SECONDS))
