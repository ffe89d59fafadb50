"""An agent from Python: `tfdqn.Agent("cave").fit(minutes=10)`, the same runs as `python -m tfdqn.train` makes.

Names follow Keras and Stable-Baselines3 where these agree: `fit` with `callbacks` and `verbose` returns a `History`
(Keras), `save` and `load` (both), `evaluate` (Keras; `evaluate_policy` there). `act` is what Stable-Baselines3 calls
`predict`: Keras's `predict` gives the model's output, which is `q_values` here. Importing this imports no TensorFlow.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfdqn import config as configuration
from tfdqn import console, paths, replicas, train
from tfdqn.envs import loading, registry
from tfdqn.errors import EXIT_IO, EXIT_REFUSED, UserError
from tfdqn.runs import checkpoints, member, models, run_config
from tfdqn.runtime.signals import StopRequest

if TYPE_CHECKING:
    import numpy as np
    import tensorflow as tf

    from tfdqn.config import Config
    from tfdqn.envs.base import Environment
    from tfdqn.learners.dqn.agent import DQN
    from tfdqn.programs.evaluation import Evaluator
    from tfdqn.runs.loop import Run

PRETRAINED = "pretrained:"
LOGDIR = "runs"


class Agent:
    """What plays a game, and how it learns to.

    Args:
      env: a game's name, "package.module:Class", "path/to/file.py:Class", or a game itself (`tfdqn.envs.Environment`).
      network: a body's name, "package.module:function", or a function from an `ObservationSpec` to a Keras model.
      **settings: any other setting, by the names of `python -m tfdqn.train -h --env NAME`, such as `seed=1`.

    Raises:
      UserError: an unknown setting, a value out of range, or values that do not fit together.
    """

    def __init__(
        self, env: str | Environment = registry.DEFAULT, *, network: str | Callable | None = None, **settings: Any
    ):
        self._game: Environment | None = None
        self._named: list[tuple[Callable, Any]] = []  # its own game and network, and what names them
        if not isinstance(env, str):
            self._game = env
            self._named.append((registry.adopt, env))
            env = registry.adopt(env)
            settings["env_args"] = _arguments_of(self._game, env, settings.get("env_args"))
        if network is not None and not isinstance(network, str):
            if not callable(network):
                raise UserError(
                    f"network {network!r}: must be a name, or a function from an ObservationSpec to a Keras model"
                )
            self._named.append((loading.adopt, network))
            network = loading.adopt(network)
        if network is not None:
            settings["network"] = network
        self._given: dict[str, Any] = {"env": env, **settings}
        self._config = configuration.resolve(self._given)
        # Each call of `fit` may name others, for itself.
        self._length = {name: getattr(self._config, name) for name in ("minutes", "total_env_frames")}
        self._run_dir: Path | None = None
        self._folder: Path | None = None  # that holds its weights
        self._player: DQN | None = None
        self._evaluator: Evaluator | None = None  # compiled, for this player
        self._device: str | None = None

    @property
    def config(self) -> Config:
        """All of its settings; of a population's best agent, those of that member."""
        return self._config

    @property
    def run_dir(self) -> Path | None:
        """The folder of its run, once it has been trained."""
        return self._run_dir

    @property
    def env(self) -> Environment:
        """The game."""
        if self._game is None:
            from tfdqn.envs import make_for

            self._game = make_for(self._config)
        return self._game

    @property
    def model(self) -> DQN:
        """The Keras model that plays: with the best weights found, or those that it begins with.

        The last weights stand in for the best where training was stopped before its first evaluation.
        """
        if self._player is None:
            from tfdqn.learners import build_agent

            self._start_device()
            self._claim_names()
            # As it suits this device, whatever it was trained on.
            self._player = build_agent(self._config.replace(convolution="auto"), self.env)
            if self._folder is not None:
                models.load_weights(self._player, _weights_in(self._folder))
        return self._player

    def _claim_names(self) -> None:
        """Have the names of its own game and network mean these: other agents' may have taken them meanwhile."""
        for adopt, thing in self._named:
            adopt(thing)

    # Learning.

    def fit(
        self,
        *,
        minutes: float | None = None,
        total_env_frames: int | None = None,
        population: str | None = None,
        pbt: bool | None = None,
        callbacks: tf.keras.callbacks.Callback | Iterable[tf.keras.callbacks.Callback] | None = None,
        logdir: str | Path = LOGDIR,
        run_name: str | None = None,
        verbose: int = 1,
    ) -> tf.keras.callbacks.History:
        """Train, as `python -m tfdqn.train` with the same settings: the same folder, logs, checkpoints and bits.

        Called again, it goes on with its run. Ctrl-C ends it: all is saved, and what there is so far is returned. A
        second one, two seconds later or more, is a `KeyboardInterrupt`.

        Args:
          minutes: train for so long now; None: the settings' own minutes, counted from the run's begin.
          total_env_frames: train until the run has played so many frames, over all environments; None: the settings'.
          population: train many agents in one program, as `tfdqn.grid` says what differs among them; this one then is
            the best of them, by its evaluations in training.
          pbt: have the worst of them take over agents of the best ones at each evaluation, as `--pbt`; None: as the
            settings say.
          callbacks: Keras callbacks, or one; an epoch is what lies between two evaluations, and its logs are the
            evaluation's results, such as `score_mean`, `env_frames` and `updates`. What one raises at the end of an
            epoch ends training as `stop_training` does, and is raised once all is saved.
          logdir: the folder that holds run folders, for a new run.
          run_name: the name of the run's folder, likewise; made from the settings if None.
          verbose: 0 for silence.

        Returns:
          A Keras `History`; its `history` has a list a log, its `params` the run's totals.
        """
        length = {"minutes": minutes, "total_env_frames": total_env_frames, "vary": population, "pbt": pbt}
        length = {name: value for name, value in length.items() if value is not None}
        callbacks = list(callbacks if isinstance(callbacks, Iterable) else [callbacks] if callbacks else ())
        if population is not None and not isinstance(population, str):
            raise UserError(f"population {population!r}: must be what tfdqn.grid makes, as tfdqn.grid(seed=range(4))")
        quiet = contextlib.nullcontext() if verbose else console.silence()
        with StopRequest(is_guest=True) as stop, stop.waiting(), quiet:
            run = self._begin(length, Path(paths.local("logdir", str(logdir))), run_name, stop)
            try:
                history = _Callbacks(run, callbacks)
                run.on_evaluation = history.evaluated
                history.begin()
                result = run.train()
                history.end(result)
            finally:
                run.close()
                self._take_over(run)
        return history.history

    def _take_over(self, run: Run) -> None:
        """Keep what a run has left: nothing, if it has failed before its first checkpoint."""
        if checkpoints.exist(run.run_dir):
            # Whole: from another working directory the same words would name another run.
            self._run_dir, self._folder = run.run_dir.absolute(), run.best_dir.absolute()
            self._config = run.best_config.replace(convolution=self._config.convolution)
            self._player = self._evaluator = None

    def _begin(self, length: Mapping[str, Any], logdir: Path, run_name: str | None, stop: StopRequest) -> Run:
        """A new run, or the one there is, going on."""
        self._claim_names()
        if self._run_dir is not None:
            if run_name is not None:
                raise UserError(f"run_name {run_name!r}: this agent has its run already, {self._run_dir}")
            if logdir != Path(LOGDIR) and logdir.resolve() != self._run_dir.resolve().parent:
                raise UserError(f"logdir {str(logdir)!r}: this agent has its run already, {self._run_dir}")
            if "minutes" in length:
                # Of this fit alone: those before must not hide that these are none.
                minutes = configuration.check_value(configuration.FIELDS["minutes"], length["minutes"])
                length = {**length, "minutes": minutes + _minutes_so_far(self._run_dir)}
            named = {name: getattr(self._config, name) for name in configuration.CODE_FIELDS}
            return train.resume(self._run_dir, {**named, **self._length, **length}, stop, game=self._game)
        given = {**self._given, **length}
        if self._folder is not None:
            given["init_from"] = str(self._folder)
        return train.start(given, stop, logdir=str(logdir), run_name=run_name, game=self._game)

    # Playing.

    def act(
        self, observation: Any, *, epsilon: float = 0.0, seed: int = 0, legal_actions: Any = None
    ) -> np.ndarray | int:
        """The actions that it takes; of an agent that remembers, those with which an episode begins.

        Args:
          observation: NumPy, tensor or list of the game's type: one observation, as the network sees it (frames
            stacked along the last axis, newest last), or many, [B, ...].
          epsilon: share of random actions.
          seed: decides which are random.
          legal_actions: [A] bool, or [B, A] for many observations: what the rules allow, at least one action each, as
            the game's own `legal_actions` says; None: every action.

        Returns:
          [B] int32, or a Python integer for a single observation.

        Raises:
          ValueError: another shape or type.
        """
        action, _ = self.act_with_state(observation, epsilon=epsilon, seed=seed, legal_actions=legal_actions)
        return action

    def act_with_state(
        self,
        observation: Any,
        agent_state: Any = None,
        *,
        reward: Any = None,
        epsilon: float = 0.0,
        seed: int = 0,
        legal_actions: Any = None,
    ) -> tuple[np.ndarray | int, Any]:
        """The actions that it takes, and what it carries on: an agent that remembers has to be given that again.

        Args:
          observation: as for `act`.
          agent_state: what was returned with the action before; None where an episode begins, for all of a batch.
          reward: what that action has paid, a number, or [B] for many observations; None: nothing. An agent that was
            trained with `previous_action_reward` sees it.
          epsilon, seed, legal_actions: as for `act`.
        """
        import tensorflow as tf

        from tfdqn import seeds
        from tfdqn.inputs import as_tensor

        if not 0 <= epsilon <= 1:
            raise ValueError(f"epsilon is {epsilon}, but must be between 0 and 1")
        batch, is_one = self._batch(observation)
        draw = seeds.at(seeds.stream(seed, "play"), 0)
        if legal_actions is not None and is_one:
            legal_actions = tf.convert_to_tensor(legal_actions)[tf.newaxis]
        begun = self.model.initial_state(len(batch))
        if agent_state is None:
            agent_state = begun
        elif _shapes(agent_state) != _shapes(begun):  # memories of another batch would go in side by side with it
            raise ValueError(f"agent_state: is not what was returned with {len(batch)} observations before")
        elif reward is not None:
            paid = as_tensor([reward] if is_one else reward, tf.float32, [len(batch)], "reward")
            agent_state = self.model.rewarded(agent_state, paid)
        action, agent_state = self.model.act(batch, agent_state, tf.constant(epsilon, tf.float32), draw, legal_actions)
        return int(action[0]) if is_one else action.numpy(), agent_state

    def q_values(self, observation: Any) -> np.ndarray:
        """Action values [B, A] float32, or [A] for a single observation; as for `act`."""
        batch, is_one = self._batch(observation)
        values = self.model(batch).numpy()
        return values[0] if is_one else values

    def _batch(self, observation: Any) -> tuple[Any, bool]:
        import numpy as np
        import tensorflow as tf

        shape = self.env.observation_spec.stacked(self._config.frame_stack).shape
        # Where frames are not stacked, a screen [H, W] is [H, W, 1] to the network.
        frame = self.env.observation_spec.shape if self._config.frame_stack == 1 else shape
        try:
            values = observation if tf.is_tensor(observation) else np.asarray(observation)
        except ValueError:
            raise ValueError(f"observation: lists of different lengths; must be {_sizes(frame, shape)}") from None
        rank = len(values.shape)
        for one in (shape, frame):
            if rank in (len(one), len(one) + 1) and tuple(values.shape[rank - len(one) :]) == one:
                is_one = rank == len(one)
                size = 1 if is_one else values.shape[0]
                reshape = tf.reshape if tf.is_tensor(values) else np.reshape
                return reshape(values, (size, *shape)), is_one
        raise ValueError(f"observation of shape {tuple(values.shape)}: must be {_sizes(frame, shape)}")

    def evaluate(self, episodes: int = 256, *, seed: int = 0, epsilon: float = 0.0) -> dict[str, float]:
        """Play whole episodes greedily; the same numbers as `python -m tfdqn.evaluate` gives.

        Args:
          episodes: how many.
          seed: of the game's draws.
          epsilon: share of random actions.

        Returns:
          episodes, score_mean, score_std, score_median, score_min and score_max.
        """
        from tfdqn.programs import evaluator_of

        together = max(min(self._config.eval_episodes, episodes), 1)
        if self._evaluator is None or self._evaluator.config.eval_episodes != together:
            config = self._config.replace(jit=True, eager=False, convolution="auto", eval_episodes=together)
            self._evaluator = evaluator_of(self.env)(config, self.env, self.model, self._start_device())
        return self._evaluator.evaluate(episodes, seed, epsilon=epsilon).summary()

    def _start_device(self) -> str:
        if self._device is None:
            try:
                self._device = train.device_of(self._config)
            except UserError:
                if not replicas.is_one(self._config):
                    raise
                # There are not as many as it is trained on; to play, one is enough.
                self._device = train.device_of(self._config.replace(replicas=1))
        return self._device

    # Keeping.

    def save(self, path: str | Path) -> None:
        """Write the agent into a folder, for `tfdqn.load` and every command that takes a run's folder.

        Args:
          path: the folder; made if it is not there.

        Raises:
          UserError: it holds an agent or a run already, or cannot be written.
        """
        if not str(path):
            raise UserError('save: "" is no folder; name one, such as "my_agent"')
        folder = Path(paths.local("", str(path)))
        if (folder / run_config.CONFIG_FILE).exists():
            raise UserError(f"{path}: holds an agent already; choose another folder")
        model = self.model
        try:
            folder.mkdir(parents=True, exist_ok=True)
            models.save_agent(model, folder / models.BEST_MODEL)
            run_config.write_config(self._config.replace(init_from=""), folder)
        except OSError as error:
            raise UserError(f"{path}: {error.strerror or error}; choose another folder", EXIT_IO) from None


def load(path: str | Path, *, env: str | Environment | None = None, network: str | Callable | None = None) -> Agent:
    """An agent that was saved or trained before.

    Args:
      path: a folder of `Agent.save`, a run's folder, or "pretrained:cave" for an agent that comes along.
      env: its game, where that does not come along with tfdqn: no folder decides which code runs here.
      network: its network, likewise.

    Raises:
      UserError: no agent is there, or its game or network has to be named.
    """
    name = str(path)
    is_ours = name.startswith(PRETRAINED)
    folder = models.pretrained_folder(name.removeprefix(PRETRAINED)) if is_ours else Path(paths.local("", name))
    given = {name: value for name, value in (("env", env), ("network", network)) if value is not None}
    adopters = {"env": registry.adopt, "network": loading.adopt}
    named = {name: value if isinstance(value, str) else adopters[name](value) for name, value in given.items()}
    config = run_config.read_config(folder, named)
    has_run = checkpoints.exist(folder)
    if not has_run and not _weights_in(folder).is_file():
        raise UserError(f"{path}: holds no agent ({models.BEST_MODEL} is missing)")
    if env is not None and not isinstance(env, str):
        try:
            _arguments_of(env, named["env"], config.env_args)
        except UserError as error:
            raise UserError(f"{path}: {error}", EXIT_REFUSED) from None
    agent = Agent(**{**configuration.plain(config), **given})
    agent._folder, agent._run_dir = member.best_folder(folder).absolute(), folder.absolute() if has_run else None
    if agent._folder != folder.absolute():  # a member; but how long it is to be trained is the whole run's
        agent._config = run_config.read_config(agent._folder, named)
    return agent


def _arguments_of(game: Environment, name: str, said: str | None) -> str:
    """What a game was made with, as `--env-args` would have it.

    Args:
      game: the game.
      name: its name, for the message.
      said: what is said of that elsewhere, such as in a run's folder; None: nothing.

    Raises:
      UserError: something else is said.
    """
    made = loading.arguments_of(game)
    if made is None:
        if said is None:
            console.say(
                f"tfdqn: warning: {name} was made with what JSON does not hold: no run's folder will say with what"
            )
        return said or ""
    if said is None:
        return json.dumps(made) if made else ""
    if loading.differing(type(game), loading.parse_arguments(said)) != made:
        raise UserError(
            f"env_args is {said or '{}'} there, but {name} was made with {json.dumps(made)}; make it with the same"
        )
    return said


def _shapes(state: Any) -> list[tuple[int, ...]]:
    """Of each tensor of what an agent carries on."""
    import tensorflow as tf

    return [tuple(getattr(each, "shape", ())) for each in tf.nest.flatten(state)]


def _weights_in(folder: Path) -> Path:
    """The best agent's, or, where none was evaluated yet, those that training was stopped with."""
    best, final = folder / models.BEST_MODEL, folder / models.FINAL_MODEL
    return final if final.is_file() and not best.is_file() else best


def _sizes(frame: tuple[int, ...], stacked: tuple[int, ...]) -> str:
    hint = "" if frame != stacked or len(stacked) < 3 else ", frames along the last axis, the newest last"
    return f"{frame}{hint}, or a batch of these"


def _minutes_so_far(run_dir: Path) -> float:
    return checkpoints.peek(run_dir).get("progress", {}).get("wall_seconds", 0.0) / 60


class _Callbacks:
    """Keras callbacks beside a run: each evaluation ends an epoch."""

    def __init__(self, run: Run, callbacks: Iterable[tf.keras.callbacks.Callback]):
        import tensorflow as tf

        self._run, self._epoch, self._raised = run, 0, None
        self._model = run.trainer.agent
        self._list = tf.keras.callbacks.CallbackList(list(callbacks), add_history=True, model=self._model)
        (self.history,) = [each for each in self._list.callbacks if isinstance(each, tf.keras.callbacks.History)]

    def begin(self) -> None:
        self._model.stop_training = False
        self._list.on_train_begin()
        self._list.on_epoch_begin(0)

    def evaluated(self, values: Mapping[str, float]) -> None:
        """The end of an epoch; `values` are the evaluation's results. A callback may ask the run to stop."""
        try:
            self._list.on_epoch_end(self._epoch, dict(values))
            self._epoch += 1
            if not self._model.stop_training:
                self._list.on_epoch_begin(self._epoch)
        except Exception as error:  # of a callback: what was learnt since the last checkpoint must not be lost by it
            self._raised = error
        if self._model.stop_training or self._raised:
            self._run.ask_to_stop()

    def end(self, result: Mapping[str, Any]) -> None:
        if self._raised:
            raise self._raised
        self._list.on_train_end()
        self.history.params = dict(result)
