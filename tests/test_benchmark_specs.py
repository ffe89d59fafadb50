"""Which rows there are, and what each of them runs."""

import pytest

from benchmarks import loop_case, network_cases, process_case, specs
from tfdqn import config as configuration
from tfdqn.runtime import devices


def test_names_are_unique_and_patterns_choose_whole_parts():
    names = [spec.name for spec in specs.all_specs()]
    assert len(names) == len(set(names))
    assert {spec.case for spec in specs.select([])} == set(specs.CASES)
    assert all(spec.env == "catch8" for spec in specs.select(["env/catch8"]))  # and not catch8_single
    assert 0 < len(specs.select([], quick=True)) < len(names)
    assert {spec.case for spec in specs.select([], gate=True)} == {"env", "replay", "learner", "loop"}


def fields_that_decide(config):
    """What of a configuration decides how quick it is, or what it computes."""
    others = [
        n for n, f in configuration.FIELDS.items() if f.metadata["group"] in ("length", "evaluation", "checkpoints")
    ]
    return {name: value for name, value in configuration.plain(config).items() if name not in others}


@pytest.mark.parametrize("variant", specs.LOOPS)
def test_pinned_loops_take_nothing_from_a_preset(variant):
    (spec,) = [spec for spec in specs.all_specs() if (spec.case, spec.variant) == ("loop", variant)]
    wanted = configuration.Config(**{**specs.PLAIN, **specs.LOOPS[variant]})
    assert fields_that_decide(configuration.resolve(spec.settings)) == fields_that_decide(wanted)
    # Nor the sizes for a GPU.
    assert fields_that_decide(configuration.resolve(spec.settings, on_gpu=True)) == fields_that_decide(wanted)


@pytest.mark.parametrize(("network_name", "env", "stack"), specs.NETWORKS)
def test_networks_take_nothing_from_a_preset(network_name, env, stack):
    settings = {"network": network_name, "frame_stack": stack}
    config = network_cases.agent_config(env, settings, "rmsprop_graves")
    chosen = {**specs.PLAIN, **settings, "env": env, "optimizer": "rmsprop_graves", "double": True}
    assert fields_that_decide(config) == fields_that_decide(configuration.Config(**chosen))


def test_the_caves_pinned_loop_is_plain_dqn():
    config = configuration.resolve(specs.select(["loop/cave/article-conv"])[0].settings)
    assert (config.head, config.dueling, config.prioritized, config.double) == ("scalar", False, False, False)
    assert (config.restart_share, config.start_curriculum, config.learning_rate_decay_updates) == (0, 0, 0)
    assert (config.epsilon_end, config.discount, config.optimizer) == (0.05, 0.99, "adam")


def test_every_presets_network_is_measured():
    presets = {(configuration.resolve({"env": env}).network, env) for env in ("catch8", "catch16", "cave")}
    assert presets <= {(name, env) for name, env, _ in specs.NETWORKS}
    gate = [spec.name for spec in specs.select(["learner"], gate=True)]
    assert gate == ["learner/catch8/mlp/b256", "learner/cave/conv/b256", "learner/cave/columns_deep/b256"]
    quick = {spec.variant for case in ("act", "learner") for spec in specs.select([case], quick=True)}
    assert quick == {"mlp", "conv_stride4"}


def test_presets_have_a_gpus_sizes_on_a_gpu():
    preset = configuration.resolve({"env": "catch8"}, on_gpu=True)
    sizes = preset.num_envs, preset.batch_size
    for case in ("loop/catch8/preset-default", "compile/catch8/default", "reports/catch8"):
        (small,), (large,) = specs.select([case]), specs.select([case], on_gpu=True)
        assert (small.num_envs, small.batch, large.num_envs, large.batch) == (64, 32, *sizes)
        # Either name will do on either device: which one it will be is not known when arguments are read.
        assert specs.select([small.name], on_gpu=True) == [large] and specs.select([large.name]) == [small]
    assert specs.select(["loop/catch8/update-every-3"]) == specs.select(["loop/catch8/update-every-3"], on_gpu=True)


def test_a_presets_loop_and_process_are_built_with_a_gpus_sizes_there(monkeypatch):
    class Built(Exception):
        pass

    def trainer(config, device, env):
        raise Built(config.num_envs, device)

    settings = {"env": "catch8", "preset": "default"}
    monkeypatch.setattr(loop_case, "trainer_of", lambda env, config: trainer)
    for device, num_envs in (("/CPU:0", 64), ("/GPU:0", 2048)):
        monkeypatch.setattr(devices, "choose_device", lambda *_, device=device: device)
        with pytest.raises(Built) as raised:
            loop_case.LoopBench("preset-default", settings, device)
        assert raised.value.args == (num_envs, device)
        config, found = process_case._start({"settings": settings, "device": device})
        assert (config.num_envs, found) == (num_envs, device)
