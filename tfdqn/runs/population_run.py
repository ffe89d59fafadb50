"""A run of a population: one program trains all members, each of which is judged, reported and kept by itself."""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfdqn import cli, population
from tfdqn.runs import member, population_selection, run_config
from tfdqn.runs.judge import Judge
from tfdqn.runs.loop import Run
from tfdqn.runs.member import Member, Scored
from tfdqn.runtime import hosts

if TYPE_CHECKING:
    from tfdqn.config import Config
    from tfdqn.learners.base import Agent
    from tfdqn.learners.metrics import Metrics
    from tfdqn.programs.selection import Selection
    from tfdqn.runs.population_monitor import PopulationMonitor


class PopulationRun(Run):
    """One run of many agents; what it counts is of the member that has played least."""

    monitor: PopulationMonitor

    @functools.cached_property
    def members(self) -> Sequence[Member]:
        return [Member(self, number, config) for number, config in enumerate(population.members(self.config))]

    @functools.cached_property
    def _tuned(self) -> tuple[str, ...]:
        return population.tuned(self.config)

    @functools.cached_property
    def _differences(self) -> tuple[str, ...]:
        names = population.differences([each.begun for each in self.members])
        return (*names, *(name for name in self._tuned if name not in names))

    @functools.cached_property
    def _selection(self) -> Selection:
        from tfdqn.programs.selection import Selection

        return Selection(self.trainer.learner.parts, self.config.jit, self.config.eager)

    @property
    def report_folders(self) -> Sequence[str]:
        return member.report_folders(len(self.members))

    @property
    def env_frames(self) -> int:
        return int(self.carry.env_frames.numpy().min())

    @property
    def is_goal_reached(self) -> bool:
        going = self._going
        return bool(going) and all(each.is_goal_reached for each in going)

    @property
    def _going(self) -> list[Member]:
        """Those that have not diverged."""
        return [each for each in self.members if not each.progress.diverged_update]

    def _evaluated(self) -> Agent:
        return self.members[0].agent

    def _reporting(self, is_resumed: bool) -> PopulationMonitor:
        from tfdqn.runs.population_monitor import PopulationMonitor

        return PopulationMonitor(self.config, self.run_dir, self.trainer.env, self.members, is_resumed)

    def _write_config(self) -> None:
        super()._write_config()
        held = self._selection.values() if self._tuned else {}
        for each in self.members:
            each.config = each.begun.replace(**{name: values[each.number] for name, values in held.items()})
            self._give_config(each)

    def _give_config(self, each: Member) -> None:
        """Write a member's settings, as they are now."""
        path = each.run_dir / run_config.CONFIG_FILE
        self.saver.outbox.put(path, lambda path, config=each.config: run_config.write_config(config, path.parent))

    def _is_broken(self, metrics: Metrics) -> bool:
        return False

    def _report(self, env_frames: np.ndarray, updates: int, wall_seconds: float, metrics: Metrics) -> None:
        import tensorflow as tf

        epsilons = self.trainer.learner.exploration.epsilon_at(tf.constant(env_frames, tf.int64)).numpy()
        values = {}
        for each in self._going:
            sums = type(metrics)(*(np.asarray(value)[each.number] for value in metrics))
            if not sums.non_finite_updates:
                values[each.number] = sums.values(float(epsilons[each.number])) | self._settings_of(each)
        frames = {number: int(env_frames[number]) for number in values}
        self.monitor.report(frames, updates, wall_seconds, values, self.progress.speed())
        self.progress.reported_env_frames = int(env_frames.min())

    def _settings_of(self, each: Member) -> dict[str, float]:
        """What a report says of a member's settings that change, by tag."""
        return {population_selection.tag_of(name): getattr(each.config, name) for name in self._tuned}

    def _select(self) -> None:
        """Let the worst members take over agents of the best ones, by the evaluation that was just made."""
        if not self._tuned or not self.updates:
            return
        from tfdqn import seeds

        frames, configs = self.env_frames, [each.config for each in self.members]
        seed = seeds.at(seeds.stream(self.config.seed, "selection"), frames)
        draws = seeds.draw(seed, len(configs) * (1 + len(self._tuned))).numpy().reshape(len(configs), -1)
        heirs = population_selection.heirs(configs, self._tuned, self._scores, draws)
        if not heirs:
            return
        source, revived = np.arange(len(configs)), np.zeros(len(configs), bool)
        for heir in heirs:
            each, parent = self.members[heir.number], self.members[heir.parent]
            source[heir.number], each.config = heir.parent, heir.config
            revived[heir.number] = bool(each.progress.diverged_update)
            each.progress.diverged_update = 0
            told = ", ".join(f"{name} {member.shown(getattr(heir.config, name))}" for name in self._tuned)
            cli.say(f"member {each.number} takes over the agent of member {parent.number}; {told}")
        self._selection.take_over(source)
        self._selection.set({name: [getattr(each.config, name) for each in self.members] for name in self._tuned})
        if revived.any():
            self._selection.revive(revived)
            self.carry = self.trainer.revived(self.carry, revived)
        for heir in heirs:
            each = self.members[heir.number]
            values = {population_selection.PARENT.tag: heir.parent} | self._settings_of(each)
            self.monitor.note(each.number, each.env_frames, self.updates, self.wall_seconds, values)
            self._give_config(each)

    def _guard(self) -> None:
        """Name members that have met a number that is not finite; they end, and the others go on."""
        found = self.carry.metrics.non_finite_tensors.numpy()
        for each in self._going:
            if found[each.number]:
                update = int(self.carry.metrics.first_non_finite_update[each.number])
                each.progress.diverged_update = update
                cli.say(
                    f"tfdqn: warning: {each.describe(self._differences)} diverged at update {update}: "
                    f"{self._culprit(int(found[each.number]))} is not finite; the others go on"
                    f"{', until it takes over one of theirs' if self._tuned else ''}"
                )
        if not self._going:
            self._end_diverged(f"all {len(self.members)} agents diverged; try lower learning rates")
        if found.any():
            self.carry = self.trainer.cleared(self.carry, found != 0)

    def _evaluate(self) -> None:
        self.saver.outbox.retry()
        start, frames = time.monotonic(), self.env_frames
        player, scored = self.evaluator.agent.online, []
        for each in self._going:
            weights = each.player_weights()
            player.set_weights(weights)
            judge = Judge(each, self.evaluator)
            scored.append((each, judge, weights, judge.evaluate()))
        # Only now that nothing can cut it short.
        values = {each.number: scores.values() for each, _, _, scores in scored}
        self._scores = {each.number: scores.summary()["score_mean"] for each, _, _, scores in scored}
        played = {each.number: each.env_frames for each in self._going}
        self.monitor.report(played, self.updates, self.wall_seconds, values, {})
        for each, judge, weights, scores in scored:
            self.monitor.show_player(each.number, each.env_frames, scores, weights)
            player.set_weights(weights)
            if judge.keep_if_best(scores):
                self.saver.give_best([each])
        self._note_best(frames)
        self.progress.eval_seconds += time.monotonic() - start
        means = {tag: float(np.mean([found[tag] for found in values.values()])) for tag in next(iter(values.values()))}
        counts = {"env_frames": float(frames), "updates": float(self.updates)}
        self.on_evaluation({**{tag.removeprefix("eval/"): mean for tag, mean in means.items()}, **counts})

    def _note_best(self, frames: int) -> None:
        """The run's own best is its best member's."""
        best = self.best_member
        self.progress.evaluated_env_frames = frames
        self.progress.best_score = best.progress.best_score
        self.progress.best_env_frames = best.progress.best_env_frames

    @property
    def best_member(self) -> Member:
        """The best by the evaluations in training; the first, where there was none."""
        scored = [each for each in self._going if each.progress.best_score is not None]
        return max(scored, key=lambda each: each.progress.best_score, default=self.members[0])

    @property
    def best_dir(self) -> Path:
        return self.best_member.run_dir

    @property
    def best_config(self) -> Config:
        return self.best_member.config

    def _result(self) -> dict[str, Any]:
        start, rows, scored = time.monotonic(), [], []
        for each in self._going:
            if each.best_weights is None:  # it took over an agent after the only evaluations, in none of which it was
                continue
            self.evaluator.agent.online.set_weights(each.best_weights)
            scores = self.evaluator.evaluate(self.config.final_eval_episodes).summary()
            differing = {name: getattr(each.config, name) for name in self._differences}
            rows.append({"member": each.number, **differing, **scores, "goal_reached": each.is_goal_reached})
            scored.append(Scored(each.number, each.config, scores["score_mean"]))
        self.progress.eval_seconds += time.monotonic() - start
        for line in member.table(scored):
            cli.say(line)
        best = self.best_member
        mean = next(each.score_mean for each in scored if each.number == best.number)
        cli.say(f"best agent: {best.describe(self._differences)}, mean score {mean:.2f}, in {best.run_dir}")
        return self.totals() | {"best_member": best.number, "members": rows, "run_dir": str(self.run_dir)}

    def totals(self) -> dict[str, Any]:
        diverged = {each.number: each.progress.diverged_update for each in self.members}
        return super().totals() | {
            "population": len(self.members),
            "diverged_members": [number for number, update in diverged.items() if update],
        }


def run_of(config: Config) -> type[Run]:
    """What trains by a configuration in this process."""
    if hosts.here().count > 1:
        from tfdqn.runs.worker_run import WorkerRun

        return WorkerRun
    return PopulationRun if population.is_one(config) else Run
