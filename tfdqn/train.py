"""Train an agent: `python -m tfdqn.train --env cave`."""

from __future__ import annotations

import contextlib
import functools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import tfdqn
from tfdqn import cli, flags, paths, population
from tfdqn import config as configuration
from tfdqn.envs import make_for
from tfdqn.errors import EXIT_IO, EXIT_REFUSED, UserError
from tfdqn.runs import checkpoints, donor, locks, member, models, run_config, run_folder, worker_run
from tfdqn.runs.population_run import run_of
from tfdqn.runs.saving import read_facts
from tfdqn.runtime import devices, hosts, memory
from tfdqn.runtime.signals import StopRequest
from tfdqn.settings import flag_of

if TYPE_CHECKING:
    from tfdqn.envs import Environment
    from tfdqn.runs.loop import Run


def parser() -> cli.Parser:
    """The command line, a contract with users."""
    parser = _parser()
    flags.add_config_flags(parser)
    return parser


def _parser() -> cli.Parser:
    """The arguments that are no settings."""
    parser = cli.Parser(prog="python -m tfdqn.train", description="Train an agent in one XLA program.", add_help=False)
    parser.add_argument("-h", "--help", action="store_true", help="this; with --env NAME, all settings for that game")
    parser.add_argument(
        "--resume",
        metavar="RUN_DIR",
        type=cli.path("--resume"),
        default=None,
        help="go on with a run from its last checkpoint",
    )
    parser.add_argument(
        "--accept-changed-env",
        action="store_true",
        help="go on also where the source of a game of your own has changed",
    )
    parser.add_argument("--logdir", type=cli.path("--logdir"), default="runs", help="folder that holds run folders")
    parser.add_argument("--run-name", default=None, help="name of the run's folder; made from the settings if absent")
    parser.add_argument(
        "--config",
        metavar="FILE",
        type=cli.path("--config"),
        default=None,
        help="read settings from a TOML file; flags win",
    )
    parser.add_argument(
        "--trusted-network",
        action="store_true",
        help="train together with the other workers of TF_CONFIG: nobody else reaches their ports",
    )
    parser.add_argument("--print-config", action="store_true", help="print the settings as TOML and end")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line of standard output")
    parser.add_argument("--version", action="version", version=f"tfdqn {tfdqn.__version__}")
    return parser


def main(argv: Sequence[str] | None = None, start_seconds: float | None = None) -> int:
    """Train, and return the exit code.

    Args:
      argv: the command line's words; the process's own if None.
      start_seconds: the `time.monotonic()` from which `--minutes` and all seconds count; now if None.
    """
    start_seconds = time.monotonic() if start_seconds is None else start_seconds
    arguments = parser().parse(argv)
    given = (configuration.read_toml(arguments.config) if arguments.config else {}) | flags.given_fields(arguments)
    if arguments.help:
        cli.print_result(flags.format_help(_parser(), given))
        return 0
    _refuse_together(arguments)
    given = _with_local_paths(given)
    if arguments.print_config:
        if arguments.resume:
            config = run_config.resumed_config(arguments.resume, given)
        else:
            config = configuration.resolve(given, on_gpu=devices.is_gpu(given.get("device", "auto")), tell=_teller())
        cli.print_result(configuration.to_toml(config))
        return 0
    hosts.expect(arguments.trusted_network)
    with StopRequest() as stop, hosts.watching(lambda: stop.hint):
        run_dir = arguments.resume
        try:
            if arguments.resume is None:
                run = start(given, stop, logdir=arguments.logdir, run_name=arguments.run_name)
            else:
                run = resume(arguments.resume, given, stop, accepts_changed_env=arguments.accept_changed_env)
            run.start_seconds, run_dir = start_seconds, run.run_dir
            result = run.train()
        except BrokenPipeError:  # nobody reads what we print: no fault of the run's folder
            raise
        except OSError as error:
            where, hint = error.filename or run_dir or arguments.logdir, ""
            with contextlib.suppress(OSError):  # where not even that can be looked for
                if run_dir is not None and checkpoints.exist(Path(run_dir)):
                    hint = f"; {stop.hint}"
            raise UserError(f"{where}: {error.strerror or error}{hint}", EXIT_IO) from None
        exit_code = result.pop("exit_code", 0)
        if arguments.json:
            cli.print_result(json.dumps(result) + "\n")
    return exit_code


def _refuse_together(arguments: Any) -> None:
    if arguments.resume is None:
        if arguments.accept_changed_env:
            raise UserError("--accept-changed-env: is for a run that goes on; add --resume RUN_DIR")
        return
    for flag in ("logdir", "run_name"):
        if getattr(arguments, flag) != parser().get_default(flag):
            raise UserError(f"{flag_of(flag)}: the run has its folder already; leave it out with --resume")


def _with_local_paths(given: Mapping[str, Any]) -> dict[str, Any]:
    named = {name: given[name] for name in configuration.PATH_FIELDS if given.get(name)}
    return {**given, **{name: paths.local(flag_of(name), path) for name, path in named.items()}}


def _teller() -> Callable[[str], None]:
    """Says each line once: the device may ask for other sizes, and so again."""
    return functools.cache(lambda line: cli.say(f"tfdqn: warning: {line}"))


def start(
    given: Mapping[str, Any],
    stop: StopRequest,
    *,
    logdir: str = "runs",
    run_name: str | None = None,
    game: Environment | None = None,
) -> Run:
    """A new run.

    Args:
      given: settings by name, what the user chose; presets and defaults give the others.
      stop: what tells it to stop.
      logdir: the folder that holds run folders.
      run_name: its folder's name; made from the settings if None.
      game: the game, where it is there already.

    Raises:
      UserError: a setting, or its folder; nothing is left behind.
    """
    given = _with_local_paths(given)
    tell = _teller()
    config = configuration.resolve(given, on_gpu=devices.is_gpu(given.get("device", "auto")), tell=tell)
    donor.check_donor(config)
    run_dir, *others = run_folder.folders(config, run_folder.check_writable(logdir), run_name)
    if config.device == "cpu" or (config.device == "auto" and not devices.has_driver()):
        _check_memory(config, game)
    _refuse_several_workers(config)
    device = device_of(config)
    if "GPU" in device and not config.replicas and game is None and devices.count_gpus() > 1:
        game = make_for(config)  # as some know how many devices they are for only once they are made
    if (count := _count_replicas(config, device, game)) > 1:
        given["replicas"] = count
    config = configuration.resolve(given, on_gpu="GPU" in device, tell=tell)
    if "GPU" not in device:
        _check_memory(config, game)
    elif line := configuration.changed_sizes(given, config):
        cli.say(line)
    worker_run.refuse_other_settings(config)
    return run_of(config)(config, run_dir, device, stop, other_dirs=others, game=game)


def resume(
    run_dir: str | Path,
    given: Mapping[str, Any],
    stop: StopRequest,
    *,
    game: Environment | None = None,
    accepts_changed_env: bool = False,
) -> Run:
    """A run that goes on from its newest whole checkpoint.

    Args:
      run_dir: its folder.
      given: settings to change, and those that name its game or network where these do not come along with tfdqn.
      stop: what tells it to stop.
      game: the game, where it is there already.
      accepts_changed_env: go on also with another source of the game.

    Raises:
      UserError: no run is there, it has no whole checkpoint, or what is asked for would change what it computes.
    """
    run_dir = Path(run_dir)
    config = run_config.resumed_config(str(run_dir), given)
    stop.hint = worker_run.resume_hint(run_dir)
    worker_run.refuse_other_workers(run_dir, checkpoints.peek(run_dir), hosts.count())
    if hosts.count() == 1:  # of several workers the others may have no checkpoints here
        _refuse_agent_alone(run_dir)
    lock = locks.lock(worker_run.home(run_dir, hosts.rank()))
    try:
        return _resume(run_dir, config, stop, lock, game, accepts_changed_env)
    except BaseException:
        lock.close()  # the process may go on, and so may the run
        raise


def _refuse_agent_alone(run_dir: Path) -> None:
    """Refuse a folder that holds an agent and no run, before anything is written there."""
    if (run_dir / checkpoints.FOLDER).exists():
        return
    if whole := member.whole_of(run_dir):
        raise UserError(
            f"--resume {run_dir}: is a member of a population, whose members go on together; use --resume {whole}",
            EXIT_REFUSED,
        )
    if (run_dir / models.BEST_MODEL).is_file():
        raise UserError(
            f"--resume {run_dir}: holds an agent, and no checkpoint to go on from; a new run begins with that agent by "
            f"--init-from {run_dir}",
            EXIT_REFUSED,
        )


def _resume(
    run_dir: Path,
    config: configuration.Config,
    stop: StopRequest,
    lock: IO[str],
    game: Environment | None,
    accepts_changed_env: bool,
) -> Run:
    if hosts.count() > 1:
        device = device_of(config, config.replicas)  # and with that all have met
        checkpoint, problems = worker_run.load(run_dir)
        worker_run.refuse_other_settings(config)
    else:
        device = ""
        checkpoint, problems = checkpoints.load_newest(run_dir)
    for problem in problems:
        cli.say(f"tfdqn: warning: {problem}")
    facts = read_facts(checkpoint)
    run_config.refuse_changes(checkpoint.path, facts.config, configuration.as_json(config))
    run_config.refuse_other_source(run_dir, facts.game_source, config, accepts_changed_env)
    device = device or device_of(config, max(config.replicas, 1))
    if "GPU" not in device:
        _check_memory(config, game)
    if device != facts.device:
        cli.say(f"tfdqn: warning: this run was on {facts.device} and goes on on {device}: its bits will differ")
    own = worker_run.home(run_dir, hosts.rank())
    return run_of(config)(config, own, device, stop, lock, checkpoint, game=game)


def device_of(config: configuration.Config, num_replicas: int = 0) -> str:
    """The first device of this process, which from then on has as many as the run's replicas here need.

    Args:
      config: the run's.
      num_replicas: of all processes; 0 leaves it to the configuration and the machine.
    """
    wanted = config.replace(replicas=num_replicas) if num_replicas else config
    count = functools.partial(_replicas_here, wanted, num_hosts=hosts.count())
    insists = bool(wanted.replicas)
    device = devices.choose_device(
        config.device, config.deterministic, config.threads, config.profile > 0, count, insists
    )
    hosts.join()
    return device


def _replicas_here(config: configuration.Config, num_gpus: int, num_hosts: int = 1, num_cpus: int = 0) -> int:
    """How many replicas each of so many processes has.

    Where nobody has said, as many as fit the settings: of all GPUs, or for a population without one of the cores, of
    which TensorFlow counts `num_cpus` parts if it is there already.
    """
    if config.replicas % num_hosts:
        raise UserError(
            f"--replicas {config.replicas}: TF_CONFIG names {num_hosts} workers, and each has as many; use "
            f"{-(-config.replicas // num_hosts) * num_hosts}"
        )
    if config.replicas:
        return config.replicas // num_hosts
    most = num_gpus if config.device == "gpu" else 1
    if population.is_one(config) and not num_gpus and not config.eager:
        most = num_cpus or devices.count_cores() // max(config.threads, 1)
    return next((count for count in range(most, 1, -1) if _fits(config, count * num_hosts)), 1)


def _fits(config: configuration.Config, num_replicas: int) -> bool:
    try:
        configuration.check(config.replace(replicas=num_replicas))
    except UserError:
        return False
    return True


def _count_replicas(config: configuration.Config, device: str, game: Environment | None) -> int:
    """How many a new run has, on all its workers."""
    num_gpus, num_hosts = devices.count_gpus() if "GPU" in device else 0, hosts.here().count
    num_cpus = devices.count_cpus() if population.is_one(config) and "GPU" not in device else 0
    count = num_hosts * _replicas_here(config, num_gpus, num_hosts, num_cpus)
    if not config.replicas and num_hosts == 1 and game is not None and game.steps_on_host:
        return 1  # nobody has asked for several
    return count


def _refuse_several_workers(config: configuration.Config) -> None:
    if hosts.count() > 1 and population.is_one(config):
        raise UserError(
            f"TF_CONFIG names {hosts.count()} workers: agents side by side are trained by one; unset it, and leave out "
            "--trusted-network"
        )


def _check_memory(config: configuration.Config, game: Environment | None) -> None:
    spec = config.observation_spec if game is None else game.observation_spec
    # Workers are taken to have as much each, on machines of their own.
    configuration.check_memory(config, spec, hosts.count() * memory.available_bytes())


if __name__ == "__main__":
    cli.run(functools.partial(main, start_seconds=tfdqn.PROCESS_START_SECONDS))
