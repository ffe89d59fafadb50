"""Turns a specification into something that can be timed. Imports TensorFlow."""

from __future__ import annotations

from benchmarks import env_case, loop_case, network_cases, replay_case
from benchmarks.specs import Spec
from benchmarks.timing import Bench


def build(spec: Spec, device: str) -> Bench:
    """Make a specification's bench.

    Raises:
      UserError: it does not fit into this machine.
      ValueError: a case that is none of this process's, such as `PROCESS_CASES`.
    """
    settings = dict(spec.settings)
    if spec.case == "env":
        return env_case.EnvBench(spec.env, spec.num_envs, spec.variant == "frames", device)
    if spec.case == "replay" and spec.variant == "add":
        return replay_case.AddBench(spec.env, spec.num_envs, settings, device)
    if spec.case == "replay":
        return replay_case.SampleBench(spec.env, spec.num_envs, spec.batch, settings, device)
    if spec.case == "act":
        return network_cases.ActBench(spec.env, spec.num_envs, settings, device)
    if spec.case == "learner":
        return network_cases.LearnBench(spec.env, spec.batch, settings, device)
    if spec.case == "loop":
        return loop_case.make(spec.variant, settings, device)
    raise ValueError(f"{spec.name}: there is no bench for the case {spec.case}")
