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
                if (name, value) == ("cell", "none") and plain.learner == "r2d2":
                    continue  # nor that
                lines, given = [], {"env": env, "preset": preset, name: value}
                config = configuration.resolve(given, on_gpu=on_gpu, tell=lines.append)
                assert getattr(config, name) == value
                others = dict(configuration.plain(plain))
                if name in configuration.SIZE_FIELDS:
                    others = configuration.plain(configuration.resolve({"env": env, "preset": preset}))
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
