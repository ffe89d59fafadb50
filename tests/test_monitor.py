"""What is shown: derived scalars, colours and pictures."""

import resource

import numpy as np
import pytest
import tensorflow as tf

from tfdqn import config as configuration
from tfdqn.envs import make
from tfdqn.metrics import Metrics
from tfdqn.monitor import Monitor, colour, report_values, strip_image


def test_reports_divide_the_sums_and_leave_out_means_of_nothing():
    metrics = Metrics.zeros()
    assert report_values(metrics, 0.5) == {"rollout/epsilon": 0.5, "rollout/episodes": 0}
    metrics = metrics._replace(
        episodes=tf.constant(4, tf.int64),
        score=tf.constant(10.0),
        episode_frames=tf.constant(100, tf.int64),
        updates=tf.constant(5, tf.int64),
        loss=tf.constant(1.0),
        td_error=tf.constant(2.0),
        mean_q=tf.constant(-5.0),
        max_q=tf.constant(7.0),
        gradient_norm=tf.constant(10.0),
    )
    assert report_values(metrics, 0.25) == {
        "rollout/epsilon": 0.25,
        "rollout/episodes": 4,
        "rollout/score": 2.5,
        "rollout/episode_frames": 25.0,
        "train/loss": np.float32(0.2),
        "train/td_error": np.float32(0.4),
        "train/mean_q": -1.0,
        "train/max_q": 7.0,
        "train/gradient_norm": 2.0,
    }


def test_colour_uses_the_games_palette_and_scales():
    env = make("cave")
    frame = np.array([[0, 102], [128, 255]], np.uint8)
    picture = colour(env, frame, 2)
    assert picture.shape == (4, 4, 3)
    np.testing.assert_array_equal(picture[0, 2], env.palette[102])
    np.testing.assert_array_equal(picture[3, 0], env.palette[128])


def test_strip_shows_every_frame_in_rows_of_six():
    env = make("catch8")
    strip = np.zeros([12, 8, 8], np.uint8)
    strip[7, 0, 0] = 255  # second row, second picture
    picture = strip_image(env, strip)
    side = 8 * 12 + 2
    assert picture.shape == (2 * side, 6 * side, 3)
    np.testing.assert_array_equal(picture[side + 1, side + 1], [255, 255, 255])
    assert strip_image(env, strip[:7]).shape == picture.shape


def test_a_tensorboard_file_that_cannot_grow_is_an_error_like_any_other_files(tmp_path):
    """TensorFlow's own error is no OSError, and once ended a run on a full disk in a traceback."""
    monitor = Monitor(configuration.resolve({"env": "catch8"}), tmp_path, make("catch8"))
    monitor.report(1, 1, 1.0, {"train/loss": 0.5})
    size = monitor.flush()[next((tmp_path / "train").iterdir()).relative_to(tmp_path).as_posix()]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, hard))  # this file is the largest
    try:
        with pytest.raises(OSError, match="File too large") as error:
            monitor.report(2, 2, 2.0, {"train/loss": 0.5})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert error.value.filename == str(tmp_path / "train")
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2
