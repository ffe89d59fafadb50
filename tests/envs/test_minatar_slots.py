"""MinAtar's space invaders and seaquest: their rules one by one, and that there is room for all that may be there."""

import numpy as np
import pytest
import tensorflow as tf

from tests.envs.helpers import assert_uniform, noise_of, to_numpy
from tfdqn import envs
from tfdqn.envs.minatar import row_bits, seaquest, space_invaders

NONE = 0


def game(name, ramping=True, **fields):
    """A game without sticky actions and one environment in its first state, but for some fields: "slots.x" or "x"."""
    env = envs.make(f"minatar_{name}", sticky_actions=0.0, difficulty_ramping=ramping)
    return env, placed(env.reset(noise_of(env, 0, 0)), fields)


def placed(state, fields):
    for name, value in fields.items():
        part, _, rest = name.partition(".")
        old = getattr(state, part)
        new = placed(old, {rest: value}) if rest else tf.constant(np.broadcast_to(value, old.shape), old.dtype)
        state = state._replace(**{part: new})
    return state


def after(env, state, action=NONE, **draws):
    noise = noise_of(env, 0, 0)
    noise = noise._replace(**{name: np.array([value], np.int32) for name, value in draws.items()})
    return to_numpy(env.step(state, tf.constant([action]), noise))


@pytest.mark.parametrize("seed", range(3))
def test_rows_of_bits_are_planes(seed):
    generator = np.random.default_rng(seed)
    for planes in (2, 5, 6, 12):
        wanted = generator.random([4, 10, 10, planes]) < 0.3
        rows = (wanted * 2 ** np.arange(10)[:, None]).sum(2)
        screen = row_bits.screen([tf.constant(rows[..., plane], tf.int32) for plane in range(planes)])
        np.testing.assert_array_equal(screen, wanted)
    # Three in a cell, more in a row, none off the screen.
    cells = np.repeat(generator.permuted(np.tile(np.arange(100), [4, 1]), axis=1)[:, :11], 3, axis=1)
    row, column = (
        cells // 10,
        np.where(generator.random([4, 33]) < 0.3, generator.choice([-1, 10, 99, 101]), cells % 10),
    )
    wanted = np.zeros([4, 10, 10], bool)
    for n, k in np.argwhere((column >= 0) & (column < 10)):
        wanted[n, row[n, k], column[n, k]] = True
    found = row_bits.crowded_rows(tf.constant(row, tf.int32), tf.constant(column, tf.int32))
    np.testing.assert_array_equal(found, (wanted * 2 ** np.arange(10)).sum(2))


# Space invaders.


def alien(*places):
    """Aliens by row and column of the formation, as bits."""
    return sum(1 << 6 * row + column for row, column in places)


@pytest.mark.parametrize(
    ("cannon", "aliens", "cell"),
    [
        (5, space_invaders.WAVE, 35),  # the lowest in its column
        (0, space_invaders.WAVE, 32),
        (9, alien((0, 0), (1, 0), (3, 4), (2, 5)), 27),
        (5, alien((1, 2), (2, 4)), 14),  # as far to the left as to the right: the left
        (6, alien((1, 2), (2, 4)), 26),
    ],
)
def test_the_lowest_alien_in_the_nearest_column_drops_a_bomb_every_ten_frames(cannon, aliens, cell):
    env, state = game("space_invaders", cannon=cannon, aliens=aliens, march_wait=9, time=10)
    following, _ = after(env, state)
    assert following.bomb == cell
    for time in (0, 9, 11):
        assert after(env, state._replace(time=tf.constant([time])))[0].bomb == 100


def test_aliens_turn_at_a_side_and_end_the_game_in_the_bottom_row():
    env, state = game("space_invaders", march_wait=0, left=0)
    state, timestep = after(env, state)
    assert (state.left, state.top, state.heading, timestep.termination) == (0, 1, 1, False)
    assert state.march_wait == space_invaders.MARCH_PERIOD - 1
    # Columns that are shot away do not count.
    env, state = game("space_invaders", march_wait=0, left=-2, aliens=alien((3, 3)), top=6)
    state, timestep = after(env, state)
    assert (state.left, state.top, timestep.termination, state.march_wait) == (-3, 6, False, 0)
    state, timestep = after(env, tf.nest.map_structure(tf.constant, state))
    assert (state.left, state.top, timestep.termination) == (-3, 7, True)
    assert timestep.observation[0, 0, 0, 1]  # the row below the bottom is drawn at the top


@pytest.mark.parametrize("ramping", [True, False])
def test_a_cleared_wave_is_followed_by_a_faster_one(ramping):
    for period, faster in ((12, 11), (7, 6), (6, 6)):
        fields = {"aliens": alien((2, 1)), "top": 3, "left": 4, "shots": [65, -10], "march_period": period}
        env, state = game("space_invaders", ramping, march_wait=4, **fields)
        state, timestep = after(env, state)
        assert (timestep.reward, state.aliens, state.top, state.left) == (1, space_invaders.WAVE, 0, 2)
        assert state.march_period == (faster if ramping else period) and state.march_wait == 3
        np.testing.assert_array_equal(state.shots, [[-10, -10]])


def test_the_cannon_fires_every_five_frames_and_two_shots_are_all_there_are():
    env, state = game("space_invaders", ramping=True, aliens=alien((0, 5)), march_wait=99, march_period=99)
    fired, seen = [], []
    for frame in range(40):
        state, timestep = after(env, tf.nest.map_structure(tf.constant, state), space_invaders.FIRE)
        fired += [frame] if timestep.observation[0, 8, 5, 4] else []
        seen.append(int(timestep.observation[..., 4].sum()))
    assert fired == list(range(0, 40, 5))
    assert seen == [1 if frame < 5 or frame % 5 == 4 else 2 for frame in range(40)]


# Seaquest.


def enemies(*some):
    """Fields of enemies (x, row, heading, is_submarine, step_wait, shot_wait), the oldest first."""
    gone = (seaquest.GONE, 1, 1, False, 3, 3)
    columns = zip(*(list(some) + [gone] * (seaquest.NUM_ENEMIES - len(some))), strict=True)
    names = ("x", "row", "heading", "is_submarine", "step_wait", "shot_wait")
    return {f"enemies.{name}": list(column) for name, column in zip(names, columns, strict=True)} | {"slot": len(some)}


def test_draws_of_seaquest_are_uniform():
    noise = noise_of(envs.make("minatar_seaquest"), 1, 2, 40_000)
    both = (noise.enemy_row - 1) * 8 + noise.diver_row - 1
    assert_uniform(both, 64)
    assert_uniform((noise.enemy_kind * 2 + noise.enemy_side) * 2 + noise.diver_side, 12)


def test_a_shot_hits_a_fish_before_a_submarine_and_the_oldest_of_these():
    here = [(6, 4, -1, True, 1, 5), (6, 4, -1, False, 2, 5), (6, 4, -1, False, 3, 5)]
    shot = {"shots.x": [5, seaquest.GONE], "shots.row": 4, "shots.heading": 1, "y": 7}
    for gone, hit in (([], 1), ([1], 2), ([1, 2], 0)):
        there = [enemy if k not in gone else (seaquest.GONE, *enemy[1:]) for k, enemy in enumerate(here)]
        env, state = game("seaquest", **enemies(*there), **shot)
        state, timestep = after(env, state)
        assert timestep.reward == 1 and state.shots.x[0, 0] == seaquest.GONE
        assert np.flatnonzero(state.enemies.x[0] != seaquest.GONE).tolist() == [
            k for k in range(3) if k not in (*gone, hit)
        ]


def test_a_submarine_that_swims_into_a_shot_still_fires():
    shot = {"shots.x": [7, seaquest.GONE], "shots.row": 4, "shots.heading": -1, "y": 7}
    env, state = game("seaquest", **enemies((5, 4, 1, True, 0, 0)), **shot)
    state, timestep = after(env, state)
    assert timestep.reward == 1 and state.shots.x[0, 0] == seaquest.GONE
    assert state.enemies.x[0, 0] == seaquest.GONE and state.enemies.shot_x[0, 0] == 7


@pytest.mark.parametrize("kind", [0, 1])
def test_no_enemy_comes_against_another_in_its_row(kind):
    for side, comes in ((0, True), (1, False)):
        env, state = game("seaquest", spawn_wait=0, **enemies((4, 3, 1, False, 3, 3)))
        following, _ = after(env, state, enemy_kind=kind, enemy_row=3, enemy_side=side)
        assert following.slot == 1 + comes and following.spawn_wait == seaquest.SPAWN_PERIOD - 1
        assert after(env, state, enemy_kind=kind, enemy_row=2, enemy_side=side)[0].slot == 2


@pytest.mark.parametrize(
    ("aboard", "reward", "left", "is_over"), [(6, 7, -1, False), (5, 0, 4, False), (1, 0, 0, False), (0, 0, 0, True)]
)
def test_coming_up_pays_with_six_divers_only_and_ends_with_none(aboard, reward, left, is_over):
    env, state = game("seaquest", y=1, is_up=False, aboard=aboard, oxygen=150, level=3)
    state, timestep = after(env, state, seaquest.UP)
    assert (timestep.reward, state.aboard, timestep.termination) == (reward, left, is_over)
    assert (state.oxygen, state.level) == ((150, 3) if is_over else (200, 4))
    # After all six, one more than all is gone: the package's way. It is not over then with nobody aboard.
    env, state = game("seaquest", y=1, is_up=False, aboard=-1, oxygen=150, ramping=False)
    state, timestep = after(env, state, seaquest.UP)
    assert (timestep.reward, state.aboard, timestep.termination, state.level) == (0, -2, False, 0)


def test_air_lasts_for_two_hundred_frames():
    env, state = game("seaquest", y=4, is_up=False, oxygen=1)
    state, timestep = after(env, state)
    assert state.oxygen == 0 and not timestep.termination
    assert after(env, tf.nest.map_structure(tf.constant, state))[1].termination


def test_divers_come_every_thirty_frames_swim_every_six_and_wait_for_room():
    env, state = game("seaquest", y=8, x=5, is_up=False, oxygen=10_000, spawn_wait=10_000)
    seen = []
    noise = noise_of(env, 0, 0)._replace(diver_row=np.array([2], np.int32), diver_side=np.array([0], np.int32))
    for _ in range(200):
        state, timestep = to_numpy(env.compiled_step(state, [NONE], noise))
        seen.append(np.flatnonzero(timestep.observation[0, 2, :, 9]).tolist())
    ages = [[age for age in (frame - 31 - 30 * k for k in range(7)) if 0 <= age < 59] for frame in range(1, 201)]
    assert seen == [sorted((age + 1) // 6 for age in frame) for frame in ages]
    assert max(map(len, seen)) == seaquest.NUM_DIVERS
    for aboard, taken in ((5, 1), (6, 0)):
        at = {"time": 34, "divers.row": [2, 0], "divers.heading": 1, "x": 0, "y": 2, "is_up": False}
        env, state = game("seaquest", aboard=aboard, **at)
        state, _ = after(env, state)
        assert state.aboard == aboard + taken and (state.divers.row[0, 0] == 2) == (taken == 0)


@pytest.mark.parametrize("rising", [0, 2, 7, 40])
def test_there_is_room_for_all_enemies_and_their_shots_at_every_level(rising):
    """Submarines as often as they may come, in one row, none shot: at each level, and while the level rises."""
    env = envs.make("minatar_seaquest", sticky_actions=0.0, difficulty_ramping=False)
    num_levels = seaquest.LAST_LEVEL + 1
    noise = tf.nest.map_structure(tf.constant, noise_of(env, 0, 0, num_levels))
    noise = noise._replace(
        enemy_kind=tf.zeros_like(noise.enemy_kind), enemy_row=tf.ones_like(noise.enemy_row), enemy_side=noise.sticky * 0
    )
    state = env.reset(noise)._replace(y=tf.fill([num_levels], 8), level=tf.range(num_levels))
    most = np.zeros(num_levels, int)
    for frame in range(400 if rising == 0 else 60 + 20 * rising):
        if rising:
            level = tf.minimum(tf.range(num_levels) + frame // rising, seaquest.LAST_LEVEL)
            state = state._replace(level=level)
        before = to_numpy(state)
        state, _ = env.compiled_step(state, tf.zeros([num_levels], tf.int32), noise)
        now = to_numpy(state)
        comes = now.slot != before.slot
        envs_, taken = np.arange(num_levels), before.slot
        # The place that an enemy takes is free, of the enemy before it and of that one's shot.
        for field in (before.enemies.x, before.enemies.shot_x):
            assert np.all((field[envs_, taken] == seaquest.GONE) | ~comes)
        # No submarine fires before its last shot is gone.
        fires = (before.enemies.x != seaquest.GONE) & (before.enemies.shot_wait == 0)
        assert not np.any(fires & (before.enemies.shot_x != seaquest.GONE))
        is_there = now.enemies.x != seaquest.GONE
        most = np.maximum(most, is_there.sum(1))
        # No two enter a cell at once, and three are in a cell at most.
        for x, step_wait, there in zip(now.enemies.x, now.enemies.step_wait, is_there, strict=True):
            places = list(zip(x[there].tolist(), step_wait[there].tolist(), strict=True))
            assert len(set(places)) == len(places)
            assert not there.any() or np.bincount(x[there]).max() <= 3
    assert most[seaquest.LAST_LEVEL] == 29  # so many are left after a frame, of thirty in it
    if not rising:
        assert np.all(most[:-1] <= 15) and most[0] == 3


def test_the_boats_shots_are_before_it_and_never_in_one_cell():
    env = envs.make("minatar_seaquest", sticky_actions=0.0)
    generator, num_envs = np.random.default_rng(0), 256
    noise = tf.nest.map_structure(tf.constant, noise_of(env, 0, 0, num_envs))
    state = env.reset(noise)._replace(spawn_wait=tf.fill([num_envs], 10_000))
    most = 0
    for _ in range(200):
        before = to_numpy(state)
        action = generator.choice([1, 3, 5, 5], num_envs).astype(np.int32)
        state, _ = env.compiled_step(state, action, noise)
        now = to_numpy(state)
        there = now.shots.x != seaquest.GONE
        assert np.all(((now.shots.x - now.x[:, None]) * now.shots.heading > 0) | ~there)
        assert not np.any(there.all(1) & (now.shots.x[:, 0] == now.shots.x[:, 1]))
        # The one that is pushed out has left: it would not be on the screen.
        pushed = (action == seaquest.FIRE) & (before.reload == 0)
        last = before.shots.x[:, 1] + before.shots.heading[:, 1]
        assert np.all(~pushed | (before.shots.x[:, 1] == seaquest.GONE) | (last < 0) | (last > 9))
        most = max(most, there.sum(1).max())
    assert most == seaquest.NUM_SHOTS
