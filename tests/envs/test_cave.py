"""The rules of the cave, against a scalar reference and one by one."""

from decimal import Decimal

import numpy as np
import pytest
import tensorflow as tf

from tests.envs import reference
from tests.envs.helpers import assert_uniform, noise_of, restarted, to_numpy
from tfdqn import envs
from tfdqn.envs.cave import rules as cave


def steer(games, generator):
    """A player that mostly survives: toward the middle of the opening ahead, away from blocks, with some noise."""
    action = []
    for game in games:
        centre, height = game.walls[18]
        target = centre
        for column, top in game.blocks:
            if 13 <= column <= 26:
                above = top - (centre - height / 2)
                below = centre + height / 2 - (top + 6)
                target = (centre - height / 2 + top) / 2 if above > below else (centre + height / 2 + top + 6) / 2
        wanted = (target - game.y) / 5
        action.append(int(game.speed > wanted) if generator.random() > 0.02 else generator.integers(2))
    return np.array(action, np.int32)


def test_the_reference_plays_the_same_game():
    env = envs.make("cave")
    num_envs, frames = 6, 1000
    games = [reference.CaveReference() for _ in range(num_envs)]
    start = np.stack([game.reset() for game in games])
    fresh = state = to_numpy(env.compiled_reset(noise_of(env, 5, 0, num_envs)))
    np.testing.assert_array_equal(env.observe(state), start)
    generator = np.random.default_rng(5)
    longest = 0
    for t in range(frames):
        noise = noise_of(env, 6, t, num_envs)
        action = steer(games, generator)
        state, timestep = to_numpy(env.compiled_step(state, action, noise))
        assert not timestep.truncation.any()
        for i, game in enumerate(games):
            frame, reward, termination, _ = game.step(action[i], int(noise.wall[i]), noise.block_rank[i])
            np.testing.assert_array_equal(timestep.observation[i], frame, err_msg=f"time {game.time}")
            assert timestep.reward[i] == reward
            assert timestep.termination[i] == termination
            longest = max(longest, game.time)
            if termination:
                game.reset()
        state = restarted(timestep.termination, fresh, state)
    assert longest > 300


@pytest.mark.parametrize("screens", [21.4, 42.9])
@pytest.mark.parametrize("sign", [-1, 1])
def test_the_reference_plays_the_same_game_where_centres_pass_what_int32_holds(screens, sign):
    """2**31 in 1e-8 of the screen's height are 21.47 screens: the walls are there after 6,000 to 7,000 frames."""
    env = envs.make("cave")
    num_envs, frames = 4, 400
    distance = Decimal(str(sign * screens))
    games = [reference.CaveReference() for _ in range(num_envs)]
    for game in games:
        game.reset()
        game.y += 48 * distance
        game.tail = [game.y] * 15
        game.centre += distance
        game.walls = [(centre + 48 * distance, height) for centre, height in game.walls]
    start = to_numpy(env.compiled_reset(noise_of(env, 5, 0, num_envs)))
    wrapped = np.array(int(distance * 10**8) + cave.START_CENTRE).astype(np.int32)
    state = start._replace(
        tail=start.tail + np.int32(48 * distance / Decimal("0.08")), centres=np.full_like(start.centres, wrapped)
    )
    generator = np.random.default_rng(5)
    passed = False
    for t in range(frames):
        noise = noise_of(env, 7, t, num_envs)
        action = steer(games, generator)
        # Outward on average, whatever the sign: the walls pass the edge while blocks are about.
        noise = noise._replace(wall=noise.wall if sign < 0 else np.int32(9_999_999) - noise.wall)
        before = state.centres[:, -1]
        state, timestep = to_numpy(env.compiled_step(state, action, noise))
        passed |= bool((np.sign(before) != np.sign(state.centres[:, -1])).any())
        for i, game in enumerate(games):
            frame, _, termination, _ = game.step(action[i], int(noise.wall[i]), noise.block_rank[i])
            np.testing.assert_array_equal(timestep.observation[i], frame, err_msg=f"time {game.time}")
            assert timestep.termination[i] == termination
        if t > 60:  # blocks are on the screen
            assert (timestep.observation == cave.BLOCK_LEVEL).any()
    assert passed


@pytest.mark.parametrize("downsample", [2, 3, 16])
def test_downsampling_keeps_every_kth_row_and_column_of_the_same_game(downsample):
    full, env = envs.make("cave"), envs.make("cave", downsample=downsample)
    assert env.observation_shape == (48 // downsample, 48 // downsample)
    num_envs = 64
    state = full.compiled_reset(noise_of(full, 7, 0, num_envs))
    action = np.random.default_rng(7).integers(0, 2, (120, num_envs), np.int32)
    for t in range(120):
        noise = noise_of(full, 8, t, num_envs)
        following, left = full.compiled_step(state, action[t], noise)
        small, right = env.compiled_step(state, action[t], noise)
        np.testing.assert_array_equal(right.observation, left.observation[:, ::downsample, ::downsample])
        for a, b in zip((*following, *left[1:]), (*small, *right[1:]), strict=True):
            np.testing.assert_array_equal(a, b)
        state = following


def at(time=0, height=0, speed=0, centre=cave.START_CENTRE, block_tops=(0, 0, 0)):
    """A state [1] in which nothing has moved yet; `height` in 0.08 rows from 24."""
    state = envs.make("cave").reset(cave.Noise(tf.zeros([1], tf.int32), tf.zeros([1], tf.int32)))
    return state._replace(
        time=tf.constant([time], tf.int32),
        speed=tf.constant([speed], tf.int32),
        tail=tf.fill([1, cave.TAIL_LENGTH], height),
        centres=tf.fill([1, cave.SIZE], centre),
        block_tops=tf.constant([block_tops], tf.int32),
    )


def draws(wall=5_000_000, block_rank=0):
    return cave.Noise(tf.constant([wall], tf.int32), tf.constant([block_rank], tf.int32))


def step(state, hold=False, **noise):
    return envs.make("cave").step(state, tf.constant([int(hold)]), draws(**noise))


def frame_of(state):
    return envs.make("cave").observe(state).numpy()[0]


def test_the_start_screen():
    frame = frame_of(at())
    for column in (0, 15, 47):
        rows = frame[:, column]
        # The opening is 10.8 .. 37.2: int() of both.
        assert np.all(rows[:10] == cave.WALL_LEVEL)
        assert np.all(rows[37:] == cave.WALL_LEVEL)
        assert not np.any(rows[10:37] == cave.WALL_LEVEL)
    np.testing.assert_array_equal(frame[23, :17], [204] * 14 + [255, 0, 0])
    assert np.all(np.delete(frame, 23, axis=0)[10:36] == 0)


def test_holding_lifts_and_releasing_drops():
    up, _ = step(at(), hold=True)
    down, _ = step(at(), hold=False)
    assert (int(up.speed[0]), int(up.tail[0, -1])) == (-1, -1)
    assert (int(down.speed[0]), int(down.tail[0, -1])) == (1, 1)


@pytest.mark.parametrize(
    ("slope", "wall", "moves", "next_slope"),
    [
        (0, 6_000_000, 0, 0),  # u > up, not >=
        (0, 6_000_001, 1, 1),
        (0, 4_000_000, 0, 0),  # u < down, not <=
        (0, 3_999_999, -1, -1),
        (0, 5_000_000, 0, 0),
        (1, 2_000_000, -2_000_000, -1),  # after a move the bounds widen: up = 0.2
        (1, 2_000_001, -3_999_999, 1),  # and a move can go against its name
        (-1, 6_000_000, 2_000_000, -1),  # down = 0.8
        (-1, 7_999_999, 1_999_999, 1),  # up comes first
        (-1, 5_000_000, 1_000_000, -1),
        (0, 0, -4_000_000, -1),
        (0, 9_999_999, 3_999_999, 1),
    ],
)
def test_the_wall_walks_as_drawn(slope, wall, moves, next_slope):
    state, _ = step(at()._replace(slope=tf.constant([slope])), wall=wall)
    assert int(state.centres[0, -1]) - cave.START_CENTRE == moves
    assert int(state.slope[0]) == next_slope
    assert np.all(state.centres[0, :-1] == cave.START_CENTRE)


def test_the_tunnel_narrows_every_51_frames_down_to_30():
    opening = cave.opening(tf.range(-47, 2000)).numpy()
    frame = np.arange(-47, 2000)
    assert set(opening[frame < 51]) == {55}
    assert set(opening[(frame >= 51) & (frame < 102)]) == {54}
    assert opening[frame == 1274] == 31
    assert set(opening[frame >= 1275]) == {30}


def wall_crash(height, opening_hundredths=55, centre=cave.START_CENTRE):
    state = at(height=height, centre=centre)
    return bool(cave.hits_wall(state)[0])


def test_walls_are_hit_at_their_edge_not_past_it():
    # The flat wall's edges are at 10.8 and 37.2: 165 steps of 0.08 from 24, exactly.
    assert wall_crash(-165)
    assert not wall_crash(-164)
    assert wall_crash(165)
    assert not wall_crash(164)
    # One unit of the centre (4.8e-7 rows) decides.
    assert not wall_crash(-165, centre=cave.START_CENTRE - 1)
    assert not wall_crash(165, centre=cave.START_CENTRE + 1)
    assert wall_crash(164, centre=cave.START_CENTRE - 166_667)
    assert not wall_crash(164, centre=cave.START_CENTRE - 166_666)


def test_the_wall_that_counts_is_in_column_15():
    for column in range(cave.SIZE):
        centres = np.full([1, cave.SIZE], cave.START_CENTRE, np.int32)
        centres[0, column] += 90_000_000
        hit = cave.hits_wall(at()._replace(centres=tf.constant(centres)))
        assert bool(hit[0]) == (column == 15)


def block_crash(column, top, height=0):
    """A newest block at screen column `column`, top row `top` of the world; the player at 24 + 0.08 * height."""
    return bool(cave._hits_block(at(time=51 + 48 - column + 21 * 10, height=height, block_tops=(99, top, 99)))[0])


def test_the_hit_box_of_a_block_includes_both_ends():
    # Column 48 - 33 = 15 and older: the second newest block.
    assert [column for column in range(7, 27) if block_crash(column, 20)] == [13, 14, 15]
    assert [top for top in range(10, 30) if block_crash(14, top)] == list(range(18, 25))
    # Exactly on the lower edge, top + 6 = 26 = 24 + 25 * 0.08, and one step past it; the same above.
    assert block_crash(14, 20, height=25)
    assert not block_crash(14, 20, height=26)
    assert block_crash(14, 22, height=-25)
    assert not block_crash(14, 22, height=-26)


def test_blocks_appear_in_frame_51_and_then_every_21():
    times = tf.range(0, 200)
    posted = np.flatnonzero(cave._block_age(times, 0).numpy() == 0).tolist()
    assert posted == [51, 72, 93, 114, 135, 156, 177, 198]
    ages = np.stack([cave._block_age(times, k).numpy() for k in range(cave.NUM_BLOCKS)])
    assert np.all(ages[:, :51] == -1)
    assert ages.max() == 48  # column 0, the last one shown
    assert ages[2, 51 + 42 : 51 + 42 + 7].tolist() == [42, 43, 44, 45, 46, 47, 48]
    assert ages[2, 51 + 42 + 7] == -1


def block_pixels(column, top, height=0):
    """(first row, first column, last row, last column) of the newest block on the screen, or None."""
    off_screen = 10_000
    state = at(time=51 + 21 * 10 + 48 - column, height=height)
    k = (48 - column) // 21
    tops = [off_screen] * cave.NUM_BLOCKS
    tops[k] = top
    pixels = np.argwhere(frame_of(state._replace(block_tops=tf.constant([tops]))) == cave.BLOCK_LEVEL)
    return (*pixels.min(axis=0), *pixels.max(axis=0)) if len(pixels) else None


def test_blocks_are_two_wide_and_six_high():
    assert block_pixels(30, 20) == (20, 30, 25, 31)
    assert block_pixels(47, 20) == (20, 47, 25, 47)  # clipped at the right edge
    assert block_pixels(48, 20) is None
    assert block_pixels(0, 20) == (20, 0, 25, 1)


def test_a_block_that_crosses_the_top_edge_is_not_drawn():
    # 0.08 * 300 = 24 rows down: the tunnel's opening shows at rows -13.2 .. 13.2, a block at top 24 in row 0.
    assert block_pixels(30, 24, height=300) == (0, 30, 5, 31)
    assert block_pixels(30, 23, height=300) is None
    # int() truncates toward zero: at -0.96 rows it is drawn, in one row less.
    assert block_pixels(30, 24, height=312) == (0, 30, 4, 31)
    assert block_pixels(30, 23, height=299) == (0, 30, 4, 31)
    # 12.5 steps a row: -1 exactly does not occur; -1.04 rows is off the screen.
    assert block_pixels(30, 24, height=313) is None


def test_a_block_that_crosses_the_bottom_edge_is_clipped():
    # 24 rows up: world row 24 shows in row 48.
    assert block_pixels(30, 20, height=-300) == (44, 30, 47, 31)


@pytest.mark.parametrize(
    ("centre", "lowest", "end"),
    [
        (0.5, 10, 31),  # 24 -+ 13.2: int(10.8), int(37.2 - 6)
        (0.0, -13, 7),  # toward zero: int(-13.2) = -13 and not -14
        (-1.0, -61, -40),  # int(-61.2), int(-40.8)
    ],
)
def test_rows_of_a_block_truncate_toward_zero(centre, lowest, end):
    rank, opening = tf.range(100), tf.fill([100], 55)
    for height in (0, -10, 300):  # a player's, from which the distance is measured, makes no difference
        height = tf.fill([100], height)
        distance = cave._from_player(tf.fill([100], round(centre * 1e8)), height)
        tops = cave._allowed_top(rank, distance, height, opening).numpy()
        np.testing.assert_array_equal(tops, lowest + np.arange(100) % (end - lowest))


def test_a_new_block_uses_the_newest_wall_column_and_opening():
    state, _ = step(at(time=50), wall=9_999_999, block_rank=3)
    # centre 0.53999999 after this frame's move, opening 0.54 in frame 51: int(25.92 - 12.96) = 12.
    assert int(state.block_tops[0, 0]) == 12 + 3
    assert state.block_tops.numpy()[0, 1:].tolist() == [0, 0]
    state, _ = step(at(time=51), block_rank=3)
    assert state.block_tops.numpy()[0].tolist() == [0, 0, 0]


def test_the_tail_follows_rounded_toward_zero():
    state = at()
    heights = [0, 0, 6, 7, -6, -7, 300, -300, -294, -293, 290, 293, 294, 0, 0]
    frame = frame_of(state._replace(tail=tf.constant([heights]), centres=state.centres))
    expected = np.zeros([48, 14], np.uint8)
    for i in range(1, 15):
        row = int(np.trunc(np.round(23.5 + 0.08 * heights[i], 6)))
        if 0 <= 23.5 + 0.08 * heights[i] and row < 48:
            expected[row, i - 1] = cave.TAIL_LEVEL
    expected[:10] = expected[37:] = cave.WALL_LEVEL  # walls are drawn over it
    np.testing.assert_array_equal(frame[:, :14], expected)


def test_an_opening_off_the_screen_is_all_wall():
    for offset in (-200_000_000, 200_000_000):
        centres = np.full([1, cave.SIZE], cave.START_CENTRE, np.int32)
        centres[0, 40] += offset
        frame = frame_of(at()._replace(centres=tf.constant(centres)))
        assert np.all(frame[:, 40] == cave.WALL_LEVEL)
        assert not np.all(frame[:, 39] == cave.WALL_LEVEL)


def test_walls_are_drawn_over_blocks_and_blocks_over_the_tail():
    # The first block, now the second newest, in columns 10 and 11, where the opening is 0.54 and ends in row 36.
    assert frame_of(at(time=51 + 38, block_tops=(0, 33, 0)))[33:41, 10].tolist() == [128] * 3 + [102] * 5
    assert frame_of(at(time=51 + 38, block_tops=(0, 20, 0)))[23, 9:13].tolist() == [204, 128, 128, 204]
    assert frame_of(at(time=51 + 34, block_tops=(0, 20, 0)))[23, 14] == cave.BLOCK_LEVEL  # over the player, too


def test_far_from_the_start_nothing_changes():
    """Terms overflow far out in the world; their difference does not."""
    centre = 2_000_000_000  # 960 rows
    height = 48 * (centre - cave.START_CENTRE) // 8_000_000
    near, far = at(time=2000, block_tops=(18, 18, 18)), at(time=2000, height=height, centre=centre)
    far = far._replace(block_tops=near.block_tops + 48 * (centre - cave.START_CENTRE) // 100_000_000)
    np.testing.assert_array_equal(frame_of(near), frame_of(far))
    for hold in (False, True):
        (_, left), (_, right) = step(near, hold), step(far, hold)
        np.testing.assert_array_equal(left.observation, right.observation)
        assert bool(left.termination) == bool(right.termination)
    assert not cave.hits_wall(far).numpy()[0]


def test_truncation_at_the_limit_and_termination_first():
    for time, truncation in [(9_998, False), (9_999, False), (10_000, True)]:
        _, timestep = step(at(time=time, block_tops=(99, 99, 99)))
        assert (bool(timestep.termination), bool(timestep.truncation)) == (False, truncation)
    _, timestep = step(at(time=10_000, height=165, block_tops=(99, 99, 99)))
    assert (bool(timestep.termination), bool(timestep.truncation)) == (True, False)
    assert timestep.reward.numpy() == -1


@pytest.mark.parametrize("compiled", [False, True])
def test_a_curriculum_starts_its_share_of_episodes_at_a_drawn_time(compiled):
    env = envs.make("cave")
    num_envs = 20_000
    noise = noise_of(env, 35, 36, num_envs)
    start = tf.function(lambda noise: env.training_start(noise, 0.7), jit_compile=True, autograph=False)
    state, difficulty = to_numpy(start(noise) if compiled else env.training_start(noise, 0.7))
    moved = state.block_tops[:, 0] == cave.NOWHERE
    np.testing.assert_array_equal(difficulty, np.where(moved, 1 + state.time, 0))
    assert abs(moved.mean() - 0.7) < 0.015
    assert_uniform(state.time[moved], 2 * cave.NARROWEST_TIME)
    fresh = to_numpy(env.reset(noise))
    assert state.memory == fresh.memory == cave.Nothing()
    for name, tensor in fresh._asdict().items():
        if name == "memory":
            continue
        np.testing.assert_array_equal(getattr(state, name)[~moved], tensor[~moved])
        if name not in ("time", "block_tops"):
            np.testing.assert_array_equal(getattr(state, name), tensor)
    assert (
        cave.opening(np.int32(cave.NARROWEST_TIME - 1))
        > cave.MIN_OPENING
        == cave.opening(np.int32(cave.NARROWEST_TIME))
    )


def test_no_block_is_met_before_the_first_that_was_posted():
    env = envs.make("cave")
    num_envs = 2_000
    noise = noise_of(env, 37, 38, num_envs)
    state, _ = env.training_start(noise, 1.0)
    screen = env.observe(state).numpy()
    assert not (screen == cave.BLOCK_LEVEL).any()
    assert not cave._hits_block(state).numpy().any() and not cave.hits_wall(state).numpy().any()
    # From the frame on in which a block is posted it is drawn like any other.
    for t in range(cave.BLOCK_PERIOD + 4):
        state, timestep = env.compiled_step(state, np.full(num_envs, t % 2, np.int32), noise_of(env, 39, t, num_envs))
    assert (timestep.observation.numpy() == cave.BLOCK_LEVEL).any((1, 2)).mean() > 0.8


def test_draws_are_uniform():
    env = envs.make("cave")
    noise = noise_of(env, 31, 32, 100_000)
    wall, rank = noise.wall, noise.block_rank
    assert wall.min() >= 0
    assert wall.max() < cave.WALL_DRAWS
    assert_uniform(wall // 100_000, 100)
    assert_uniform(wall % 10, 10)
    assert_uniform(rank % 9, 9)
    assert_uniform(rank % 21, 21)
    assert_uniform((wall // 1_000_000) * 9 + rank % 9, 90)
    assert rank.max() > 2**30  # wide enough that the modulo bias stays below 1e-6


def test_block_rows_are_uniform_over_the_allowed():
    env = envs.make("cave")
    num_envs = 20_000
    state = tf.nest.map_structure(lambda tensor: tf.repeat(tensor, num_envs, axis=0), at(time=50))
    noise = noise_of(env, 33, 34, num_envs)._replace(wall=np.full(num_envs, 5_000_000, np.int32))
    state, _ = env.compiled_step(state, tf.zeros([num_envs], tf.int32), noise)
    tops = state.block_tops.numpy()[:, 0]
    # Opening 0.54 in frame 51: 24 -+ 12.96.
    assert_uniform(tops - 11, int(36.96 - 6) - 11)


def test_a_coin_survives_59_frames():
    """58.9 over 80,000 games; of 2,000 games the mean has a standard error of 0.6."""
    env = envs.make("cave")
    num_envs = 2000
    generator = np.random.default_rng(42)
    state = env.compiled_reset(noise_of(env, 41, 0, num_envs))
    survived, alive = np.zeros(num_envs), np.ones(num_envs, bool)
    for t in range(260):
        action = generator.integers(0, 2, num_envs, np.int32)
        state, timestep = env.compiled_step(state, action, noise_of(env, 43, t, num_envs))
        survived += alive
        alive &= ~timestep.termination.numpy()
    assert abs(survived.mean() - 58.9) < 3


@pytest.mark.parametrize("downsample", [0, -1, 5, 32, 96])
def test_downsampling_must_divide_48(downsample):
    with pytest.raises(ValueError, match="choose a divisor of 48") as error:
        envs.make("cave", downsample=downsample)
    assert "\n" not in str(error.value)
