"""Programs as small as can be with the loops of a training program, and what may go wrong in one.

`python -m tests.aot_programs` compiles them for `tests/data/aot/`, as `python -m benchmarks.aot` would.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from benchmarks.aot.__main__ import Workers

DATA = Path(__file__).parent / "data" / "aot"
# Decisions a round: in a round of one there is no loop of them, and a loop of updates that only the program can count.
PROGRAMS = {"decision-a-round": 1, "decisions-a-round": 4}
NUM_ENVS, ROWS, BATCH = 64, 8192, 8


def lower(path: str, iterations: int, plant: str = "") -> None:
    """Write a program, an HLO module as a protocol buffer, to `path`.

    Args:
      plant: "launch", "copy" or "loop": one more of these in every round.
    """
    import tensorflow as tf

    tf.config.experimental.enable_tensor_float_32_execution(False)
    replay, weight = tf.Variable(tf.zeros([ROWS, NUM_ENVS])), tf.Variable(tf.ones([NUM_ENVS, 32]))

    def decide(i, state):
        action = tf.argmax(tf.matmul(state, weight), axis=1, output_type=tf.int32)
        state = state * 0.9 + tf.cast(action, tf.float32)[:, tf.newaxis]
        replay.scatter_update(tf.IndexedSlices(state[0], i % ROWS))
        return i + 1, state

    def learn(i, loss):
        batch = tf.gather(replay.read_value(), (i * BATCH + tf.range(BATCH)) % ROWS)
        with tf.GradientTape() as tape:
            new = tf.reduce_mean(tf.square(tf.matmul(batch, weight)))
        weight.assign_sub(0.1 * tape.gradient(new, weight))
        return i + 1, loss + new

    def one_round(number, i, state, loss):
        if iterations > 1:
            once = lambda k, i, state: (k + 1, *decide(i, state))  # noqa: E731
            _, i, state = tf.while_loop(lambda k, *_: k < iterations, once, (0, i, state))
            epoch = lambda k, loss: (k + 1, tf.while_loop(lambda j, _: j < 3, learn, (0, loss))[1])  # noqa: E731
            loss = tf.while_loop(lambda k, _: k < 2, epoch, (0, loss))[1]
        else:
            i, state = decide(i, state)
            due = tf.where(i > 10, 5, 0)
            loss = tf.while_loop(lambda k, _: k < due, learn, (0, loss))[1]
        if plant == "launch":
            state = tf.matmul(state, state, transpose_b=True)
        elif plant == "copy":
            replay.assign(tf.reverse(replay.read_value(), [0]))
        elif plant == "loop":
            halve = lambda state: (tf.matmul(state, state) * 0.5,)  # noqa: E731
            (state,) = tf.while_loop(lambda state: tf.reduce_max(state) > 1.0, halve, (state,))
        return number + 1, i, state, loss

    def until_report(number, i, state, loss, stop):
        going_on = lambda number, *_: number < stop  # noqa: E731
        return *tf.while_loop(going_on, one_round, (number, i, state, loss)), stop + 10

    def run(state, most):
        return tf.while_loop(lambda number, *_: number < most, until_report, (0, 0, state, 0.0, 10))[:4]

    program = tf.function(run, jit_compile=True, autograph=False)
    write = program.experimental_get_compiler_ir(tf.zeros([NUM_ENVS, NUM_ENVS]), tf.constant(100))
    Path(path).write_bytes(write(stage="hlo_serialized"))


def told(iterations: int) -> dict:
    """What `benchmarks.aot.lowering` would say of a program."""
    return {"iterations": iterations, "updates": 5, "has_replay": True, "tensorflow": "2.21.0"}


class Compiler(Workers):
    """Compiles these programs."""

    def optimized(self, iterations: int, plant: str = "") -> tuple[dict, str]:
        """What the compiler says of a program, and its text."""
        program, path = (str(self._folder / name) for name in ("small.pb", "small.txt"))
        lower(program, iterations, plant)
        said = self._ask("program", do="compile", program=program, path=path, options={})
        return said, Path(path).read_text(encoding="utf-8")


def _shortened(text: str) -> str:
    """Without what says where in TensorFlow's source something was made, and most of what is for XLA itself."""
    text = re.sub(r' (source_\w+=("[^"]*"|\d+)|stack_frame_id=\d+|scheduling_name="[^"]*")', "", text)
    text = re.sub(r', metadata=\{(scheduling_name="[^"]*")?\}', "", text)
    return re.sub(r", backend_config=\{(?![^\n]*(known_trip_count|precision_config))[^\n]*", "", text)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, Compiler(Path(), Path(folder)) as compiler:
        for name, iterations in PROGRAMS.items():
            _, text = compiler.optimized(iterations)
            (DATA / f"{name}.hlo.txt").write_text(_shortened(text), encoding="utf-8")


if __name__ == "__main__":
    main()
