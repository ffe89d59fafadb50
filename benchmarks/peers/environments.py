"""Virtual environments of the peers, of what draws figures, and of XLA's compilers for a GPU.

Each is made when it is needed, from exact versions, under the ignored folder `.bench/`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

from tfdqn import cli
from tfdqn.errors import EXIT_IO, UserError

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".bench" / "peers"
_LISTS = Path(__file__).resolve().parent / "requirements"
# Environment: lists for pip, each with whether what they name brings its own dependencies.
REQUIREMENTS = {
    "jax": ((_LISTS / "jax.txt", True),),
    "tensorflow": ((_LISTS / "tensorflow.txt", True), (ROOT / "requirements" / "tf-agents.txt", False)),
    "sb3": ((_LISTS / "sb3.txt", True),),
    "minatar": ((_LISTS / "minatar.txt", False),),
    # As it stands: orbax-checkpoint asks for a newer JAX, in which flax does not work.
    "purejaxql": ((_LISTS / "purejaxql.txt", False),),
    # Both in one process, as whoever learns one of tfdqn's games with Stable-Baselines3 has it.
    "gymnasium": ((_LISTS / "tensorflow.txt", True), (_LISTS / "sb3.txt", True)),
    "figures": ((_LISTS / "figures.txt", True),),
    "xla-0.9": ((_LISTS / "xla-0.9.txt", False),),
    "xla-0.10": ((_LISTS / "xla-0.10.txt", False),),
}


def stamp(name: str) -> str:
    """What an environment is made from, as one word."""
    digest = hashlib.sha256(sys.version.encode())
    for path, with_dependencies in REQUIREMENTS[name]:
        digest.update(path.read_bytes() + bytes([with_dependencies]))
    return digest.hexdigest()


def python(name: str) -> Path:
    """The interpreter of an environment, which is made first where it is missing or made from something else.

    Raises:
      UserError: it could not be made; the message says where pip's own words are.
    """
    folder = FOLDER / name
    mark, interpreter = folder / "made-from", folder / "bin" / "python"
    if mark.exists() and mark.read_text(encoding="utf-8") == stamp(name):
        return interpreter
    cli.say(f"making the environment {folder.relative_to(ROOT)} (once, some minutes)")
    try:
        shutil.rmtree(folder, ignore_errors=True)
        FOLDER.mkdir(parents=True, exist_ok=True)
        venv.create(folder, with_pip=True, symlinks=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise UserError(f"{folder}: no environment can be made here: {error}", EXIT_IO) from None
    log = FOLDER / f"{name}.log"
    with open(log, "w", encoding="utf-8") as output:
        for path, with_dependencies in REQUIREMENTS[name]:
            command = [interpreter, "-m", "pip", "install", "--no-input", "-r", path]
            command += [] if with_dependencies else ["--no-deps"]
            if subprocess.run(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL).returncode:
                raise UserError(f"{path.name}: pip could not install it; see {log}", EXIT_IO)
    scratch = mark.with_suffix(".part")
    scratch.write_text(stamp(name), encoding="utf-8")
    os.replace(scratch, mark)
    return interpreter
