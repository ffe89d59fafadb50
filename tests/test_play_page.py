"""The cave in the browser (docs/play): its rules, its draws and its agent are those of Python."""

import importlib.util
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests import chromium
from tfdqn import seeds
from tfdqn.envs.cave import rules as cave
from tfdqn.programs import evaluation

PLAY = Path(__file__).parents[1] / "docs" / "play"
NODE = shutil.which("node")
with_node = pytest.mark.skipif(NODE is None, reason="no node to run JavaScript with")
with_chromium = pytest.mark.skipif(chromium.PROGRAM is None, reason="no Chromium")
GAMES = 32
EPISODES, MOST_FRAMES = 128, 1_500  # as long as it takes for the tunnel to be as narrow as ever, and some more
LAST = cave.SIZE - 1
# The numbers of a game, in the order in which the script below writes them.
SIZES = {"time": 1, "speed": 1, "slope": 1, "tail": 15, "centres": 48, "block_tops": 3}
SIZES |= {f"{edge}_{bound}": 48 for edge in ("top", "bottom") for bound in ("low", "high")}
SIZES |= {"is_crashed": 1, "is_over": 1}

READ = """
const Cave = require("./cave.js"), Agent = require("./agent.js"), fs = require("fs");
const given = JSON.parse(fs.readFileSync(0, "utf8")), parts = [];
const write = (array) => parts.push(Buffer.from(array.buffer));
const done = () => process.stdout.write(Buffer.concat(parts));
"""
PLAY_GAMES = """
const games = given.starts.map((start, episode) => Object.assign(new Cave.Game(given.seed, episode), start && {
  time: start.time, tail: Int32Array.from(start.tail), centres: Int32Array.from(start.centres),
}));
const note = (game) => {
  const { top, bottom } = game;
  const numbers = [game.time, game.speed, game.slope, ...game.tail, ...game.centres, ...game.blockTops];
  write(Int32Array.from([...numbers, ...top.low, ...top.high, ...bottom.low, ...bottom.high,
    game.isCrashed, game.isOver]));
  write(game.observe());
};
for (const actions of given.actions) games.forEach((game, i) => { game.step(actions[i] === 1); note(game); });
done();
"""
VALUES = """
Agent.Network.load(require("./weights.js")).then((network) => {
  const size = 48 * 48, screens = new Uint8Array(fs.readFileSync(given.file));
  for (let at = 0; at < screens.length; at += 2 * size) {
    const pair = [0, size].map((more) => screens.subarray(at + more, at + more + size));
    write(Float64Array.from(network.values(pair)));
  }
  done();
});
"""
WATCH = """
Agent.Network.load(require("./weights.js")).then((network) => {
  const scores = [], values = [];
  for (const episode of given.episodes) {
    const game = new Cave.Game(given.seed, episode), player = new Agent.Player(network, game);
    while (!game.isOver && game.time < given.frames) {
      if (episode === 0 && game.time < 600) values.push(player.values);
      player.step(game);
    }
    scores.push(game.isOver ? game.time : given.frames);
  }
  process.stdout.write(JSON.stringify({ scores, values }));
});
"""


def in_node(script, **given):
    """What a script writes, bytes."""
    result = subprocess.run(
        [NODE, "-e", READ + script], input=json.dumps(given).encode(), capture_output=True, cwd=PLAY, check=False
    )
    assert result.returncode == 0, result.stderr.decode()
    return result.stdout


@pytest.fixture(scope="module")
def env():
    return cave.Cave(super_resolution=True)


@pytest.fixture(scope="module")
def step(env):
    """A frame as a graph, which is made sooner than XLA's program: `test_contract.py` compares the two."""

    @tf.function(autograph=False)
    def step(state, action, stream, counter):
        return env.step(state, action, env.sample_noise(seeds.at(stream, counter), GAMES))

    return step


@pytest.fixture(scope="module")
def export():
    spec = importlib.util.spec_from_file_location("export_weights", PLAY / "export_weights.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def packaged(export):
    """The agent and its configuration."""
    return export.packaged_agent()


def late_start(env, episodes):
    """States near the time limit, in the narrowest tunnel, a wall's centre about to pass what int32 holds."""
    centre = -(2**31) + 2_000_000 + np.arange(episodes, dtype=np.int64) * 100_000
    height = np.round(3 * centre / 500_000).astype(np.int32) - 300  # 24 rows below the centre's
    state = env.reset(env.sample_noise(seeds.at(0, 0), episodes))
    state = state._replace(
        time=tf.fill([episodes], 9_900),
        tail=tf.constant(np.repeat(height[:, None], 15, axis=1)),
        centres=tf.constant(np.repeat(centre[:, None].astype(np.int32), 48, axis=1)),
        block_tops=tf.zeros([episodes, 3], tf.int32),
    )
    return state  # its memory is of a game's first screen, as JavaScript's game begins


@with_node
@pytest.mark.parametrize("is_late", [False, True], ids=["first", "last"])
def test_the_rules_and_the_draws_are_those_of_python(env, step, is_late):
    """States, screens and ends, in every bit."""
    seed, frames = 5, 110
    stream = seeds.stream(seed, "final_evaluation", 0, 0)
    state, starts = env.reset(env.sample_noise(seeds.at(stream, 0), GAMES)), [None] * GAMES
    if is_late:
        state = late_start(env, GAMES)
        starts = [
            {"time": 9_900, "tail": tail.tolist(), "centres": centres.tolist()}
            for tail, centres in zip(state.tail.numpy(), state.centres.numpy(), strict=True)
        ]
    actions = np.random.default_rng(0).integers(0, 2, [frames, GAMES])
    found = in_node(PLAY_GAMES, seed=seed, starts=starts, actions=actions.tolist())
    total = sum(SIZES.values())
    rows = np.frombuffer(found, np.uint8).reshape(frames, GAMES, 4 * total + 48 * 48)
    numbers = np.ascontiguousarray(rows[..., : 4 * total]).view(np.int32)
    screens = rows[..., 4 * total :].reshape(frames, GAMES, 48, 48).swapaxes(2, 3)
    crashes = limits = wrapped = 0
    for t in range(frames):
        before = state.centres.numpy()[:, LAST]
        counter = tf.cast(state.time[0] + 1, tf.int64)
        state, timestep = step(state, tf.constant(actions[t], tf.int32), tf.constant(stream, tf.int64), counter)
        parts = dict(zip(SIZES, np.split(numbers[t], np.cumsum(list(SIZES.values()))[:-1], axis=1), strict=True))
        ends = timestep.termination | timestep.truncation
        expected = {name: getattr(state, name) for name in ("time", "speed", "slope", "tail", "centres", "block_tops")}
        for edge, known in zip(("top", "bottom"), state.memory, strict=True):
            expected |= {f"{edge}_low": known.low, f"{edge}_high": known.high}
        expected |= {"is_crashed": timestep.termination, "is_over": ends}
        for name, values in expected.items():
            np.testing.assert_array_equal(parts[name], values.numpy().reshape(GAMES, -1), err_msg=f"{name}, frame {t}")
        np.testing.assert_array_equal(screens[t], timestep.observation.numpy(), err_msg=f"frame {t}")
        crashes, limits = crashes + timestep.termination.numpy().sum(), limits + timestep.truncation.numpy().sum()
        wrapped += ((before < -(2**30)) & (state.centres.numpy()[:, LAST] > 2**30)).sum()
    assert crashes > 50 and (limits > 0) == is_late and (wrapped > 0) == is_late
    assert (state.block_tops.numpy() != 0).any(axis=0).all()


@with_node
def test_the_agents_values_are_those_of_tensorflow(env, step, packaged, tmp_path):
    """On screens of the game, early ones and those of an agent in a narrow tunnel, before crashes and after them."""
    agent, _ = packaged
    noise = env.sample_noise(seeds.at(3, 0), GAMES)
    state = env.reset_at(noise, tf.range(0, 60 * GAMES, 60))
    screens = [env.observe(state)]
    for t in range(1, 60):
        action = tf.constant(np.random.default_rng(t).integers(0, 2, GAMES), tf.int32)
        state, timestep = step(state, action, tf.constant(3, tf.int64), tf.constant(t, tf.int64))
        screens.append(timestep.observation)
    seen = np.stack(screens)[range(1, 60, 8)], np.stack(screens)[range(0, 59, 8)]
    newer, older = (each.reshape(-1, 48, 48) for each in seen)
    expected = agent.action_values(tf.constant(np.stack([older, newer], axis=-1)), ()).numpy()
    assert np.ptp(expected[:, 0]) > 0.5  # safe ones and lost ones
    (tmp_path / "screens").write_bytes(np.stack([older, newer], axis=1).swapaxes(2, 3).tobytes())
    found = np.frombuffer(in_node(VALUES, file=str(tmp_path / "screens"))).reshape(-1, 2)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_the_weights_are_what_the_script_writes(export, packaged):
    """Not byte by byte: how well `zlib` packs hangs on its version."""
    agent, config = packaged
    is_current = export.read(export.OUT.read_text("ascii")) == export.packed(export.named_weights(agent), config)
    assert is_current, "run python docs/play/export_weights.py"


def test_the_page_is_small():
    assert sum(path.stat().st_size for path in PLAY.iterdir() if path.is_file()) < 2_000_000


def test_a_matrix_on_no_grid_is_refused(export):
    with pytest.raises(ValueError, match="on no grid"):
        export.step_of(np.float32([[0.1, 0.7]]))


@pytest.fixture(scope="module")
def scores(packaged, env):
    """What Python's agent reaches in episodes of `tfdqn evaluate --pretrained cave`, of which some end in a crash."""
    agent, config = packaged
    player = evaluation.Evaluator(config.replace(eval_episodes=EPISODES, convolution="auto"), env, agent)
    found = player.evaluate(EPISODES, seed=0, max_frames=MOST_FRAMES)
    assert (found.frames < MOST_FRAMES).sum() >= 2
    return found


@with_node
@pytest.mark.slow
def test_the_agent_plays_as_in_python(scores):
    """To the frame of the crash, in those of the episodes that end, and in the first."""
    episodes = [0, *np.flatnonzero(scores.frames < MOST_FRAMES)[:5].tolist()]
    found = json.loads(in_node(WATCH, seed=0, episodes=episodes, frames=MOST_FRAMES))
    # No more: where both values are equal but for rounding, another order of the same sums may choose another action.
    differing = np.flatnonzero(np.array(found["scores"]) != scores.frames[episodes])
    assert len(differing) <= 1, (found["scores"], scores.frames[episodes])
    np.testing.assert_allclose(found["values"], scores.q_values[: len(found["values"])], rtol=1e-3, atol=1e-5)


URL = (PLAY / "index.html").as_uri()


@with_chromium
@pytest.mark.slow
def test_the_page_is_played_and_watched(scores, tmp_path):
    number = "Number(document.body.dataset.{})".format
    with chromium.page(tmp_path) as page:
        page.size(360, 740, is_phone=True)
        page.open(f"{URL}?seed=1&speed=0.5")
        assert page.run("document.documentElement.scrollWidth <= innerWidth")
        assert page.run(number("score")) == 0
        # Space begins, and holds: up. Let go: down, and into the wall.
        page.key("Space", " ", is_down=True)
        page.wait_for(f"{number('height')} < -20")
        page.key("Space", " ", is_down=False)
        highest = page.run(number("height"))
        page.wait_for(f"{number('height')} > {highest} + 20")
        page.wait_for("document.body.dataset.isOver === 'true'")
        score = page.run(number("score"))
        assert score > 10
        assert page.run("document.getElementById('message').textContent") == f"Crashed after {score} frames. Again?"
        assert page.run("document.getElementById('best').textContent") == str(score)
        assert page.run("localStorage.getItem('tfdqn cave best')") == str(score)

        # A finger does the same.
        page.run("document.getElementById('again').click()")
        rectangle = "document.getElementById('screen').getBoundingClientRect()"
        place = page.run(f"(({{x, y}}) => [{{x: x + 50, y: y + 50}}])({rectangle})")
        page.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=place)
        page.wait_for(f"{number('height')} < -10")
        page.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
        page.wait_for("document.body.dataset.isOver === 'true'")

        best = page.run("document.getElementById('best').textContent")
        assert int(best) >= score

        # Of the episodes that Python has seen end, the shortest.
        episode = int(scores.frames.argmin())
        page.open(f"{URL}?seed=0&episode={episode}&watch&speed=max")
        page.wait_for("document.body.dataset.isOver === 'true'")
        assert page.run(number("score")) == scores.frames[episode]
        assert page.run("document.getElementById('best').textContent") == best  # the agent's is nobody's best
        assert page.run("document.querySelector('#hold dd').textContent")[0] == "\u2212"

        # From one mode to the other and back, while the agent is being fetched.
        page.open(f"{URL}?seed=2")
        page.run("['watch', 'watch', 'play', 'watch'].forEach((id) => document.getElementById(id).click())")
        page.wait_for(f"{number('score')} > 3")
        assert page.run("document.body.dataset.isRunning") == "true"
        page.run("document.getElementById('play').click()")
        assert page.run("document.getElementById('values').hidden") and page.run(number("score")) == 0

        page.open(f"{URL}?seed=1e3")
        said = page.run("document.getElementById('message').textContent")
        assert said == 'Cave number "1e3": must be a whole number from 0 to 2147483647'
        assert page.problems == []
