"""Programs are freed when they are dropped, with all that they were made of."""

import gc
import weakref

import pytest
import tensorflow as tf

from tfdqn import config as configuration
from tfdqn.programs.evaluation import Evaluator
from tfdqn.programs.training import Trainer
from tfdqn.runtime import compiled


@pytest.mark.parametrize("jit", [False, True])
def test_a_programs_graphs_go_with_it(jit):
    """Those of its loops, too, which the collector alone does not reach."""
    seen, variable = [], tf.Variable(2.0)

    def note():
        seen.append(weakref.ref(tf.compat.v1.get_default_graph()))

    def function(times):
        """Names and arguments stay what they are."""

        def body(i, value):
            note()
            inner = tf.while_loop(lambda j, _: j < 2, lambda j, v: (note(), (j + 1, v * variable))[1], (0, value))
            return i + 1, inner[1]

        note()
        return tf.while_loop(lambda i, _: i < times, body, (0, 1.0))[1]

    program = compiled.program(function, jit=jit, eager=False)
    assert program(tf.constant(3)) == program(tf.constant(3)) == 64
    assert len(seen) >= 3 and all(graph() is not None for graph in seen)
    assert compiled.program(function, jit=jit, eager=True) is function
    del program
    gc.collect()
    assert [graph() for graph in seen] == [None] * len(seen)
    again = compiled.program(function, jit=jit, eager=False)  # of the same function, after the first is gone
    assert again(tf.constant(2)) == 16


def test_a_program_that_runs_eagerly_takes_no_graph_of_others_apart(monkeypatch):
    taken = []
    monkeypatch.setattr(compiled, "_take_apart", taken.extend)
    program = compiled.program(lambda x: x + 1, jit=False, eager=False)
    tf.config.run_functions_eagerly(True)
    try:
        assert program(tf.constant(1)) == program(tf.constant(1)) == 2
    finally:
        tf.config.run_functions_eagerly(False)
    del program
    gc.collect()
    assert taken == []


def picked(a, b):
    """Where numbers from 0 to 99 are those of the first column of a table."""
    return tf.where(tf.stack([a, b], axis=1)[:, 0, tf.newaxis] == tf.range(100), 1, 0)


@pytest.mark.parametrize("jit", [False, True])
def test_a_program_computes_what_its_operations_do_one_by_one(jit):
    """TensorFlow's arithmetic optimizer of plain graphs loses the new axis, and so all that is equal."""
    numbers = tf.range(64), tf.range(64) + 1000
    wanted = picked(*numbers)
    assert int(tf.reduce_sum(wanted)) == 64
    assert tf.reduce_all(compiled.program(picked, jit=jit, eager=False)(*numbers) == wanted)


RULES = {"prioritized": True, "target": "soft", "members": 2}


def _graphs():
    return [graph for graph in gc.get_objects() if isinstance(graph, tf.__internal__.FuncGraph)]


@pytest.mark.parametrize("mode", [{}, {"jit": False, **RULES}, pytest.param(RULES, marks=pytest.mark.slow)])
def test_nothing_of_a_trainer_is_left(mode):
    settings = {"env": "catch8", "device": "cpu", "replay_capacity": 2_000, "replay_min_rows": 300, "num_envs": 8}
    config = configuration.resolve({**settings, **mode, "eval_episodes": 4})
    of_others = _graphs()  # such as fixtures of other tests hold
    trainer = Trainer(config)
    evaluator = Evaluator(config, trainer.env, trainer.agent)
    carry = trainer.run_chunk(trainer.initial_carry(), 60, 10**6)
    evaluator.evaluate(4)
    assert int(trainer.agent.optimizer.iterations) > 0
    graphs = [graph for graph in _graphs() if not any(graph is other for other in of_others)]
    parts = [trainer, evaluator, trainer.agent, trainer.agent.online, trainer.agent.optimizer, trainer.replay]
    parts += [trainer.env, trainer._chunk, evaluator._block, *trainer.learner.variables.values()]
    parts += [graph for graph in graphs if graph.name in ("_run", "_play_block")]
    refs = [(type(part).__name__, weakref.ref(part)) for part in parts]
    assert len(refs) > 20
    del trainer, evaluator, carry, parts, graphs, of_others
    gc.collect()
    assert [name for name, ref in refs if ref() is not None] == []
