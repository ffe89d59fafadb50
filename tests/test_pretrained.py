"""The agents that come with tfdqn play as well as their papers say."""

import json
import zipfile

import numpy as np
import pytest
import tensorflow as tf

from benchmarks import package_agent
from tests.faults.harness import weights
from tfdqn import config as configuration
from tfdqn import envs, evaluate, record
from tfdqn.envs import registry
from tfdqn.errors import UserError
from tfdqn.learners.dqn.building import build_agent
from tfdqn.runs import models, run_config

GAMES = sorted(path.name for path in models.PRETRAINED.iterdir())


def test_there_is_one_for_every_game_but_minatars_and_memory():
    assert set(GAMES) == {name for name in registry.names() if not name.startswith(("minatar_", "memory"))}


@pytest.mark.parametrize("game", [pytest.param(g, marks=[pytest.mark.slow] * (g == "cave")) for g in GAMES])
def test_it_scores_what_its_papers_say(game, capfd):
    papers = json.loads((models.PRETRAINED / game / "training.json").read_text())
    assert papers["game_version"] == envs.make(game).version
    assert evaluate.main(["--pretrained", game, "--episodes", "64", "--seed", "1", "--device", "cpu", "--json"]) == 0
    mean, expected = json.loads(capfd.readouterr().out)["score_mean"], papers["score"]["score_mean"]
    # Other draws than those of the papers: four standard errors of so many episodes.
    assert abs(mean - expected) <= 4 * papers["score"]["score_std"] / 8 + 0.01 * abs(expected)


def test_all_of_them_are_small():
    assert sum(path.stat().st_size for path in models.PRETRAINED.rglob("*")) < 6e6


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])
def test_one_that_is_damaged_is_refused_in_one_line(tmp_path, method):
    """A compressed file breaks in ways of its own, before anything compares a checksum."""
    source = models.PRETRAINED / "catch8_single"
    config = run_config.read_config(source)
    agent = build_agent(config, envs.make(config.env))
    path = tmp_path / models.BEST_MODEL
    with zipfile.ZipFile(source / models.BEST_MODEL) as old, zipfile.ZipFile(path, "w", method) as new:
        for part in old.infolist():
            new.writestr(part.filename, old.read(part), method)
    models.load_weights(agent, path)
    whole, dice = path.read_bytes(), np.random.default_rng(0)
    with zipfile.ZipFile(path) as archive:
        part = archive.getinfo("model.weights.h5")
    refused = 0
    for position in dice.integers(part.header_offset + 60, part.header_offset + part.compress_size, 40):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << dice.integers(8)
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="does not hold this agent's weights") as error:
            models.load_weights(agent, path)
        refused += "\n" not in str(error.value)
    assert refused == 40


def test_it_can_be_filmed(tmp_path):
    out = tmp_path / "catch8.gif"
    assert record.main(["--pretrained", "catch8", "--frames", "20", "--out", str(out)]) == 0
    assert out.read_bytes().startswith(b"GIF89a")


def test_mistakes_are_one_line():
    with pytest.raises(UserError, match="did you mean 'catch8'"):
        evaluate.main(["--pretrained", "catch9"])
    with pytest.raises(UserError, match="has the best agent only"):
        evaluate.main(["--pretrained", "catch8", "--model", "final"])


def test_a_runs_best_agent_is_put_in_with_its_papers(tmp_path, monkeypatch):
    source = models.PRETRAINED / "catch8_single"
    run = tmp_path / "run"
    run.mkdir()
    config = run_config.read_config(source)
    run_config.write_config(configuration.resolve({**configuration.plain(config), "n_step": 2, "double": False}), run)
    agent = build_agent(config, envs.make(config.env))
    models.load_weights(agent, source / models.BEST_MODEL)
    for variable in agent.online.variables:  # off the grid on which those of a packaged agent lie
        variable.assign(variable + tf.random.stateless_normal(variable.shape, (1, 7), stddev=1e-3))
    agent.copy_to_target()
    models.save_agent(agent, run / models.BEST_MODEL)
    (run / "metrics.jsonl").write_text(
        '{"env_frames": 5, "updates": 1, "wall_seconds": 2.0, "train/loss": 0.5}\n'
        '{"env_frames": 9, "updates": 2, "wall_seconds": 3.0, "eval/score_mean": 0.25}\n'
    )
    monkeypatch.setattr(models, "PRETRAINED", tmp_path / "pretrained")
    assert package_agent.main([str(run), "--episodes", "30"]) == 0
    made = tmp_path / "pretrained" / "catch8_single"
    papers = json.loads((made / "training.json").read_text())
    (step,) = papers["steps"]
    assert step["name"] == "RUN1" and step["command"].startswith("python -m tfdqn.train --env catch8_single")
    assert "--no-double" in step["command"] and "--n-step 2" in step["command"]
    assert [line["env_frames"] for line in step["curve"]] == [9]
    assert papers["score"]["score_mean"] == 1.0 and papers["score"]["reached_the_best"] == 1.0
    ours, theirs = weights(made / models.BEST_MODEL), weights(run / models.BEST_MODEL)
    online = [name for name in theirs if "online" in name]
    for name in online:
        assert not ours[name.replace("online", "target")].any()
    # A matrix lies on a grid between a 64th and a 128th of its standard deviation.
    for name in online:
        if theirs[name].ndim < 2:
            np.testing.assert_array_equal(ours[name], theirs[name])
            continue
        step = 2.0 ** np.floor(np.log2(theirs[name].std() / 64))
        assert np.abs(ours[name] - theirs[name]).max() <= step / 2
        np.testing.assert_array_equal(ours[name] % step, 0)
        assert (ours[name] != theirs[name]).any()
    assert len(online) == 6
    with zipfile.ZipFile(made / models.BEST_MODEL) as archive:
        part = archive.getinfo("model.weights.h5")
    assert part.compress_size < 0.3 * part.file_size  # little more than a byte a weight, and the target network none


def test_the_runs_before_a_packaged_one_are_told_of(tmp_path):
    """A run from a run from a packaged agent: three commands, and no path of the machine that trained them."""
    donor, folders = models.PRETRAINED / "catch8", [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
        run_config.write_config(configuration.resolve({"env": "catch8", "init_from": str(donor), "seed": 3}), folder)
        (folder / "metrics.jsonl").write_text(
            '{"env_frames": 9, "updates": 2, "wall_seconds": 3.0, "eval/score_mean": 0.25}\n'
        )
        donor = folder
    told = package_agent.history(folders[-1])
    papers = json.loads((models.PRETRAINED / "catch8" / "training.json").read_text())
    assert told[:1] == papers["steps"]
    assert ["--init-from RUN1" in told[1]["command"], "--init-from RUN2" in told[2]["command"]] == [True, True]
    assert "--threads 1" in told[1]["command"]  # written out where it is the preset's, which may change
    assert str(tmp_path) not in json.dumps(told) and len(told) == 3 and told[2]["trained"]["env_frames"] == 9
    (folders[0] / "config.toml").unlink()
    with pytest.raises(UserError):
        package_agent.history(folders[-1])


CATCH = {"env": "catch8", "network": "mlp", "head": "categorical"}  # quicker to compile than the cave


def made(folder, **settings):
    """A run, of the cave if not said, that has a best agent, as it was drawn from its seed: config, agent, folder."""
    config = configuration.resolve({"env": "cave", "network": "columns", "device": "cpu", "threads": 2, **settings})
    agent = build_agent(config, envs.make(config.env))
    for variable in agent.online.variables:  # biases are drawn, too
        variable.assign(variable + tf.random.stateless_normal(variable.shape, (config.seed, 7), stddev=0.1))
    folder.mkdir()
    run_config.write_config(config, folder)
    models.save_agent(agent, folder / models.BEST_MODEL)
    (folder / "metrics.jsonl").write_text("")
    return config, agent, folder


@pytest.mark.parametrize("dueling", [pytest.param(False, marks=pytest.mark.slow), True])
def test_several_runs_become_the_members_of_one_agent(tmp_path, monkeypatch, dueling):
    kinds = [{"atoms": 2, "seed": 1}, {"atoms": 5, "seed": 2}, {"atoms": 2, "seed": 3, "members": 2}]
    kinds[0]["precision"] = "bfloat16"
    parts = [made(tmp_path / str(i), dueling=dueling, **CATCH, **kind) for i, kind in enumerate(kinds)]
    monkeypatch.setattr(models, "PRETRAINED", tmp_path / "pretrained")
    monkeypatch.setattr(package_agent, "rounded", lambda weights: weights)
    assert package_agent.main([*(str(folder) for *_, folder in parts), "--episodes", "2"]) == 0
    folder = tmp_path / "pretrained" / "catch8"
    config = run_config.read_config(folder)
    assert (config.members, config.atoms) == (4, 5)
    # As the game's preset plays, not as these were trained.
    assert (config.device, config.threads, config.precision) == ("auto", 1, "float32")
    assert tf.keras.models.load_model(folder / models.BEST_MODEL).get_config()["precision"] == "float32"
    joined = build_agent(config, envs.make("catch8"))
    models.load_weights(joined, folder / models.BEST_MODEL)
    frames = tf.constant(np.random.default_rng(0).integers(0, 256, (6, 8, 8, 1)), tf.uint8)
    values = [agent(frames).numpy() for _, agent, _ in parts]
    exact = build_agent(parts[0][0].replace(precision="float32"), envs.make("catch8"))
    exact.set_weights(parts[0][1].get_weights())
    values[0] = exact(frames).numpy()
    np.testing.assert_allclose(joined(frames), (values[0] + values[1] + 2 * values[2]) / 4, rtol=1e-4)
    papers = json.loads((folder / "training.json").read_text())
    *trained, joint = papers["steps"]
    assert [step["command"].count(f"--seed {i}") for i, step in enumerate(trained, start=1)] == [1, 1, 1]
    assert joint == {"name": "RUN4", "command": "python -m benchmarks.package_agent RUN1 RUN2 RUN3"}
    assert package_agent.history(folder) == papers["steps"]
    # What is packaged again, with one more, keeps the papers of all.
    one_more = made(tmp_path / "more", atoms=2, seed=4, dueling=dueling, **CATCH)[-1]
    assert package_agent.main([str(folder), str(one_more), "--episodes", "2"]) == 0
    again = json.loads((folder / "training.json").read_text())
    assert again["steps"][:4] == papers["steps"] and "--seed 4" in again["steps"][4]["command"]
    assert again["steps"][5] == {"name": "RUN6", "command": "python -m benchmarks.package_agent RUN4 RUN5"}
    assert run_config.read_config(folder).members == 5


def test_the_mean_of_the_weights_of_several_runs_is_one_agent_to_begin_from(tmp_path, monkeypatch):
    """Two runs from one agent, their mean, and a run from that: what they share is told once."""
    monkeypatch.setattr(models, "PRETRAINED", tmp_path / "pretrained")
    root = made(tmp_path / "root", seed=1, **CATCH)[-1]
    parts = [made(tmp_path / str(seed), seed=seed, init_from=str(root), **CATCH) for seed in (2, 3)]
    out = tmp_path / "mean"
    command = [*(str(folder) for *_, folder in parts), "--average", "--episodes", "2"]
    assert package_agent.main([*command, "--out", str(out)]) == 0
    config = run_config.read_config(out)
    assert config.members == 1 and config.init_from == ""
    mean = build_agent(config, envs.make("catch8"))
    models.load_weights(mean, out / models.BEST_MODEL)
    one, other = (agent.online.get_weights() for _, agent, _ in parts)
    for ours, first, second in zip(mean.online.get_weights(), one, other, strict=True):
        np.testing.assert_allclose(ours, (first + second) / 2, rtol=1e-6, atol=1e-7)  # not rounded
    names = [step["name"] for step in package_agent.history(out)]
    commands = [step["command"] for step in package_agent.history(out)]
    assert names == ["RUN1", "RUN2", "RUN3", "RUN4"]
    assert ["--init-from RUN1" in line for line in commands] == [False, True, True, False]
    assert commands[3] == "python -m benchmarks.package_agent RUN2 RUN3 --average --out FOLDER"
    assert not models.PRETRAINED.exists()
    further = made(tmp_path / "further", seed=4, init_from=str(out), **CATCH)[-1]
    assert "--init-from RUN4" in package_agent.history(further)[4]["command"]
    # Into the package, with one of the runs that it comes from put first: every name is another's now.
    assert package_agent.main([command[1], str(further), "--average", "--episodes", "2"]) == 0
    steps = json.loads((models.PRETRAINED / "catch8" / "training.json").read_text())["steps"]
    assert [line.split("--seed ")[1].split()[0] for line in (s["command"] for s in steps) if "--seed" in line] == list(
        "1324"
    )
    assert steps[3]["command"] == "python -m benchmarks.package_agent RUN3 RUN2 --average --out FOLDER"
    assert "--init-from RUN4" in steps[4]["command"]
    assert steps[5] == {"name": "RUN6", "command": "python -m benchmarks.package_agent RUN2 RUN5 --average"}
    stranger = str(made(tmp_path / "stranger", seed=2, **CATCH)[-1])
    with pytest.raises(UserError, match="stranger did not begin from one agent"):
        package_agent.main([command[0], stranger, "--average"])
    with pytest.raises(UserError, match="there is something there already"):
        package_agent.main([*command, "--out", str(out)])


def test_runs_of_different_kinds_are_not_joined(tmp_path):
    first = made(tmp_path / "first", atoms=4)[-1]
    for name, settings, message in [
        ("deep", {"atoms": 4, "network": "columns_deep"}, "network is columns, another's columns_deep"),
        ("sharp", {"atoms": 4, "super_resolution": True}, "super_resolution is False, another's True"),
        ("repeat", {"atoms": 4, "action_repeat": 2}, "action_repeat is 1, another's 2"),
        ("stride", {"atoms": 4, "frame_stride": 2}, "frame_stride is 1, another's 2"),
        ("atoms", {"atoms": 6}, "one agent has 6 atoms, and the 4 of another are not among them"),
    ]:
        with pytest.raises(UserError, match=message):
            package_agent.main([str(first), str(made(tmp_path / name, **settings)[-1])])
    # Nor has what can stand side by side always a mean.
    more = str(made(tmp_path / "more", atoms=7)[-1])
    with pytest.raises(UserError, match="one agent's atoms is 4, another's 7: their weights have no mean"):
        package_agent.main([str(first), more, "--average"])
