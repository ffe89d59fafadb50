"""TF-Agents, the one dependency that `pip install .` cannot bring: its wheel's pins have to be left out."""

from __future__ import annotations

import importlib.metadata

from tfdqn.errors import UserError

TF_AGENTS = "tf-agents==0.19.0"  # as in requirements/tf-agents.txt, which is not part of the installed package


def require_tf_agents() -> None:
    """Make `import tf_agents` ready: to be called before it, wherever it is imported.

    Raises:
        UserError: TF-Agents is missing or another version; one line that names the command to run.
    """
    name, _, wanted = TF_AGENTS.partition("==")
    try:
        found = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        found = "none"
    if found != wanted:
        raise UserError(
            f"TF-Agents {wanted} is needed, found {found}: run python -m pip install --no-deps {TF_AGENTS} "
            "(scripts/train does it by itself)"
        )
    _silence_gym()


def _silence_gym() -> None:
    """Drop the notice that gym, which TF-Agents imports, prints about NumPy 2: tfdqn runs none of gym's code."""
    try:
        from gym_notices import notices
    except ImportError:
        return
    notices.notices.pop(importlib.metadata.version("gym"), None)
