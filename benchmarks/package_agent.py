"""Put a run's best agent into the package: `python -m benchmarks.package_agent RUN_DIR`.

Writes `tfdqn/pretrained/<game>/`: `config.toml`, `model.keras` without the optimizer's state, and
`training.json`, which tells how the agent came about and what it scores. Where a run began from another's agent
(`--init-from`), the runs before it are told of, too, from the first on.

Of several runs it makes one agent whose members (`--members`) are theirs: networks that learnt apart err apart, and the
mean of their values errs less. Matrices of weights are rounded (see `rounded`) before the agent is scored.
"""

from __future__ import annotations

import dataclasses
import json
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import tfdqn
from benchmarks.learning import curve
from tfdqn import checkpoints, cli, presets, runs
from tfdqn import config as configuration
from tfdqn.errors import UserError

EPISODES = 1_000
STEPS = 16  # of the grid that a matrix is rounded to, in its standard deviation: a weight takes 1 byte, not 3.7
NEVER = -30.0  # logit of an atom that a member does not have: e**-30 adds nothing to its probabilities


def parser() -> cli.Parser:
    parser = cli.Parser(prog="python -m benchmarks.package_agent", description="Put a run's best agent into tfdqn.")
    parser.add_argument("run_dirs", nargs="+", metavar="run_dir", help="folder of a run; of several: the members")
    parser.add_argument("--model", choices=list(runs.MODELS), default="best", help="which of the run's agents")
    parser.add_argument("--episodes", type=cli.converter("--episodes", int), default=EPISODES, help="to score it by")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse(argv)
    if not 1 <= arguments.episodes <= 1_000_000:
        raise UserError(f"--episodes {arguments.episodes}: must be between 1 and 1000000; the default is {EPISODES}")
    folders = [Path(run_dir) for run_dir in arguments.run_dirs]
    configs = [runs.read_config(folder) for folder in folders]
    config = joined_config(configs)
    told = [history(folder) for folder in folders]
    device = cli.choose_device("cpu")

    from tfdqn.envs import make
    from tfdqn.evaluation import Evaluator
    from tfdqn.training import build_agent

    env = make(config.env, config.downsample)
    agents = [build_agent(each, env) for each in configs]
    for each, folder in zip(agents, folders, strict=True):
        runs.load_weights(each, folder / runs.MODELS[arguments.model])
    agent = build_agent(config, env)
    join(list(zip(configs, agents, strict=True)), config, agent)
    agent.online.set_weights([rounded(weights) for weights in agent.online.get_weights()])
    scores = Evaluator(config, env, agent, device).evaluate(arguments.episodes)
    folder = runs.PRETRAINED / config.env
    folder.mkdir(parents=True, exist_ok=True)
    # Where it was trained and on how many threads is told in its papers; it plays as its game's preset does.
    machine = {"device": "auto", "threads": configuration.resolve({"env": config.env, "preset": config.preset}).threads}
    runs.write_config(dataclasses.replace(config, init_from="", **machine), folder)
    # Only the online network plays, and who trains it on begins with a fresh copy: zeros take no room.
    agent.target.set_weights([np.zeros_like(weights) for weights in agent.target.get_weights()])
    runs.save_agent(agent, folder / runs.BEST_MODEL)
    repack(folder / runs.BEST_MODEL)
    first, *others = [{**last, "before": before} for *before, last in told]
    facts = {
        "game": config.env,
        "game_version": env.version,
        **checkpoints.versions(),
        "date": time.strftime("%Y-%m-%d"),
        "score": {**scores.summary(), "reached_the_best": float((scores.scores >= env.best_score).mean())},
        **first,
        # Of a packaged agent that is packaged again, its own others come first.
        "beside": [*first.get("beside", []), *others],
    }
    text = json.dumps(facts, indent=1) + "\n"
    runs.write_atomically(folder / "training.json", lambda temporary: temporary.write_text(text))
    cli.say(f"{folder}: {facts['score']} (tfdqn {tfdqn.__version__})")
    return 0


def joined_config(configs: Sequence[configuration.Config]) -> configuration.Config:
    """The configuration of an agent whose members are those of several: the first's, but for members and atoms.

    Raises:
      UserError: they are not of one kind.
    """
    first = configs[0]
    for other in configs[1:]:
        names = set(runs.differences(first, other)) - {"members", "atoms"}
        # Nor is one screen or one action the other's:
        names |= {name for name in ("frame_stride", "action_repeat") if getattr(first, name) != getattr(other, name)}
        if names:
            name = min(names)
            raise UserError(
                f"one agent's {name} is {getattr(first, name)}, another's {getattr(other, name)}: they cannot be one's "
                "members"
            )
    atoms = max(config.atoms for config in configs)
    for config in configs:
        if first.head == "categorical" and (atoms - 1) % (config.atoms - 1):
            raise UserError(f"one agent has {atoms} atoms, and the {config.atoms} of another are not among them")
    return dataclasses.replace(first, members=sum(config.members for config in configs), atoms=atoms)


def join(agents: Sequence[tuple[configuration.Config, Any]], config: configuration.Config, joined: Any) -> None:
    """Give the networks of agents to the members of `joined`, in order; `config` is `joined_config` of theirs."""
    parts = [(theirs.atoms, part) for theirs, agent in agents for part in members(agent.online)]
    for member, (atoms, part) in zip(members(joined.online), parts, strict=True):
        for variable, given in zip(member.variables, part.variables, strict=True):
            weights = given.numpy()
            if weights.shape != variable.shape:  # of the last layers, which give numbers of atoms
                # A dueling head adds the value's logits to every action's: there they are ruled out once.
                rules_out = weights.ndim == 1 and (not config.dueling or len(weights) == atoms)
                weights = spread(weights, atoms, config.atoms, NEVER if rules_out else 0.0)
            variable.assign(weights)


def spread(weights: np.ndarray, atoms: int, more_atoms: int, fill: float) -> np.ndarray:
    """Numbers [..., n * atoms] among n * more_atoms, each at the atom of the same return, and `fill` elsewhere."""
    groups = weights.reshape(*weights.shape[:-1], -1, atoms)
    result = np.full([*groups.shape[:-1], more_atoms], fill, np.float32)
    result[..., :: (more_atoms - 1) // (atoms - 1)] = groups
    return result.reshape(*weights.shape[:-1], -1)


def rounded(weights: np.ndarray) -> np.ndarray:
    """A matrix to multiples of the largest power of two that goes `STEPS` times into its standard deviation.

    What is no matrix, such as biases and the scales of normalisations, stays as it is: it takes little room.
    """
    deviation = weights.std()
    if weights.ndim < 2 or not deviation:
        return weights
    step = np.float32(2.0 ** np.floor(np.log2(deviation / STEPS)))
    return np.round(weights / step) * step


def members(network: Any) -> list[Any]:
    """The networks that stand side by side in one, which may be one alone."""
    return [layer for layer in network.layers if hasattr(layer, "layers")] or [network]


def repack(model: Path) -> None:
    """Compress a Keras file, which holds its parts as they are."""

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
        last = {key: facts[key] for key in ("command", "trained", "curve", "beside") if key in facts}
        return [*facts.get("before", []), last]
    config = runs.read_config(run_dir)
    before = history(Path(config.init_from)) if config.init_from else []
    # With all that the preset sets today: the command is to mean the same when the preset has changed.
    preset = configuration.resolve({"env": config.env, "preset": config.preset})
    named = presets.PRESETS[config.env, config.preset]
    fields = configuration.plain(config).items()
    given = {name: value for name, value in fields if name in named or value != getattr(preset, name) or name == "seed"}
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
