"""Patches or native convolutions: the same network either way, and what is chosen on a device."""

import numpy as np
import pytest
import tensorflow as tf

from tests.whole_runs import make_run, resume
from tfdqn import config as configuration
from tfdqn import evaluate, record
from tfdqn.envs import make
from tfdqn.learners.dqn import building, convolutions
from tfdqn.learners.dqn.building import build_agent, build_learner
from tfdqn.networks.names import CONVOLUTIONS
from tfdqn.runs import models, run_config, run_folder

SMALL = {
    "env": "catch16",
    "preset": "article",
    "num_envs": 2,
    "batch_size": 4,
    "replay_capacity": 200,
    "replay_min_rows": 20,
}


def _agents(**more):
    """The same agent with patches and with native convolutions."""
    game = make(SMALL["env"])
    settings = {**SMALL, **more}
    return [build_agent(configuration.resolve({**settings, "convolution": way}), game) for way in CONVOLUTIONS]


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("members", [1, 2])
def test_either_way_gives_the_same_values(jit, members):
    frames = tf.constant(np.random.default_rng(0).integers(0, 256, (5, 16, 16, 1)), tf.uint8)
    patches, native = (tf.function(agent, jit_compile=jit)(frames) for agent in _agents(members=members))
    np.testing.assert_allclose(patches, native, rtol=1e-4, atol=1e-5)
    assert np.abs(patches).max() > 0.01


def test_each_way_is_the_one_that_is_named():
    frames = tf.constant(np.zeros([1, 16, 16, 1], np.uint8))
    for agent, wanted in zip(_agents(members=2), (0, 2 * 3), strict=True):  # three convolutions a network
        graph = tf.function(agent).get_concrete_function(frames).graph
        assert sum(operation.type == "Conv2D" for operation in graph.get_operations()) == wanted


def test_either_ways_weights_fit_the_other(tmp_path):
    frames = tf.constant(np.random.default_rng(0).integers(0, 256, (5, 16, 16, 1)), tf.uint8)
    patches, _ = _agents(seed=1)
    _, native = _agents(seed=2)
    assert not np.allclose(patches(frames), native(frames), atol=1e-3)
    models.save_agent(native, tmp_path / "agent.keras")
    models.load_weights(patches, tmp_path / "agent.keras")
    np.testing.assert_allclose(patches(frames), native(frames), rtol=1e-4, atol=1e-5)
    loaded = tf.keras.models.load_model(tmp_path / "agent.keras")
    assert loaded.get_config()["convolution"] == "native"
    np.testing.assert_array_equal(loaded(frames), native(frames))


def _chosen(monkeypatch, device, seconds, **settings):
    """What is chosen where an update takes so many seconds each way, and which ways were timed."""
    timed = []

    def seconds_an_update(config, agent):
        timed.append(config.convolution)
        assert agent == ("the agent of", config.convolution)
        return seconds[config.convolution]

    monkeypatch.setattr(convolutions, "seconds_an_update", seconds_an_update)
    config = configuration.resolve({**SMALL, **settings})
    chosen = convolutions.choose(config, device, lambda each: ("the agent of", each.convolution))
    assert chosen == config.replace(convolution=chosen.convolution)
    return chosen.convolution, timed


def test_a_gpu_gets_what_is_quicker_there(monkeypatch, capsys):
    both = ["patches", "native"]
    assert _chosen(monkeypatch, "/GPU:0", {"patches": 0.002, "native": 0.001}) == ("native", both)
    assert "patches 2.000 ms an update, native 1.000 ms an update; chosen: native" in capsys.readouterr().err
    assert _chosen(monkeypatch, "/GPU:0", {"patches": 0.001, "native": 0.002}) == ("patches", both)
    # One of them needs more memory than there is.
    assert _chosen(monkeypatch, "/GPU:0", {"patches": float("inf"), "native": 9.0}) == ("native", both)


def test_nothing_is_timed_where_nothing_is_to_be_chosen(monkeypatch):
    assert _chosen(monkeypatch, "/CPU:0", {}) == ("patches", [])
    assert _chosen(monkeypatch, "/GPU:0", {}, network="mlp") == ("patches", [])
    assert _chosen(monkeypatch, "/GPU:0", {}, deterministic=True) == ("patches", [])
    assert _chosen(monkeypatch, "/GPU:0", {}, population=2) == ("patches", [])
    for way in CONVOLUTIONS:
        for device in ("/CPU:0", "/GPU:0"):
            assert _chosen(monkeypatch, device, {}, convolution=way) == (way, [])


@pytest.mark.parametrize("way", CONVOLUTIONS)
def test_what_is_timed_are_updates(way):
    config = configuration.resolve({**SMALL, "convolution": way, "batch_size": 3})
    agent = build_learner(config, make(config.env))
    assert 0 < convolutions.seconds_an_update(config, agent) < 60
    assert int(agent.optimizer.iterations) == convolutions.UPDATES * (1 + convolutions.TIMINGS)


def test_too_little_memory_for_one_way_rules_it_out(monkeypatch):
    def program(updates, **_):
        def run():
            raise tf.errors.ResourceExhaustedError(None, None, "out of memory")

        return run

    config = configuration.resolve(SMALL)
    agent = build_learner(config, make(config.env))
    monkeypatch.setattr(convolutions.compiled, "program", program)
    assert convolutions.seconds_an_update(config, agent) == float("inf")


@pytest.mark.parametrize("given, wanted", [({}, "patches"), ({"convolution": "native"}, "native")])
def test_a_run_goes_on_with_what_it_began_with(tmp_path, given, wanted):
    short = {"total_env_frames": 60, "eval_episodes": 2, "final_eval_episodes": 2, **given}
    run = make_run(tmp_path / "run", **SMALL, **short)
    run.train()
    run._lock.close()
    assert run_config.read_config(tmp_path / "run").convolution == wanted
    resumed = resume(tmp_path / "run", total_env_frames=100)
    assert resumed.config.convolution == resumed.trainer.config.convolution == wanted


def test_a_trained_agent_is_evaluated_as_it_suits_the_device(tmp_path, monkeypatch):
    config = configuration.resolve({**SMALL, "convolution": "native", "precision": "bfloat16"})
    run_folder.create(config, [tmp_path / "run"])[1].close()
    models.save_agent(build_agent(config, make(config.env)), tmp_path / "run" / models.BEST_MODEL)
    built = []
    monkeypatch.setattr(building, "build_agent", lambda config, env: built.append(config) or build_agent(config, env))
    assert evaluate.main([str(tmp_path / "run"), "--episodes=2", "--device=cpu"]) == 0
    assert record.main([str(tmp_path / "run"), "--frames=2", "--out", str(tmp_path / "a.gif")]) == 0
    assert [(config.convolution, config.precision) for config in built] == [("auto", "bfloat16")] * 2
