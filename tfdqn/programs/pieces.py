"""A chunk of games that step on the host where no program can call Python: on a GPU, and without XLA."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from tfdqn.learners.metrics import MAX_REPORTS, Reports
from tfdqn.programs.restarts import Nothing
from tfdqn.programs.stage import Played
from tfdqn.programs.training import Carry
from tfdqn.runtime import compiled
from tfdqn.runtime.packing import Packing

if TYPE_CHECKING:
    from tfdqn.programs.host import HostTrainer

UNROLLED = 8  # decisions of a round that are written out; a loop in the loop costs each of them some 100 microseconds
LEAST_CALM_ROUNDS = 16  # to the next update that does something rare; from so many on it pays to look for it


class Pieces:
    """The same chunk in several programs, where none can call Python: on a GPU, and without XLA.

    Its loops are TensorFlow's own, which call the games' Python, and programs of XLA for all else: one writes the last
    decision's row, takes in the frames that followed and chooses the next actions; the updates of a round are another,
    beside which the games' next step runs. A step costs no call of a program from Python.

    Args:
      trainer: whose chunk it is.
    """

    def __init__(self, trainer: HostTrainer):
        self._trainer, self._learner, self._stage = trainer, trainer.learner, trainer.stage
        config = trainer.config
        programs = (self._note, self._update, self._update_without_rare, trainer._guard_weights)
        programs = [compiled.program(each, jit=config.jit, eager=config.eager) for each in programs]
        self._note_program, self._update_program, self._calm_program, self._guard_program = programs
        # Each variable that a program may write costs its start some microseconds, if it is written once in a thousand
        # times. Looking for that costs some, too.
        period, updates = self._learner.rare_period_updates, getattr(config, "updates_per_iteration", 1)
        self._calm_updates = updates if period >= LEAST_CALM_ROUNDS * updates else 0  # of a round; 0: all are looked at
        self._is_warm = config.eager  # op by op there is nothing to compile
        with tf.device(trainer.device):
            # A variable and no argument: one that is only read costs a program next to nothing.
            self._times = tf.Variable(1, trainable=False)

    def warm(self, carry: Carry) -> None:
        """Compile all programs before anything is timed; nothing is written or learnt."""
        self._packing = Packing((_unplayed(carry), tf.constant(0)))
        if self._is_warm:
            return
        gathered, packed = self._learner.begin_round(), self._packing.pack((_unplayed(carry), tf.constant(0)))
        self._times.assign(0)
        self._note_program(packed, carry.env_state.played, gathered)
        self._update_program(packed, gathered)
        if self._calm_updates:
            self._calm_program(packed, gathered)
        self._times.assign(1)
        self._guard_program(carry.metrics)
        self._is_warm = True

    def run(
        self, carry: Carry, reports: Reports, max_rounds: tf.Tensor, stop_env_frames: tf.Tensor
    ) -> tuple[Carry, Reports]:
        """As of `HostTrainer`."""
        config, iterations = self._trainer.config, self._trainer.agent.optimizer.iterations
        most = config.num_envs * self._learner.iterations_per_round  # frames of a round

        def until_report(rounds, frames, packed, played, reports):
            left = tf.minimum(stop_env_frames, reports.next_env_frames) - frames
            # None of these rounds but the last can reach a limit, so the loop need not look.
            end = tf.minimum(max_rounds, rounds + tf.maximum(-(-left // most), 1))
            rounds, packed, played = self._rounds_until(end, (rounds, packed, played))
            carry, number = self._packing.unpack(packed)
            reports, metrics = reports.close_if_due(
                carry.env_frames, iterations, carry.metrics, config.log_every_frames
            )
            packed = self._packing.pack((carry._replace(metrics=metrics), number))
            return rounds, carry.env_frames, packed, played, reports

        def goes_on(rounds, frames, packed, played, reports):
            return (rounds < max_rounds) & (frames < stop_env_frames) & (reports.count < MAX_REPORTS)

        rounds = tf.zeros([], tf.int64)
        packed, played = self._packing.pack((_unplayed(carry), tf.constant(0))), carry.env_state.played
        held = (rounds, carry.env_frames, packed, played, reports)
        _, _, packed, played, reports = tf.while_loop(goes_on, until_report, held)
        carry, _ = self._packing.unpack(packed)
        carry = carry._replace(env_state=carry.env_state._replace(played=played))
        return carry._replace(metrics=self._guard_program(carry.metrics)), reports

    def _rounds_until(self, end: tf.Tensor, state: tuple) -> tuple:
        """Rounds up to that number; the state is their number so far, the packed carry and what the games show."""

        def by(update: Callable, end: tf.Tensor, state: tuple) -> tuple:
            return tf.while_loop(
                lambda rounds, *_: rounds < end,
                lambda rounds, *held: (rounds + 1, *self._packed_round(*held, update)),
                state,
            )

        if not self._calm_updates:
            return by(self._update_program, end, state)
        period = self._learner.rare_period_updates

        def to_the_next_rare(rounds, *held):
            made = self._trainer.agent.optimizer.iterations.read_value()
            # Rounds none of whose updates is the period's last.
            calm = (period - 1 - made % period) // self._calm_updates
            state = by(self._calm_program, tf.minimum(rounds + calm, end), (rounds, *held))
            return by(self._update_program, tf.minimum(rounds + calm + 1, end), state)

        return tf.while_loop(lambda rounds, *_: rounds < end, to_the_next_rare, state)

    def _packed_round(
        self, packed: tuple[tf.Tensor, ...], played: Played, update: Callable
    ) -> tuple[tuple[tf.Tensor, ...], Played]:
        """A round, of a packed carry and what the games show, with one of the programs that update."""

        def once(packed, played, gathered):
            packed, action, gathered = self._note_program(packed, played, gathered)
            return packed, self._play(action, played), gathered

        wanted = self._learner.iterations_per_round
        state = (packed, played, self._learner.begin_round())
        if wanted <= UNROLLED:
            for _ in range(wanted):
                state = once(*state)
        else:
            state = tf.while_loop(lambda *_: True, once, state, maximum_iterations=wanted)
        packed, played, gathered = state
        return update(packed, gathered), played

    def _play(self, action: tf.Tensor, before: Played) -> Played:
        """What the games show for the next actions; of the shapes and types of what they showed before."""
        before = [each for each in before if not isinstance(each, Nothing)]
        # To TensorFlow it has no state, or it would wait for the updates that come after it here.
        with tf.device("/CPU:0"):
            played = tf.numpy_function(self._stage.step, [action], [each.dtype for each in before], stateful=False)
        for value, each in zip(played, before, strict=True):
            value.set_shape(each.shape)
        return Played.of(played)

    # Programs. In those that write, a loop of `_times` turns and no condition: XLA passes the replay by without a copy.

    def _note(
        self, packed: tuple[tf.Tensor, ...], played: Played, gathered: Any
    ) -> tuple[tuple[tf.Tensor, ...], tf.Tensor, Any]:
        """Take in the decision under way and make the next.

        Args:
          packed: the carry, and the decision's number in its round.
          played: what the games show for it.
          gathered: in the round so far.

        Returns:
          `packed`, in which the next decision is not played yet; its actions [N] int32; and what is gathered.
        """
        step = played.step()
        carry, number = self._packing.unpack(packed)
        _, carry, gathered = tf.while_loop(
            lambda i, *_: i < self._times,
            lambda i, *held: (i + 1, *self._trainer.noted(*held, number, step)),
            (tf.constant(0), carry, gathered),
        )
        pending = self._trainer.answered(carry, step)
        return self._packing.pack((carry._replace(env_state=pending), number + 1)), pending.action, gathered

    def _update(self, packed: tuple[tf.Tensor, ...], gathered: Any) -> tuple[tf.Tensor, ...]:
        """What is learnt at a round's end: the carry with the sums after it, and the next decision's number, 0."""
        carry, _ = self._packing.unpack(packed)

        def update(i, sums):
            return i + 1, self._trainer._learn(carry._replace(metrics=sums), gathered)

        sums = tf.while_loop(lambda i, _: i < self._times, update, (tf.constant(0), carry.metrics))[1]
        return self._packing.pack((carry._replace(metrics=sums), tf.constant(0)))

    def _update_without_rare(self, packed: tuple[tf.Tensor, ...], gathered: Any) -> tuple[tf.Tensor, ...]:
        """The same, where nothing that is rare is due."""
        with self._learner.without_rare():
            return self._update(packed, gathered)


def _unplayed(carry: Carry) -> Carry:
    """Without what the games show, which comes from elsewhere each time."""
    return carry._replace(env_state=carry.env_state._replace(played=()))
