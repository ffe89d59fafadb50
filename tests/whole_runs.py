"""Short runs of catch8 in this process, to break and to resume."""

from tfdqn import config as configuration
from tfdqn.runs import checkpoints, locks, run_config
from tfdqn.runs.loop import Run
from tfdqn.runtime.signals import StopRequest

SETTINGS = {
    "env": "catch8",
    "device": "cpu",
    "seed": 3,
    "num_envs": 8,
    "batch_size": 16,
    "frame_stack": 2,
    "replay_capacity": 1000,
    "replay_min_rows": 200,
    "target_update_period_updates": 50,
    "epsilon_decay_env_frames": 2000,
    "total_env_frames": 4000,
    "eval_every_frames": 1500,
    "log_every_frames": 700,  # not a divisor: the last report is a short one
    "eval_episodes": 4,
    "final_eval_episodes": 4,
    "goal_score": 1000.0,
}


def make_run(run_dir, jit=False, **changes):
    """Without XLA if not said, since compiling would take most of the time of tests that are about what a run keeps."""
    return Run(configuration.resolve({**SETTINGS, "jit": jit, **changes}), run_dir, "/CPU:0", StopRequest())


def resume(run_dir, kind=Run, **changes):
    config = run_config.resumed_config(str(run_dir), changes)
    lock = locks.lock(run_dir)
    checkpoint, _ = checkpoints.load_newest(run_dir)
    return kind(config, run_dir, "/CPU:0", StopRequest(), lock, checkpoint)


def train_until(run, env_frames, chunk=13):
    """Train a while and save, as a signal would make it."""
    while run.env_frames < env_frames:
        run.progress.rounds = chunk
        run.train_chunk()
    run.saver.save_last()
