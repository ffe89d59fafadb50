"""Whole runs: one that was broken ends like the unbroken one, and what cannot go on is refused or told in one line."""

import errno
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import tensorflow as tf

from tests.faults import harness
from tests.whole_runs import SETTINGS, make_run, resume, train_until
from tfdqn import config as configuration
from tfdqn import files, train
from tfdqn.envs.catch import rules as catch
from tfdqn.errors import EXIT_IO, EXIT_NUMERIC, EXIT_REFUSED, UserError
from tfdqn.learners.dqn import building
from tfdqn.programs.evaluation import Scores
from tfdqn.runs import checkpoints, donor, locks, models, monitor, run_config
from tfdqn.runs.checkpoints import DATA, FOLDER
from tfdqn.runs.saving import Saver, read_facts

TENSORFLOW = tf.__version__


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("unbroken") / "run"
    result = make_run(run_dir).train()
    return run_dir, result


def test_a_run_broken_in_two_places_ends_like_the_unbroken_one(unbroken, tmp_path):
    """One break while the replay is still half empty, and one, in between two reports, that loses some work."""
    run_dir = tmp_path / "run"
    run = make_run(run_dir, total_env_frames=3300)  # shorter: more frames are asked for below
    train_until(run, 500)
    run._lock.close()
    run = resume(run_dir)
    train_until(run, 2000, chunk=29)
    train_until(run, 3000, chunk=7)  # this one will be damaged: all its reports must be taken back
    (run.saver.path / DATA).write_bytes(b"")
    run._lock.close()
    run = resume(run_dir, total_env_frames=4000)
    assert 2000 <= run.env_frames < 2300
    result = run.train()
    assert run.trainer.trace_count == 1  # after resuming, reports, evaluations and checkpoints
    assert run.evaluator.trace_count == 1
    assert harness.differences(unbroken[0], run_dir) == []
    assert {k: result[k] for k in ("env_frames", "updates", "score_mean", "best_env_frames")} == {
        k: unbroken[1][k] for k in ("env_frames", "updates", "score_mean", "best_env_frames")
    }
    assert configuration.read_toml(run_dir / "config.toml")["total_env_frames"] == 4000


@pytest.mark.parametrize("env", ["catch8", "cave"])
def test_a_checkpoint_from_before_scores_were_summed_goes_on_with_the_scores_so_far(env, tmp_path, monkeypatch):
    run, tensors = make_run(tmp_path / "run", env=env, network="mlp"), Saver._tensors
    run.carry = run.trainer.run_chunk(run.carry, 6, 10**6)
    returns = run.carry.episode_score if env == "catch8" else tf.zeros_like(run.carry.episode_score)

    def as_before(saver):
        kept = tensors(saver)
        del kept["carry/episode_score"]
        return kept | {"carry/episode_return": returns}

    monkeypatch.setattr(Saver, "_tensors", as_before)
    run.saver.save_last()
    monkeypatch.undo()
    run.monitor.close()
    run._lock.close()
    again = resume(tmp_path / "run")
    tf.nest.map_structure(np.testing.assert_array_equal, again.carry, run.carry)
    assert again.carry.episode_score.dtype == tf.float32 and (env == "catch8" or any(again.carry.episode_score))
    again._lock.close()


def test_a_run_that_goes_on_with_other_versions_says_so(tmp_path, capfd, monkeypatch):
    run = make_run(tmp_path / "run")
    train_until(run, 300)
    run._lock.close()
    resume(tmp_path / "run")._lock.close()
    assert "warning" not in capfd.readouterr().err
    monkeypatch.setattr(catch.Catch, "version", 7)
    resume(tmp_path / "run")._lock.close()
    (warning,) = [line for line in capfd.readouterr().err.splitlines() if "warning" in line]
    assert "version 1 of catch8, going on with version 7" in warning
    monkeypatch.undo()
    monkeypatch.setattr(tf, "__version__", "9.9")
    resume(tmp_path / "run")
    (warning,) = [line for line in capfd.readouterr().err.splitlines() if "warning" in line]
    assert f"TensorFlow {TENSORFLOW}, going on with 9.9" in warning


def test_a_checkpoint_from_when_games_had_one_version_is_of_that(tmp_path):
    run = make_run(tmp_path / "run")
    train_until(run, 300)
    checkpoint, _ = checkpoints.load_newest(tmp_path / "run")
    assert read_facts(checkpoint).game_version == checkpoint.manifest.pop("game_version") == catch.Catch.version
    assert read_facts(checkpoint).game_version == 1


EVERY_RULE = {
    "env": "cave",
    "jit": True,
    "network": "columns",
    "precision": "bfloat16",
    "super_resolution": True,
    "start_curriculum": 0.5,
    "restart_share": 0.5,
    "target": "soft",
    "play_target": True,
    "prioritized": True,
    "dueling": True,
    "head": "categorical",
    "atoms": 2,
    "value_max": 0.0,
    "n_step": 3,
    "optimizer": "adam",
    "eval_max_frames": 50,
    "total_env_frames": 2000,
    "goal_score": float("inf"),
}


@pytest.mark.slow
@pytest.mark.parametrize("others", [{}, {"head": "scalar", "return_lambda": 0.8}], ids=str)
def test_a_run_with_every_rule_is_resumed_bit_by_bit(tmp_path, others):
    rules = {**EVERY_RULE, **others}
    make_run(tmp_path / "unbroken", **rules).train()
    run = make_run(tmp_path / "broken", **rules)
    run.compile()
    train_until(run, 900)
    run.monitor.close()
    run._lock.close()
    resume(tmp_path / "broken").train()
    assert harness.differences(tmp_path / "unbroken", tmp_path / "broken") == []
    held = checkpoints.load_newest(tmp_path / "broken")[0].names
    assert {"replay/priority", "replay/max_priority", "replay/num_updates"} <= held


def test_the_averaged_network_is_evaluated_and_kept(tmp_path):
    run = make_run(tmp_path / "run", target="soft", target_tau=0.01, play_target=True, total_env_frames=1000)
    agent, played = run.trainer.agent, []
    evaluate = run.evaluator.evaluate
    run.evaluator.evaluate = lambda *args, **more: played.append(agent.online.get_weights()) or evaluate(*args, **more)
    run.compile()
    train_until(run, 1000)
    online, target = agent.online.get_weights(), agent.target.get_weights()
    assert not np.array_equal(online[0], target[0])
    run._evaluate()
    np.testing.assert_array_equal(played[-1][0], target[0])
    np.testing.assert_array_equal(agent.online.get_weights()[0], online[0])
    run.train()  # nothing is left but to save and evaluate
    kept = building.build_agent(run.config, run.trainer.env)
    models.load_weights(kept, tmp_path / "run" / models.FINAL_MODEL)
    for ours, expected in zip(kept.online.get_weights(), target, strict=True):
        np.testing.assert_array_equal(ours, expected)


def test_a_run_starts_from_anothers_best_agent_and_refuses_one_that_does_not_fit(unbroken, tmp_path):
    held = harness.weights(unbroken[0] / models.BEST_MODEL)
    run = make_run(tmp_path / "run", seed=9, init_from=str(unbroken[0]))
    ours = run.trainer.agent.online.get_weights()
    assert sum(any(np.array_equal(w, each) for each in held.values()) for w in ours) == len(ours)
    for online, target in zip(ours, run.trainer.agent.target.get_weights(), strict=True):
        np.testing.assert_array_equal(online, target)
    run.monitor.close()
    for changes, message in [
        ({"dueling": True}, "its dueling is False, not True; use --no-dueling"),
        ({"noisy": True}, "its noisy is False, not True; use --no-noisy"),
        ({"head": "quantile"}, "its head is scalar, not quantile; use --head scalar"),
        ({"env": "cave"}, "its env is catch8, not cave"),
        ({"init_from": str(tmp_path)}, "not a run folder"),
    ]:
        config = configuration.resolve({**SETTINGS, "init_from": str(unbroken[0]), **changes})
        with pytest.raises(UserError, match=f"--init-from .*{message}"):
            donor.check_donor(config)
    donor.check_donor(configuration.resolve({**SETTINGS, "init_from": str(unbroken[0]), "value_max": 3.0}))


def test_settings_that_an_older_run_did_not_know_are_not_todays_presets(tmp_path):
    (tmp_path / "config.toml").write_text('env = "cave"\nnetwork = "conv"\n')
    config = run_config.read_config(tmp_path)
    assert (config.env, config.network, config.dueling, config.head) == ("cave", "conv", False, "scalar")


def test_a_setting_of_an_older_run_that_is_gone_may_have_changed_nothing(tmp_path):
    (tmp_path / "config.toml").write_text('env = "catch8"\ncurriculum_overshoot = 0\n')
    assert run_config.read_config(tmp_path) == configuration.resolve({**configuration.plain(configuration.Config())})
    (tmp_path / "config.toml").write_text('env = "cave"\ncurriculum_overshoot = 2\n')
    with pytest.raises(UserError, match="curriculum_overshoot 2 is no longer known; use 0"):
        run_config.read_config(tmp_path)


def test_a_finished_run_says_so_and_is_not_changed(unbroken, tmp_path, capfd):
    run_dir = tmp_path / "run"
    shutil.copytree(unbroken[0], run_dir)
    result = resume(run_dir).train()
    assert "nothing more to train" in capfd.readouterr().err
    assert result["score_mean"] == unbroken[1]["score_mean"]
    assert harness.differences(unbroken[0], run_dir) == []


def test_a_run_whose_minutes_are_over_before_it_begins_can_go_on(tmp_path):
    run = make_run(tmp_path / "run", minutes=1e-6)
    run.train()
    run.close()
    run = resume(tmp_path / "run", minutes=5.0, total_env_frames=100)
    run.train()
    assert run.env_frames >= 100


@pytest.mark.parametrize(
    "given, message",
    [
        ({"env": "catch16"}, "env is catch8 in this run, not catch16"),
        ({"discount": 0.5}, r"discount is 0\.99 in this run"),
        ({"replay_capacity": 5000}, "replay_capacity is 1000"),
        ({"num_envs": 16}, "num_envs is 8"),
        ({"seed": 4}, "seed is 3"),
    ],
)
def test_settings_that_would_change_the_run_are_refused_by_name(unbroken, given, message):
    flags = [part for name, value in given.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    with pytest.raises(UserError, match=message) as error:
        train.main(["--resume", str(unbroken[0]), *flags])
    assert error.value.exit_code == EXIT_REFUSED


def test_an_edited_config_is_refused_by_the_fields_name(unbroken, tmp_path):
    run_dir = tmp_path / "run"
    shutil.copytree(unbroken[0], run_dir)
    text = (run_dir / "config.toml").read_text()
    (run_dir / "config.toml").write_text(text.replace("n_step = 1 ", "n_step = 2 "))
    with pytest.raises(UserError, match="n_step is 1 in this run, not 2") as error:
        train.main(["--resume", str(run_dir)])
    assert error.value.exit_code == EXIT_REFUSED


def test_resume_refuses_what_is_no_run_and_flags_that_mean_nothing(tmp_path):
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(UserError) as error:
            train.main(["--resume", str(path)])
        assert error.value.exit_code == EXIT_REFUSED and "\n" not in str(error.value)
    with pytest.raises(UserError, match="--run-name") as error:
        train.main(["--resume", str(tmp_path), "--run-name", "x"])
    assert error.value.exit_code == 2


def test_a_signal_ends_an_evaluation_which_the_resumed_run_then_does_whole(unbroken, tmp_path):
    run_dir = tmp_path / "run"
    run = make_run(run_dir)

    def should_stop():
        if run.env_frames >= 1500:  # the first evaluation
            run.stop.signal = signal.SIGTERM
        return run.stop.signal is not None

    run.evaluator.should_stop = should_stop
    result = run.train()
    assert result["exit_code"] == 128 + signal.SIGTERM and 1500 <= result["env_frames"] < 3000
    assert "eval/score_mean" not in (run_dir / "metrics.jsonl").read_text()
    run._lock.close()
    resumed = resume(run_dir)
    resumed.train()
    resumed._lock.close()
    assert harness.differences(unbroken[0], run_dir) == []


def test_a_second_process_is_kept_out_by_name_and_a_dead_ones_lock_is_free(tmp_path):
    code = (
        "import pathlib, sys; from tfdqn.runs import locks\n"
        "lock = locks.lock(pathlib.Path(sys.argv[1])); print('locked', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(UserError, match=f"process {holder.pid} trains in it") as error:
            locks.lock(tmp_path)
        assert error.value.exit_code == EXIT_REFUSED
    finally:
        holder.kill()
        holder.communicate()
    locks.lock(tmp_path).close()


def kept_in(run, name):
    """The weights in a run's model."""
    kept = building.build_agent(run.config, run.trainer.env)
    models.load_weights(kept, run.run_dir / name)
    return kept.online.get_weights()


def score(run, value):
    """Let the run's next evaluations give this score, by players that live for 9 frames."""
    episodes = run.config.eval_episodes
    strip, q_values = np.zeros([12, 8, 8], np.uint8), np.zeros([5, 3], np.float32)
    scores = Scores(np.full(episodes, value, np.float32), np.full(episodes, 9, np.int32), strip, strip, q_values)
    run.evaluator.evaluate = lambda *_, **__: scores


def make_run_with_a_future(run_dir, scores=(1.0, 2.0, 3.0), **changes):
    """A run that has evaluated before its first checkpoint, between it and the second, and after, and has ended."""
    run = make_run(run_dir, eval_every_frames=10**6, goal_score=np.inf, **changes)
    saved = []
    for frames, value in zip((300, 600, 900), scores, strict=True):
        while run.env_frames < frames:
            run.progress.rounds = 7
            run.train_chunk()
        if value is not None:
            score(run, value)
            run._evaluate()
        saved.append((run.best_weights, run.player_weights()))
        if frames < 900:
            run.saver.save_last()
    run.saver.give_final()
    run.monitor.close()
    run._lock.close()
    return saved


def assert_models_are(run, best, final):
    for name, weights in ((models.BEST_MODEL, best), (models.FINAL_MODEL, final)):
        if weights is None:
            assert not (run.run_dir / name).exists()
        else:
            for ours, expected in zip(kept_in(run, name), weights, strict=True):
                np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize("back", [1, 2])
@pytest.mark.parametrize("play_target", [False, True])
def test_no_file_is_of_a_future_that_a_resumed_run_has_lost(tmp_path, back, play_target):
    """With the newest checkpoint, and with the one before, since the newest is damaged."""
    run_dir = tmp_path / "run"
    target = {"target": "soft", "play_target": True} if play_target else {}
    saved = make_run_with_a_future(run_dir, **target)
    if back == 2:
        (run_dir / FOLDER / harness.committed(run_dir)[0] / DATA).write_bytes(b"")
    (run_dir / ".model.part.keras").write_text("of a killed process")
    run = resume(run_dir, total_env_frames=5000, minutes=7.0)
    assert run.progress.best_score == 3.0 - back
    assert_models_are(run, *saved[2 - back])
    run.monitor.close()  # what it has reported since is nothing
    evaluated = [line["eval/score_mean"] for line in harness.reports(run_dir) if "eval/score_mean" in line]
    assert evaluated == [1.0, 2.0][: 3 - back]
    steps = {step for folder, _, step in harness.events(run_dir) if folder == "eval"}
    assert len(steps) == 3 - back and max(steps) <= run.env_frames
    assert not files.partial(run_dir / models.BEST_MODEL).exists()
    config = run_config.read_config(run_dir)
    assert (config.total_env_frames, config.minutes) == (5000, 7.0)


def test_a_best_agent_from_before_any_that_the_checkpoint_knows_is_removed(tmp_path):
    make_run_with_a_future(tmp_path / "run", scores=(None, None, 3.0))
    (tmp_path / "run" / models.FINAL_MODEL).unlink()  # killed, and did not end
    run = resume(tmp_path / "run")
    assert run.progress.best_score is None
    assert_models_are(run, None, None)
    run.monitor.close()


def test_on_a_full_disk_a_resumed_run_has_no_model_rather_than_a_wrong_one(tmp_path, monkeypatch, capfd):
    run_dir = tmp_path / "run"
    (_, (best, final), _) = make_run_with_a_future(run_dir)

    def fail(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(type(building.build_agent(run_config.read_config(run_dir), catch.Catch())), "save", fail)
        patch.setattr(run_config, "write_config", fail)
        run = resume(run_dir, total_env_frames=5000)
    assert_models_are(run, None, None)
    said = [line for line in capfd.readouterr().err.splitlines() if "it waits until it can be written" in line]
    assert [name for line in said for name in ("model.keras", "final.keras", "config.toml") if name in line] == [
        *("model.keras", "final.keras", "config.toml")
    ]
    run.train_chunk()
    run.saver.outbox.retry()
    assert_models_are(run, best, final)
    assert run_config.read_config(run_dir).total_env_frames == 5000
    run.monitor.close()


def test_a_models_file_follows_from_the_agent_alone(tmp_path):
    """Or a resumed run, which has only the weights, could not write it again."""
    run = make_run(tmp_path / "run", total_env_frames=400)
    run.train()
    kept = harness.weights(tmp_path / "run" / models.FINAL_MODEL)
    online = {name: value for name, value in kept.items() if name.startswith("online/")}
    assert online and any(value.any() for value in online.values())
    for name, value in online.items():
        np.testing.assert_array_equal(value, kept[name.replace("online/", "target/", 1)])
    optimizer = [value for name, value in kept.items() if name.startswith("optimizer/")]
    assert optimizer and not any(value.any() for value in optimizer)


def test_without_the_replay_a_resumed_run_fills_a_new_one(unbroken, tmp_path, capfd):
    run_dir = tmp_path / "run"
    run = make_run(run_dir, checkpoint_replay=False, eval_every_frames=10**6)
    train_until(run, 1000)
    run._lock.close()
    assert not any(name.startswith("replay/") for name in checkpoints.load_newest(run_dir)[0].names)
    resumed = resume(run_dir)
    assert "holds no replay" in capfd.readouterr().err
    assert int(resumed.trainer.replay.num_rows) == 0 and resumed.updates == run.updates
    resumed._lock.close()


def test_a_full_disk_is_survived_in_training_and_told_at_the_end(unbroken, tmp_path, monkeypatch, capfd):
    run_dir = tmp_path / "run"
    shutil.copytree(unbroken[0], run_dir)
    run = resume(run_dir, total_env_frames=5000, checkpoint_every_seconds=0.001)

    def fail(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoints, "_write_tensors", fail)
    run.saver.save_if_due()
    assert "No space left" in capfd.readouterr().err
    run.carry = run.carry._replace(iteration=run.carry.iteration + 1)
    with pytest.raises(UserError, match="No space left") as error:
        run.saver.save_last()
    assert error.value.exit_code == EXIT_IO
    run._lock.close()
    assert checkpoints.load_newest(run_dir)[0].manifest["env_frames"] == unbroken[1]["env_frames"]


def test_a_run_whose_folder_is_removed_ends_by_its_name(unbroken, tmp_path):
    run_dir = tmp_path / "run"
    shutil.copytree(unbroken[0], run_dir)
    run = resume(run_dir, total_env_frames=5000, checkpoint_every_seconds=0.001)
    shutil.rmtree(run_dir)
    run.carry = run.carry._replace(iteration=run.carry.iteration + 1)
    for save in (run.saver.save_if_due, run.saver.save_last):
        with pytest.raises(UserError, match=f"{run_dir}: the run's folder was removed") as error:
            save()
        assert error.value.exit_code == EXIT_IO
    run._lock.close()


def test_checkpoints_that_cannot_be_written_any_more_are_told_and_the_run_goes_on(unbroken, tmp_path, capfd):
    """As where a folder was made read-only meanwhile, which stops everyone but root."""
    run_dir = tmp_path / "run"
    shutil.copytree(unbroken[0], run_dir)
    run = resume(run_dir, total_env_frames=5000, checkpoint_every_seconds=0.001)
    shutil.rmtree(run_dir / FOLDER)
    (run_dir / FOLDER).write_text("in the way")
    run.carry = run.carry._replace(iteration=run.carry.iteration + 1)
    run.saver.save_if_due()
    assert "no checkpoint made: File exists" in capfd.readouterr().err
    with pytest.raises(UserError, match=f"{run_dir}: no checkpoint made: File exists") as error:
        run.saver.save_last()
    assert error.value.exit_code == EXIT_IO
    run._lock.close()


def test_a_file_that_could_not_be_written_leaves_the_old_one_and_no_part(tmp_path):
    path = tmp_path / "model.keras"
    path.write_text("old")

    def fail(temporary):
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match="No space left"):
        files.write_atomically(path, fail)
    assert [item.name for item in tmp_path.iterdir()] == ["model.keras"] and path.read_text() == "old"


def test_a_number_that_is_not_finite_ends_the_run_within_a_chunk_by_name(tmp_path):
    """Under XLA, whose ReLU keeps what is no number."""
    run_dir = tmp_path / "run"
    run = make_run(run_dir, jit=True, eval_every_frames=10**6, checkpoint_every_seconds=0.001)
    train_until(run, 1000)
    before = {path: hashlib.sha256(path.read_bytes()).digest() for path in (run_dir / FOLDER).rglob("*.*")}
    agent = run.trainer.agent
    online = agent.online.trainable_variables[0]
    learner = [*agent.variables, *agent.optimizer.variables]
    good = [variable.numpy() for variable in learner]
    carry = run.carry
    for value, where, message in (
        (np.nan, "reward", "the TD target is not finite"),
        (np.inf, "reward", "the TD target is not finite"),
        (np.nan, "weights", "(the TD target|the loss) is not finite"),
        (1e38, "weights", ".* is not finite"),
    ):
        run.carry, run.progress.rounds = carry._replace(metrics=type(carry.metrics).zeros()), 70
        for variable, value_before in zip(learner, good, strict=True):
            variable.assign(value_before)
        reward = run.trainer.replay.state["reward"]
        reward.assign(tf.fill(reward.shape, value) if where == "reward" else tf.zeros(reward.shape))
        if where == "weights":
            online.assign(tf.fill(online.shape, value))
        update = run.updates
        with pytest.raises(UserError, match=f"diverged at update {update + 1}: {message}") as error:
            run.train_chunk()
        assert error.value.exit_code == EXIT_NUMERIC and "last checkpoint is" in str(error.value)
        assert run.updates <= update + 70
        run.monitor = monitor.Monitor(run.config, run_dir, run.trainer.env, is_resumed=True)
    after = {path: hashlib.sha256(path.read_bytes()).digest() for path in (run_dir / FOLDER).rglob("*.*")}
    assert before == after
    run._lock.close()


def test_weights_files_that_unpack_to_more_than_an_agent_are_refused_unread(unbroken, tmp_path):
    from tfdqn.envs import make
    from tfdqn.learners.dqn.building import build_agent

    config = run_config.read_config(unbroken[0])
    agent = build_agent(config, make(config.env))
    models.load_weights(agent, unbroken[0] / "model.keras")
    path = tmp_path / "model.keras"
    import h5py

    def with_weights(write):
        with h5py.File(tmp_path / "w.h5", "w") as file:
            write(file)
        with zipfile.ZipFile(path, "w") as archive:
            archive.write(tmp_path / "w.h5", "model.weights.h5")

    def bomb():
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("model.weights.h5", b"\0" * 2**26)

    def traversal():
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("../evil", b"x")

    cases = {
        "unpacks to 67108864 bytes": bomb,
        "does not belong there": traversal,
        "tensors unpack to more": lambda: with_weights(lambda f: f.create_dataset("a", [2**40], "f4", chunks=True)),
        "is a link": lambda: with_weights(lambda f: f.update({"a": h5py.ExternalLink("/etc/passwd", "/")})),
        "reads another file": lambda: with_weights(
            lambda f: f.create_dataset("a", [4], "u1", external=[("/etc/passwd", 0, 4)])
        ),
    }
    for message, make_file in cases.items():
        make_file()
        with pytest.raises(UserError, match=message) as error:
            models.load_weights(agent, path)
        assert "\n" not in str(error.value)
