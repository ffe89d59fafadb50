"""Put a run's best agent into the package: `python -m benchmarks.package_agent RUN_DIR`.

Writes `tfdqn/pretrained/<game>/`: `config.toml`, `model.keras` without the optimizer's state, and
`training.json`, which tells what the agent scores and how it came about: the steps that led to it, in order, each with
its command. A step is a run, or this very command.

Of several runs it makes one agent whose members (`--members`) are theirs: networks that learnt apart err apart, and the
mean of their values errs less. Runs that began from one agent (`--init-from`) can be made into one network, whose
weights are the mean of theirs (`--average`; Wortsman et al. 2022, "Model soups"): it errs as little as the mean of
their values, and is as small and as quick as one of them. Matrices of weights are rounded (see `rounded`) before the
agent is scored, unless it is not put into the package (`--out`) but is to be trained on.
"""

from __future__ import annotations

import json
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import tfdqn
from benchmarks.learning import curve
from tfdqn import cli, files
from tfdqn import config as configuration
from tfdqn.envs import registry
from tfdqn.errors import UserError
from tfdqn.runs import checkpoints, donor, models, run_config
from tfdqn.runtime import devices

EPISODES = 1_000
STEPS = 64  # of the grid that a matrix is rounded to, in its standard deviation: a weight takes 1.2 bytes, not 3.7
PAPERS = "training.json"
NEVER = -30.0  # logit of an atom that a member does not have: e**-30 adds nothing to its probabilities


def parser() -> cli.Parser:
    parser = cli.Parser(prog="python -m benchmarks.package_agent", description="Put a run's best agent into tfdqn.")
    parser.add_argument(
        "run_dirs", nargs="+", metavar="run_dir", type=cli.path(""), help="folder of a run; of several: the members"
    )
    parser.add_argument("--average", action="store_true", help="one network, the mean of the weights of all")
    parser.add_argument("--out", type=cli.path("--out"), metavar="FOLDER", help="to begin runs from, not the package's")
    parser.add_argument("--model", choices=list(models.MODELS), default="best", help="which of the run's agents")
    parser.add_argument("--episodes", type=cli.converter("--episodes", int), default=EPISODES, help="to score it by")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse(argv)
    if not 1 <= arguments.episodes <= 1_000_000:
        raise UserError(f"--episodes {arguments.episodes}: must be between 1 and 1000000; the default is {EPISODES}")
    folders = [Path(run_dir) for run_dir in arguments.run_dirs]
    configs = [run_config.read_config(folder) for folder in folders]
    config = averaged_config(configs) if arguments.average else joined_config(configs)
    histories = [history(folder) for folder in folders]
    if arguments.average:
        check_kin(histories, folders)
    steps, names = merged(histories)
    arguments.out = Path(arguments.out) if arguments.out else None
    if arguments.out and arguments.out.exists():
        raise UserError(f"--out {arguments.out}: there is something there already; name a folder that is yet to be")
    device = devices.choose_device("cpu")

    from tfdqn.envs import make_for
    from tfdqn.learners import build_agent
    from tfdqn.programs.evaluation import Evaluator

    # Where it was trained, on how many threads and how exactly is told in its papers; it plays as the preset does.
    preset = configuration.resolve({"env": config.env, "preset": config.preset})
    machine = {"device": "auto", "convolution": "auto", "threads": preset.threads, "precision": preset.precision}
    config = config.replace(init_from="", **machine)
    env = make_for(config)
    agents = [build_agent(each, env) for each in configs]
    for each, folder in zip(agents, folders, strict=True):
        models.load_weights(each, folder / models.MODELS[arguments.model])
    agent = build_agent(config, env)
    if arguments.average:
        average([each.online for each in agents], agent.online)
    else:
        join(list(zip(configs, agents, strict=True)), config, agent)
    if not arguments.out:
        agent.online.set_weights([rounded(weights) for weights in agent.online.get_weights()])
    scores = Evaluator(config, env, agent, device).evaluate(arguments.episodes)
    summary = {**scores.summary(), "reached_the_best": float((scores.scores >= env.best_score).mean())}
    folder = arguments.out or models.PRETRAINED / config.env
    folder.mkdir(parents=True, exist_ok=True)
    run_config.write_config(config, folder)
    # Only the online network plays, and who trains it on begins with a fresh copy: zeros take no room.
    agent.target.set_weights([np.zeros_like(weights) for weights in agent.target.get_weights()])
    models.save_agent(agent, folder / models.BEST_MODEL)
    repack(folder / models.BEST_MODEL)
    if len(folders) > 1:
        command = f"python -m benchmarks.package_agent {' '.join(names)}{' --average' * arguments.average}"
        steps.append({"name": name_of(len(steps)), "command": command + " --out FOLDER" * bool(arguments.out)})
    facts = {
        "game": config.env,
        "game_version": env.version,
        **checkpoints.versions(),
        "date": time.strftime("%Y-%m-%d"),
        "score": summary,
        "steps": steps,
    }
    text = json.dumps(facts, indent=1) + "\n"
    files.write_atomically(folder / PAPERS, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    cli.say(f"{folder}: {facts['score']} (tfdqn {tfdqn.__version__})")
    return 0


def joined_config(configs: Sequence[configuration.Config]) -> configuration.Config:
    """The configuration of an agent whose members are those of several: the first's, but for members and atoms.

    Raises:
      UserError: they are not of one kind.
    """
    first = configs[0]
    check_alike(configs, {"members", "atoms"}, "they cannot be one's members")
    atoms = max(config.atoms for config in configs)
    for config in configs:
        if first.head == "categorical" and (atoms - 1) % (config.atoms - 1):
            raise UserError(f"one agent has {atoms} atoms, and the {config.atoms} of another are not among them")
        if first.noisy and config.atoms != atoms:
            raise UserError(f"noisy agents have {atoms} and {config.atoms} atoms: such cannot be one's members")
    return first.replace(members=sum(config.members for config in configs), atoms=atoms)


def averaged_config(configs: Sequence[configuration.Config]) -> configuration.Config:
    """The configuration of the mean of several agents: the first's.

    Raises:
      UserError: they are not of one kind.
    """
    check_alike(configs, set(), "their weights have no mean")
    return configs[0]


def check_alike(configs: Sequence[configuration.Config], but_for: set[str], why: str) -> None:
    """Raise UserError unless one agent's network, screen and actions are the others', but for some settings."""
    first = configs[0]
    for other in configs[1:]:
        names = set(donor.differences(first, other)) - but_for
        seen = ("super_resolution", "frame_stride", "action_repeat")
        # Not every game has each of them.
        names |= {name for name in seen if getattr(first, name, None) != getattr(other, name, None)}
        for name in sorted(names):
            raise UserError(f"one agent's {name} is {getattr(first, name)}, another's {getattr(other, name)}: {why}")


def check_kin(histories: Sequence[list[dict[str, Any]]], folders: Sequence[Path]) -> None:
    """Raise UserError unless all runs go back to one: half way between strangers lies no agent."""
    for other, folder in zip(histories, folders, strict=True):
        if other[0] != histories[0][0]:
            raise UserError(
                f"{folders[0]} and {folder} did not begin from one agent (--init-from), so the mean of their weights "
                "plays like neither; without --average they become members of one agent"
            )


def average(networks: Sequence[Any], result: Any) -> None:
    """Give a network the mean of the weights of others that are built alike."""
    result.set_weights([np.mean(weights, axis=0) for weights in zip(*(n.get_weights() for n in networks), strict=True)])


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

    files.write_atomically(model, write)


def history(run_dir: Path) -> list[dict[str, Any]]:
    """How a run's agent came about: the steps that led to it, the first first, and its own the last.

    Each has a name, `RUN1`, `RUN2`, ..., which later commands call it by, and a command; a run also has its last
    evaluation and its curve.

    Raises:
      UserError: the folder of one of them is gone.
    """
    papers = run_dir / PAPERS
    if papers.is_file():  # an agent of this command's
        return json.loads(papers.read_text(encoding="utf-8"))["steps"]
    config = run_config.read_config(run_dir)
    before = history(Path(config.init_from)) if config.init_from else []
    # With all that the preset sets today: the command is to mean the same when the preset has changed.
    preset = configuration.resolve({"env": config.env, "preset": config.preset})
    named = registry.entry(config.env).presets[config.preset]
    fields = configuration.plain(config).items()
    given = {name: value for name, value in fields if name in named or value != getattr(preset, name) or name == "seed"}
    if before:
        given["init_from"] = before[-1]["name"]  # where that run lay is nobody's business
    evaluations = curve(run_dir)
    command = f"python -m tfdqn.train --env {config.env} --preset {config.preset}{flags_of(given)}"
    trained = evaluations[-1] if evaluations else {}
    return [*before, {"name": name_of(len(before)), "command": command, "trained": trained, "curve": evaluations}]


def name_of(index: int) -> str:
    """What a step is called in the commands of later ones."""
    return f"RUN{index + 1}"


def merged(histories: Sequence[list[dict[str, Any]]]) -> tuple[list[dict[str, Any]], list[str]]:
    """Several agents' steps as one list, in which what they share stands once; and what the last of each is called."""
    steps: list[dict[str, Any]] = []
    last = []
    for each in histories:
        renamed: dict[str, str] = {}
        for step in each:
            words = [renamed.get(word, word) for word in step["command"].split(" ")]
            step = {**step, "name": "", "command": " ".join(words)}
            known = next((k for k in steps if {**k, "name": ""} == step), None)
            if known is None:
                known = {**step, "name": name_of(len(steps))}
                steps.append(known)
            # A step's own name: they are numbered in order.
            renamed[name_of(len(renamed))] = known["name"]
        last.append(known["name"])
    return steps, last


def flags_of(given: dict) -> str:
    """Command line flags for chosen fields."""
    parts = []
    for name, value in given.items():
        flag = name.replace("_", "-")
        parts.append(f" --{'' if value else 'no-'}{flag}" if isinstance(value, bool) else f" --{flag} {value}")
    return "".join(parts)


if __name__ == "__main__":
    cli.run(main)
