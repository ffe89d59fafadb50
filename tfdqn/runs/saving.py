"""When a run is saved, what is saved of it, and how it is brought back; `checkpoints.py` knows the files."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tfdqn import cli, files
from tfdqn import config as configuration
from tfdqn.errors import EXIT_IO, EXIT_REFUSED, UserError
from tfdqn.runs import checkpoints, models, run_config
from tfdqn.runs.checkpoints import Checkpoint
from tfdqn.runs.progress import Progress

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf

    from tfdqn.runs.progress import Player, RunState

LONGEST_LOSS_SECONDS = 60.0  # between checkpoints that nobody asked for,
MAX_TIME_SHARE = 0.02  # or longer, so that they take no more of the time than this
GUESSED_BYTES_PER_SECOND = 2e8  # at which a checkpoint is written


class Facts(NamedTuple):
    """What a run's checkpoints hold beside tensors."""

    config: dict[str, Any]  # as `tfdqn.config.as_json` gives it
    device: str
    progress: Progress
    reports: dict[str, int]  # sizes, as `Monitor.flush` gives them
    versions: dict[str, str]
    game_version: int
    game_source: dict[str, Any]  # as `tfdqn.runs.run_config.source_of` gives it
    members: list[Progress]  # of a population's members; none of a run of one agent


def read_facts(checkpoint: Checkpoint) -> Facts:
    """A checkpoint's facts; a manifest can be whole and still not be one of ours."""
    manifest = checkpoint.manifest
    try:
        least = {"eval_max_frames": manifest["config"]["eval_max_frames"]}
        progress, *members = (Progress(**{**least, **held}) for held in (manifest["progress"], *_members(manifest)))
        held = (value for each in (progress, *members) for value in dataclasses.asdict(each).values())
        numbers = [value for value in held if value is not None]
        reports = dict(manifest["reports"])
        if not all(isinstance(number, (int, float)) for number in (*numbers, *reports.values())):
            raise ValueError("a count is no number")
        return Facts(
            config=dict(manifest["config"]),
            device=str(manifest["device"]),
            progress=progress,
            reports=reports,
            versions=dict(manifest["versions"]),
            game_version=int(manifest.get("game_version", 1)),  # not told while all games had but one
            game_source=dict(manifest.get("game_source", {})),
            members=members,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{checkpoint.path}: not a run's checkpoint ({error})", EXIT_REFUSED) from None


def _members(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    return list(manifest.get("members", []))


def named_tensors(structure: Any, prefix: str) -> dict[str, tf.Tensor]:
    """The tensors of nested NamedTuples, tuples, lists and dicts by their path, such as `carry/env_state/column`."""
    if (parts := _parts(structure)) is None:
        return {prefix: structure}
    named = (named_tensors(value, f"{prefix}/{name}") for name, value in parts.items())
    return {name: tensor for part in named for name, tensor in part.items()}


def from_arrays(like: Any, prefix: str, arrays: dict[str, Any], device: str) -> Any:
    """The inverse of `named_tensors`, on arrays; `like` gives the structure."""
    import tensorflow as tf

    if (parts := _parts(like)) is not None:
        values = [from_arrays(value, f"{prefix}/{name}", arrays, device) for name, value in parts.items()]
        if hasattr(like, "_fields"):
            return type(like)(*values)
        return type(like)(zip(like, values, strict=True) if isinstance(like, dict) else values)
    with tf.device(device):
        return tf.constant(arrays[prefix], like.dtype)


def _parts(structure: Any) -> dict[Any, Any] | None:
    """What a structure is made of, by name; None where it is a tensor."""
    if hasattr(structure, "_fields"):
        return structure._asdict()
    if isinstance(structure, dict):
        return structure
    return dict(enumerate(structure)) if isinstance(structure, tuple | list) else None


class Outbox:
    """Files that a run writes at once or, where that fails, as soon as it works; a line says so."""

    def __init__(self):
        self._waiting: dict[Path, Callable[[Path], None]] = {}

    def put(self, path: Path, write: Callable[[Path], None]) -> bool:
        """Write a file, by `write(path)`; whether it is there now. What waits for the same path is given up."""
        self._waiting[path] = write
        try:
            self._send(path)
        except OSError as error:
            cli.say(f"tfdqn: warning: {path}: {error.strerror}; it waits until it can be written")
        return path not in self._waiting

    def retry(self) -> None:
        """Write what waits and can be written now."""
        for path in list(self._waiting):
            with contextlib.suppress(OSError):
                self._send(path)
                cli.say(f"{path} is written now")

    def finish(self) -> None:
        """Write what waits.

        Raises:
          OSError: something cannot be written; it names the first such file.
        """
        self.retry()
        for path in self._waiting:
            self._send(path)

    def _send(self, path: Path) -> None:
        try:
            self._waiting[path](path)
        except OSError as error:
            raise OSError(error.errno, error.strerror or str(error), str(path)) from None
        del self._waiting[path]


class Saver:
    """A run's checkpoints and models: what goes into them, and when.

    Args:
      run: the run as it stands; `restore` brings it to where it was.
      checkpoint: the one it goes on from, if any.
      flush_reports: writes all reports out and returns the sizes of their files.
      on_saved: called after each checkpoint.
    """

    def __init__(
        self,
        run: RunState,
        checkpoint: Checkpoint | None,
        flush_reports: Callable[[], dict[str, int]],
        on_saved: Callable[[], None],
    ):
        self.run, self._flush_reports, self._on_saved = run, flush_reports, on_saved
        self.outbox = Outbox()
        self.path = checkpoint.path if checkpoint else None
        self._facts: dict[str, Any] = {}  # of the newest checkpoint
        self._saved_iteration = -1
        self._last_end = time.monotonic()
        # A guess until the first has been timed.
        self._seconds = checkpoints.size_of(self._tensors()) / GUESSED_BYTES_PER_SECOND

    def describe(self) -> str:
        """Where the last checkpoint is, for people."""
        return f"the last checkpoint is {self.path}" if self.path else "there is no checkpoint yet"

    def start_clock(self) -> None:
        """Training begins now; nothing was lost before."""
        self._last_end = time.monotonic()

    def is_due(self) -> bool:
        """Whether it is time to save."""
        wanted = self.run.config.checkpoint_every_seconds or max(LONGEST_LOSS_SECONDS, self._seconds / MAX_TIME_SHARE)
        return time.monotonic() - self._last_end >= wanted

    def save_if_due(self) -> None:
        """Save if it is time."""
        if self.is_due():
            self.save_now()

    def save_now(self) -> None:
        """Save. A failure is only told: the run goes on, and earlier checkpoints are as they were."""
        self.outbox.retry()
        try:
            self._save()
        except OSError as error:
            cli.say(
                f"tfdqn: warning: no checkpoint made: {error.strerror or error}; {self.describe()}; training goes on"
            )
            self._last_end = time.monotonic()

    def save_last(self) -> None:
        """Save the end of training, unless that is what the newest checkpoint holds."""
        if self._saved_iteration == int(self.run.carry.iteration):
            return
        with self._failing_in_one_line():
            self._save()

    def save_best(self) -> None:
        """Save the best agent, if the evaluation at the end of training has found it.

        But for that agent it is the newest checkpoint again, from before that evaluation. A run that goes on from it
        has no evaluation there, as a run that was to be longer from the start, and can only find a better agent.
        """
        held = [self._facts.get("progress", {}), *_members(self._facts)]
        names = ("best_score", "best_score_ceiling", "best_env_frames", "eval_max_frames")
        found = [{name: getattr(state.progress, name) for name in names} for state in (self.run, *self.run.members)]
        better = [{**each, **best} for each, best in zip(held, found, strict=False)]
        if not held[0] or better == held:
            return  # nothing was trained and so saved, or it holds that agent already
        with self._failing_in_one_line():
            self._write({**self._facts, "progress": better[0], **({"members": better[1:]} if better[1:] else {})})

    @contextlib.contextmanager
    def _failing_in_one_line(self):
        try:
            yield
        except OSError as error:
            reason = f"{self.run.run_dir}: no checkpoint made: {error.strerror or error}; {self.describe()}"
            raise UserError(reason, EXIT_IO) from None

    def give_best(self, players: Sequence[Player] | None = None) -> None:
        """Write the best agents' models, of these players or of all; where that fails, it waits."""
        for player in self.run.players if players is None else players:
            if player.best_weights is not None:
                self._give(models.BEST_MODEL, player, player.best_weights)

    def give_final(self) -> None:
        """Write the models of the agents as they are now; where that fails, it waits."""
        for player in self.run.players:
            self._give(models.FINAL_MODEL, player, player.player_weights())

    def _give(self, name: str, player: Player, weights: Sequence[np.ndarray]) -> bool:
        agent = player.agent
        return self.outbox.put(player.run_dir / name, lambda path: models.save_player(agent, weights, path))

    def restore(self, checkpoint: Checkpoint) -> None:
        """Bring the run to where the checkpoint was made, with its reports and models."""
        from tfdqn.runs import monitor

        run, facts = self.run, read_facts(checkpoint)
        variables = run.trainer.learner.variables
        held, ours = (versions.get("tensorflow") for versions in (facts.versions, checkpoints.versions()))
        if held != ours:
            cli.say(f"tfdqn: warning: saved with TensorFlow {held}, going on with {ours}: the bits may differ")
        game = run.trainer.env
        if facts.game_version != game.version:
            cli.say(
                f"tfdqn: warning: so far this run played version {facts.game_version} of {game.name}, going on with "
                f"version {game.version}: rules differ, and scores do not compare"
            )
        replay = run.trainer.replay
        has_replay = replay is None or any(name.startswith("replay/") for name in checkpoint.names)
        if not has_replay:
            variables = {name: v for name, v in variables.items() if not name.startswith("replay/")}
            cli.say("this checkpoint holds no replay: a new one is filled before learning goes on")
        growing = {name for name in variables if name.startswith("replay/") and variables[name].shape.rank}
        carry = self._read_carry(checkpoint)
        pairs = zip(run.players, facts.members or [facts.progress], strict=True)
        scored = [player for player, progress in pairs if progress.best_score is not None]
        like = {player.place: player.player_weights() for player in scored}
        best = checkpoint.read({f"{place}{i}": w for place, weights in like.items() for i, w in enumerate(weights)})
        checkpoint.restore(variables, growing)
        if not has_replay:
            replay.continue_from(run.updates)
        run.carry = from_arrays(run.carry, "carry", carry, run.device)
        for player in run.players:
            count = len(like.get(player.place, ()))
            player.best_weights = [best[f"{player.place}{i}"] for i in range(count)] or None
        for state, progress in zip((run, *run.members), (facts.progress, *facts.members), strict=True):
            state.progress = progress
        for line in monitor.rewind(run.run_dir, facts.reports, run.report_folders):
            cli.say(f"tfdqn: warning: {line}")
        self._bring_back_models()
        self._saved_iteration = int(run.carry.iteration)
        self._facts = {**checkpoint.manifest, "format": checkpoints.FORMAT}
        cli.say(f"going on from {checkpoint.path}: {run.env_frames:,} frames, {run.updates:,} updates")

    def _bring_back_models(self) -> None:
        """Let no model be that of an agent from after the checkpoint, which training will not come by again."""
        for player in self.run.players:
            # Where a final model is, training has ended before; it has now ended with the agent of this checkpoint.
            is_ended = (player.run_dir / models.FINAL_MODEL).exists()
            wanted = {
                models.BEST_MODEL: player.best_weights,
                models.FINAL_MODEL: player.player_weights() if is_ended else None,
            }
            for name, weights in wanted.items():
                path = player.run_dir / name
                files.partial(path).unlink(missing_ok=True)
                if weights is None:
                    path.unlink(missing_ok=True)
                elif not self._give(name, player, weights):
                    path.unlink(missing_ok=True)  # better none for now than a wrong one; this may also make room
                    self.outbox.retry()

    def _read_carry(self, checkpoint: Checkpoint) -> dict[str, Any]:
        """The carry's tensors by name; those that runs had not yet when it was made are as at a run's start."""
        wanted = named_tensors(self.run.carry, "carry")
        memory = {name for name in wanted if name.startswith("carry/memory/")}
        newer = wanted.keys() & {"carry/is_standard", "carry/episode_score"} - checkpoint.names
        if not memory <= checkpoint.names:
            newer |= memory
            cli.say("this checkpoint remembers practice starts in an earlier form: they are found anew")
        own = {name: value.numpy() for name, value in wanted.items() if name in newer}
        if "carry/episode_score" in newer:
            own["carry/episode_score"] = self._older_score(checkpoint)
        return own | checkpoint.read({name: value for name, value in wanted.items() if name not in newer})

    def _older_score(self, checkpoint: Checkpoint) -> np.ndarray:
        """Scores [N] of a time when they were not summed: the returns or, where the game told so, the frames."""
        carry = self.run.carry
        is_return = not self.run.trainer.env._sets("score")
        name, like = ("return", carry.episode_score) if is_return else ("frames", carry.episode_frames)
        (held,) = checkpoint.read({f"carry/episode_{name}": like}).values()
        return held.astype(like.dtype.as_numpy_dtype if is_return else "float32")

    def _tensors(self) -> dict[str, Any]:
        run = self.run
        tensors = {
            name: variable
            for name, variable in run.trainer.learner.variables.items()
            if run.config.checkpoint_replay or not name.startswith("replay/")
        }
        for player in run.players:
            tensors |= {f"{player.place}{i}": weight for i, weight in enumerate(player.best_weights or [])}
        return tensors | named_tensors(run.carry, "carry")

    def _save(self) -> None:
        run, start = self.run, time.monotonic()
        if not run.run_dir.is_dir():  # no use in trying again: nothing that this run writes can ever be found
            raise UserError(f"{run.run_dir}: the run's folder was removed while it trained; start a new run", EXIT_IO)
        facts = {
            "updates": run.updates,
            "env_frames": run.env_frames,
            "config": configuration.as_json(run.config),
            "game_version": run.trainer.env.version,
            "game_source": run_config.source_of(run.config),
            "device": run.device,
            "progress": dataclasses.asdict(dataclasses.replace(run.progress, wall_seconds=run.wall_seconds)),
            "reports": self._flush_reports(),
        }
        if run.members:
            facts["members"] = [dataclasses.asdict(member.progress) for member in run.members]
        self._write(facts)
        self._on_saved()
        self._saved_iteration = int(run.carry.iteration)
        self._last_end = time.monotonic()
        self._seconds = self._last_end - start

    def _write(self, facts: dict[str, Any]) -> None:
        run, tensors = self.run, self._tensors()
        replay = run.trainer.replay
        steps = int(replay.num_rows) // replay.num_envs if replay else 0
        # Of tables [steps, environments, ...]; what there is one of for each member of a population is kept whole.
        filled = {
            name: min(steps, v.shape[0])
            for name, v in tensors.items()
            if name.startswith("replay/") and v.shape.rank > 1
        }
        self.path, self._facts = checkpoints.save(run.run_dir, tensors, facts, filled), facts
