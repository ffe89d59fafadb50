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
from tfdqn.runs import member, models, named_agent, run_config
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
        "--member",
        metavar="WHICH",
        default=None,
        help="of a population: a number; best, by the evaluations in training; or all, with a table",
    )
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
    env, device, found = _planner_scores(arguments) if arguments.player == "planner" else _agent_scores(arguments)
    for summary in found:
        who = f"{env}, member {summary['member']}" if "member" in summary else env
        cli.say(
            f"{who}: mean score {summary['score_mean']:.2f} over {summary['episodes']} episodes (std "
            f"{summary['score_std']:.2f}, median {summary['score_median']:g}, min {summary['score_min']:g}, max "
            f"{summary['score_max']:g})"
        )
    if arguments.member == "all":
        _tell_table(arguments, found)
    if arguments.json:
        seconds = round(time.monotonic() - start_seconds, 3)
        whole = {"members": found} if arguments.member == "all" else found[0]
        cli.print_result(json.dumps({"env": env, "device": device, "wall_seconds": seconds, **whole}) + "\n")
    return 0


def _tell_table(arguments: Any, found: Sequence[dict[str, Any]]) -> None:
    """What each setting has reached, over its seeds."""
    run_dir, named = named_agent.agent_folder(arguments), named_agent.named_code(arguments)
    rows = []
    for each in found:
        config = run_config.read_config(member.settings_of(run_dir, each["member"]), named)
        rows.append(member.Scored(each["member"], config, each["score_mean"]))
    for line in member.table(rows):
        cli.say(line)


def _agent_scores(arguments: Any) -> tuple[str, str, list[dict[str, Any]]]:
    run_dir = named_agent.agent_folder(arguments)
    numbers: list[int | None] = [None]
    if arguments.member is not None:
        numbers = list(member.chosen(run_dir, arguments.member))
    elif member.numbers_of(run_dir):
        raise UserError(f"{run_dir}: holds a population; say which: --member best, all, or a number")
    folders = [run_dir if number is None else member.settings_of(run_dir, number) for number in numbers]
    # Compiled, and as it suits this device; but as exactly as it was trained and scored.
    config = run_config.read_config(folders[0], named_agent.named_code(arguments))
    together = min(config.eval_episodes, arguments.episodes)  # nobody waits for episodes that are not asked for
    config = config.replace(jit=True, eager=False, convolution="auto", eval_episodes=together)
    device = devices.choose_device(arguments.device, config.deterministic, config.threads)

    from tfdqn.envs import make_for
    from tfdqn.learners import build_agent
    from tfdqn.programs import evaluator_of

    env = make_for(config)
    agent = build_agent(config, env)  # one program plays all: members differ in nothing that playing asks for
    evaluator, found = evaluator_of(env)(config, env, agent, device), []
    for number, folder in zip(numbers, folders, strict=True):
        path = folder / models.MODELS[arguments.model]
        if arguments.member == "all" and not path.is_file():
            cli.say(f"tfdqn: warning: {path}: no such file (it may have diverged); left out")
            continue
        models.load_weights(agent, path)
        scores = evaluator.evaluate(arguments.episodes, arguments.seed, epsilon=arguments.epsilon)
        found.append(({} if number is None else {"member": number}) | scores.summary())
    if not found:
        raise UserError(f"{run_dir}: no member has a {models.MODELS[arguments.model]} yet")
    return config.env, device, found


def _planner_scores(arguments: Any) -> tuple[str, str, list[dict[str, Any]]]:
    if arguments.member is not None:
        raise UserError(f"--member {arguments.member}: the planner is one; leave it out")
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
    return arguments.env, device, [summary_of(scores)]


if __name__ == "__main__":
    cli.run(functools.partial(main, start_seconds=tfdqn.PROCESS_START_SECONDS))
