"""A run's models: written as `.keras` files, and read back by name and shape, with no trust in what is there."""

from __future__ import annotations

import io
import lzma
import math
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfdqn import files
from tfdqn.errors import UserError, nearest

if TYPE_CHECKING:
    import numpy as np

    from tfdqn.learners.base import Agent

BEST_MODEL, FINAL_MODEL = "model.keras", "final.keras"
MODELS = {"best": BEST_MODEL, "final": FINAL_MODEL}
# A folder a game: config.toml, model.keras, and how it was trained.
PRETRAINED = Path(__file__).parents[1] / "pretrained"
BROKEN_ARCHIVE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError)
KERAS_MEMBERS = {"metadata.json", "config.json", "model.weights.h5"}  # of a `.keras` file as we write it


def save_agent(agent: Agent, path: Path) -> None:
    """Save as a `.keras` file, loadable by `tf.keras.models.load_model` after an import of its class."""
    # What "keras" means, but in any thread: outside the main one that would be HDF5 from the second save on.
    files.write_atomically(path, lambda temporary: agent.save(temporary, save_format="keras_v3"))


def save_player(agent: Agent, weights: Sequence[np.ndarray], path: Path) -> None:
    """Save an agent that plays by these weights of its online network, whatever it has learned since.

    The file follows from the weights alone: a target network has them, too, and its optimizer has learned nothing.
    """
    import tensorflow as tf

    optimizer = agent.optimizer.variables
    variables = [*agent.variables, *optimizer]
    held = [variable.numpy() for variable in variables]
    try:
        agent.play_by(weights)
        for variable in optimizer:
            variable.assign(tf.zeros_like(variable))  # with which all of ours begin
        save_agent(agent, path)
    finally:
        for variable, value in zip(variables, held, strict=True):
            variable.assign(value)


def load_weights(agent: Agent, path: Path) -> None:
    """Read weights by name and shape into an agent built from its configuration; nothing in the file is executed."""
    if not path.is_file():
        if path.name == FINAL_MODEL:
            raise UserError(f"{path}: no such file (it is written when training ends)")
        final = path.with_name(FINAL_MODEL)
        hint = "; --model final takes the agent that it ended with" if final.is_file() else ""
        raise UserError(f"{path}: no such file (the run may have ended before its first evaluation){hint}")
    try:
        _check_weights_file(path, 4 * sum(math.prod(variable.shape) for variable in agent.variables))
        agent.load_weights(path)
    except (ValueError, KeyError, OSError, EOFError, RuntimeError, NotImplementedError, *BROKEN_ARCHIVE) as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise UserError(f"{path}: does not hold this agent's weights: {reason}") from None


def _check_weights_file(path: Path, agent_bytes: int) -> None:
    """Raise a ValueError unless the file is small, plain data: a few bytes can claim to unpack to any size."""
    import h5py

    # Both networks, as many optimizer slots again and again, and HDF5's own overhead.
    limit = 8 * agent_bytes + 2**22
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            if member.filename not in KERAS_MEMBERS:
                raise ValueError(f"{member.filename!r} does not belong there")
            if member.file_size > limit:
                raise ValueError(f"{member.filename} unpacks to {member.file_size} bytes, at most {limit} are expected")
        weights = archive.read("model.weights.h5")  # reads no more than `file_size`
    with h5py.File(io.BytesIO(weights), "r") as file:

        def check(group: Any) -> int:
            size = 0
            for name in group:
                if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                    raise ValueError(f"{name} is a link")
                member = group[name]
                if isinstance(member, h5py.Group):
                    size += check(member)
                elif member.external or member.is_virtual:
                    raise ValueError(f"{name} reads another file")
                else:
                    size += member.size * member.dtype.itemsize
                if size > limit:
                    raise ValueError(f"its tensors unpack to more than the {limit} bytes expected")
            return size

        check(file)


def pretrained_folder(game: str) -> Path:
    """The folder of an agent that comes along."""
    games = sorted(path.name for path in PRETRAINED.iterdir() if path.is_dir()) if PRETRAINED.is_dir() else []
    if game not in games:
        raise UserError(f"--pretrained {game}: no such agent; {nearest(game, games)}")
    return PRETRAINED / game
