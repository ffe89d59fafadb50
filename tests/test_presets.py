"""Presets beside what a user gives: nobody has to know a preset to use a flag. No TensorFlow here."""

import math

import pytest

from tfdqn import config as configuration
from tfdqn import learners, train
from tfdqn.envs import registry
from tfdqn.errors import UserError

PRESETS = [(game.name, preset) for game in registry.games() for preset in (*game.presets, "rainbow")]


def legal_values(name):
    """The ends of a field's range and some numbers between."""
    metadata, kind = configuration.FIELDS[name].metadata, configuration.FIELD_TYPES[name]
    if kind is bool:
        return [True, False]
    if kind is str or metadata["choices"]:
        return metadata["choices"] or [""]
    low, high, above = metadata["low"], metadata["high"], metadata["above"]
    low = math.nextafter(above, math.inf) if above is not None else -1e300 if low is None else low
    high = (2**62 if kind is int else math.inf) if high is None else high
    inner = (low + 1, low + 6, 300) if kind is int else (1e-6, 1e-3, 0.3, 1.0, -5.0)
    return [kind(min(max(value, low), high)) for value in (low, high, *inner)]


@pytest.mark.parametrize("env, preset", PRESETS)
def test_any_one_flag_goes_with_any_preset(env, preset):
    """What it does not fit with gives way, and only that; the flag itself stays."""
    changed = 0
    for on_gpu in (False, True):
        plain = configuration.resolve({"env": env, "preset": preset}, on_gpu=on_gpu)
        # Another learner has settings of its own.
        names = configuration.plain(plain).keys() - {"env", "env_args", "preset", "network", "learner"}
        if not registry.entry(env).has_difficulties:
            names -= {"start_curriculum"}
        for name in names:
            for value in legal_values(name):
                if (name, value) == ("replay_capacity", 1):
                    continue  # no transition has one row
                if name == "restart_share" and value and plain.learner == "r2d2":
                    continue  # nothing makes that fit (tests/test_r2d2.py)
                if (name, value) == ("pbt", True):
                    continue  # it asks for agents that differ, and nobody else can say in what
                if (name, value) == ("cell", "none") and plain.learner == "r2d2":
                    continue  # nor that
                if (name, value) == ("replay_min_rows", 2**62) and plain.learner == "r2d2":
                    continue  # no capacity of whole periods is as large
                lines, given = [], {"env": env, "preset": preset, name: value}
                config = configuration.resolve(given, on_gpu=on_gpu, tell=lines.append)
                assert getattr(config, name) == value
                others = dict(configuration.plain(plain))
                different = [
                    field
                    for field, held in configuration.plain(config).items()
                    if field not in given and held != others[field]
                ]
                assert len(lines) == len(different), (given, lines)
                for field in different:
                    flag = "--" + field.replace("_", "-")
                    assert any(line.startswith(f"{flag} {others[field]} of the preset") for line in lines), lines
                changed += bool(lines)
    assert changed > 20


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"env": "cave", "num_envs": 1}, {"restart_share": 0.0}),
        ({"env": "cave", "restart_share": 1e-3}, {"num_envs": 1000}),
        ({"env": "cave", "loss": "mse"}, {"head": "scalar"}),
        ({"env": "cave", "value_max": -5.0}, {"value_min": -7.0}),
        ({"env": "cave", "epsilon_start": 0.0}, {"epsilon_end": 0.0}),
        ({"exploration": "boltzmann", "temperature_start": 0.01}, {"temperature_end": 0.01}),
        ({"exploration": "boltzmann", "temperature_end": 2.0}, {"temperature_start": 2.0}),
        ({"temperature_start": 0.01}, {"temperature_end": 0.05}),  # nobody's
        ({"env": "cave", "replay_capacity": 1400}, {"num_envs": 200, "batch_size": 256, "replay_min_rows": 1400}),
        ({"env": "cave", "preset": "article", "super_resolution": True}, {"downsample": 1}),
        ({"env": "cave", "preset": "article", "restart_share": 0.25}, {"num_envs": 4}),
        ({"env": "catch8", "batch_size": 200_000}, {"replay_capacity": 200_000}),
        ({"env": "catch8", "num_envs": 100_000}, {"replay_capacity": 200_000}),
        ({"env": "catch16", "learning_rate": 1e-6}, {"learning_rate_end": 1e-6}),
        ({"env": "catch16", "learning_rate_end": 1e-2}, {"learning_rate": 1e-2}),
        ({"env": "catch8", "play_target": True}, {"target": "soft"}),
    ],
)
def test_what_nobody_asked_for_moves_to_the_nearest_value_that_fits(given, expected):
    config = configuration.resolve(given)
    assert {name: getattr(config, name) for name in expected} == expected


def test_what_was_given_never_gives_way():
    for given in (
        {"env": "cave", "num_envs": 1, "restart_share": 0.5},
        {"env": "cave", "loss": "mse", "head": "categorical"},
        {"env": "cave", "preset": "article", "super_resolution": True, "downsample": 2},
        {"batch_size": 1000, "replay_capacity": 500},
        {"epsilon_start": 0.1, "epsilon_end": 0.2},
    ):
        with pytest.raises(UserError):
            configuration.resolve(given)


def test_a_command_says_what_gave_way(capsys):
    assert train.main(["--env", "cave", "--num-envs", "1", "--print-config"]) == 0
    output = capsys.readouterr()
    assert output.err == (
        "tfdqn: warning: --restart-share 0.5 of the preset 'default' does not fit what was given: 0.0 is used\n"
    )
    assert "restart_share = 0.0" in output.out
    assert train.main(["--env", "cave", "--print-config"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("env", registry.names())
def test_a_learners_preset_is_the_games_default_one_but_for_what_it_says(env):
    ours, plain = (configuration.resolve({"env": env, "preset": name}) for name in ("rainbow", "default"))
    said = {**learners.presets_of("dqn")["rainbow"], "preset": "rainbow"}
    for name, value in configuration.plain(ours).items():
        assert value == said.get(name, getattr(plain, name)), name
    assert ours.value_max - ours.value_min >= 1.0
    with pytest.raises(UserError, match=f"--preset rainbow: {env} with --learner pqn has none of that name"):
        configuration.resolve({"env": env, "preset": "rainbow", "learner": "pqn"})


def test_a_learners_preset_gives_way_and_takes_a_gpus_sizes():
    told = []
    config = configuration.resolve({"preset": "rainbow", "munchausen_alpha": 0.9}, tell=told.append)
    assert config.head == "scalar" and "of the preset 'rainbow' does not fit" in told[0]
    assert configuration.resolve({"preset": "rainbow"}, on_gpu=True).num_envs == 2048


def test_a_preset_that_explores_by_noise_explores_without_it():
    given, told = {"noisy": False}, []
    config = configuration.resolve({"preset": "rainbow", **given}, tell=told.append)
    assert not config.noisy and (config.epsilon_start, config.epsilon_end) == (1.0, 0.05)
    assert any(line.startswith("--epsilon-start 0.0 of the preset 'rainbow' does not fit") for line in told)
    for own in ({"epsilon_start": 0.5}, {"epsilon_start": 0.0, "epsilon_end": 0.0}, {"exploration": "boltzmann"}):
        config = configuration.resolve({"preset": "rainbow", **given, **own})
        assert (config.epsilon_start, config.epsilon_end) == (own.get("epsilon_start", 0.0), 0.0)
    many = configuration.resolve({"preset": "rainbow", "population": 4})
    assert many.noisy and many.epsilon_start == 0.0


# On a GPU.


@pytest.mark.parametrize("env", registry.names())
@pytest.mark.parametrize("learner", learners.LEARNERS)
def test_a_gpus_preset_has_the_schedules_of_its_sizes(env, learner):
    """As many updates in all as on a CPU, or fewer of larger batches; as large a part of them before each change."""
    small, large = (configuration.resolve({"env": env, "learner": learner}, on_gpu=on) for on in (False, True))
    entry, gpu_sizes = registry.entry(env), learners.settings_of(learner).GPU_SIZES
    key = learner if learner in entry.presets else "default"
    if (learner != "dqn" and key == "default") or key not in entry.gpu_presets:
        assert {name: getattr(large, name) for name in gpu_sizes} == gpu_sizes
        schedules = [name for name in configuration.plain(large) if name.endswith(configuration.SCHEDULE_ENDINGS)]
        assert all(getattr(large, name) == getattr(small, name) for name in schedules if name not in gpu_sizes)
        return
    assert large.num_envs > small.num_envs
    times = large.total_env_frames / small.total_env_frames
    updates = times * _frames_an_update(small) / _frames_an_update(large)
    assert updates == pytest.approx(1) or (updates >= 0.25 and large.batch_size >= 4 * small.batch_size)
    for name in ("epsilon_decay_env_frames", "eval_every_frames"):
        assert getattr(large, name) == pytest.approx(times * getattr(small, name), rel=0.05), name
    assert large.log_every_frames >= small.log_every_frames
    counted = ["learning_rate_decay_updates"]
    counted += ["priority_beta_updates"] if getattr(large, "prioritized", False) else []
    for name in counted:
        assert getattr(large, name, 0) == pytest.approx(updates * getattr(small, name, 0), rel=1e-3)
    if hasattr(large, "target_update_period_updates"):
        assert updates < 1 or large.target_update_period_updates == small.target_update_period_updates
    if hasattr(large, "replay_capacity"):
        assert large.replay_min_rows / large.total_env_frames < 2 * small.replay_min_rows / small.total_env_frames


def _frames_an_update(config):
    if config.learner == "pqn":
        return config.num_envs * config.num_steps / (config.epochs * config.minibatches)
    return config.num_envs * config.iterations_per_update / config.updates_per_iteration


def test_a_size_of_the_users_changes_nothing_else_of_a_gpus_preset():
    whole = configuration.resolve({"env": "cave"}, on_gpu=True)
    given = {"env": "cave", "num_envs": 512}
    config = configuration.resolve(given, on_gpu=True)
    assert config == whole.replace(num_envs=512)
    assert configuration.changed_sizes(given, config) == (
        "the preset of cave for a GPU, but with --num-envs 512 in place of 2048: an update of 2048 every 512 frames, "
        "where the preset has an update of 2048 every 2048 frames; all else of it stays as it is"
    )
    given = {"env": "cave", "replay_capacity": 600_000, "discount": 0.9}
    assert configuration.changed_sizes(given, configuration.resolve(given, on_gpu=True)) == (
        "the preset of cave for a GPU, but with --replay-capacity 600000 in place of 1228800; all else of it stays as "
        "it is"
    )
    given = {"env": "catch8", "learner": "pqn", "num_envs": 64}
    assert configuration.changed_sizes(given, configuration.resolve(given, on_gpu=True)) == (
        "the preset of catch8 for a GPU, but with --num-envs 64 in place of 2048; all else of it stays as it is"
    )
    for given in ({"env": "cave"}, {"env": "cave", "num_envs": 2048}, {"env": "cave", "minutes": 3.0}):
        assert configuration.changed_sizes(given, configuration.resolve(given, on_gpu=True)) == ""


def test_a_preset_with_a_pace_of_its_own_is_not_given_another(monkeypatch):
    """The article's settings, and those of games that step in Python, of which a GPU does not make thousands quick."""
    for given in ({"env": "cave", "preset": "article"}, {"env": "gym:CartPole-v1"}):
        assert configuration.resolve(given, on_gpu=True) == configuration.resolve(given)
    own = configuration.resolve({"env": "tests.own_games:Line"}, on_gpu=True)
    assert own.num_envs == 2048 and own.learning_rate == registry.OWN_PRESET["learning_rate"]
    monkeypatch.setattr(registry, "_registered", {})
    registry.register("slow_game", "tests.own_games:Line", {"learning_rate_decay_updates": 5_000})
    assert configuration.resolve({"env": "slow_game"}, on_gpu=True) == configuration.resolve({"env": "slow_game"})


def test_the_start_says_what_a_size_changes(monkeypatch, capsys, tmp_path):
    class Started(Exception):
        pass

    def run(config, *_, **__):
        raise Started(config.num_envs)

    monkeypatch.setattr(train.devices, "choose_device", lambda *_: "/GPU:0")
    monkeypatch.setattr(train, "run_of", lambda _: run)
    for given, said in (({"num_envs": 512}, ["--num-envs 512 in place of 2048"]), ({}, [])):
        with pytest.raises(Started):
            train.start({"env": "cave", **given}, None, logdir=str(tmp_path))
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == len(said) and all(part in line for part, line in zip(said, lines, strict=True))
