"""Films: several episodes side by side, words below them, and MP4."""

import sys

import numpy as np
import pytest
from PIL import Image

import tfdqn
from tfdqn import record
from tfdqn.errors import UserError
from tfdqn.shown import film


@pytest.fixture(scope="module")
def agent():
    return tfdqn.load("pretrained:catch8_single")


def test_episodes_side_by_side_are_those_of_one_film_after_another(agent):
    together = list(film.shots(agent.config, agent.env, agent.model, 3, episodes=3))
    assert len(together) == 8  # a ball falls for seven frames
    alone = [shot for (shot,) in film.shots(agent.config, agent.env, agent.model, 3)]
    for number, shots in enumerate(together):
        np.testing.assert_array_equal(shots[0].picture, alone[number].picture)
        np.testing.assert_array_equal(shots[0].values, alone[number].values)
        assert shots[0].action == alone[number].action
    # Three different episodes.
    assert len({tuple(shots[i].picture.tobytes() for shots in together) for i in range(3)}) == 3
    assert [shot.action for shot in together[-1]] == [None] * 3 and {shot.score for shot in together[-1]} <= {-1, 1}


def test_what_an_agent_thinks_is_what_it_does(agent):
    for (shot,) in film.shots(agent.config, agent.env, agent.model, 5):
        if shot.action is not None:
            assert shot.action == int(np.argmax(shot.values)) and shot.values.shape == (3,)


def test_an_episode_that_is_over_stays_while_others_go_on():
    agent = tfdqn.Agent("cartpole", seed=1)
    together = list(film.shots(agent.config, agent.env, agent.model, 0, episodes=4))
    ends = [next(t for t, shots in enumerate(together) if shots[i].action is None) for i in range(4)]
    assert len(set(ends)) > 1 and max(ends) == len(together) - 1
    first = int(np.argmin(ends))
    assert together[-1][first] is together[ends[first]][first]


def shot(action=1, shape=(8, 8)):
    return film.Shot(np.full([*shape, 3], 200, np.uint8), 3, 2.0, action, np.array([0.1, 0.9, 0.5]))


def test_a_sheet_has_a_place_for_every_episode():
    names = ("stay", "left", "right")
    plain = film.Sheet(names, 2, 3, 4, overlay=False).draw([shot()] * 5 + [shot(action=None)])
    assert plain.shape == (2 * 32 + 4, 3 * 32 + 8, 3)
    assert (plain[:32, :32] == 200).all() and (plain[36:, 72:] == 100).all()  # the last is over, and darker
    assert (plain[:, 32:36] == film._BACK).all() and (plain[32:36] == film._BACK).all()
    words = film.Sheet(names, 1, 1, 3, overlay=True).draw([shot()])
    assert words.shape == (24 + 14 * 4 + 2, film.LEAST_WIDTH, 3)
    bars = [int((words[24 + 1 + 14 * row + 7] == film._CHOSEN).all(axis=-1).sum()) for row in (1, 2, 3)]
    assert bars[0] == bars[2] == 0 and bars[1] > 50  # the chosen action's alone is green
    assert film.Sheet(names, 1, 1, 1, overlay=False).draw([shot(shape=(7, 9))]).shape == (8, 10, 3)


def test_a_gif_of_a_grid_with_words(tmp_path, capsys):
    out = tmp_path / "a.gif"
    words = ["--pretrained", "catch8_single", "--grid", "1x2", "--overlay", "--out", str(out), "--frames", "5"]
    assert record.main(words) == 0
    with Image.open(out) as image:
        assert image.n_frames == 5 and image.size == (2 * film.LEAST_WIDTH + 4, 32 + 14 * 4 + 2)
    assert f"{out}: 5 frames" in capsys.readouterr().err


def test_an_mp4(tmp_path):
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    out = tmp_path / "a.mp4"
    assert record.main(["--pretrained", "catch8_single", "--out", str(out), "--scale", "8"]) == 0
    frames = imageio_ffmpeg.read_frames(str(out))
    facts = next(frames)
    assert facts["size"] == (64, 64) and facts["fps"] == 5.0 and facts["codec"] == "h264"
    assert sum(1 for _ in frames) == 8
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "a.avi"], "--out a.avi: must end in .gif or .mp4"),
        (["--out", "no/a.mp4"], "there is no folder no"),
        (["--grid", "3"], "--grid 3: must be rows x columns, each from 1 to 8, such as 3x3"),
        (["--grid", "0x3"], "--grid 0x3: must be"),
        (["--grid", "3x9"], "--grid 3x9: must be"),
        (["--out", "a.mp4"], r'--out a.mp4: imageio-ffmpeg is not installed; run python -m pip install "tfdqn\[mp4\]"'),
    ],
)
def test_mistakes_are_one_line(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(UserError, match=message) as error:
        record.main(["--pretrained", "catch8", *words])
    assert error.value.exit_code == 2 and not list(tmp_path.iterdir())
