"""Whole training on small games whose action values are known, and the faults that it must not survive.

The real trainer, replay, agent and optimizer learn games given by tables (`finite.py`, `probes.py`) by random play, in
one compiled program each, from the public contract of an environment alone.
"""

import functools

import numpy as np
import pytest
import tensorflow as tf

from tests.finite import DISCOUNT, MODES, Lab, known_q
from tests.probes import ALL_IN_ONE, LIMIT, PROBES, SIGNALS, random_game
from tfdqn.learners import losses
from tfdqn.learners.dqn.rules import HardTarget
from tfdqn.programs import training
from tfdqn.programs.evaluation import Evaluator
from tfdqn.replay.table import FrameReplay, RowTable

ITERATIONS = 4000  # so many cost little under XLA, and random outcomes need them
# A target that keeps up needs fewer updates where nothing is left to chance; fewer yet tell a fault from none.
FEWER = {"iterations": 1000, "target_update_period_updates": 5}
HASTY = {"iterations": 500, "target_update_period_updates": 5}


@functools.cache
def _lab(settings) -> Lab:
    return Lab(**dict(settings))


def lab(mode, **given) -> Lab:
    """A lab for these settings, made once."""
    settings = {"iterations": ITERATIONS, "n_step": 1, "frame_stack": 1, "double": True, **MODES[mode], **given}
    return _lab(tuple(sorted(settings.items())))


def games(n_step, frame_stack):
    """What a player with this many frames can master, and the error that chance leaves (0 but for rounding)."""
    signals = {f"signal {d}": (game, 0.05 if n_step > 1 else 0.01) for d, game in SIGNALS[n_step].items()}
    if frame_stack == 1:
        del signals["signal 2"]
    return {name: (game, 0.01) for name, game in PROBES.items()} | signals


# The least steps and frames; every combination in both modes, and more seeds, where there is time.
QUICK = [("xla", 1, 1, 2)]
SLOW = [(mode, n_step, stack, 5) for mode in ("xla", "graph") for n_step in (1, 3) for stack in (1, 2)]


@pytest.mark.parametrize(
    "mode, n_step, frame_stack, seeds", QUICK + [pytest.param(*case, marks=pytest.mark.slow) for case in SLOW]
)
def test_probes_are_solved_exactly(mode, n_step, frame_stack, seeds):
    errors, tolerances = {}, {}
    learner = lab(mode, n_step=n_step, frame_stack=frame_stack, **({} if mode == "xla" else FEWER))
    for name, (game, tolerance) in games(n_step, frame_stack).items():
        for seed in range(seeds):
            errors[name, seed] = learner.error(game, seed)
            tolerances[name, seed] = tolerance
            if name.startswith("signal") and n_step == 1:
                # A player who is shown an old frame, or one from before the reset, cannot know the right action.
                assert learner.greedy_score() == 4.0
    unsolved = {probe: error for probe, error in errors.items() if not error <= tolerances[probe]}
    print(f"{mode}, {n_step}-step, {frame_stack} frames: {len(errors) - len(unsolved)} of {len(errors)} probes solved")
    print(f"  max |Q - Q*| {max(errors.values()):.4f} ({max(errors, key=errors.get)})")
    assert not unsolved


def test_a_probe_is_solved_op_by_op():
    small = {"discount": 0.5, "replay_min_rows": 64, "learning_rate": 0.01, "target_update_period_updates": 10}
    slow = Lab(120, **small, **MODES["eager"])
    # Without end and with a reward of 1 for each decision: 1 / (1 - 0.5), cut off or not; 1.67 if a limit were death.
    assert known_q(ALL_IN_ONE, 0.5)[2, 0] == pytest.approx(2)
    assert slow.error(ALL_IN_ONE, 0) <= 0.05


def test_a_time_limit_is_worth_what_follows_and_a_death_nothing():
    """The values themselves, by hand."""
    np.testing.assert_allclose(lab("xla").learn(PROBES["time limit"], 0), 10.0, atol=0.1)
    sums = [sum(DISCOUNT**k for k in range(left)) for left in (5, 4, 3, 2, 1)]
    np.testing.assert_allclose(lab("xla").learn(PROBES["death"], 0)[:, 0], sums, atol=0.02)
    np.testing.assert_allclose(lab("xla").learn(PROBES["discounting"], 0)[0], DISCOUNT**4, atol=0.01)


@pytest.mark.parametrize(
    "mode, double, count",
    [
        ("xla", True, 2),
        ("graph", False, 1),
        *(pytest.param(m, d, 10, marks=pytest.mark.slow) for m in ("xla", "graph") for d in (True, False)),
    ],
)
def test_random_games_are_solved_to_one_per_cent(mode, double, count):
    """Twelve states, random outcomes, ends and a time limit, against value iteration in float64."""
    errors = []
    learner = lab(mode, double=double, **({"iterations": 2 * ITERATIONS} if count == 10 else {}))
    for seed in range(count):
        game = random_game(seed)
        q, known = learner.learn(game, seed), known_q(game, DISCOUNT)
        errors.append(np.max(np.abs(q - known) / np.abs(known)))
        np.testing.assert_array_equal(q.argmax(1), known.argmax(1))
    print(f"{mode}, double {double}: {count} games, max relative error {max(errors):.4f}, all greedy policies equal")
    assert max(errors) <= 0.01


def test_the_evaluator_shows_the_current_frames():
    learned = lab("graph", frame_stack=2, **HASTY)
    learned.learn(SIGNALS[1][2], 0)
    scores = Evaluator(learned.config, learned.game, learned.trainer.agent).evaluate(64)
    np.testing.assert_array_equal(scores.scores, np.full(64, 4.0))


# Faults, planted one at a time. Each must show in the probe named beside it, and would be silent anywhere else.


def read_with(change):
    """Let the replay's table read something else: `change(table, field, rows, read)`."""

    def plant(patch, _):
        read = RowTable.read
        patch.setattr(RowTable, "read", lambda table, field, rows: change(table, field, rows, read))

    return plant


def add_with(change):
    """Let the replay store other rows."""

    def plant(patch, _):
        add = FrameReplay.add
        patch.setattr(FrameReplay, "add", lambda replay, row: add(replay, change(row)))

    return plant


def frames_one_decision_late(table, field, rows, read):
    late = (rows - table.num_envs) % (table.fields["frame"].shape[0] * table.num_envs)
    return read(table, field, late if field == "frame" else rows)


def frames_of_the_next_environment(table, field, rows, read):
    other = rows // table.num_envs * table.num_envs + (rows + 1) % table.num_envs
    return read(table, field, other if field == "frame" else rows)


def stacks_that_cross_a_reset(table, field, rows, read):
    found = read(table, field, rows)
    return tf.zeros_like(found) if field == "is_first" else found


def limits_stored_as_death(patch, _):
    play = training.play

    def wrong(*arguments):
        state, timestep, *rest = play(*arguments)
        ends = timestep.termination | timestep.truncation
        return state, timestep._replace(termination=ends, truncation=tf.zeros_like(ends)), *rest

    patch.setattr(training, "play", wrong)


def returns_discounted_once(patch, _):
    sample = FrameReplay.sample

    def wrong(*arguments):
        transitions, weights, index = sample(*arguments)
        return transitions._replace(discount=tf.where(transitions.discount > 0, DISCOUNT, 0.0)), weights, index

    patch.setattr(FrameReplay, "sample", wrong)


def rewards_discounted_by_one(_, faulty):
    faulty.trainer.replay.discount = 1.0


def a_target_never_copied(patch, _):
    patch.setattr(HardTarget, "follow", lambda *given: None)


def the_best_value_moved_in_place_of_the_taken(patch, _):
    patch.setattr(losses, "masked_value", lambda q, action: tf.reduce_max(q, axis=-1))


def a_player_shown_old_frames(patch, _):
    patch.setattr(training, "stack_frames", lambda history, stride: tf.transpose(history[::-1], [1, 2, 3, 0]))


def a_player_whose_history_outlives_its_episode(patch, _):
    patch.setattr(training, "push_frame", lambda history, frame, is_first: tf.concat([history[1:], frame[None]], 0))


FAULTS = {
    "limits stored as death": (limits_stored_as_death, "time limit", 3, 1),
    "ends ignored": (add_with(lambda row: row._replace(discount=tf.ones_like(row.discount))), "death", 1, 1),
    "windows that cross an end": (
        add_with(lambda row: row._replace(is_boundary=tf.zeros_like(row.is_boundary))),
        "time limit",
        3,
        1,
    ),
    "frames one decision late": (read_with(frames_one_decision_late), "signal 1", 1, 1),
    "frames of another environment": (read_with(frames_of_the_next_environment), "signal 1", 1, 1),
    "stacks that cross a reset": (read_with(stacks_that_cross_a_reset), "signal 2", 1, 2),
    "no discount": (rewards_discounted_by_one, "discounting", 1, 1),
    "n-step returns discounted once": (returns_discounted_once, "death", 3, 1),
    "a target never copied": (a_target_never_copied, "discounting", 1, 1),
    "the wrong action's value": (the_best_value_moved_in_place_of_the_taken, "action choice", 1, 1),
}
PLAYER_FAULTS = {
    "old frames": a_player_shown_old_frames,
    "frames from before the reset": a_player_whose_history_outlives_its_episode,
}


LIKELY = (
    "limits stored as death",
    "windows that cross an end",
    "frames one decision late",
    "stacks that cross a reset",
)


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n not in LIKELY)) for n in FAULTS])
def test_a_planted_fault_is_seen(name, monkeypatch):
    plant, probe, n_step, frame_stack = FAULTS[name]
    game, _ = games(n_step, frame_stack)[probe]
    sound = lab("graph", n_step=n_step, frame_stack=frame_stack, **HASTY).error(game, 0)
    faulty = Lab(n_step=n_step, frame_stack=frame_stack, **HASTY, **MODES["graph"])
    plant(monkeypatch, faulty)
    error = faulty.error(game, 0)
    print(f"{name}: max |Q - Q*| {error:.3f} in {probe!r}, {sound:.3f} without the fault")
    assert sound <= 0.05 < 0.15 <= error


def test_a_limit_stored_as_death_is_worth_what_it_would_be(monkeypatch):
    """One transition in five would end: Q = 1 + 0.9 * 4/5 * Q, a mean, so by squares: Huber looks for a median."""
    faulty = Lab(**HASTY, **MODES["graph"], loss="mse")
    limits_stored_as_death(monkeypatch, faulty)
    np.testing.assert_allclose(
        faulty.learn(PROBES["time limit"], 0), 1 / (1 - DISCOUNT * (LIMIT - 1) / LIMIT), atol=0.2
    )


@pytest.mark.parametrize("name", PLAYER_FAULTS)
def test_a_player_who_is_shown_the_wrong_frames_fails(name, monkeypatch):
    faulty = Lab(frame_stack=2, **HASTY, **MODES["graph"])
    PLAYER_FAULTS[name](monkeypatch, faulty)
    assert faulty.error(SIGNALS[1][2], 0) <= 0.05  # what is learned is right: the replay builds its own stacks
    score = faulty.greedy_score()
    print(f"a player shown {name} scores {score:.2f} of 4")
    assert score < 3.9  # at the start of an episode one state in four looks like another
