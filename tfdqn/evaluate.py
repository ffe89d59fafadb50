"""Evaluate a trained agent: `python -m tfdqn.evaluate RUN_DIR`."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path

import tfdqn
from tfdqn import cli, runs
from tfdqn.errors import UserError


def parser() -> cli.Parser:
    parser = cli.Parser(prog="python -m tfdqn.evaluate", description="Play whole episodes with a trained agent.")
    parser.add_argument("run_dir", help="folder of a run")
    parser.add_argument("--model", choices=["best", "final"], default="best", help="which of the run's agents plays")
    parser.add_argument("--episodes", type=cli.converter("--episodes", int), default=256, help="episodes to play")
    parser.add_argument("--seed", type=cli.converter("--seed", int), default=0, help="seed of the games' draws")
    parser.add_argument("--epsilon", type=cli.converter("--epsilon", float), default=0.0, help="random actions")
    parser.add_argument("--device", choices=["auto", "cpu", "gpu"], default="auto", help="where to play")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse(argv)
    if not 1 <= arguments.episodes <= 1_000_000:
        raise UserError(f"--episodes {arguments.episodes}: must be between 1 and 1000000; the default is 256")
    if not 0 <= arguments.epsilon <= 1:
        raise UserError(f"--epsilon {arguments.epsilon}: must be between 0 and 1; the default is 0")
    if not 0 <= arguments.seed < 2**31:
        raise UserError(f"--seed {arguments.seed}: must be between 0 and {2**31 - 1}; the default is 0")
    run_dir = Path(arguments.run_dir)
    config = runs.read_config(run_dir)
    device = cli.choose_device(arguments.device)

    from tfdqn.envs import make
    from tfdqn.evaluation import Evaluator
    from tfdqn.training import build_agent

    config = dataclasses.replace(config, jit=True, eager=False)
    env = make(config.env, config.downsample)
    agent = build_agent(config, env)
    runs.load_weights(agent, run_dir / (runs.BEST_MODEL if arguments.model == "best" else runs.FINAL_MODEL))
    scores = Evaluator(config, env, agent, device).evaluate(
        arguments.episodes, arguments.seed, epsilon=arguments.epsilon
    )
    summary = scores.summary()
    cli.say(
        f"{config.env}: mean score {summary['score_mean']:.2f} over {summary['episodes']} episodes (std "
        f"{summary['score_std']:.2f}, median {summary['score_median']:g}, min {summary['score_min']:g}, max "
        f"{summary['score_max']:g})"
    )
    if arguments.json:
        seconds = round(time.monotonic() - tfdqn.PROCESS_START_SECONDS, 3)
        print(json.dumps({"env": config.env, "device": device, "wall_seconds": seconds, **summary}))
    return 0


if __name__ == "__main__":
    cli.run(main)
