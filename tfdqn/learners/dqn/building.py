"""The agent and the optimizer that a configuration describes. To play, no replay is needed, nor TF-Agents."""

from __future__ import annotations

from tfdqn import population
from tfdqn.config import Config
from tfdqn.envs import Environment
from tfdqn.learners import optimizing
from tfdqn.learners.dqn.agent import DQN
from tfdqn.learners.dqn.population import DQNPopulation
from tfdqn.members import Members, members_of


def build_agent(config: Config, env: Environment) -> DQN:
    """The agent that a configuration describes; to learn, it has yet to be compiled with an optimizer."""
    spec = env.observation_spec.stacked(config.frame_stack)
    return DQN(
        spec.shape,
        env.num_actions,
        observation_dtype=spec.dtype,
        network=config.network,
        members=config.members,
        convolution="patches" if config.convolution == "auto" else config.convolution,
        precision=config.precision,
        loss=config.loss,
        target=config.target,
        target_update_period_updates=config.target_update_period_updates,
        target_tau=config.target_tau,
        double=config.double,
        target_epsilon=config.target_epsilon,
        advantage_alpha=config.advantage_alpha,
        munchausen_alpha=config.munchausen_alpha,
        munchausen_temperature=config.munchausen_temperature,
        munchausen_clip=config.munchausen_clip,
        dueling=config.dueling,
        spectral_norm=config.spectral_norm,
        noisy=config.noisy,
        noisy_sigma=config.noisy_sigma,
        head=config.head,
        atoms=config.atoms,
        value_min=config.value_min,
        value_max=config.value_max,
        quantiles=config.quantiles,
        iqn_samples=config.iqn_samples,
        iqn_act_samples=config.iqn_act_samples,
        huber_kappa=config.huber_kappa,
        max_gradient_norm=config.max_gradient_norm,
        seed=config.seed,
        name="dqn",
    )


def build_learner(config: Config, env: Environment, members: Members | None = None) -> DQN | DQNPopulation:
    """The same with its optimizer, ready to learn; or the population that a configuration describes."""
    members = members or members_of(config)
    agents = [build_agent(each, env) for each in members.configs]
    agent = DQNPopulation(agents, members) if population.is_one(config) else agents[0]
    return optimizing.compiled(agent, config, members)
