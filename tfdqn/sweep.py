"""Trials of Ray Tune over `tfdqn.Agent`: `Tuner(tfdqn.sweep.trainable("cave", folder="sweep"), ...)`.

What is tried, when, and on which machine is Ray's to decide. A trial is a run like any other, in a folder of its own,
and one that Ray starts again goes on from that folder's checkpoint. Importing this imports neither Ray nor TensorFlow.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfdqn import config as configuration
from tfdqn import paths
from tfdqn.agent_api import Agent, load
from tfdqn.envs import registry
from tfdqn.errors import UserError, nearest
from tfdqn.runs import checkpoints, locks, run_config, run_folder

if TYPE_CHECKING:
    from tfdqn.envs.base import Environment


def trainable(
    env: str | Environment = registry.DEFAULT, *, folder: str | Path, **settings: Any
) -> Callable[[Mapping[str, Any]], None]:
    """What `ray.tune.Tuner` takes as its trainable: each trial trains one agent.

    Its `config` is settings by name, whichever they are: `{"learning_rate": tune.loguniform(1e-5, 1e-3)}`. It reports
    each evaluation: `score_mean`, `env_frames`, `updates` and what else a Keras callback of `Agent.fit` is told, and
    `run_dir`. A trial that Ray starts again, after a failure or by `Tuner.restore`, is known by its id and goes on from
    its run's newest checkpoint, with the bits of a run that was never cut where the device allows that.

    Args:
      env: a game as `Agent` takes it; `config` may name another.
      folder: holds a run's folder for each trial, named by the trial's id; every machine of the cluster must see it.
      **settings: those that all trials share. Files are looked for from the folder where this is called, and not
        from the trials' own.

    Raises:
      UserError: Ray Tune is not installed, there is no such setting, or `folder` is an address.
    """
    try:
        import ray.tune  # noqa: F401
    except ImportError:  # Ray itself, or what its Tune needs besides
        raise UserError('tfdqn.sweep: needs Ray Tune; run python -m pip install "tfdqn[ray]"') from None
    for name in settings:
        if name not in configuration.FIELDS:
            raise UserError(f"{name}: unknown setting; {nearest(name, configuration.FIELDS)}")
    home = Path(paths.local("folder", str(folder))).absolute()
    here = Path.cwd()
    shared = {"env": env, **settings}

    def tfdqn_trial(config: Mapping[str, Any]) -> None:
        from ray import tune

        given = {name: _as_given(name, value, here) for name, value in {**shared, **config}.items()}
        _go_on(given, home, tune.get_context().get_trial_id(), tune.report)

    return tfdqn_trial


def _go_on(
    given: Mapping[str, Any], home: Path, trial_id: str | None, report: Callable[[dict[str, Any]], None]
) -> None:
    """Train a trial's agent, from its newest checkpoint if it has one."""
    import tensorflow as tf

    if trial_id is None:
        raise UserError("tfdqn.sweep: this is no trial of Ray Tune; give the trainable to ray.tune.Tuner")
    run_dir = home / trial_id
    agent = Agent(**given)
    is_begun = checkpoints.exist(run_dir)
    if is_begun:
        wanted = {name: value for name, value in configuration.plain(agent.config).items() if name in given}
        run_config.refuse_changes(run_dir, run_config.read_settings(run_dir), wanted)
        agent = load(run_dir, env=given["env"], network=given.get("network"))
    else:
        _clear(run_dir)

    def tell(results: Mapping[str, Any]) -> None:
        report({**results, "run_dir": str(run_dir)})

    telling = tf.keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: tell(logs))
    history = agent.fit(
        total_env_frames=given.get("total_env_frames"),
        callbacks=[telling],
        logdir=home,
        run_name=None if is_begun else trial_id,
    )
    if not history.epoch:  # cut between its last evaluation and its end: no trial is to end without a result
        totals = history.params
        score = statistics.fmean(each["score_mean"] for each in totals.get("members", [totals]))
        tell({"score_mean": score, "env_frames": float(totals["env_frames"]), "updates": float(totals["updates"])})


def _clear(run_dir: Path) -> None:
    """Remove what a trial has left that was cut before its first checkpoint: it will come by all of that again."""
    if run_dir.is_dir():
        with locks.lock(run_dir):  # not while it still trains
            run_folder.discard(run_dir)


def _as_given(name: str, value: Any, here: Path) -> Any:
    """A setting as Python has it, with files by their whole path: Ray starts trials in folders of their own."""
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        return value.item()  # some searchers suggest NumPy's numbers
    if not isinstance(value, str) or not value:
        return value
    if name in configuration.PATH_FIELDS:
        return str(here / Path(value).expanduser())
    if name in configuration.CODE_FIELDS:
        where, colon, thing = value.rpartition(":")
        path = here / Path(where).expanduser()
        return f"{path}:{thing}" if colon and path.is_file() else value
    return value
