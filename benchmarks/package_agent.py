"""Put a run's best agent into the package: `python -m benchmarks.package_agent RUN_DIR`.

Writes `tfdqn/pretrained/<game>/`: `config.toml`, `model.keras` without the optimizer's state, and
`training.json`, which tells how the agent came about and what it scores.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

import tfdqn
from benchmarks.learning import curve
from tfdqn import checkpoints, cli, runs
from tfdqn import config as configuration
from tfdqn.errors import UserError

EPISODES = 1_000


def parser() -> cli.Parser:
    parser = cli.Parser(prog="python -m benchmarks.package_agent", description="Put a run's best agent into tfdqn.")
    parser.add_argument("run_dir", help="folder of a run")
    parser.add_argument("--model", choices=list(runs.MODELS), default="best", help="which of the run's agents")
    parser.add_argument("--episodes", type=cli.converter("--episodes", int), default=EPISODES, help="to score it by")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse(argv)
    if not 1 <= arguments.episodes <= 1_000_000:
        raise UserError(f"--episodes {arguments.episodes}: must be between 1 and 1000000; the default is {EPISODES}")
    run_dir = Path(arguments.run_dir)
    config = runs.read_config(run_dir)
    if config.init_from:
        raise UserError(f"{run_dir}: began from another run's agent, which the package does not hold")
    device = cli.choose_device("cpu")

    from tfdqn.envs import make
    from tfdqn.evaluation import Evaluator
    from tfdqn.training import build_agent

    env = make(config.env, config.downsample)
    agent = build_agent(config, env)
    runs.load_weights(agent, run_dir / runs.MODELS[arguments.model])
    scores = Evaluator(config, env, agent, device).evaluate(arguments.episodes)
    folder = runs.PRETRAINED / config.env
    folder.mkdir(parents=True, exist_ok=True)
    runs.write_config(config, folder)
    agent.copy_to_target()  # only the online network plays; equal halves compress
    runs.save_agent(agent, folder / runs.BEST_MODEL)
    evaluations = curve(run_dir)
    given = {k: v for k, v in configuration.plain(config).items() if v != preset_value(config, k)}
    facts = {
        "game": config.env,
        "game_version": env.version,
        "command": f"python -m tfdqn.train --env {config.env} --preset {config.preset}{flags_of(given)}",
        **checkpoints.versions(),
        "date": time.strftime("%Y-%m-%d"),
        "trained": evaluations[-1] if evaluations else {},
        "score": {**scores.summary(), "reached_the_best": float((scores.scores >= env.best_score).mean())},
        "curve": evaluations,
    }
    text = json.dumps(facts, indent=1) + "\n"
    runs.write_atomically(folder / "training.json", lambda temporary: temporary.write_text(text))
    cli.say(f"{folder}: {facts['score']} (tfdqn {tfdqn.__version__})")
    return 0


def preset_value(config: configuration.Config, name: str):
    """What a field is in the configuration's preset."""
    return getattr(configuration.resolve({"env": config.env, "preset": config.preset}), name)


def flags_of(given: dict) -> str:
    """Command line flags for chosen fields."""
    parts = []
    for name, value in given.items():
        flag = name.replace("_", "-")
        parts.append(f" --{'' if value else 'no-'}{flag}" if isinstance(value, bool) else f" --{flag} {value}")
    return "".join(parts)


if __name__ == "__main__":
    cli.run(main)
