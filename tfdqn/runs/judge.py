"""Which of a run's agents is the best."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from tfdqn.programs.evaluation import Evaluator, Scores
    from tfdqn.runs.progress import Player


class Judge:
    """Evaluates a run's agent and keeps the best one.

    Episodes are cut to save time, but a cut decides nothing: as long as what was cut off could change which agent is
    the best, or the mean is over a third of the limit (and so more than a few percent off), it is doubled and both
    agents play again, so that scores are only ever compared under one limit.

    Args:
      run: whose player it is; its `progress` and `best_weights` hold what is found.
      evaluator: what plays, with its agent.
    """

    def __init__(self, run: Player, evaluator: Evaluator):
        self._run, self._evaluator = run, evaluator

    def evaluate(self) -> Scores:
        """Scores of the agent as it is now, under a limit that decides nothing.

        Raises:
          Stopped: the evaluator was told to give up.
        """
        progress, scores = self._run.progress, self._scores()
        while progress.eval_max_frames <= self._evaluator.env.time_limit and (
            self._is_outgrown_by(scores) or self._is_undecided(scores)
        ):
            self._play_longer()
            scores = self._scores()
        return scores

    def keep_if_best(self, scores: Scores) -> bool:
        """Keep the weights of the agent that has these scores, if it is the best so far; whether it is."""
        run, mean = self._run, scores.summary()["score_mean"]
        progress = run.progress
        if progress.best_score is not None and mean <= progress.best_score:
            return False
        progress.best_score, progress.best_score_ceiling = mean, self._ceiling(scores)
        progress.best_env_frames = run.env_frames
        run.best_weights = self._evaluator.agent.online.get_weights()
        return True

    def _scores(self, limit: int | None = None) -> Scores:
        # The same draws each time, so that evaluations differ by the agent alone.
        config, limit = self._run.config, limit or self._run.progress.eval_max_frames
        return self._evaluator.evaluate(config.eval_episodes, config.seed, stream="evaluation", max_frames=limit)

    def _is_outgrown_by(self, scores: Scores) -> bool:
        """Whether evaluations must play longer: a limit of three means lowers a mean by no more than a few percent."""
        return 3 * scores.frames.mean() > self._run.progress.eval_max_frames

    def _is_undecided(self, scores: Scores) -> bool:
        """Whether what was cut off, of these episodes or the best agent's, could make either of them the better one."""
        best, best_ceiling = self._run.progress.best_score, self._run.progress.best_score_ceiling
        if best is None:
            return False
        ceiling = self._ceiling(scores)
        if ceiling is None or best_ceiling is None:
            return True
        return scores.summary()["score_mean"] < best_ceiling and best < ceiling

    def _ceiling(self, scores: Scores) -> float | None:
        """What the mean score of these episodes can be at most when none is cut; None if that cannot be told."""
        env, limit = self._evaluator.env, self._run.progress.eval_max_frames
        is_cut = (scores.frames >= limit) & (limit <= env.time_limit)
        if is_cut.any() and env.best_score == math.inf:
            return None
        return float(np.where(is_cut, env.best_score, scores.scores).astype(np.float64).mean())

    def _play_longer(self) -> None:
        """Double the limit and score the best agent under it: both, or neither where that is cut short."""
        progress, agent = self._run.progress, self._evaluator.agent
        limit, scores = 2 * progress.eval_max_frames, None
        if progress.best_score is not None:
            weights = agent.online.get_weights()
            agent.online.set_weights(self._run.best_weights)
            try:
                scores = self._scores(limit)
            finally:
                agent.online.set_weights(weights)
        progress.eval_max_frames = limit
        if scores is not None:
            progress.best_score, progress.best_score_ceiling = scores.summary()["score_mean"], self._ceiling(scores)
