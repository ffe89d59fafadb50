"""Put a run's best agent into the package: `python -m benchmarks.package_agent RUN_DIR`.

Writes `tfdqn/pretrained/<game>/`: `config.toml`, `model.keras` without the optimizer's state, and
`training.json`, which tells how the agent came about and what it scores. Where a run began from another's agent
(`--init-from`), the runs before it are told of, too, from the first on.
"""

from __future__ import annotations

import dataclasses
import json
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tfdqn
from benchmarks.learning import curve
from tfdqn import checkpoints, cli, presets, runs
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
    told = history(run_dir)
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
    runs.write_config(dataclasses.replace(config, init_from=""), folder)
    agent.copy_to_target()  # only the online network plays; who trains it on begins with a fresh copy
    runs.save_agent(agent, folder / runs.BEST_MODEL)
    repack(folder / runs.BEST_MODEL)
    *before, last = told
    facts = {
        "game": config.env,
        "game_version": env.version,
        **checkpoints.versions(),
        "date": time.strftime("%Y-%m-%d"),
        "score": {**scores.summary(), "reached_the_best": float((scores.scores >= env.best_score).mean())},
        **last,
        "before": before,
    }
    text = json.dumps(facts, indent=1) + "\n"
    runs.write_atomically(folder / "training.json", lambda temporary: temporary.write_text(text))
    cli.say(f"{folder}: {facts['score']} (tfdqn {tfdqn.__version__})")
    return 0


def repack(model: Path) -> None:
    """Compress a Keras file, which holds its parts as they are; the target network's equal half then takes no room."""

    def write(temporary: Path) -> None:
        with zipfile.ZipFile(model) as old, zipfile.ZipFile(temporary, "w", zipfile.ZIP_LZMA) as new:
            for part in old.infolist():
                new.writestr(part, old.read(part), zipfile.ZIP_LZMA)

    runs.write_atomically(model, write)


def history(run_dir: Path) -> list[dict[str, Any]]:
    """How a run's agent was trained: command, last evaluation and curve of every run that led to it, the first first.

    Raises:
      UserError: the folder of one of them is gone.
    """
    papers = run_dir / "training.json"
    if papers.is_file():  # an agent of the package
        facts = json.loads(papers.read_text())
        return [*facts.get("before", []), {key: facts[key] for key in ("command", "trained", "curve")}]
    config = runs.read_config(run_dir)
    before = history(Path(config.init_from)) if config.init_from else []
    # With all that the preset sets today: the command is to mean the same when the preset has changed.
    preset = configuration.resolve({"env": config.env, "preset": config.preset})
    named = presets.PRESETS[config.env, config.preset]
    fields = configuration.plain(config).items()
    given = {name: value for name, value in fields if name in named or value != getattr(preset, name)}
    if before:
        given["init_from"] = f"RUN{len(before)}"  # where that run lay is nobody's business
    evaluations = curve(run_dir)
    command = f"python -m tfdqn.train --env {config.env} --preset {config.preset}{flags_of(given)}"
    return [*before, {"command": command, "trained": evaluations[-1] if evaluations else {}, "curve": evaluations}]


def flags_of(given: dict) -> str:
    """Command line flags for chosen fields."""
    parts = []
    for name, value in given.items():
        flag = name.replace("_", "-")
        parts.append(f" --{'' if value else 'no-'}{flag}" if isinstance(value, bool) else f" --{flag} {value}")
    return "".join(parts)


if __name__ == "__main__":
    cli.run(main)
