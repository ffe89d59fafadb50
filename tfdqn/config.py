"""What a run is made of: one frozen dataclass, and the checks that need no TensorFlow. `presets.py` has its presets.

Flags, help text, `config.toml` and the TensorBoard page are all derived from the fields of `Config`: a new setting is
one new field. Nothing here imports TensorFlow, so bad input is found in well under a second.
"""

from __future__ import annotations

import dataclasses
import math
import os
import tomllib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tfdqn.errors import UserError, nearest
from tfdqn.presets import GPU_SIZES, PRESETS

GAMES = ("catch8", "catch8_single", "catch16", "cave")
SCREEN_SIZE = {"catch8": 8, "catch8_single": 8, "catch16": 16, "cave": 48}  # pixels a side
NETWORKS = ("mlp", "conv", "conv_stride4", "columns", "columns_deep", "columns_wide")
HEADS = ("scalar", "categorical")
TARGETS = ("hard", "soft", "none")
CONVOLUTIONS = ("patches", "native")
PRECISIONS = ("float32", "bfloat16")


def setting(default: Any, help: str, group: str, *, choices=None, low=None, high=None, above=None) -> Any:
    """A field: `low` and `high` are inclusive bounds, `above` an exclusive lower bound."""
    metadata = {"help": help, "group": group, "choices": choices, "low": low, "high": high, "above": above}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Config:
    """Every setting of a run. Units are in the names; `inf` means without limit."""

    # What is played.
    env: str = setting("catch8", "the game", "game", choices=GAMES)
    preset: str = setting("default", "named settings for the game", "game", choices=("default", "article"))
    seed: int = setting(0, "one seed for everything that is drawn", "game", low=0, high=2**31 - 1)
    frame_stack: int = setting(1, "frames that make one observation", "game", low=1, high=32)
    frame_stride: int = setting(1, "decisions between stacked frames", "game", low=1, high=32)
    action_repeat: int = setting(1, "frames that each chosen action is held for", "game", low=1, high=32)
    downsample: int = setting(1, "keep every k-th row and column of the cave's screen", "game", choices=(1, 2))
    super_resolution: bool = setting(
        False, "draw edges in the cave to fractions of a row, as far as earlier screens told them", "game"
    )

    start_curriculum: float = setting(
        0.0,
        "share of training episodes that start at a drawn difficulty (cave: a narrower tunnel); their scores are not "
        "reported",
        "game",
        low=0,
        high=1,
    )

    restart_share: float = setting(
        0.0,
        "share of environments that only practise: they start shortly before another's last crash (cave)",
        "game",
        low=0,
        high=0.9,
    )

    # How long.
    total_env_frames: int = setting(
        5_000_000, "frames to play in training, over all environments", "length", low=1, high=2**62
    )
    minutes: float = setting(
        math.inf,
        "stop training this long after the run began (pauses between resumed processes do not count)",
        "length",
        above=0,
    )
    stop_at_goal: bool = setting(True, "stop once an evaluation reaches goal_score", "length")
    goal_score: float = setting(math.inf, "mean score that counts as done", "length")

    # Sizes.
    num_envs: int = setting(64, "environments played side by side", "sizes", low=1, high=1_000_000)
    batch_size: int = setting(32, "transitions in one update", "sizes", low=1, high=1_000_000)
    iterations_per_update: int = setting(1, "vector steps between updates", "sizes", low=1, high=1_000)
    updates_per_iteration: int = setting(1, "updates made each time an update is due", "sizes", low=1, high=1_000)
    replay_capacity: int = setting(100_000, "rows in the replay, over all environments", "sizes", low=1, high=2**62)
    replay_min_rows: int = setting(5_000, "rows in the replay before learning starts", "sizes", low=1)

    # Learner.
    network: str = setting("mlp", "body of the Q-network", "learner", choices=NETWORKS)
    members: int = setting(1, "networks side by side, whose values are averaged", "learner", low=1, high=100)
    init_from: str = setting("", "folder of a run whose best agent's weights to start from", "learner")
    learning_rate: float = setting(2.5e-4, "step size of the optimizer", "learner", above=0, high=100)
    learning_rate_decay_updates: int = setting(
        0, "updates over which the rate falls linearly to learning_rate_end; 0 keeps it", "learner", low=0, high=2**53
    )
    learning_rate_end: float = setting(1e-5, "rate after learning_rate_decay_updates", "learner", above=0, high=100)
    optimizer: str = setting("rmsprop_graves", "optimizer", "learner", choices=("rmsprop_graves", "rmsprop", "adam"))
    optimizer_rho: float = setting(0.95, "decay of RMSProp's averages", "learner", low=0, high=0.999999)
    optimizer_momentum: float = setting(0.9, "momentum of RMSProp", "learner", low=0, high=0.999999)
    optimizer_epsilon: float = setting(1e-4, "constant in the optimizer's denominator", "learner", above=0, high=1)
    max_gradient_norm: float = setting(math.inf, "clip the gradient's global norm", "learner", above=0)
    loss: str = setting("huber", "loss of the TD error", "learner", choices=("huber", "mse"))
    double: bool = setting(True, "Double DQN: the online network chooses the next action", "learner")
    head: str = setting(
        "scalar", "expected returns, or probabilities of returns learnt by cross-entropy", "learner", choices=HEADS
    )
    atoms: int = setting(51, "returns that the categorical head tells apart", "learner", low=2, high=201)
    value_min: float = setting(-1.0, "least return of the categorical head", "learner", low=-1e6, high=1e6)
    value_max: float = setting(1.0, "largest return of the categorical head", "learner", low=-1e6, high=1e6)
    dueling: bool = setting(False, "value and advantages from hidden layers of their own", "learner")
    discount: float = setting(0.99, "discount a decision", "learner", low=0, high=1)
    n_step: int = setting(1, "decisions of reward before bootstrapping", "learner", low=1, high=128)
    target: str = setting(
        "hard", "target network: copied, tracked or none", "learner", choices=("hard", "soft", "none")
    )
    target_update_period_updates: int = setting(500, "updates between hard copies", "learner", low=1, high=2**62)
    target_epsilon: float = setting(
        0.0, "random actions of the player whose returns are learnt (Expected Sarsa)", "learner", low=0, high=1
    )
    advantage_alpha: float = setting(
        0.0, "how much of an action's lag behind the best is taken off its reward", "learner", low=0, high=0.99
    )
    target_tau: float = setting(0.005, "share of the online weights in a soft update", "learner", above=0, high=1)
    play_target: bool = setting(
        False, "the soft target network, an average of weights, is evaluated and kept as the agent", "learner"
    )

    prioritized: bool = setting(False, "draw transitions by their TD error", "learner")
    priority_alpha: float = setting(0.6, "0 draws uniformly, 1 in proportion to the TD error", "learner", low=0, high=1)
    priority_beta: float = setting(
        0.4, "how far weights undo the bias of the draws, at first", "learner", low=0, high=1
    )
    priority_beta_updates: int = setting(
        100_000, "updates over which priority_beta rises to 1", "learner", low=1, high=2**53
    )

    # Exploration.
    epsilon_start: float = setting(1.0, "random actions at first", "exploration", low=0, high=1)
    epsilon_end: float = setting(0.05, "random actions at last", "exploration", low=0, high=1)
    epsilon_decay_env_frames: int = setting(
        100_000, "frames from first to last, linearly", "exploration", low=1, high=2**62
    )

    # Evaluation and reports.
    eval_every_frames: int = setting(100_000, "env frames between evaluations", "evaluation", low=1, high=2**62)
    eval_episodes: int = setting(64, "episodes of an evaluation in training", "evaluation", low=1, high=100_000)
    eval_max_frames: int = setting(
        10_001,
        "frames after which evaluations in training cut episodes at first; doubled where that could decide which agent "
        "is the best, or for a mean over a third of it",
        "evaluation",
        low=1,
        high=2**30,
    )
    final_eval_episodes: int = setting(256, "episodes of the last evaluation", "evaluation", low=1, high=1_000_000)
    log_every_frames: int = setting(20_000, "env frames between reports", "evaluation", low=1, high=2**62)
    profile: int = setting(
        0,
        "iterations to trace for TensorBoard's profiler when learning has begun, at most to the next evaluation or the "
        "64th report",
        "evaluation",
        low=0,
        high=1_000_000,
    )

    # Checkpoints.
    checkpoint_every_seconds: float = setting(
        0.0,
        "seconds between checkpoints; 0 means 60, or longer where that would take over 2% of the time",
        "checkpoints",
        low=0,
    )
    checkpoint_replay: bool = setting(
        True, "keep the replay in checkpoints; without it a resumed run fills a new one", "checkpoints"
    )

    # Machine.
    device: str = setting("auto", "where everything lives", "machine", choices=("auto", "cpu", "gpu"))
    jit: bool = setting(True, "compile with XLA; --no-jit runs the same code as a plain graph", "machine")
    eager: bool = setting(False, "run op by op, for debugging", "machine")
    convolution: str = setting(
        "auto",
        "convolutions as patches times a matrix, or TensorFlow's native ones; auto: patches on a CPU, on a GPU what is "
        "quicker when measured at the start",
        "machine",
        choices=("auto", *CONVOLUTIONS),
    )
    precision: str = setting(
        "float32",
        "factors of the products in wide hidden dense layers; bfloat16: rounded, and summed in float32, which is "
        "quicker on CPUs with AMX (not measured on a GPU)",
        "machine",
        choices=PRECISIONS,
    )
    threads: int = setting(0, "CPU threads that share one operation; 0 takes all cores", "machine", low=0, high=4096)
    deterministic: bool = setting(
        False, "only kernels that give the same bits in every run; slower on a GPU, no change on a CPU", "machine"
    )

    @property
    def screen(self) -> tuple[int, int]:
        """(H, W) of an observation's frames."""
        side = SCREEN_SIZE[self.env] // self.downsample
        return side, side

    @property
    def num_practisers(self) -> int:
        """How many environments only practise (see `tfdqn.restarts`): the last ones."""
        return int(self.num_envs * self.restart_share)

    @property
    def window_rows(self) -> int:
        """Consecutive replay rows that one sampled transition spans."""
        return (self.frame_stack - 1) * self.frame_stride + 1 + self.n_step

    @property
    def replay_bytes(self) -> int:
        """Memory of the replay: a uint8 frame, 8 bytes of action, 4 of each float, two flags a row."""
        height, width = self.screen
        return self.replay_capacity * (height * width + 8 + 4 + 4 + 2 + 4 * self.prioritized)


FIELDS = {field.name: field for field in dataclasses.fields(Config)}
# Field types as values (annotations are strings under `from __future__ import annotations`).
FIELD_TYPES = {name: {"int": int, "float": float, "bool": bool, "str": str}[f.type] for name, f in FIELDS.items()}
# What may change when a run is resumed: none of these decides what any frame or update computes.
RESUMABLE_FIELDS = tuple(
    name for name, field in FIELDS.items() if field.metadata["group"] in ("length", "checkpoints") or name == "profile"
)
SIZE_FIELDS = tuple(name for name, field in FIELDS.items() if field.metadata["group"] == "sizes")


def resolve(given: Mapping[str, Any], *, on_gpu: bool = False, tell: Callable[[str], None] | None = None) -> Config:
    """Make a configuration: defaults, then the game's preset, then GPU sizes, then what the user gave.

    Where a value that nobody asked for does not fit with one that the user gave, it gives way to the nearest that does.

    Args:
      given: explicitly chosen fields, from a file and from flags.
      on_gpu: use the GPU's sizes in the default preset, unless any size is in `given`.
      tell: called with a line for each value that gave way.

    Raises:
      UserError: a value out of range, or given values that do not fit together.
    """
    for name in ("env", "preset"):
        _check_field(name, given.get(name, FIELDS[name].default))
    env, preset = given.get("env", FIELDS["env"].default), given.get("preset", FIELDS["preset"].default)
    if (env, preset) not in PRESETS:
        names = [known for game, known in PRESETS if game == env]
        raise UserError(f"--preset {preset}: {env} has none of that name; {nearest(preset, names)}")
    values = dict(PRESETS[env, preset])
    if on_gpu and preset == "default" and not any(name in given for name in SIZE_FIELDS):
        values |= GPU_SIZES[env]
    wanted = Config(**{**values, **given})
    for name in FIELDS:
        _check_field(name, getattr(wanted, name))
    config = _fitted(wanted, given)
    check(config)
    for name in FIELDS:
        before, after = getattr(wanted, name), getattr(config, name)
        if before != after and tell is not None:
            flag = "--" + name.replace("_", "-")
            tell(f"{flag} {before} of the preset {preset!r} does not fit what was given: {after} is used")
    return config


def _fitted(config: Config, given: Mapping[str, Any]) -> Config:
    """The configuration with values that are not `given` moved to where they fit, as far as that can be."""
    for _ in range(len(FIELDS)):  # one change may ask for another; never as many as there are fields
        for changes in _ways_to_fit(config):
            name, value = next(iter(changes.items()))
            metadata = FIELDS[name].metadata
            low, high = metadata["low"], metadata["high"]
            is_legal = (low is None or value >= low) and (high is None or value <= high)
            if name not in given and is_legal and value != getattr(config, name):
                config = dataclasses.replace(config, **changes)
                break
        else:
            return config
    return config


def _ways_to_fit(config: Config) -> Iterator[dict[str, Any]]:
    """For each rule that `check` finds broken, a field and the nearest value of it that mends the rule, if one does.

    In the order of preference: what costs the run least comes first.
    """
    if config.super_resolution and config.downsample != 1:
        yield {"downsample": 1}
        yield {"super_resolution": False}
    if config.play_target and config.target != "soft":
        yield {"target": "soft"}
        yield {"play_target": False}
    if config.head == "categorical":
        least = 1e-3 * max(1.0, abs(config.value_min))
        if not config.value_max - config.value_min >= least:
            width = max(FIELDS["value_max"].default - FIELDS["value_min"].default, 1e-2 * abs(config.value_max))
            yield {"value_min": config.value_max - width}
            yield {"value_max": config.value_min + max(width, 2 * least)}
            yield {"head": "scalar"}
        if config.loss != FIELDS["loss"].default:
            yield {"head": "scalar"}
            yield {"loss": FIELDS["loss"].default}
    if not config.jit and config.eager:
        yield {"jit": True}
    window, num_envs = config.window_rows, config.num_envs
    capacity = config.replay_capacity - config.replay_capacity % num_envs
    if capacity < window * num_envs:
        yield {"replay_capacity": window * num_envs}
        yield {"num_envs": max(config.replay_capacity // window, 1)}
        lookback = (config.frame_stack - 1) * config.frame_stride
        yield {"n_step": max(config.replay_capacity // num_envs - 1 - lookback, 1)}
        yield {"frame_stride": 1}
        yield {"frame_stack": 1}
    if config.batch_size > capacity:
        yield {"replay_capacity": -(-config.batch_size // num_envs) * num_envs}
        yield {"batch_size": max(capacity, 1)}
    if config.replay_min_rows > capacity:
        # Raised if the user wants to begin later; a smaller replay is learnt from once it is full.
        yield {"replay_min_rows": max(capacity, 1)}
        yield {"replay_capacity": -(-config.replay_min_rows // num_envs) * num_envs}
    if config.restart_share and not config.num_practisers:
        yield {"restart_share": 0.0}
        yield {"num_envs": math.ceil(1 / config.restart_share)}
    if config.learning_rate_decay_updates and config.learning_rate_end > config.learning_rate:
        yield {"learning_rate_end": config.learning_rate}
        yield {"learning_rate": config.learning_rate_end}
    if config.epsilon_end > config.epsilon_start:
        yield {"epsilon_end": config.epsilon_start}
        yield {"epsilon_start": config.epsilon_end}


def check(config: Config) -> None:
    """Raise a `UserError` that names the first bad field, its value and the nearest valid one."""
    for name in FIELDS:
        _check_field(name, getattr(config, name))
    if config.env != "cave" and config.downsample != 1:
        raise UserError(f"--downsample {config.downsample}: only the cave can be downsampled; use 1")
    if config.super_resolution and config.env != "cave":
        raise UserError(f"--super-resolution: the screens of {config.env} show all there is; leave it out")
    if config.super_resolution and config.downsample != 1:
        raise UserError(f"--super-resolution with --downsample {config.downsample}: use one or the other")
    if config.env != "cave" and config.start_curriculum:
        raise UserError(
            f"--start-curriculum {config.start_curriculum}: {config.env} is equally difficult from start to end; use 0"
        )
    if config.env != "cave" and config.restart_share:
        raise UserError(f"--restart-share {config.restart_share}: {config.env} has no crashes to practise; use 0")
    if config.restart_share and not config.num_practisers:
        raise UserError(
            f"--restart-share {config.restart_share}: not one of {config.num_envs} environments; use 0, or more "
            "--num-envs"
        )
    if config.play_target and config.target != "soft":
        raise UserError(f"--play-target: a {config.target} target is no average of weights; add --target soft")
    if config.head == "categorical":
        # In float32 the atoms must lie apart.
        if not config.value_max - config.value_min >= 1e-3 * max(1.0, abs(config.value_min)):
            raise UserError(
                f"--value-max {config.value_max}: must be well above --value-min {config.value_min} "
                "for --head categorical"
            )
        if config.loss != FIELDS["loss"].default:
            raise UserError(
                f"--loss {config.loss}: --head categorical learns by cross-entropy; leave out --loss, or use "
                "--head scalar"
            )
    if not config.jit and config.eager:
        raise UserError("--eager already runs without XLA: leave out --no-jit")
    capacity = config.replay_capacity - config.replay_capacity % config.num_envs
    smallest = config.window_rows * config.num_envs
    if capacity < smallest:
        raise UserError(
            f"--replay-capacity {config.replay_capacity}: one transition spans {config.window_rows} rows of each of "
            f"{config.num_envs} environments; use at least {smallest}"
        )
    if config.batch_size > capacity:
        raise UserError(
            f"--batch-size {config.batch_size}: larger than the replay of {capacity} rows; use at most {capacity}"
        )
    if config.replay_min_rows > capacity:
        raise UserError(
            f"--replay-min-rows {config.replay_min_rows}: the replay holds {capacity} rows; use at most {capacity}"
        )
    if config.learning_rate_decay_updates and config.learning_rate_end > config.learning_rate:
        raise UserError(
            f"--learning-rate-end {config.learning_rate_end}: above --learning-rate; use at most {config.learning_rate}"
        )
    if config.epsilon_end > config.epsilon_start:
        raise UserError(
            f"--epsilon-end {config.epsilon_end}: above --epsilon-start; use at most {config.epsilon_start}"
        )


def check_memory(config: Config, available_bytes: int) -> None:
    """Refuse a replay that does not fit, before anything is allocated."""
    needed = config.replay_bytes + 500_000_000  # TensorFlow itself, the network and the programs
    if needed > available_bytes:
        rows = max(0, (available_bytes - 500_000_000) * config.replay_capacity // config.replay_bytes)
        raise UserError(
            f"--replay-capacity {config.replay_capacity}: needs {needed / 1e9:.2f} GB, but "
            f"{available_bytes / 1e9:.2f} GB are free; use at most {rows}"
        )


def available_memory_bytes() -> int:
    """Memory this process may still take: what the system says is available, or the control group's rest if less."""
    available = 2**63
    try:
        with open("/proc/meminfo") as file:
            fields = dict(line.split(":", 1) for line in file)
        available = int(fields["MemAvailable"].split()[0]) * 1024
        with open("/sys/fs/cgroup/memory.max") as limit, open("/sys/fs/cgroup/memory.current") as used:
            available = min(available, int(limit.read()) - int(used.read()))
    except (OSError, ValueError, KeyError):
        pass  # another system, or a group without a limit ("max")
    return available


def _check_field(name: str, value: Any) -> None:
    limits, flag = FIELDS[name].metadata, "--" + name.replace("_", "-")
    kind = FIELD_TYPES[name]
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise UserError(f"{flag} {value}: must be {_KIND_WORDS[kind]}")
    if limits["choices"] is not None and value not in limits["choices"]:
        choices = [str(choice) for choice in limits["choices"]]
        raise UserError(f"{flag} {value}: unknown; {nearest(str(value), choices)}")
    if kind is float and math.isnan(value):
        raise UserError(f"{flag} nan: must be a number; the default is {FIELDS[name].default}")
    low, above, high = limits["low"], limits["above"], limits["high"]
    if low is not None and value < low:
        raise UserError(f"{flag} {value}: must be at least {low}; use {low}")
    if above is not None and value <= above:
        raise UserError(f"{flag} {value}: must be greater than {above}; the default is {FIELDS[name].default}")
    if high is not None and value > high:
        raise UserError(f"{flag} {value}: must be at most {high}; use {high}")


_KIND_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}


# Settings of earlier versions, with the value at which they changed nothing.
RETIRED = {"curriculum_overshoot": 0}


def read_toml(path: str | os.PathLike) -> dict[str, Any]:
    """Read chosen fields from a flat TOML file, as `config.toml` and `--print-config` have it."""
    try:
        with open(path, "rb") as file:
            values = tomllib.load(file)
    except OSError as error:
        raise UserError(f"--config {path}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"--config {path}: not TOML: {error}") from None
    values = {name: value for name, value in values.items() if name not in RETIRED or value != RETIRED[name]}
    for name in values:
        if name in RETIRED:
            raise UserError(f"--config {path}: {name} {values[name]!r} is no longer known; use {RETIRED[name]!r}")
        if name not in FIELDS:
            raise UserError(f"--config {path}: unknown setting {name!r}; {nearest(name, FIELDS)}")
        _check_field(name, values[name])
    return {name: FIELD_TYPES[name](value) for name, value in values.items()}


def plain(config: Config) -> dict[str, Any]:
    """The fields by name."""
    return dataclasses.asdict(config)


def as_json(config: Config) -> dict[str, Any]:
    """The configuration's fields, infinities as words, for JSON has none."""
    fields = plain(config)
    return {k: str(v) if isinstance(v, float) and not math.isfinite(v) else v for k, v in fields.items()}


def to_toml(config: Config) -> str:
    """The whole configuration as TOML, one line a field with its meaning."""
    import tomli_w

    lines, group = [], None
    for name, field in FIELDS.items():
        if field.metadata["group"] != group:
            group = field.metadata["group"]
            lines.append(f"\n# {group}" if lines else f"# {group}")
        lines.append(f"{tomli_w.dumps({name: getattr(config, name)}).strip():<44} # {field.metadata['help']}")
    return "\n".join(lines) + "\n"
