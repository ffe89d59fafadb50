"""The run whose best agent's weights another begins with (`--init-from`), and whether they fit it."""

from __future__ import annotations

from pathlib import Path

from tfdqn import config as configuration
from tfdqn.config import Config
from tfdqn.envs import loading
from tfdqn.errors import UserError
from tfdqn.runs import member, models, run_config


def differences(config: Config, other: Config) -> list[str]:
    """The settings by which one's agent cannot take the other's weights."""
    names = ["env", "env_args", "learner", "downsample", "frame_stack", "network", "members", "head", "dueling"]
    names += ["cell", "cell_units", "previous_action_reward", "rescale_epsilon"]  # the last says what its values mean
    names += ["noisy", "spectral_norm"]
    names += {"categorical": ["atoms", "value_min", "value_max"], "quantile": ["quantiles"]}.get(
        getattr(config, "head", None), []
    )
    return [name for name in names if getattr(config, name, None) != getattr(other, name, None)]


def check_donor(config: Config) -> None:
    """Refuse an `init_from` whose agent does not fit, before anything is made."""
    if not config.init_from:
        return
    # Code that this run has itself may run for its donor.
    code = {name: getattr(config, name) for name in configuration.CODE_FIELDS}
    named = {name: value for name, value in code.items() if loading.is_spec(value)}
    try:
        donor = run_config.read_config(config.init_from, named)
    except UserError as error:
        is_run = (Path(config.init_from) / run_config.CONFIG_FILE).is_file()
        raise UserError(f"--init-from {error}{'' if is_run else '; name a run folder, such as runs/NAME'}") from None
    _refuse_population(Path(config.init_from))
    for name in differences(config, donor):
        ours, theirs, flag = getattr(config, name), getattr(donor, name), name.replace("_", "-")
        use = f"--{'' if theirs else 'no-'}{flag}" if isinstance(theirs, bool) else f"--{flag} {theirs}"
        raise UserError(f"--init-from {config.init_from}: its {name} is {theirs}, not {ours}; use {use}")
    if not (Path(config.init_from) / models.BEST_MODEL).is_file():
        raise UserError(
            f"--init-from {config.init_from}: holds no {models.BEST_MODEL}; the run ended before an evaluation"
        )


def _refuse_population(folder: Path) -> None:
    """Name a member of a population in its place: the best one, where that is known."""
    numbers = member.numbers_of(folder)
    if not numbers:
        return
    try:
        best, said = member.best_folder(folder), ", its best one"
    except UserError:
        best, said = folder / member.folder_of(numbers[0]), ""
    raise UserError(f"--init-from {folder}: holds a population; name one of its members, such as {best}{said}")
