"""What a player of the cave knows who remembers: no more than the screens and its own moves tell, and all of that."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from tests.envs.helpers import noise_of, restarted, to_numpy
from tfdqn import envs
from tfdqn.envs.cave import rules as cave
from tfdqn.envs.cave import super_resolution
from tfdqn.runs import saving


@functools.cache
def remembering():
    """The game, with the programs that an earlier test has compiled: for `FEW` and for `MANY` environments."""
    return envs.make("cave", super_resolution=True)


FEW, MANY = 8, 64


class Rememberer:
    """One player, in numbers of 0.04 rows. It is shown the plain screen, and told what it did; nothing else."""

    def __init__(self, screen):
        self.height = self.speed = 0
        self.edges = {side: [[-np.inf, np.inf] for _ in range(48)] for side in ("top", "bottom")}
        self.look(screen)

    def step(self, action, screen):
        self.speed += -2 if action == cave.HOLD else 2
        self.height += self.speed
        for bounds in self.edges.values():
            del bounds[0]
            bounds.append([-np.inf, np.inf])
        self.look(screen)

    def look(self, screen):
        self.screen, self.openings = screen, openings(screen)
        for column, (start, end) in enumerate(self.openings):
            if start == end:
                continue
            for side, row in (("top", start), ("bottom", end)):
                bounds = self.edges[side][column]
                if row > 0:
                    bounds[0] = max(bounds[0], 25 * row + self.height)
                if row < 48:
                    bounds[1] = min(bounds[1], 25 * row + self.height + 25)

    def draw(self):
        """The screen with what is known of its edges."""
        drawn = self.screen.copy()
        for column in np.flatnonzero((drawn == cave.BLOCK_LEVEL).any(0)):
            self.draw_block(self.screen[:, column], drawn[:, column])
        for column, (start, end) in enumerate(self.openings):
            top, bottom = self.cut("top", column, start), self.cut("bottom", column, end)
            if start < 48 and drawn[start, column] == 0:
                drawn[start, column] = 102 * top // 25
            if end < 48:
                drawn[end, column] = 102 * (25 - bottom) // 25
        return drawn

    def cut(self, side, column, row):
        low, high = self.edges[side][column]
        if low == -np.inf or high == np.inf:
            return 0
        return int(min(max((low + high) // 2 - self.height - 25 * row, 0), 24))

    def draw_block(self, seen, drawn):
        rows = np.flatnonzero(seen == cave.BLOCK_LEVEL)
        first, end = rows[0], rows[-1] + 1
        if first == 0 and end < 6:  # its top is off the screen
            return
        # Blocks lie in whole rows of the world: there is one place for it that is drawn so.
        cut = -self.height % 25
        is_top_shown = end - first == 6 or first == 0 or seen[first - 1] != cave.WALL_LEVEL
        is_end_shown = end < 48 and (end - first == 6 or seen[end] != cave.WALL_LEVEL)
        if cut and is_top_shown:
            drawn[first] = 128 * (25 - cut) // 25
        if cut and is_end_shown and seen[end] != cave.WALL_LEVEL:
            drawn[end] = 128 * cut // 25


def openings(screen):
    """(first row that is no wall, the first after all of these) of each column [48]; (0, 0) if all is wall."""
    is_open = screen != cave.WALL_LEVEL
    ends = np.where(is_open.any(0), 48 - is_open[::-1].argmax(0), 0)
    return list(zip(is_open.argmax(0).tolist(), ends.tolist(), strict=True))


def steered(state, generator):
    """Actions [N] of a player that keeps to the middle between the walls, and does not see blocks."""
    ahead = (3 * state.centres[:, 18] - 500_000 * state.tail[:, -1]) / 6_250_000 - 24
    action = state.speed * 0.08 > ahead / 5
    return np.where(generator.random(len(action)) < 0.05, generator.integers(0, 2, len(action)), action).astype(
        np.int32
    )


def played(frames, curriculum, num_envs, seed=3):
    """Yield (state, action, is_over, observation) before the first frame and after each, all arrays."""
    env, generator = remembering(), np.random.default_rng(seed)
    start = tf.function(lambda noise: env.training_start(noise, curriculum)[0], jit_compile=True)
    state = to_numpy(start(noise_of(env, seed, 999, num_envs)))
    yield state, None, None, env.observe(state).numpy()
    for t in range(frames):
        noise = noise_of(env, seed, t, num_envs)
        action = steered(state, generator)
        following, timestep = to_numpy(env.compiled_step(state, action, noise))
        over = timestep.termination | timestep.truncation
        state, shown = following, timestep.observation
        if over.any():
            state = restarted(over, to_numpy(start(noise)), following)
            shown = np.where(over[:, None, None], env.observe(state), shown)
        yield state, action, over, shown


@functools.cache
def few_played(curriculum):
    return list(played(160, curriculum, FEW))


@pytest.mark.parametrize("curriculum", [0.0, 1.0])
def test_the_screen_shows_what_screens_and_moves_told_and_no_more(curriculum):
    plain = envs.make("cave")
    players, shades = None, set()
    for state, action, over, shown in few_played(curriculum):
        screens = plain.observe(state).numpy()
        if players is None:
            players = [Rememberer(screen) for screen in screens]
        else:
            for i, screen in enumerate(screens):
                if over[i]:
                    players[i] = Rememberer(screen)
                else:
                    players[i].step(action[i], screen)
        for i, player in enumerate(players):
            np.testing.assert_array_equal(player.draw(), shown[i], err_msg=f"player {i}")
        shades |= set(np.unique(shown).tolist())
    assert len(shades) > 40
    assert any(cave.WALL_LEVEL < shade < cave.BLOCK_LEVEL for shade in shades)


def test_bounds_hold_the_edges_and_close_in_on_them():
    widths, age = [], np.zeros(MANY, int)
    for state, _, over, _ in played(150, 1.0, MANY):
        age = age + 1 if over is None else np.where(over, 0, age + 1)
        edges = cave._edges(state, range(48))
        for edge, bounds in zip(edges, state.memory, strict=True):
            # Rows of the world, from the first screen's top.
            place = edge.numpy() / cave.ROW + state.tail[:, -1:] * 0.08
            assert (bounds.low / 25 <= place + 1e-6).all()
            assert (place <= bounds.high / 25 + 1e-6).all()
        top = state.memory.top
        widths.append((top.high - top.low)[age > 40, 15] / 25)
    # One screen leaves a row, the 33 that have shown the wall by the player from different heights a tenth.
    assert len(np.concatenate(widths)) > 300
    assert np.median(np.concatenate(widths)) < 0.15


def test_the_game_is_the_same():
    """Rewards, ends and rules do not hang on what is remembered; without it, no state has more tensors than before."""
    plain, env = envs.make("cave"), remembering()
    states = [to_numpy(each.compiled_reset(noise_of(each, 4, 0, MANY))) for each in (plain, env)]
    actions = np.random.default_rng(4).integers(0, 2, (90, MANY), np.int32)
    ended = 0
    for t, action in enumerate(actions):
        noise = noise_of(plain, 5, t, MANY)
        results = [
            to_numpy(each.compiled_step(state, action, noise)) for each, state in zip((plain, env), states, strict=True)
        ]
        states = [state for state, _ in results]
        for left, right in zip(states[0][:-1], states[1][:-1], strict=True):
            np.testing.assert_array_equal(left, right)
        for left, right in zip(results[0][1][1:], results[1][1][1:], strict=True):
            np.testing.assert_array_equal(left, right)
        ended += results[0][1].termination.sum()
    assert ended
    names = {name.removeprefix("state/") for name in saving.named_tensors(states[0], "state")}
    assert names == {"time", "speed", "slope", "tail", "centres", "block_tops"}


def test_eager_and_xla_agree_in_every_bit():
    env = remembering()
    state = env.reset(env.sample_noise([1, 0], FEW))
    compiled = env.compiled_reset(env.sample_noise([1, 0], FEW))
    for t in range(60):
        noise = env.sample_noise([2, t], FEW)
        action = tf.constant([t // 3 % 2] * FEW)
        left, right = env.step(state, action, noise), env.compiled_step(compiled, action, noise)
        for a, b in zip(tf.nest.flatten(left), tf.nest.flatten(right), strict=True):
            np.testing.assert_array_equal(a, b)
        state, compiled = left[0], right[0]


def test_an_edge_is_narrowed_down_by_hand():
    """An edge at 10.4 rows, seen in row 10; after the player has sunk by 0.48 rows in row 9, then by 0.32 in row 10."""
    edges = super_resolution.unseen(1, 1)
    for row, screen_top, expected in ((10, 0, (250, 275)), (9, 12, (250, 262)), (10, 8, (258, 262))):
        edges = super_resolution.seen(edges, *(tf.constant([[v]]) for v in (row, True, screen_top)), rows=48)
        assert (int(edges.low[0, 0]), int(edges.high[0, 0])) == expected
    assert int(super_resolution.cut(edges, tf.constant([[10]]), tf.constant([[0]]))[0, 0]) == 10  # 0.4 of 25
    assert int(super_resolution.cut(super_resolution.scrolled(edges), *2 * [tf.constant([[0]])])[0, 0]) == 0


@pytest.mark.parametrize("screens", [-1.5, 1.5])
def test_a_column_that_is_all_wall_tells_nothing(screens):
    env = remembering()
    state = env.reset(env.sample_noise([0, 0], 1))
    hidden = env.first_seen(state._replace(centres=state.centres + int(screens * 10**8)))
    assert (env.observe(hidden).numpy() == cave.WALL_LEVEL).all()
    for edges in hidden.memory:
        assert (edges.low.numpy() == -super_resolution.UNKNOWN).all()
        assert (edges.high.numpy() == super_resolution.UNKNOWN).all()


def test_every_shade_has_a_colour():
    palette = remembering().palette
    seen = np.unique([shown for curriculum in (0.0, 1.0) for *_, shown in few_played(curriculum)])
    assert set(seen.tolist()) <= set(palette)
    assert set(envs.make("cave").palette.items()) <= set(palette.items())


@pytest.mark.parametrize("name", ["catch8", "catch16", "catch8_single"])
def test_other_games_show_all_there_is(name):
    with pytest.raises(ValueError, match="Catch has no argument 'super_resolution'"):
        envs.make(name, super_resolution=True)


def test_a_downsampled_screen_is_not_made_finer():
    with pytest.raises(ValueError, match="use one or the other"):
        envs.make("cave", downsample=2, super_resolution=True)
