"""MinAtar's games: recorded play of the package's, replayed in every bit, and their rules one by one."""

import pathlib

import numpy as np
import pytest
import tensorflow as tf

from benchmarks.peers import minatar_parity
from tests.envs.helpers import assert_uniform, noise_of, to_numpy
from tfdqn import config as configuration
from tfdqn import envs, seeds
from tfdqn.envs import ObservationSpec, check, registry
from tfdqn.envs.check import playing
from tfdqn.envs.minatar import asterix, breakout, common, freeway
from tfdqn.errors import UserError
from tfdqn.runtime import compiled

FOLDER = pathlib.Path(__file__).parents[1] / "data" / "minatar"
GAMES = [game.name for game in registry.games() if game.name.startswith("minatar_")]
EAGER_FRAMES = 25
SAMPLE = ("minatar_seaquest", "minatar_breakout")  # with the most rules and the fewest; all where there is time


# Recorded play.


def recorded(name):
    with np.load(FOLDER / f"{name.removeprefix('minatar_')}.npz") as file:
        return dict(file)


def replayed(name, trace, frames, compile_play):
    """What our game shows with a recording's actions and draws: frame, reward, end and fresh, as the recording has."""
    env = envs.make(name, sticky_actions=float(trace["sticky"]), difficulty_ramping=bool(trace["ramping"]))
    kind = type(env.sample_noise(tf.constant([0, 0], tf.int64), 1))

    def draws(part, index=None):
        return kind(**{field: tf.constant(trace[f"{part}.{field}"][index]) for field in kind._fields})

    def frame(state, row):
        noise, action, over = row
        state, timestep = env.step(state, action, noise)
        fresh = env.reset(noise)

        def chosen(new, old):
            return tf.where(tf.reshape(over, [-1] + [1] * (len(old.shape) - 1)), new, old)

        shown = (timestep.observation, timestep.reward, timestep.termination | timestep.truncation, env.observe(fresh))
        return tf.nest.map_structure(chosen, fresh, state), shown

    start = env.reset(draws("first", slice(None)))
    rows = (draws("noise", slice(frames)), tf.constant(trace["action"][:frames], tf.int32), trace["over"][:frames])
    if compile_play:
        shown = compiled.xla(lambda start, rows: scan(frame, start, rows))(start, rows)
    else:
        state, seen = start, []
        for t in range(frames):
            state, each = frame(state, tf.nest.map_structure(lambda column, t=t: column[t], rows))
            seen.append(each)
        shown = [tf.stack(column) for column in zip(*seen, strict=True)]
    frame_, reward, end, fresh = to_numpy(tuple(shown))
    bits = [np.packbits(planes.reshape(*planes.shape[:2], -1), axis=-1) for planes in (frame_, fresh)]
    first = np.packbits(env.observe(start).numpy().reshape(len(reward[0]), -1), axis=-1)
    fresh = np.concatenate([first[np.newaxis], bits[1] * trace["over"][:frames, :, np.newaxis]])
    return {"frame": bits[0], "reward": reward, "end": end, "fresh": fresh}


def scan(frame, start, rows):
    """What `frame` shows for each row, [T, ...] each, in one loop."""
    frames = tf.nest.flatten(rows)[0].shape[0]
    _, shapes = frame(start, tf.nest.map_structure(lambda column: column[0], rows))
    arrays = [tf.TensorArray(each.dtype, frames, element_shape=each.shape) for each in shapes]

    def body(t, state, arrays):
        state, shown = frame(state, tf.nest.map_structure(lambda column: column[t], rows))
        return t + 1, state, [array.write(t, each) for array, each in zip(arrays, shown, strict=True)]

    _, _, arrays = tf.while_loop(lambda t, *_: t < frames, body, (0, start, arrays))
    return [array.stack() for array in arrays]


def require_recorded(name, trace, frames, compile_play):
    wanted = {part: trace[part][: frames + (part == "fresh")] for part in ("frame", "reward", "end", "fresh")}
    minatar_parity.require_equal(replayed(name, trace, frames, compile_play), wanted, name)


@pytest.mark.parametrize("name", GAMES)
def test_recorded_play_of_the_package_is_ours_in_every_bit(name):
    trace = recorded(name)
    assert len(trace["action"]) == 1000
    require_recorded(name, trace, 1000, compile_play=True)
    require_recorded(name, trace, EAGER_FRAMES, compile_play=False)


def test_a_wrong_plane_reward_or_end_is_seen():
    trace = recorded("minatar_breakout")
    for part, index, message in [
        ("frame", (7, 2, 11), "frame 7 of game 2: frame: entries"),
        ("reward", (3, 1), "frame 3 of game 1: reward is"),
        ("end", (0, 3), "frame 0 of game 3: end is"),
        ("fresh", (0, 2, 5), "frame -1 of game 2: fresh"),
    ]:
        wrong = {**trace, part: trace[part].copy()}
        wrong[part][index] = ~wrong[part][index] if wrong[part].dtype != np.float32 else 7
        with pytest.raises(minatar_parity.WrongResult, match=message):
            require_recorded("minatar_breakout", wrong, 10, compile_play=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", GAMES)
def test_the_package_plays_the_same_game(name):
    for sticky, ramping in ((0.1, True), (0.0, False)):
        frames, events = minatar_parity.compare(name.removeprefix("minatar_"), 100_000, sticky, ramping)
        assert frames >= 100_000
        missing = [what for what, count in events.items() if not count]
        # What does not happen at all is what was switched off.
        assert all((sticky == 0 and "than the one chosen" in what) or not ramping for what in missing), missing


# What all have in common.


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n not in SAMPLE)) for n in GAMES])
def test_they_keep_the_contract(name, monkeypatch):
    monkeypatch.setattr(playing, "LONG_PLAY_FRAMES", (300, 2_000))
    found = {each.name: each for each in check.check_env(envs.make(name), num_envs=6, steps=8)}
    assert not [str(each) for each in found.values() if each.verdict not in ("ok", "info")]
    assert found["eager and XLA"].message == "in every bit"
    assert found["time limit"].verdict == "ok"


@pytest.mark.parametrize("name", GAMES)
def test_what_is_said_before_a_game_is_made_is_so(name):
    env, config = envs.make(name), configuration.resolve({"env": name})
    assert env.name == name
    assert config.observation_spec == env.observation_spec == ObservationSpec((10, 10, len(env.planes)), "bool")
    assert env.time_limit == (2_500 if name == "minatar_freeway" else 10_000)
    assert config.sticky_actions == 0.1 and config.difficulty_ramping


def test_the_settings_are_refused_in_one_line():
    with pytest.raises(UserError, match=r"--sticky-actions 1.5: must be at most 1"):
        configuration.resolve({"env": GAMES[0], "sticky_actions": 1.5})
    with pytest.raises(UserError, match=r"catch8 has no such setting, only .*minatar_breakout"):
        configuration.resolve({"env": "catch8", "sticky_actions": 0.5})
    with pytest.raises(ValueError, match=r"sticky_actions -0.1: must be a probability, 0 to 1"):
        breakout.Breakout(sticky_actions=-0.1)


@pytest.mark.parametrize("name", GAMES)
def test_actions_stick_as_often_as_they_should(name):
    num_envs = 20_000
    for probability in (0.0, 0.1, 1.0):
        env = envs.make(name, sticky_actions=probability)
        noise = noise_of(env, 5, 6, num_envs)
        state = env.reset(noise)
        state = state._replace(last_action=tf.fill([num_envs], 2))
        state, _ = env.step(state, tf.fill([num_envs], 1), noise)
        stuck = (state.last_action.numpy() == 2).mean()
        assert abs(stuck - probability) < 4 * np.sqrt(probability * (1 - probability) / num_envs) + 1e-9
        # The first action of an episode has none before it but the one that does nothing.
        state, _ = env.step(env.reset(noise), tf.fill([num_envs], 1), noise)
        assert set(state.last_action.numpy().tolist()) <= {0, 1}


@pytest.mark.parametrize("name", GAMES)
def test_draws_follow_from_the_seed_and_the_environment_alone(name):
    env = envs.make(name)
    noise = noise_of(env, 3, 4, 1000)
    assert len(np.unique(np.stack([field.astype(np.int64) for field in noise]), axis=1).T) == 1000
    assert_uniform(noise.sticky // (common.STICKY_DRAWS // 16), 16)
    for few, many in zip(noise_of(env, 3, 4, 7), noise, strict=True):
        np.testing.assert_array_equal(few, many[:7])
    assert not np.array_equal(noise.sticky, noise_of(env, 3, 5, 1000).sticky)


# Breakout.


def test_balls_start_at_either_side():
    assert_uniform(noise_of(breakout.Breakout(), 1, 2, 20_000).start % 2, 2)


def ball_at(row, column, move_x=1, move_y=1, **fields):
    """A game of breakout without sticky actions whose ball is there."""
    env = breakout.Breakout(sticky_actions=0.0)
    state = env.reset(noise_of(env, 0, 0))
    places = {"ball_y": row, "ball_x": column, "move_x": move_x, "move_y": move_y, **fields}
    return env, state._replace(
        **{name: tf.constant([value], getattr(state, name).dtype) for name, value in places.items()}
    )


def after(env, state, action=0):
    return to_numpy(env.step(state, tf.constant([action]), noise_of(env, 0, 0)))


def test_a_ball_breaks_a_brick_and_flies_through_the_next():
    env, state = ball_at(4, 2, move_y=-1)
    state, timestep = after(env, state)
    assert (timestep.reward, state.ball_y, state.ball_x, state.move_y) == (1, 4, 3, 1)
    assert state.bricks == breakout.WALL - (1 << 23)
    env, state = ball_at(2, 2, move_y=-1, is_inside=True)
    state, timestep = after(env, state)
    assert (timestep.reward, state.ball_y, state.ball_x, state.move_y) == (0, 1, 3, -1)
    assert state.bricks == breakout.WALL and state.is_inside


@pytest.mark.parametrize(
    ("column", "paddle", "move_x", "moves"),
    [(4, 4, 1, (1, -1)), (4, 5, 1, (-1, -1)), (4, 3, 1, None), (9, 9, 1, (-1, -1)), (0, 1, -1, None)],
)
def test_the_paddle_throws_the_ball_back_from_above_and_from_beside(column, paddle, move_x, moves):
    env, state = ball_at(8, column, move_x, paddle=paddle)
    state, timestep = after(env, state)
    assert timestep.termination == (moves is None)
    if moves:
        assert (state.move_x, state.move_y, state.ball_y) == (*moves, 8)


def test_a_new_wall_comes_when_the_ball_is_at_the_bottom():
    env, state = ball_at(7, 4, bricks=0, paddle=5)
    state, _ = after(env, state)
    assert state.bricks == 0
    state, timestep = after(env, state)
    assert state.bricks == breakout.WALL and not timestep.termination


@pytest.mark.parametrize("paddle", [5, 0])
def test_a_ball_that_is_lost_at_the_time_limit_is_a_termination(paddle):
    for time in (9_999, 10_000):
        env, state = ball_at(8, 4, paddle=paddle, time=time)
        _, timestep = after(env, state)
        assert timestep.termination == (paddle == 0)
        assert timestep.truncation == (time == 10_000 and paddle == 5)


# Asterix.


def test_what_appears_is_gold_in_a_third_from_either_side_in_any_empty_lane():
    env, num = asterix.Asterix(), 30_000
    noise = noise_of(env, 1, 2, num)
    assert_uniform(noise.side, 2)
    is_gold = noise.gold < asterix.GOLD_DRAWS
    assert abs(is_gold.mean() - 1 / 3) < 4 * np.sqrt(2 / 9 / num)
    generator = np.random.default_rng(0)
    for lanes in (0, 1, 3, 7, 8):
        empty = np.zeros([num, 8], bool)
        empty[:, generator.permutation(8)[:lanes]] = True
        drawn = asterix._is_drawn_lane(tf.constant(empty), tf.constant(noise.lane)).numpy()
        assert np.all(drawn.sum(1) == min(lanes, 1)) and not (drawn & ~empty).any()
        if lanes:
            assert_uniform(np.searchsorted(np.flatnonzero(empty[0]), np.argmax(drawn, axis=1)), lanes)


def test_the_difficulty_rises_at_fixed_frames_or_not_at_all():
    """The frames in which things appear and move, by a plain count of what is written in the rules."""

    def due(ramps, count):
        spawn, move, periods, frames = 10, 5, [10, 5], []
        level = 0
        for frame in range(count):
            frames.append((spawn == 0, move == 0))
            spawn = (periods[0] if spawn == 0 else spawn) - 1
            move = (periods[1] if move == 0 else move) - 1
            if ramps and (frame + 1) % 102 == 0 and level < 9:
                level += 1
                periods = [periods[0] - 1, periods[1] - (level % 2 == 0)]
        assert periods == ([1, 1] if ramps else [10, 5])  # to the last level
        return frames

    for ramps, count in ((True, 940), (False, 230)):
        env = asterix.Asterix(sticky_actions=0.0, difficulty_ramping=ramps)
        state, seen = env.compiled_reset(noise_of(env, 0, 0)), []
        noise, stay = tf.nest.map_structure(tf.constant, noise_of(env, 0, 0)), tf.constant([0])
        for _ in range(count):
            seen.append((int(state.spawn_wait[0]) == 0, int(state.move_wait[0]) == 0))
            state, _ = env.compiled_step(state, stay, noise)
        assert seen == due(ramps, count)


def meeting(x, is_gold, is_from_left=True, move_wait=1):
    """A frame of asterix with one thing, in the player's lane, whose column is 5."""
    env = asterix.Asterix(sticky_actions=0.0)
    state = env.reset(noise_of(env, 0, 0))
    lane = np.arange(8) == 5 - asterix.FIRST_LANE
    state = state._replace(
        x=tf.constant([np.where(lane, x, asterix.EMPTY)], tf.int32),
        is_gold=tf.constant([lane & is_gold]),
        is_from_left=tf.constant([lane & is_from_left]),
        move_wait=tf.constant([move_wait]),
    )
    state, timestep = after(env, state)
    return int((state.x >= 0).sum()), float(timestep.reward[0]), bool(timestep.termination[0])


def test_the_player_takes_gold_and_is_caught_before_and_after_things_move():
    assert meeting(5, True) == (0, 1.0, False)
    assert meeting(5, False) == (1, 0.0, True)
    assert meeting(4, True, move_wait=0) == (0, 1.0, False)
    assert meeting(6, False, is_from_left=False, move_wait=0) == (1, 0.0, True)
    assert meeting(4, False, move_wait=1) == (1, 0.0, False)
    assert meeting(9, True, move_wait=0) == meeting(0, True, is_from_left=False, move_wait=0) == (0, 0.0, False)


# Freeway.


def test_cars_are_uniform_over_speeds_and_directions_each_on_its_own():
    speeds = freeway._speeds(tf.constant(noise_of(freeway.Freeway(), 1, 2, 20_000).cars)).numpy()
    assert set(np.unique(speeds).tolist()) == {*range(-5, 0), *range(1, 6)}
    kinds = np.where(speeds < 0, -1 - speeds, speeds + 4)
    for lane in range(8):
        assert_uniform(kinds[:, lane], 10)
        assert_uniform(kinds[:, lane] * 10 + kinds[:, lane - 1], 100)
    largest = tf.constant([0, 2**freeway.CAR_BITS - 1, 2**freeway.CAR_BITS // 2 + 1], tf.int64)
    np.testing.assert_array_equal(freeway._speeds(largest)[:, 0], [-1, 5, 1])
    assert seeds.draw(tf.constant([1, 2], tf.int64), 1).dtype == tf.int64


def test_freeway_ends_by_its_time_limit_alone_and_a_crossing_counts_in_its_last_frame():
    env = freeway.Freeway(sticky_actions=0.0)
    state = env.reset(noise_of(env, 0, 0))
    state = state._replace(row=tf.constant([1]), move_wait=tf.constant([0]), car_x=state.car_x + 8)
    for time, truncation in ((2_499, False), (2_500, True)):
        following, timestep = after(env, state._replace(time=tf.constant([time])), freeway.UP)
        assert (timestep.reward, timestep.truncation, timestep.termination) == (1, truncation, False)
        assert following.row == freeway.START_ROW
        np.testing.assert_array_equal(following.car_speed, freeway._speeds(tf.constant(noise_of(env, 0, 0).cars)))
        np.testing.assert_array_equal(following.car_wait, np.abs(following.car_speed) - 1)
