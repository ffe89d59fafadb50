"""What is shown: derived scalars, colours and pictures."""

import contextlib
import json
import resource
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.faults import harness
from tests.own_games import Line
from tfdqn import config as configuration
from tfdqn.envs import make
from tfdqn.learners.dqn.learner import DQNLearner
from tfdqn.programs.evaluation import Scores
from tfdqn.runs import run_config
from tfdqn.runs.monitor import Monitor, pictures_of, strip_image


def test_reports_divide_the_sums_and_leave_out_means_of_nothing():
    metrics = DQNLearner.sums().zeros()
    assert metrics.values(0.5) == {"rollout/epsilon": 0.5, "rollout/episodes": 0}
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
    assert metrics.values(0.25) == {
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
    picture = pictures_of(env, frame[np.newaxis], 2)[0]
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


def test_the_strip_of_a_game_of_numbers_is_as_large_as_its_own_pictures():
    class Drawn(Line):
        def picture(self, observation):
            return tf.zeros([observation.shape[0], 48, 60, 3], tf.uint8)

    assert strip_image(Drawn(), np.zeros([12, 3], np.float32)).shape == (2 * 98, 6 * 122, 3)


@contextlib.contextmanager
def full_disk(largest):
    """As if there were no room: no file grows beyond the size given."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def scores_of(env):
    strip = np.zeros([12, *env.observation_shape], np.uint8)
    strip[3] = 255
    values = np.array([[1, 0, 0], [0, 1, 0], [0, 1, 0]], np.float32)
    return Scores(np.arange(4, dtype=np.float32), np.full(4, 9, np.int32), strip, strip[2:5], values)


@pytest.mark.parametrize("more", [0, 10, 250])
def test_reports_that_cannot_be_written_wait_and_are_told_once(tmp_path, capfd, more):
    """A half-written record would end a reader there; TensorFlow's own writer ended the run."""
    env = make("catch8")
    monitor = Monitor(configuration.resolve({"env": "catch8"}), tmp_path, env)
    monitor.report(1, 1, 1.0, {"train/loss": 0.5, "eval/score_mean": 1.0})
    largest = max(monitor.flush().values())
    capfd.readouterr()
    with full_disk(largest + more):
        for number in range(2, 30):
            monitor.report(number, number, 1.0, {"train/loss": 0.5 * number, "eval/score_mean": float(number)})
            monitor.show_player(number, scores_of(env), [np.ones(3)])
            monitor.live(number, 1.0, 1.0, 1.0)
        for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
            json.loads(line)
        with pytest.raises(OSError, match="File too large") as error:  # no checkpoint may count on them
            monitor.flush()
        assert Path(error.value.filename).is_relative_to(tmp_path)
    said = [line for line in capfd.readouterr().err.splitlines() if "warning" in line]
    assert len(said) == 1 and "File too large; reports wait in memory" in said[0]
    monitor.live(30, 1.0, 1.0, 1.0)
    assert "the reports that waited are written" in capfd.readouterr().err
    monitor.close()
    assert [line["env_frames"] for line in harness.reports(tmp_path)] == list(range(1, 30))
    events = harness.events(tmp_path)  # reads records by TensorFlow, which compares their checksums
    assert {len(values) for values in events.values()} == {1}
    steps = {(folder, tag): [step for f, t, step in events if (f, t) == (folder, tag)] for folder, tag, _ in events}
    assert steps["train", "train/loss"] == steps["eval", "eval/score_mean"] == list(range(1, 30))
    assert steps["eval", "eval/player"] == steps["eval", "eval/scores"] == list(range(2, 30))


def test_reports_that_are_lost_at_the_end_are_an_error(tmp_path):
    monitor = Monitor(configuration.resolve({"env": "catch8"}), tmp_path, make("catch8"))
    with full_disk(max(monitor.flush().values())):
        for number in range(20):
            monitor.report(number, number, 1.0, {"train/loss": 0.5})
        with pytest.raises(OSError, match="File too large"):
            monitor.close()
    monitor.close()  # again: nothing


def test_tensorboard_reads_the_pictures_and_histograms(tmp_path):
    env = make("catch8")
    monitor = Monitor(configuration.resolve({"env": "catch8"}), tmp_path, env)
    scores = scores_of(env)
    monitor.show_player(7, scores, [np.zeros([2, 3]), np.full(4, 0.5)])
    monitor.close()
    events = EventAccumulator(str(tmp_path / "eval")).Reload()
    assert {name: events.SummaryMetadata(name).plugin_data.plugin_name for name in events.Tags()["tensors"]} == {
        **{"eval/player": "images", "eval/film": "images"},
        **{f"eval/{name}": "histograms" for name in ("actions", "q_values", "scores", "weights")},
    }
    (event,) = events.Tensors("eval/film")
    width, height, gif = event.tensor_proto.string_val
    film = tf.io.decode_gif(gif).numpy()
    assert film.shape == (3, int(height), int(width), 3) and gif[:6] == b"GIF89a"
    np.testing.assert_array_equal(film[:, ::18, ::18], pictures_of(env, scores.movie))
    for name, wanted in (("actions", {0: 1, 1: 2}), ("weights", {0.0: 6, 0.5: 4})):
        (event,) = events.Tensors(f"eval/{name}")
        buckets = tf.make_ndarray(event.tensor_proto)
        low, high = min(wanted), max(wanted)
        assert (buckets[0, 0], buckets[-1, 1]) == (low, high)
        assert (buckets[0, 2], buckets[-1, 2]) == (wanted[low], wanted[high])
    (event,) = events.Tensors("eval/player")
    width, height, png = event.tensor_proto.string_val
    picture = tf.io.decode_png(png).numpy()
    np.testing.assert_array_equal(picture, strip_image(env, scores.strip))
    assert (int(height), int(width), 3) == picture.shape and event.step == 7
    (event,) = events.Tensors("eval/scores")
    buckets = tf.make_ndarray(event.tensor_proto)
    assert buckets[:, 2].sum() == 4 and (buckets[0, 0], buckets[-1, 1]) == (0, 3)


def test_a_profile_that_cannot_be_written_is_told_and_the_run_goes_on(tmp_path, capfd, monkeypatch):
    def fail():
        raise tf.errors.ResourceExhaustedError(None, None, "x/plugins; No space left on device")

    monkeypatch.setattr(tf.profiler.experimental, "start", lambda *_: None)
    monkeypatch.setattr(tf.profiler.experimental, "stop", fail)
    monitor = Monitor(configuration.resolve({"env": "catch8"}), tmp_path, make("catch8"))
    with monitor.profile():
        pass
    assert "warning: no profile written" in capfd.readouterr().err
    monitor.close()


def test_tensorboards_table_has_a_row_for_all_seeds_of_one_setting(tmp_path):
    from tensorboard import context
    from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
    from tensorboard.plugins import base_plugin
    from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups

    for rate in (0.1, 0.2):
        for seed in (0, 1):
            config = configuration.resolve({"env": "catch8", "learning_rate": rate, "seed": seed, "minutes": seed + 1})
            run_dir = tmp_path / f"{rate}-{seed}"
            run_dir.mkdir()
            monitor = Monitor(config, run_dir, make("catch8"))
            monitor.report(100, 1, 1.0, {"eval/score_mean": 10 * rate + seed})
            monitor.report(100, 1, 1.0, {"train/loss": 0.5})
            monitor.close()
    multiplexer = plugin_event_multiplexer.EventMultiplexer().AddRunsFromDirectory(str(tmp_path))
    multiplexer.Reload()
    provider = data_provider.MultiplexerDataProvider(multiplexer, str(tmp_path))
    backend, asked = backend_context.Context(base_plugin.TBContext(data_provider=provider)), context.RequestContext()
    table = backend.experiment_from_metadata(asked, "", True, backend.hparams_metadata(asked, ""), [])
    names = {info.name for info in table.hparam_infos}
    assert {"env", "learner", "learning_rate", "num_envs"} <= names and not {"seed", "minutes", "goal_score"} & names
    metrics = [(info.name.group, info.name.tag) for info in table.metric_infos]
    assert metrics == [("eval", "eval/score_mean"), ("train", "train/loss")]
    request = api_pb2.ListSessionGroupsRequest(slice_size=9, aggregation_type=api_pb2.AGGREGATION_AVG)
    request.allowed_statuses.extend([api_pb2.STATUS_UNKNOWN, api_pb2.STATUS_RUNNING])
    groups = list_session_groups.Handler(asked, backend, "", request).run().session_groups
    found = {round(group.hparams["learning_rate"].number_value, 3): group for group in groups}
    assert {rate: len(group.sessions) for rate, group in found.items()} == {0.1: 2, 0.2: 2}
    scores = {
        rate: next(each.value for each in group.metric_values if each.name.tag == "eval/score_mean")
        for rate, group in found.items()
    }
    assert scores == {0.1: 1.5, 0.2: 2.5}


def test_a_resumed_run_shows_the_scores_that_it_had(tmp_path):
    config = configuration.resolve({"env": "catch8"})
    run_config.write_config(config, tmp_path)
    monitor = Monitor(config, tmp_path, make("catch8"))
    for frames, score in ((100, 1.0), (200, float("nan")), (300, 3.0)):
        monitor.report(frames, 1, 1.0, {"eval/score_mean": score, "train/loss": score})
    monitor.close()
    resumed = Monitor(config, tmp_path, make("catch8"), is_resumed=True)
    assert resumed._line._scores["eval/score_mean"] == [1.0, 3.0]
    assert resumed._line._values["train/loss"] == 3.0
    resumed.close()
