"""Train an agent: `python -m tfdqn.train --env cave`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tfdqn
from tfdqn import checkpoints, cli, runs
from tfdqn import config as configuration
from tfdqn.errors import EXIT_IO, UserError
from tfdqn.loop import Run
from tfdqn.saving import read_facts
from tfdqn.signals import StopRequest


def parser() -> cli.Parser:
    """The command line, a contract with users."""
    parser = cli.Parser(prog="python -m tfdqn.train", description="Train a DQN agent in one XLA program.")
    parser.add_argument("--resume", metavar="RUN_DIR", default=None, help="go on with a run from its last checkpoint")
    parser.add_argument("--logdir", default="runs", help="folder that holds run folders")
    parser.add_argument("--run-name", default=None, help="name of the run's folder; made from the settings if absent")
    parser.add_argument("--config", metavar="FILE", default=None, help="read settings from a TOML file; flags win")
    parser.add_argument("--print-config", action="store_true", help="print the settings as TOML and end")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line of standard output")
    parser.add_argument("--version", action="version", version=f"tfdqn {tfdqn.__version__}")
    cli.add_config_flags(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse(argv)
    given = (configuration.read_toml(arguments.config) if arguments.config else {}) | cli.given_fields(arguments)
    with StopRequest() as stop:
        make, run_dir = start if arguments.resume is None else resume, arguments.resume
        try:
            run = make(arguments, given, stop)
            if run is None:
                return 0
            run_dir = run.run_dir
            result = run.train()
        except BrokenPipeError:  # nobody reads what we print: no fault of the run's folder
            raise
        except OSError as error:
            where, hint = error.filename or run_dir or arguments.logdir, ""
            if run_dir is not None and checkpoints.exist(Path(run_dir)):
                hint = f"; to go on, {runs.resume_command(Path(run_dir))}"
            raise UserError(f"{where}: {error.strerror or error}{hint}", EXIT_IO) from None
    exit_code = result.pop("exit_code", 0)
    if arguments.json:
        print(json.dumps(result), flush=True)
    return exit_code


def start(arguments: Any, given: dict[str, Any], stop: StopRequest) -> Run | None:
    """A new run, or None where its settings were only to be printed."""
    config = configuration.resolve(given, on_gpu=given.get("device") == "gpu")
    if arguments.print_config:
        print(configuration.to_toml(config), end="")
        return None
    runs.check_donor(config)
    logdir = runs.check_writable(arguments.logdir)
    run_dir, *others = runs.folders(config, logdir, arguments.run_name)
    if config.device == "cpu" or (config.device == "auto" and not Path("/dev/nvidiactl").exists()):
        configuration.check_memory(config, configuration.available_memory_bytes())
    device = cli.choose_device(config.device, config.deterministic, config.threads, config.profile > 0)
    config = configuration.resolve(given, on_gpu="GPU" in device)
    if "GPU" not in device:
        configuration.check_memory(config, configuration.available_memory_bytes())
    return Run(config, run_dir, device, stop, other_dirs=others)


def resume(arguments: Any, given: dict[str, Any], stop: StopRequest) -> Run | None:
    """A run that goes on from its newest whole checkpoint."""
    for flag in ("logdir", "run_name"):
        if getattr(arguments, flag) != parser().get_default(flag):
            raise UserError(f"--{flag.replace('_', '-')}: the run has its folder already; leave it out with --resume")
    run_dir = Path(arguments.resume)
    config = runs.resumed_config(arguments.resume, given)
    if arguments.print_config:
        print(configuration.to_toml(config), end="")
        return None
    stop.hint = f"to go on, {runs.resume_command(run_dir)}"
    lock = runs.lock(run_dir)
    checkpoint, problems = checkpoints.load_newest(run_dir)
    for problem in problems:
        cli.say(f"tfdqn: warning: {problem}")
    facts = read_facts(checkpoint)
    runs.refuse_changes(checkpoint.path, facts.config, configuration.as_json(config))
    device = cli.choose_device(config.device, config.deterministic, config.threads, config.profile > 0)
    if "GPU" not in device:
        configuration.check_memory(config, configuration.available_memory_bytes())
    if device != facts.device:
        cli.say(f"tfdqn: warning: this run was on {facts.device} and goes on on {device}: its bits will differ")
    return Run(config, run_dir, device, stop, lock, checkpoint)


if __name__ == "__main__":
    cli.run(main)
