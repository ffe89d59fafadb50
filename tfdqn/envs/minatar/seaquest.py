"""Seaquest of MinAtar: a boat under water shoots fish and submarines, takes divers aboard and comes up for air.

Row 0 is the surface, rows 1 to 8 are where things swim, row 9 shows gauges. All that swims keeps to its row and comes
in at one side. When divers come, and how far they have swum, follows from the time. There is room for all that may be
there at once:

  shots of the boat   Two. One is fired every 5 frames at most, and has left the 10 columns after 9.
  divers              Two. One comes every 30 frames, and has left after 59.
  enemies             A ring of 32. One crosses a column in `step_wait + 1` frames, so it is gone after ten times as
                      many, while one comes every `spawn_period` frames: after 60 and every 20 at level 0, after 30 and
                      every 14 at level 6, after 30 and every one at the last, hence thirty at once at most.
  enemies' shots      One in each place of the ring, also when its submarine is gone. A submarine fires every 11 frames,
                      and a shot has left after 10. At the last level a submarine fires 10 and 21 frames after it came,
                      from columns 3 and 7 of its way, and its last shot is gone after 24 frames, before the next enemy
                      comes into its place.

All enemies of a row swim the same way, and no two of them came in the same frame, so no two enter a cell in the same
frame: at most three are in one. The boat is slower than its shots, so a shot is always before it, and two shots are
never in one cell.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfdqn import seeds
from tfdqn.envs.base import TimeStep
from tfdqn.envs.minatar import common, row_bits
from tfdqn.envs.minatar.common import SIZE

START_X = 5
LOWEST = SIZE - 2  # row below which the boat does not dive
GAUGES = SIZE - 1  # row of the gauges: oxygen from the left, divers aboard up to column 8
SWIMMING_ROWS = SIZE - 2  # rows 1, 2, ... in which something may swim
GONE = 100  # a column that is nowhere, nor next to one that is

SHOT_PERIOD = 5  # frames between two shots of the boat, at least
NUM_SHOTS = 2

OXYGEN = 200  # frames under water
OXYGEN_PER_CELL = OXYGEN // SIZE  # of its gauge, each of which pays 1 when the boat comes up with all divers

MAX_ABOARD = 6
DIVER_PERIOD = 30  # frames between two divers: one comes in frames 31, 61, ...
DIVER_STEP_PERIOD = 6  # frames in which one swims a column; five columns until the next comes
NUM_DIVERS = 2
NO_DIVER = 0  # the row of a diver who is not there

# Each time that the boat comes up is a level: an enemy comes in a frame less, and every second level, enemies wait a
# frame less before they swim a column.
SPAWN_PERIOD, LEAST_SPAWN_PERIOD = 20, 1
STEP_WAIT, LEAST_STEP_WAIT = 5, 2
LAST_LEVEL = SPAWN_PERIOD - LEAST_SPAWN_PERIOD
SUBMARINE_SHARE = 3  # one enemy in three
SUBMARINE_WAIT = 10  # frames before a submarine fires, and between two shots
NUM_ENEMIES = 32

LEFT = 1
UP = 2
RIGHT = 3
DOWN = 4
FIRE = 5


class Noise(NamedTuple):
    """The draws of one transition. A reset needs none, and uses their N."""

    sticky: tf.Tensor  # [N] int32, 0..STICKY_DRAWS-1
    enemy_kind: tf.Tensor  # [N] int32, 0..2; 0: a submarine, otherwise a fish
    enemy_row: tf.Tensor  # [N] int32, 1..8
    enemy_side: tf.Tensor  # [N] int32, 0..1: it comes from the left or the right
    diver_row: tf.Tensor  # [N] int32, 1..8
    diver_side: tf.Tensor  # [N] int32, 0..1, likewise


class Shots(NamedTuple):
    """The newest two shots of the boat, newest first."""

    x: tf.Tensor  # [N, 2] int32, column; GONE
    row: tf.Tensor  # [N, 2] int32
    heading: tf.Tensor  # [N, 2] int32, -1 or 1


class Divers(NamedTuple):
    """The newest two divers, newest first. Where they are follows from the time."""

    row: tf.Tensor  # [N, 2] int32; NO_DIVER
    heading: tf.Tensor  # [N, 2] int32, -1 or 1


class Enemies(NamedTuple):
    """A ring of fish and submarines, and of what the submarines shot."""

    x: tf.Tensor  # [N, 32] int32, column; GONE
    row: tf.Tensor  # [N, 32] int32
    heading: tf.Tensor  # [N, 32] int32, -1 or 1
    is_submarine: tf.Tensor  # [N, 32] bool
    step_wait: tf.Tensor  # [N, 32] int32, frames until it swims a column
    shot_wait: tf.Tensor  # [N, 32] int32, frames until it fires, if it is a submarine
    shot_x: tf.Tensor  # [N, 32] int32, column of its shot in its row, with its heading; GONE


class State(NamedTuple):
    """What a game is made of, after `time` frames."""

    time: tf.Tensor  # [N] int32
    last_action: tf.Tensor  # [N] int32, what was done in the frame before
    x: tf.Tensor  # [N] int32, column of the boat's front
    y: tf.Tensor  # [N] int32, its row
    heading: tf.Tensor  # [N] int32, it looks to the left (-1) or to the right (1)
    reload: tf.Tensor  # [N] int32, frames until it can fire
    oxygen: tf.Tensor  # [N] int32, frames that are left under water
    aboard: tf.Tensor  # [N] int32, divers; less than 0 after all six were brought up
    is_up: tf.Tensor  # [N] bool, the boat was at the surface in the frame before
    level: tf.Tensor  # [N] int32, 0..LAST_LEVEL
    spawn_wait: tf.Tensor  # [N] int32, frames until an enemy comes
    slot: tf.Tensor  # [N] int32, where it goes in the ring
    shots: Shots
    divers: Divers
    enemies: Enemies


class Seaquest(common.MinAtar):
    """Seaquest on 10 x 10 cells; reward 1 for an enemy, up to 10 for six divers brought up, by the oxygen left.

    The end is an enemy or its shot on the boat's front, no oxygen, or coming up with no diver aboard.
    """

    name = "minatar_seaquest"
    version = 1
    action_names = ("none", "left", "up", "right", "down", "fire")
    planes = ("front", "back", "shot", "trail", "enemy_shot", "fish", "submarine", "oxygen", "aboard", "diver")

    def sample_noise(self, seed: tf.Tensor, num_envs: int) -> Noise:
        sticky, rest = common.take_bits(seeds.draw(seed, num_envs), common.STICKY_BITS)
        fields = []
        for count in (SUBMARINE_SHARE, SWIMMING_ROWS, 2, SWIMMING_ROWS, 2):
            fields.append(tf.cast(rest % count, tf.int32))
            rest //= count
        kind, enemy_row, enemy_side, diver_row, diver_side = fields
        return Noise(sticky, kind, 1 + enemy_row, enemy_side, 1 + diver_row, diver_side)

    def reset(self, noise: Noise) -> State:
        noise = self.checked_noise(noise)
        zero = tf.zeros_like(noise.sticky)

        def slots(kind: type, count: int, **fields: int) -> NamedTuple:
            zeros = tf.repeat(zero[:, tf.newaxis], count, axis=1)
            return kind(*(zeros + fields.get(name, 0) for name in kind._fields))

        enemies = slots(Enemies, NUM_ENEMIES, x=GONE, shot_x=GONE)
        return State(
            time=zero,
            last_action=zero + common.NO_OP,
            x=zero + START_X,
            y=zero,
            heading=zero - 1,
            reload=zero,
            oxygen=zero + OXYGEN,
            aboard=zero,
            is_up=tf.ones_like(zero, tf.bool),
            level=zero,
            spawn_wait=zero + SPAWN_PERIOD,
            slot=zero,
            shots=slots(Shots, NUM_SHOTS, x=GONE),
            divers=slots(Divers, NUM_DIVERS, row=NO_DIVER),
            enemies=enemies._replace(is_submarine=enemies.x != GONE),
        )

    def step(self, state: State, action: tf.Tensor, noise: Noise) -> tuple[State, TimeStep]:
        state, action, noise = self.checked(state, action, noise)
        time = state.time + 1
        action = self.taken(action, state.last_action, noise.sticky)

        is_due = state.spawn_wait == 0
        comes = is_due & ~_is_opposed(state.enemies, noise)
        spawn_wait = tf.where(is_due, _spawn_period(state.level), state.spawn_wait)
        enemies = _with_enemy(state, comes, noise)
        slot = (state.slot + tf.cast(comes, tf.int32)) % NUM_ENEMIES
        divers = _with_diver(state.divers, time, noise)

        fires = (action == FIRE) & (state.reload == 0)
        shots = _with_shot(state, fires)
        move_x = tf.cast(action == RIGHT, tf.int32) - tf.cast(action == LEFT, tf.int32)
        move_y = tf.cast(action == DOWN, tf.int32) - tf.cast(action == UP, tf.int32)
        x = tf.clip_by_value(state.x + move_x, 0, SIZE - 1)
        y = tf.clip_by_value(state.y + move_y, 0, LOWEST)

        shots = shots._replace(x=_on_screen(shots.x + shots.heading))
        enemies, shots, killed = _shoot(enemies, shots, slot)
        divers, aboard = _take_aboard(divers, state.aboard, time, x, y)
        enemies, shots, met, is_over = _advance(enemies, shots, state.level, x, y)
        enemies, is_hit = _advance_shots(enemies, x, y)

        is_over |= is_hit | (state.oxygen <= 0)
        is_under = y > 0
        comes_up = ~is_under & ~state.is_up
        is_over |= comes_up & (aboard == 0)
        surfaces = comes_up & (aboard != 0)
        is_full = aboard == MAX_ABOARD
        saved = tf.where(surfaces & is_full, state.oxygen // OXYGEN_PER_CELL, 0)
        # All six go ashore, and then one more, as in the package: after that the boat may come up with nobody aboard.
        ashore = tf.where(is_full, MAX_ABOARD + 1, 1)
        is_harder = surfaces & (state.level < LAST_LEVEL) & self.ramps

        state = State(
            time=time,
            last_action=action,
            x=x,
            y=y,
            heading=tf.where(move_x == 0, state.heading, move_x),
            reload=tf.maximum(tf.where(fires, SHOT_PERIOD, state.reload) - 1, 0),
            oxygen=tf.where(is_under, state.oxygen - 1, tf.where(surfaces, OXYGEN, state.oxygen)),
            aboard=tf.where(surfaces, aboard - ashore, aboard),
            is_up=~is_under & (state.is_up | surfaces),
            level=tf.where(is_harder, state.level + 1, state.level),
            spawn_wait=tf.maximum(spawn_wait - 1, 0),
            slot=slot,
            # All planes read these, row by row.
            shots=row_bits.computed_once(shots),
            divers=row_bits.computed_once(divers),
            enemies=row_bits.computed_once(enemies),
        )
        timestep = TimeStep(
            observation=self.observe(state),
            reward=tf.cast(killed + met + saved, tf.float32),
            termination=is_over,
            truncation=(time > self.time_limit) & ~is_over,
        )
        return state, timestep

    def observe(self, state: State) -> tf.Tensor:
        state = tf.nest.map_structure(tf.convert_to_tensor, state)

        def drawn(row, x):
            """A plane in which things [N, K] are, or [N]."""
            if row.shape.rank == 1:
                row, x = row[:, tf.newaxis], x[:, tf.newaxis]
            return row_bits.rows(row, row_bits.bits(x))

        enemies, shots, divers = state.enemies, state.shots, state.divers
        diver_x = _diver_x(divers, (state.time - 1) % DIVER_PERIOD + 1)
        diver_x = tf.where(divers.row == NO_DIVER, GONE, diver_x)
        fish_x = tf.where(enemies.is_submarine, GONE, enemies.x)
        submarine_x = tf.where(enemies.is_submarine, enemies.x, GONE)
        fish, submarines, trails, enemy_shots = (
            row_bits.crowded_rows(enemies.row, column)
            for column in (fish_x, submarine_x, enemies.x - enemies.heading, enemies.shot_x)
        )
        is_gauge = np.arange(SIZE) == GAUGES
        cells = tf.maximum(state.oxygen, 0)[:, tf.newaxis] // OXYGEN_PER_CELL
        people = tf.maximum(state.aboard, 0)[:, tf.newaxis]
        return row_bits.screen(
            [
                drawn(state.y, state.x),
                drawn(state.y, state.x - state.heading),  # never off the screen: the boat came from there
                drawn(shots.row, shots.x),
                trails | drawn(divers.row, diver_x - divers.heading),
                enemy_shots,
                fish,
                submarines,
                tf.where(is_gauge, tf.bitwise.left_shift(1, cells) - 1, 0),  # from the left
                tf.where(is_gauge, 2 ** (SIZE - 1) - tf.bitwise.left_shift(1, SIZE - 1 - people), 0),  # up to column 8
                drawn(divers.row, diver_x),
            ]
        )


def _step_wait(level: tf.Tensor) -> tf.Tensor:
    """How many frames enemies wait before they swim a column, [N] int32."""
    return tf.maximum(STEP_WAIT - level // 2, LEAST_STEP_WAIT)


def _spawn_period(level: tf.Tensor) -> tf.Tensor:
    """Frames between two enemies, [N] int32."""
    return tf.maximum(SPAWN_PERIOD - level, LEAST_SPAWN_PERIOD)


def _on_screen(x: tf.Tensor) -> tf.Tensor:
    """Columns, or GONE for those that are not on the screen."""
    return tf.where((0 <= x) & (x < SIZE), x, GONE)


def _heading(side: tf.Tensor) -> tf.Tensor:
    """Which way something swims that comes from the left (0) or the right (1)."""
    return 1 - 2 * side


def _is_opposed(enemies: Enemies, noise: Noise) -> tf.Tensor:
    """Whether an enemy swims against the one that is drawn in its row, [N] bool: it does not come then."""
    is_in_row = (enemies.x != GONE) & (enemies.row == noise.enemy_row[:, tf.newaxis])
    return tf.reduce_any(is_in_row & (enemies.heading != _heading(noise.enemy_side)[:, tf.newaxis]), axis=1)


def _with_enemy(state: State, comes: tf.Tensor, noise: Noise) -> Enemies:
    """The enemies and, where it `comes`, the one that is drawn."""
    is_its_slot = comes[:, tf.newaxis] & (np.arange(NUM_ENEMIES) == state.slot[:, tf.newaxis])
    new = Enemies(
        x=noise.enemy_side * (SIZE - 1),
        row=noise.enemy_row,
        heading=_heading(noise.enemy_side),
        is_submarine=noise.enemy_kind == 0,
        step_wait=_step_wait(state.level),
        shot_wait=tf.zeros_like(state.time) + SUBMARINE_WAIT,
        shot_x=tf.zeros_like(state.time) + GONE,
    )
    return Enemies(*(tf.where(is_its_slot, it[:, tf.newaxis], old) for it, old in zip(new, state.enemies, strict=True)))


def _with_diver(divers: Divers, time: tf.Tensor, noise: Noise) -> Divers:
    """The divers and, where it is time for one, the one that is drawn."""
    comes = (time % DIVER_PERIOD == 1) & (time > 1)
    return _pushed(comes, Divers(noise.diver_row, _heading(noise.diver_side)), divers)


def _with_shot(state: State, fires: tf.Tensor) -> Shots:
    """The boat's shots and, where it `fires`, a new one, still at its front."""
    return _pushed(fires, Shots(state.x, state.y, state.heading), state.shots)


def _pushed(is_pushed: tf.Tensor, new: NamedTuple, slots: NamedTuple) -> NamedTuple:
    """Slots [N, K], newest first, and where [N] `is_pushed` a new one in place of the oldest."""

    def field(new, old):
        return tf.where(is_pushed[:, tf.newaxis], tf.concat([new[:, tf.newaxis], old[:, :-1]], axis=1), old)

    return type(slots)(*(field(*both) for both in zip(new, slots, strict=True)))


def _shoot(enemies: Enemies, shots: Shots, next_slot: tf.Tensor) -> tuple[Enemies, Shots, tf.Tensor]:
    """Let each shot hit one enemy in its cell, a fish before a submarine, and of these the oldest.

    Returns:
      The enemies and shots that are left, and how many enemies were hit, [N] int32.
    """
    age = (next_slot[:, tf.newaxis] - 1 - np.arange(NUM_ENEMIES)) % NUM_ENEMIES  # in enemies that came since
    rank = 1 + age + tf.where(enemies.is_submarine, 0, NUM_ENEMIES)
    x, shot_x = enemies.x, []
    killed = tf.zeros_like(next_slot)
    for k in range(NUM_SHOTS):
        row, column = shots.row[:, k : k + 1], shots.x[:, k : k + 1]  # (see `row_bits.rows`)
        rank_here = tf.where((x == column) & (enemies.row == row) & (x != GONE), rank, 0)
        first = tf.reduce_max(rank_here, axis=1)
        hits = first > 0
        x = tf.where(hits[:, tf.newaxis] & (rank_here == first[:, tf.newaxis]), GONE, x)
        shot_x.append(tf.where(hits, GONE, shots.x[:, k]))
        killed += tf.cast(hits, tf.int32)
    return enemies._replace(x=x), shots._replace(x=tf.stack(shot_x, axis=1)), killed


def _diver_x(divers: Divers, frames: tf.Tensor) -> tf.Tensor:
    """Columns [N, 2] of divers, on the screen or one off it, `frames` [N] after the newest came, that one included."""
    columns = DIVER_PERIOD // DIVER_STEP_PERIOD * np.arange(NUM_DIVERS)  # between one and the newest
    steps = frames[:, tf.newaxis] // DIVER_STEP_PERIOD + columns
    return tf.where(divers.heading > 0, steps, SIZE - 1 - steps)


def _take_aboard(divers, aboard, time, x, y) -> tuple[Divers, tf.Tensor]:
    """Let divers swim; the boat takes those aboard whom it meets before or after that, while there is room.

    Returns:
      The divers in the water, and how many are aboard.
    """
    frames = (time - 1) % DIVER_PERIOD
    before, after = _diver_x(divers, frames), _diver_x(divers, frames + 1)
    meets = (divers.row == y[:, tf.newaxis]) & ((before == x[:, tf.newaxis]) | (after == x[:, tf.newaxis]))
    rows = []
    for k in range(NUM_DIVERS):
        is_taken = meets[:, k] & (divers.row[:, k] != NO_DIVER) & (aboard < MAX_ABOARD)
        aboard += tf.cast(is_taken, tf.int32)
        is_there = ~is_taken & (0 <= after[:, k]) & (after[:, k] < SIZE)
        rows.append(tf.where(is_there, divers.row[:, k], NO_DIVER))
    return divers._replace(row=tf.stack(rows, axis=1)), aboard


def _advance(enemies: Enemies, shots: Shots, level, x, y) -> tuple[Enemies, Shots, tf.Tensor, tf.Tensor]:
    """Let the enemies swim, some of them into a shot or the boat, and the submarines fire.

    Returns:
      The enemies and shots that are left, how many swam into a shot, [N] int32, and whether one met the boat.
    """
    x, y = x[:, tf.newaxis], y[:, tf.newaxis]
    is_there, is_in_row = enemies.x != GONE, enemies.row == y
    steps = is_there & (enemies.step_wait == 0)
    to = tf.where(steps, _on_screen(enemies.x + enemies.heading), enemies.x)
    is_met = tf.reduce_any(is_in_row & ((enemies.x == x) | (to == x)), axis=1)

    left, shot_x = to, []
    killed = tf.zeros_like(level)
    for k in range(NUM_SHOTS):
        row, column = shots.row[:, k : k + 1], shots.x[:, k : k + 1]  # (see `row_bits.rows`)
        is_killed = steps & (to == column) & (enemies.row == row) & (to != GONE)
        left = tf.where(is_killed, GONE, left)
        hits = tf.reduce_any(is_killed, axis=1)
        shot_x.append(tf.where(hits, GONE, shots.x[:, k]))
        killed += tf.cast(hits, tf.int32)

    # A submarine fires also in the frame in which it swims into a shot.
    fires = is_there & enemies.is_submarine & (enemies.shot_wait == 0)
    enemies = enemies._replace(
        x=left,
        step_wait=tf.maximum(tf.where(steps, _step_wait(level)[:, tf.newaxis], enemies.step_wait - 1), 0),
        shot_wait=tf.maximum(tf.where(fires, SUBMARINE_WAIT, enemies.shot_wait - 1), 0),
        shot_x=tf.where(fires, to, enemies.shot_x),
    )
    return enemies, shots._replace(x=tf.stack(shot_x, axis=1)), killed, is_met


def _advance_shots(enemies: Enemies, x: tf.Tensor, y: tf.Tensor) -> tuple[Enemies, tf.Tensor]:
    """Let the submarines' shots fly.

    Returns:
      The enemies with the shots that are left, and whether the boat was hit before or after, [N] bool.
    """
    x, y = x[:, tf.newaxis], y[:, tf.newaxis]
    to = _on_screen(enemies.shot_x + enemies.heading)
    is_hit = tf.reduce_any((enemies.row == y) & ((enemies.shot_x == x) | (to == x)), axis=1)
    return enemies._replace(shot_x=to), is_hit
