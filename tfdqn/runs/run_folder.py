"""A run's folder: what is in it, how it is made, and how a trained agent is read back.

LOGDIR/<env>__<preset>__s<seed>__<time>/
  config.toml      the whole configuration
  metrics.jsonl    a line per report
  train/ eval/     TensorBoard events
  model.keras      best agent by evaluation
  final.keras      agent where training ended
  checkpoints/     the last two states to resume from (see `tfdqn.runs.checkpoints`)
  lock             held while a process trains in here; the number in it is that process's
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import functools
import io
import lzma
import math
import os
import re
import shlex
import shutil
import tempfile
import time
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from tfdqn import config as configuration
from tfdqn import console, files, paths
from tfdqn.config import Config
from tfdqn.envs import loading, registry
from tfdqn.errors import EXIT_REFUSED, UserError, nearest
from tfdqn.settings import flag_of

if TYPE_CHECKING:
    import numpy as np

    from tfdqn.learners.dqn.agent import DQN

BEST_MODEL, FINAL_MODEL, CONFIG_FILE, LOCK_FILE = "model.keras", "final.keras", "config.toml", "lock"
MODELS = {"best": BEST_MODEL, "final": FINAL_MODEL}
PRETRAINED = (
    Path(__file__).parents[1] / "pretrained"
)  # a folder a game: config.toml, model.keras, and how it was trained
BROKEN_ARCHIVE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError)
KERAS_MEMBERS = {"metadata.json", "config.json", "model.weights.h5"}  # of a `.keras` file as we write it


def check_writable(logdir: str) -> Path:
    """Refuse a log folder that cannot be written, before anything is made."""
    if not logdir:
        raise UserError("--logdir '': must name a folder; the default is runs")
    try:
        path = existing = Path(logdir)
        while True:
            try:
                os.stat(existing)
                break
            except (FileNotFoundError, NotADirectoryError):
                existing = existing.parent
        if not existing.is_dir():
            raise UserError(f"--logdir {logdir}: {existing} is a file, not a folder; name another folder")
        # Permissions do not tell everything, least of all to root: write a file, one without a name.
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"--logdir {logdir}: cannot write in {existing}: {reason}; name another folder") from None
    return path


def folders(config: Config, logdir: Path, run_name: str | None) -> list[Path]:
    """Folders for a new run, of which `create` takes the first that does not exist; one only if the user named it."""
    if run_name is not None:
        is_plain = Path(run_name).name == run_name and run_name not in ("", ".", "..")
        if not is_plain or len(os.fsencode(run_name)) > 255:  # bytes, what file systems allow
            raise UserError(f"--run-name {run_name!r}: must be a plain folder name, such as first-try")
        if (logdir / run_name).exists():
            raise UserError(_taken(logdir / run_name))
        return [logdir / run_name]
    # Of a game from elsewhere the class's name, as plain as a file's.
    game = re.sub(r"[^\w-]", "", config.env.rpartition(":")[2])
    stem = f"{game}__{config.preset}__s{config.seed}__{time.strftime('%Y%m%d-%H%M%S')}"
    return [logdir / name for name in (stem, *(f"{stem}-{i}" for i in range(2, 1000)))]


def create(config: Config, paths: Sequence[Path]) -> tuple[Path, IO[str]]:
    """Make a run's folder and return it and its lock.

    Args:
      config: what to write to its `config.toml`.
      paths: its possible places; the first that is free is taken, also from another run that looks for one right now.

    Raises:
      UserError: none is free, or no folder can be made there.
      OSError: it cannot be written in; then there is none.
    """
    path = _make_first(paths)
    try:
        held = lock(path)
        write_config(config, path)
    except BaseException:
        discard(path)
        raise
    return path, held


def _make_first(paths: Sequence[Path]) -> Path:
    for path in paths:
        try:
            files.make_folder(path)
        except FileExistsError:
            continue
        except OSError as error:
            raise UserError(f"{path}: {error.strerror or error}; name another --logdir or --run-name") from None
        return path
    raise UserError(_taken(paths[-1]))


def _taken(path: Path) -> str:
    return f"--run-name {path.name}: {path} exists already; choose another name"


def discard(path: Path) -> None:
    """Remove the folder of a run that ends before it has begun: it holds nothing yet that anyone could use."""
    shutil.rmtree(path, ignore_errors=True)


def source_of(config: Config) -> dict[str, Any]:
    """Where a run's game comes from, if not from tfdqn: its spec, its arguments and the SHA-256 of its file."""
    factory = registry.entry(config.env).factory
    if not isinstance(factory, str) or factory.startswith("tfdqn."):
        return {}
    return {"spec": factory, "arguments": config.env_args, "sha256": loading.sha256_of(factory)}


def refuse_other_source(run_dir: Path, held: Mapping[str, Any], config: Config, is_accepted: bool) -> None:
    """Name the game whose source is no longer what the run has played.

    Args:
      run_dir: the run's folder.
      held: what `source_of` gave when the run was saved.
      config: the run's configuration now.
      is_accepted: go on all the same, and say so.

    Raises:
      UserError: it has changed; exit code 3.
    """
    now = source_of(config)
    if not held or not now or held.get("sha256") == now["sha256"]:
        return
    what = f"{run_dir}: the source of {now['spec']} has changed since the run was saved"
    if not is_accepted:
        raise UserError(f"{what}; to go on with it as it is now, add --accept-changed-env", EXIT_REFUSED)
    console.say(f"tfdqn: warning: {what}, and the run goes on with it")


def write_config(config: Config, path: Path) -> None:
    """Write a run's `config.toml`."""
    files.write_atomically(
        path / CONFIG_FILE, lambda temporary: temporary.write_text(configuration.to_toml(config), encoding="utf-8")
    )


def lock(run_dir: Path) -> IO[str]:
    """Take a run's folder for this process, for as long as the file that is returned stays open.

    The lock belongs to the open file, so the system frees it however the process ends; the file itself stays.

    Raises:
      UserError: another process trains in the folder; exit code 3.
    """
    path = run_dir / LOCK_FILE
    try:
        # Without O_NOFOLLOW a link planted here would have its target written to.
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666), "r+", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}", EXIT_REFUSED) from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = file.read(20).strip()
        file.close()
        raise UserError(
            f"{run_dir}: process {holder or 'unknown'} trains in it; wait or stop it", EXIT_REFUSED
        ) from None
    with contextlib.suppress(OSError):  # the number is for people only, and a full disk may have no room for it
        file.truncate(0)
        os.pwrite(file.fileno(), f"{os.getpid()}\n".encode(), 0)
    return file


def resume_command(run_dir: Path) -> str:
    """What to type to go on with a run: a game or network of the user's own has to be named again."""
    words = ["python", "-m", "tfdqn.train", "--resume", str(run_dir)]
    with contextlib.suppress(UserError):  # without its settings the folder alone is said
        settings = read_settings(run_dir)
        for name in configuration.CODE_FIELDS:
            if loading.is_spec(settings[name]):
                words += [flag_of(name), settings[name]]
    return shlex.join(words)


def resumed_config(run_dir: str, given: Mapping[str, Any]) -> Config:
    """The configuration of a run that goes on, with the changes asked for.

    Raises:
      UserError: it is no run's folder, or a setting is asked for that would change what the run computes; exit code 3.
    """
    try:
        refuse_changes(run_dir, read_settings(run_dir), given)
        config = read_config(run_dir, given)
    except UserError as error:
        raise UserError(f"--resume {error}", EXIT_REFUSED) from None
    refuse_changes(run_dir, configuration.plain(config), given)
    changes = {name: value for name, value in given.items() if name in configuration.RESUMABLE_FIELDS}
    return configuration.resolve({**configuration.plain(config), **changes})


def refuse_changes(run_dir: str | os.PathLike, ours: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Name the first setting that a resumed run may not change."""
    for name, value in wanted.items():
        if name in ours and name not in configuration.RESUMABLE_FIELDS and ours[name] != value:
            raise UserError(
                f"{run_dir}: {name} is {ours[name]} in this run, not {value}; leave --{name.replace('_', '-')} as it "
                "was, or start a new run",
                EXIT_REFUSED,
            )


def save_agent(agent: DQN, path: Path) -> None:
    """Save as a `.keras` file, loadable by `tf.keras.models.load_model` after `import tfdqn.learners.dqn.agent`."""
    # What "keras" means, but in any thread: outside the main one that would be HDF5 from the second save on.
    files.write_atomically(path, lambda temporary: agent.save(temporary, save_format="keras_v3"))


def save_player(agent: DQN, weights: Sequence[np.ndarray], path: Path) -> None:
    """Save an agent that plays by these weights of its online network, whatever it has learned since.

    The file follows from the weights alone: its target network has them, too, and its optimizer has learned nothing.
    """
    import tensorflow as tf

    optimizer = agent.optimizer.variables
    variables = [*agent.online.variables, *agent.target.variables, *optimizer]
    held = [variable.numpy() for variable in variables]
    try:
        agent.online.set_weights(weights)
        agent.target.set_weights(weights)
        for variable in optimizer:
            variable.assign(tf.zeros_like(variable))  # with which all of ours begin
        save_agent(agent, path)
    finally:
        for variable, value in zip(variables, held, strict=True):
            variable.assign(value)


def read_settings(run_dir: str | os.PathLike) -> dict[str, Any]:
    """All settings of a run by name, as its `config.toml` has them; whether they fit together is not looked at.

    Raises:
      UserError: it is no run's folder, or its `config.toml` is not one of ours.
    """
    path = Path(run_dir)
    if not path.is_dir():
        raise UserError(f"{run_dir}: no such run folder")
    if not (path / CONFIG_FILE).is_file():
        raise UserError(f"{run_dir}: not a run folder ({CONFIG_FILE} is missing)")
    # What an older version did not know yet takes the value that changes nothing, not that of today's preset.
    known = {name: field.default for name, field in configuration.FIELDS.items()}
    return {**known, **configuration.read_toml(path / CONFIG_FILE)}


def read_config(run_dir: str | os.PathLike, named: Mapping[str, Any] | None = None) -> Config:
    """The configuration of a run, whose folder may be from anyone: it does not decide which code runs.

    Args:
      run_dir: its folder.
      named: settings that the user has given along with it. A game or network that does not come along with tfdqn must
        be among them.

    Raises:
      UserError: it is no run's folder, or its game or network has to be named.
    """
    settings, named = read_settings(run_dir), named or {}
    for name in configuration.CODE_FIELDS:
        held, flag = settings[name], flag_of(name)
        if named.get(name, held) == held and (name in named or not loading.is_spec(held)):
            continue
        if name in named:
            raise UserError(f"{flag} {named[name]}: {run_dir} has {held}; use {flag} {shlex.quote(held)}")
        raise UserError(
            f"{run_dir}: its {name}, {held}, does not come along with tfdqn, and a folder does not decide which code "
            f"runs here: if you trust that code, add {flag} {shlex.quote(held)}"
        )
    return configuration.resolve(settings)


def is_locked(run_dir: Path) -> bool:
    """Whether a process trains in a run's folder. Unlike `lock` it can be in nobody's way."""
    try:
        inode = f":{os.stat(run_dir / LOCK_FILE).st_ino} "
        with open("/proc/locks", encoding="ascii") as file:
            return any(inode in line for line in file)
    except FileNotFoundError:
        return False  # no lock, or a system that does not tell


def add_agent_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments that name a trained agent, for `agent_folder`."""
    parser.add_argument(
        "run_dir", nargs="?", type=functools.partial(paths.local, ""), default=None, help="a run's folder"
    )
    parser.add_argument("--pretrained", metavar="GAME", default=None, help="take the agent that comes with tfdqn")
    parser.add_argument("--model", choices=list(MODELS), default="best", help="which of the run's agents plays")


def add_code_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments by which a user says which code may run with an agent, for `named_code`."""
    parser.add_argument("--env", default=None, help="its game, where that does not come along with tfdqn")
    parser.add_argument("--network", default=None, help="its network, likewise")


def named_code(arguments: argparse.Namespace) -> dict[str, str]:
    """The settings that `add_code_arguments` asks for, for `read_config`."""
    return {
        name: getattr(arguments, name) for name in configuration.CODE_FIELDS if getattr(arguments, name) is not None
    }


def agent_folder(arguments: argparse.Namespace) -> Path:
    """The folder that holds a trained agent's `config.toml` and models."""
    run_dir, game = arguments.run_dir, arguments.pretrained
    if (run_dir is None) == (game is None):
        raise UserError("name either the folder of a run, such as runs/NAME, or --pretrained GAME")
    if game is None:
        return Path(run_dir)
    folder = pretrained_folder(game)
    if arguments.model != "best":
        raise UserError(f"--model {arguments.model}: --pretrained has the best agent only; leave it out")
    return folder


def pretrained_folder(game: str) -> Path:
    """The folder of an agent that comes along."""
    games = sorted(path.name for path in PRETRAINED.iterdir() if path.is_dir()) if PRETRAINED.is_dir() else []
    if game not in games:
        raise UserError(f"--pretrained {game}: no such agent; {nearest(game, games)}")
    return PRETRAINED / game


def differences(config: Config, other: Config) -> list[str]:
    """The settings by which one's agent cannot take the other's weights."""
    names = ["env", "env_args", "downsample", "frame_stack", "network", "members", "head", "dueling"]
    names += ["atoms", "value_min", "value_max"] if config.head == "categorical" else []
    return [name for name in names if getattr(config, name, None) != getattr(other, name, None)]


def check_donor(config: Config) -> None:
    """Refuse an `init_from` whose agent does not fit, before anything is made."""
    if not config.init_from:
        return
    # Code that this run has itself may run for its donor.
    code = {name: getattr(config, name) for name in configuration.CODE_FIELDS}
    named = {name: value for name, value in code.items() if loading.is_spec(value)}
    try:
        donor = read_config(config.init_from, named)
    except UserError as error:
        raise UserError(f"--init-from {error}; name a run's folder, such as runs/NAME") from None
    for name in differences(config, donor):
        ours, theirs, flag = getattr(config, name), getattr(donor, name), name.replace("_", "-")
        raise UserError(f"--init-from {config.init_from}: its {name} is {theirs}, not {ours}; use --{flag} {theirs}")
    if not (Path(config.init_from) / BEST_MODEL).is_file():
        raise UserError(f"--init-from {config.init_from}: holds no {BEST_MODEL}; the run ended before an evaluation")


def load_weights(agent: DQN, path: Path) -> None:
    """Read weights by name and shape into an agent built from its configuration; nothing in the file is executed."""
    if not path.is_file():
        raise UserError(f"{path}: no such file (the run may have ended before its first evaluation)")
    try:
        _check_weights_file(path, 4 * sum(math.prod(variable.shape) for variable in agent.variables))
        agent.load_weights(path)
    except (ValueError, KeyError, OSError, EOFError, RuntimeError, NotImplementedError, *BROKEN_ARCHIVE) as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise UserError(f"{path}: does not hold this agent's weights: {reason}") from None


def _check_weights_file(path: Path, agent_bytes: int) -> None:
    """Raise a ValueError unless the file is small, plain data: a few bytes can claim to unpack to any size."""
    import h5py

    # Both networks, as many optimizer slots again and again, and HDF5's own overhead.
    limit = 8 * agent_bytes + 2**22
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.filename not in KERAS_MEMBERS:
                raise ValueError(f"{member.filename!r} does not belong there")
            if member.file_size > limit:
                raise ValueError(f"{member.filename} unpacks to {member.file_size} bytes, at most {limit} are expected")
        weights = archive.read("model.weights.h5")  # reads no more than `file_size`
    with h5py.File(io.BytesIO(weights), "r") as file:

        def check(group: Any) -> int:
            size = 0
            for name in group:
                if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                    raise ValueError(f"{name} is a link")
                member = group[name]
                if isinstance(member, h5py.Group):
                    size += check(member)
                elif member.external or member.is_virtual:
                    raise ValueError(f"{name} reads another file")
                else:
                    size += member.size * member.dtype.itemsize
                if size > limit:
                    raise ValueError(f"its tensors unpack to more than the {limit} bytes expected")
            return size

        check(file)
