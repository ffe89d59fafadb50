"""What runs outside XLA (`--no-jit`, and between programs) needs kernels on a GPU: TensorFlow's registry has them."""

import pytest
import tensorflow as tf

from tests import gpu_kernels
from tests.gpu_kernels import described, touches_variable, without_kernel
from tfdqn import config as configuration
from tfdqn.envs import registry
from tfdqn.programs.evaluation import Evaluator
from tfdqn.programs.training import NEVER, Trainer
from tfdqn.runs import checkpoints

pytestmark = pytest.mark.skipif(
    not gpu_kernels.has_kernel(("MatMul", (("T", tf.float32.as_datatype_enum),))),
    reason="this TensorFlow is built without kernels for GPUs",
)

# Outside XLA these run on the CPU, to which their arguments are copied: slower, and the same numbers. Games of int32
# have their numbers on the host there anyway.
ON_THE_CPU = {
    "BroadcastTo(T=uint8, Tidx=int32)",  # flags as bits, written to the replay
    "Sum(T=uint8, Tidx=int32)",
    "GatherV2(Taxis=int32, Tindices=int32, Tparams=uint8)",  # a round's observations, in the order of a minibatch
    "GatherV2(Taxis=int32, Tindices=int64, Tparams=uint8)",  # frames before a practice start
    "Min(T=int64, Tidx=int32)",  # which candidate is drawn, and where an n-step return ends
    "TensorScatterUpdate(T=bool, Tindices=int32)",  # a round's rows, and an evaluation's film
    "TensorScatterUpdate(T=uint8, Tindices=int32)",
    "SplitV(T=int64, Tlen=int32)",  # what a loop carries, as two vectors
    "Tile(T=uint8, Tmultiples=int32)",  # the first frame, repeated
    "TruncateDiv(T=int32)",  # games
}

CASES = {
    **{game.name: {"env": game.name} for game in registry.games()},
    **{name: {"env": "catch8", "learner": name} for name in ("pqn", "a2c", "r2d2")},
    "pqn-minatar": {"env": "minatar_breakout", "learner": "pqn"},
    "pqn-gru": {"env": "catch8", "learner": "pqn", "cell": "gru"},
    "native": {"env": "minatar_breakout", "convolution": "native"},
    "iqn-noisy": {"env": "catch8", "head": "iqn", "noisy": True, "munchausen_alpha": 0.9},
    "categorical": {
        **{"env": "catch8", "members": 2, "head": "categorical", "dueling": True, "prioritized": True, "n_step": 3},
        **{"target": "soft", "exploration": "boltzmann", "optimizer": "rmsprop", "max_gradient_norm": 1.0},
    },
}
# Games whose rules are made of the same operations as another's above.
ALIKE = {"catch8_single", "catch16", "minatar_asterix", "minatar_freeway", "minatar_space_invaders"}
SMALL = {"num_envs": 4, "jit": False, "device": "cpu", "replay_capacity": 2_000, "replay_min_rows": 100}


def graphs_of(trainer):
    """The graphs of a trainer's programs: of training's two, and of an evaluation's two."""
    counts = [tf.constant(count, tf.int64) for count in (1, NEVER)]
    for program in (trainer._fill, trainer._chunk):
        yield program.get_concrete_function(trainer.initial_carry(), trainer._no_reports, *counts).graph
    evaluator = Evaluator(trainer.config.replace(eval_episodes=2), trainer.env, trainer.agent, "")
    streams, first = tf.zeros([2], tf.int64), tf.constant(0, tf.int64)
    yield evaluator._begin.get_concrete_function(streams, first).graph
    carry = evaluator._begin(streams, first)
    yield evaluator._block.get_concrete_function(carry, streams, first, tf.constant(5), tf.constant(0.0)).graph


@pytest.mark.parametrize("case", [pytest.param(case, marks=[pytest.mark.slow] * (case in ALIKE)) for case in CASES])
def test_a_gpu_has_a_kernel_for_whatever_a_plain_graph_does(case, tmp_path):
    known = configuration.plain(configuration.resolve(CASES[case]))
    small = {name: value for name, value in SMALL.items() if name in known}
    trainer = Trainer(configuration.resolve({**small, **CASES[case]}), device="")  # a GPU's programs, pinned to no CPU
    operations = {each for graph in graphs_of(trainer) for each in gpu_kernels.operations_of(graph)}
    assert len(operations) > 100
    lacking = without_kernel(operations)
    assert not [described(each) for each in lacking if touches_variable(each)]
    assert {described(each) for each in lacking} <= ON_THE_CPU

    # Between programs, operation by operation: a start, and what a checkpoint reads and writes in place.
    with gpu_kernels.Recorder() as recorder:
        trainer.initial_carry()
        variables = trainer.learner.variables
        growing = {name for name, variable in variables.items() if name.startswith("replay/") and variable.shape.rank}
        checkpoints.save(tmp_path, variables, {"updates": 1, "env_frames": 1}, dict.fromkeys(growing, 3))
        checkpoints.load_newest(tmp_path)[0].restore(variables, growing)
    names = {name for name, _ in recorder.operations}
    assert "AssignVariableOp" in names and ("ResourceScatterUpdate" in names) == bool(growing)
    assert not [described(each) for each in without_kernel(recorder.operations) if touches_variable(each)]

    # A GPU keeps int32 on the host, where XLA's programs would have to fetch it.
    assert not [name for name, variable in variables.items() if variable.dtype == tf.int32]


def test_what_no_gpu_can_do_would_be_seen():
    variable, table = tf.Variable(tf.zeros([3, 2], tf.int32)), tf.Variable(tf.zeros([3], tf.int32))

    @tf.function(autograph=False)
    def program(i):
        def body(i):
            variable.scatter_update(tf.IndexedSlices(tf.ones([1, 2], tf.int32), i[None]))
            return (i + tf.truncatemod(i, 2) + 1,)

        return tf.while_loop(lambda i: i < 3, body, (i,))

    graph = program.get_concrete_function(tf.constant(0, tf.int64)).graph
    lacking = without_kernel(gpu_kernels.operations_of(graph))
    assert {described(each) for each in lacking if touches_variable(each)} == {
        "ResourceScatterUpdate(Tindices=int64, dtype=int32)"
    }
    assert {described(each) for each in lacking if not touches_variable(each)} == {"TruncateMod(T=int64)"}
    with gpu_kernels.Recorder() as recorder:
        table.scatter_update(tf.IndexedSlices(tf.ones([1], tf.int32), tf.zeros([1], tf.int64)))
    assert [described(each) for each in without_kernel(recorder.operations)] == [
        "ResourceScatterUpdate(Tindices=int64, dtype=int32)"
    ]


def test_what_runs_on_the_cpu_still_has_no_kernel():
    """Else the table above would hide a change for the worse in what it names."""
    for name in ON_THE_CPU:
        operation, _, types = name.rstrip(")").partition("(")
        pairs = (each.split("=") for each in types.split(", "))
        numbered = tuple((key, tf.dtypes.as_dtype(value).as_datatype_enum) for key, value in pairs)
        assert not gpu_kernels.has_kernel((operation, numbered)), name
