"""Train an agent: `python -m tfdqn.train --env cave`."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tfdqn
from tfdqn import cli, runs
from tfdqn import config as configuration
from tfdqn.config import Config
from tfdqn.errors import EXIT_NUMERIC, UserError

CHUNK_SECONDS = 0.5  # how often Python gets its turn; no result depends on it
GOAL_MARGIN = 1e-6  # scores are float32 means of whole numbers


def parser() -> cli.Parser:
    """The command line, a contract with users."""
    parser = cli.Parser(prog="python -m tfdqn.train", description="Train a DQN agent in one XLA program.")
    parser.add_argument("--logdir", default="runs", help="folder that holds run folders")
    parser.add_argument("--run-name", default=None, help="name of the run's folder; made from the settings if absent")
    parser.add_argument("--config", metavar="FILE", default=None, help="read settings from a TOML file; flags win")
    parser.add_argument("--print-config", action="store_true", help="print the settings as TOML and end")
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line of standard output")
    parser.add_argument("--version", action="version", version=f"tfdqn {tfdqn.__version__}")
    cli.add_config_flags(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse(argv)
    given = (configuration.read_toml(arguments.config) if arguments.config else {}) | cli.given_fields(arguments)
    config = configuration.resolve(given, on_gpu=given.get("device") == "gpu")
    if arguments.print_config:
        print(configuration.to_toml(config), end="")
        return 0
    logdir = runs.check_writable(arguments.logdir)
    run_dir = runs.choose_name(config, logdir, arguments.run_name)
    if config.device == "cpu" or (config.device == "auto" and not Path("/dev/nvidiactl").exists()):
        configuration.check_memory(config, configuration.available_memory_bytes())
    device = cli.choose_device(config.device)
    config = configuration.resolve(given, on_gpu="GPU" in device)
    if "GPU" not in device:
        configuration.check_memory(config, configuration.available_memory_bytes())
    result = Run(config, run_dir, device).train()
    if arguments.json:
        print(json.dumps(result), flush=True)
    return result.pop("exit_code", 0)


class Run:
    """One training run, from building everything to the last evaluation."""

    def __init__(self, config: Config, run_dir: Path, device: str):
        from tfdqn.evaluation import Evaluator
        from tfdqn.monitor import Monitor
        from tfdqn.training import Trainer

        self.config, self.run_dir, self.device = config, run_dir, device
        self.trainer = Trainer(config, device)
        self.evaluator = Evaluator(config, self.trainer.env, self.trainer.agent, device)
        runs.create(config, run_dir)
        self.monitor = Monitor(config, run_dir, self.trainer.env)
        self.carry = self.trainer.initial_carry()
        self.compile_seconds = self.train_seconds = self.eval_seconds = 0.0
        self.best_score, self.best_env_frames, self.best_weights = float("-inf"), 0, None
        self.signal: int | None = None
        self._say_plan()

    @property
    def updates(self) -> int:
        return int(self.trainer.agent.optimizer.iterations)

    @property
    def wall_seconds(self) -> float:
        return time.monotonic() - tfdqn.PROCESS_START_SECONDS

    def train(self) -> dict[str, Any]:
        """Train until the frames, the minutes or the goal are reached, or a signal comes; then evaluate the best."""
        self._compile()
        handlers = {number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            goal_reached = self._loop()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        agent = self.trainer.agent
        runs.save_agent(agent, self.run_dir / runs.FINAL_MODEL)
        if self.best_weights is None and self.signal is None:
            self._evaluate()
        result = self._result(goal_reached)
        self.monitor.close()
        return result

    def _compile(self) -> None:
        """Compile both programs before anything is timed; neither plays a frame that counts."""
        cli.say("compiling ...")
        start = time.monotonic()
        self.carry = self.trainer.run_chunk(self.carry, 0, 0)
        self.carry.env_frames.numpy()
        cli.say(f"training program compiled in {time.monotonic() - start:.1f} s")
        self.compile_seconds = time.monotonic() - start

    def _loop(self) -> bool:
        config = self.config
        next_log, next_eval = config.log_every_frames, config.eval_every_frames
        frames, rounds, speeds = 0, 64, (0.0, 0.0)
        while frames < config.total_env_frames and self.signal is None:
            if self.wall_seconds >= config.minutes * 60:
                break
            start, frames_before, updates_before = time.monotonic(), frames, self.updates
            stop = min(next_log, next_eval, config.total_env_frames)
            round_before = int(self.carry.iteration)
            self.carry = self.trainer.run_chunk(self.carry, rounds, stop)
            frames = int(self.carry.env_frames)  # waits for the device
            seconds = time.monotonic() - start
            self.train_seconds += seconds
            done = (int(self.carry.iteration) - round_before) // config.iterations_per_update
            # Aim at CHUNK_SECONDS, changing slowly; a chunk cut short by a report tells the same speed.
            rounds = int(min(max(CHUNK_SECONDS / max(seconds, 1e-6) * max(done, 1), rounds / 4, 1), rounds * 4))
            speeds = ((frames - frames_before) / seconds, (self.updates - updates_before) / seconds)
            if frames >= next_log or frames >= config.total_env_frames:
                next_log = (frames // config.log_every_frames + 1) * config.log_every_frames
                self._report(speeds)
            if frames >= next_eval:
                next_eval = (frames // config.eval_every_frames + 1) * config.eval_every_frames
                if self._evaluate() >= config.goal_score - GOAL_MARGIN and config.stop_at_goal:
                    return True
            self.monitor.live(frames, *speeds, self.wall_seconds)
        return self.best_score >= config.goal_score - GOAL_MARGIN

    def _report(self, speeds: tuple[float, float]) -> None:
        from tfdqn.monitor import report_values
        from tfdqn.training import Metrics, epsilon_at

        metrics = self.carry.metrics
        if int(metrics.non_finite_updates):
            self.monitor.close()
            raise UserError(
                f"training diverged: {int(metrics.non_finite_updates)} updates up to update {self.updates} had a loss "
                f"or gradient that is not finite; try a lower --learning-rate than {self.config.learning_rate}",
                EXIT_NUMERIC,
            )
        values = report_values(metrics, float(epsilon_at(self.config, self.carry.env_frames)))
        values |= {"speed/env_frames_per_second": speeds[0], "speed/updates_per_second": speeds[1]}
        self.monitor.report(int(self.carry.env_frames), self.updates, self.wall_seconds, values)
        self.carry = self.carry._replace(metrics=Metrics.zeros())

    def _evaluate(self) -> float:
        """Evaluate the greedy player, keep it if it is the best, and return its mean score."""
        start = time.monotonic()
        config = self.config
        # The same draws each time, so that evaluations differ by the agent alone.
        scores = self.evaluator.evaluate(
            config.eval_episodes, config.seed, stream="evaluation", max_frames=config.eval_max_frames
        )
        mean = scores.summary()["score_mean"]
        frames = int(self.carry.env_frames)
        values = {f"eval/{name}": value for name, value in scores.summary().items() if name != "episodes"}
        values["eval/episode_frames"] = float(scores.frames.mean())
        self.monitor.report(frames, self.updates, self.wall_seconds, values)
        self.monitor.show_player(frames, scores)
        if mean > self.best_score:
            self.best_score, self.best_env_frames = mean, frames
            self.best_weights = self.trainer.agent.online.get_weights()
            runs.save_agent(self.trainer.agent, self.run_dir / runs.BEST_MODEL)
        self.eval_seconds += time.monotonic() - start
        return mean

    def _result(self, goal_reached: bool) -> dict[str, Any]:
        config = self.config
        result = {
            "env": config.env,
            "preset": config.preset,
            "seed": config.seed,
            "device": self.device,
            "version": tfdqn.__version__,
            "env_frames": int(self.carry.env_frames),
            "updates": self.updates,
            "wall_seconds": 0.0,
            "compile_seconds": round(self.compile_seconds, 3),
            "train_seconds": round(self.train_seconds, 3),
            "eval_seconds": 0.0,
            "env_frames_per_second": round(int(self.carry.env_frames) / max(self.train_seconds, 1e-9), 1),
            "updates_per_second": round(self.updates / max(self.train_seconds, 1e-9), 1),
            "goal_reached": goal_reached,
            "best_env_frames": self.best_env_frames,
        }
        if self.signal is None:
            start = time.monotonic()
            self.trainer.agent.online.set_weights(self.best_weights)
            result |= self.evaluator.evaluate(config.final_eval_episodes).summary()
            self.eval_seconds += time.monotonic() - start
            cli.say(
                f"best agent: mean score {result['score_mean']:.2f} over {result['episodes']} episodes (std "
                f"{result['score_std']:.2f}, median {result['score_median']:g}, min {result['score_min']:g}, max "
                f"{result['score_max']:g}), in {self.run_dir}"
            )
        else:
            cli.say(f"stopped by {signal.Signals(self.signal).name}; what was learnt is in {self.run_dir}")
            result["exit_code"] = 128 + self.signal
        result["eval_seconds"], result["wall_seconds"] = round(self.eval_seconds, 3), round(self.wall_seconds, 3)
        return result | {"run_dir": str(self.run_dir)}

    def _say_plan(self) -> None:
        config, agent = self.config, self.trainer.agent
        mode = "op by op" if config.eager else "XLA" if config.jit else "graph without XLA"
        cli.say(
            f"{config.env} on {self.device.strip('/')}, {mode}; {agent.online.count_params():,} parameters; replay "
            f"{self.trainer.replay.capacity:,} rows, {config.replay_bytes / 1e6:,.0f} MB; "
            f"{config.total_env_frames:,} frames planned; {self.run_dir}"
        )
        capacity = self.trainer.replay.capacity
        if capacity != config.replay_capacity:
            cli.say(f"--replay-capacity {config.replay_capacity} rounded down to {capacity}, a multiple of --num-envs")

    def _on_signal(self, number: int, _frame: Any) -> None:
        if self.signal is not None:
            sys.exit(128 + number)  # asked twice: go at once
        self.signal = number


if __name__ == "__main__":
    cli.run(main)
