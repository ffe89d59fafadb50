"""Write a trained agent for programs that know nothing of tfdqn: `python -m tfdqn.export RUN --to savedmodel`."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tfdqn import cli
from tfdqn.errors import EXIT_IO, EXIT_NUMERIC, UserError
from tfdqn.runs import models, named_agent, run_config
from tfdqn.runtime import devices

if TYPE_CHECKING:
    from tfdqn.exports.played import Played

# By format, what a file's name ends in; a SavedModel is a folder of any name.
SUFFIXES = {"savedmodel": "-savedmodel", "keras": ".keras", "tflite": ".tflite", "onnx": ".onnx"}
FRAMES = 1000  # on which what was written has to agree with the trained network
# Of the largest action value, or of `LEAST_VALUE`: how far another order of the same sums may lead, also where factors
# are rounded to bfloat16, of which 2**-8 is one step.
TOLERANCES, LEAST_VALUE = {"bfloat16": 1e-2}, 0.1
TOLERANCE = 1e-4


def parser() -> cli.Parser:
    parser = cli.Parser(
        prog="python -m tfdqn.export",
        description="Write a trained agent for programs that know nothing of tfdqn, and check that it plays the same.",
    )
    named_agent.add_agent_arguments(parser)
    named_agent.add_code_arguments(parser)
    parser.add_argument("--to", choices=list(SUFFIXES), required=True, help="the format")
    parser.add_argument(
        "--out", type=cli.path("--out"), default=None, help="file or folder to write; by the game's name if absent"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse(argv)
    folder = named_agent.agent_folder(arguments)
    config = run_config.read_config(folder, named_agent.named_code(arguments)).replace(convolution="auto")
    out = _checked_out(arguments, config.env)
    if arguments.to == "onnx":
        _require_onnx()
    devices.choose_device("cpu")

    import tensorflow as tf

    from tfdqn.envs import make_for
    from tfdqn.exports import formats, played
    from tfdqn.learners import build_agent

    env = make_for(config)
    trained, plain = (build_agent(config.replace(convolution=kind), env) for kind in ("auto", "native"))
    if tf.nest.flatten(trained.initial_state(1)):
        raise UserError(f"{folder}: its agent remembers what it saw, and only agents without memory can be exported")
    for agent in (trained, plain):
        models.load_weights(agent, folder / models.MODELS[arguments.model])
    frames = played.play_frames(config, env, trained, FRAMES)
    player = formats.Player(plain, masks=frames.legal is not None)
    format = formats.FORMATS[arguments.to]
    try:
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as aside:
            path = Path(aside) / f"agent{out.suffix}"
            with formats.quiet():
                format.write(plain, player, path)
                differences = compare(format.opened(path), frames, TOLERANCES.get(config.precision, TOLERANCE))
            os.rename(path, out)
    except Mismatch as error:
        raise UserError(f"--to {arguments.to}: {error}; nothing was written", EXIT_NUMERIC) from None
    except OSError as error:
        raise UserError(f"--out {out}: {error.strerror or error}", EXIT_IO) from None
    seen = player.inputs[0]
    shape = ", ".join("B" if size is None else str(size) for size in seen.shape)
    actions = ", ".join(f"{number} {word}" for number, word in enumerate(env.action_names))
    cli.say(f"{out}: observation [{shape}] {seen.dtype.name}; actions: {actions}")
    cli.say(
        f"checked on {FRAMES:,} frames played: the trained agent's action on {differences.agreed:,} of them; action "
        f"values differ by {differences.values:.1e} at most"
    )
    return 0


def _checked_out(arguments: Any, env: str) -> Path:
    """Where it goes, if it can go there."""
    suffix = SUFFIXES[arguments.to]
    stem = "".join(letter for letter in env.rpartition(":")[2] if letter.isalnum() or letter in "_-") or "agent"
    out = Path(f"{stem}{suffix}" if arguments.out is None else arguments.out)
    flag = f"--out {out}"
    if suffix.startswith(".") and out.suffix != suffix:
        raise UserError(f"{flag}: must end in {suffix}")
    if not out.parent.is_dir():
        raise UserError(f"{flag}: there is no folder {out.parent}")
    if out.exists():
        raise UserError(f"{flag}: exists already; name another, or remove it")
    return out


def _require_onnx() -> None:
    for name in ("tf2onnx", "onnxruntime"):
        if importlib.util.find_spec(name) is None:
            raise UserError(f'--to onnx: {name} is not installed; run python -m pip install "tfdqn[onnx]"')


class Mismatch(Exception):
    """What was written does not play as the trained agent does."""


class Differences(NamedTuple):
    """What was written, beside the trained agent."""

    values: float  # the largest difference of an action value
    agreed: int  # frames on which it takes the same action; on the others two are as good


def compare(answer: Callable, frames: Played, tolerance: float) -> Differences:
    """Have what was written answer to frames that the trained agent has played.

    Args:
      answer: from observations, and what is legal or None, to actions and values.
      frames: with the trained agent's own answers.
      tolerance: what its values may differ by, as a share of the largest.

    Raises:
      Mismatch: they differ by more, or it takes another action where the values say clearly which.
    """
    import numpy as np

    action, values = answer(frames.observation, frames.legal)
    difference = float(np.max(np.abs(values - frames.values)))
    limit = tolerance * max(LEAST_VALUE, float(np.max(np.abs(frames.values))))
    if not difference <= limit:
        raise Mismatch(
            f"its action values differ from the trained network's by {difference:.1e}, more than {limit:.1e}"
        )
    rows = np.arange(len(action))
    lag = frames.values[rows, frames.action] - frames.values[rows, action]
    if np.any(lag > 2 * limit) or not (frames.legal is None or np.all(frames.legal[rows, action])):
        raise Mismatch("it does not take the trained agent's actions")
    return Differences(difference, int(np.sum(action == frames.action)))


if __name__ == "__main__":
    cli.run(main)
