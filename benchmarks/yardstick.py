"""MinAtar's games beside purejaxql, gymnax and pgx: `python -m benchmarks.yardstick learn|play --purejaxql PATH`.

`learn` trains each game with the preset of PQN and with purejaxql's PQN as it is published, one after the other, each
for as many frames; `play` times random play of the games alone, in turn. PATH is a checkout of purejaxql, which
`benchmarks/peers/purejaxql_worker.py` names; what is written is complete after every game.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import learning, line
from benchmarks.peers import environments
from tfdqn import cli
from tfdqn import config as configuration
from tfdqn.errors import UserError, nearest

GAMES = ("breakout", "asterix", "freeway", "space_invaders", "seaquest")
CUT = {"freeway": 2_500}  # frames after which gymnax ends an episode, and so do our evaluations here
DEFAULT_CUT = 1_000
WHO = ("purejaxql", "tfdqn")
EPISODES = 128
# gymnax's games, of 0.0.6, have no actions that stick; pgx's seaquest has.
STICKY = {"seaquest": 0.1}
SIZES = (64, 1024)
REPEATS, REPEAT_SECONDS = 7, 0.3


def parser() -> cli.Parser:
    parser = cli.Parser(prog="python -m benchmarks.yardstick", description="Hold MinAtar's games against JAX's.")
    parser.add_argument("what", help="learn or play")
    parser.add_argument("--purejaxql", metavar="PATH", required=True, help="a checkout of purejaxql")
    parser.add_argument("--game", action="append", default=[], metavar="NAME", help=f"one of {', '.join(GAMES)}")
    parser.add_argument("--who", action="append", default=[], metavar="NAME", help=f"one of {', '.join(WHO)}")
    parser.add_argument("--json", metavar="FILE", type=cli.path("--json"), required=True, help="write what came of it")
    parser.add_argument("--frames", type=cli.converter("--frames", int), default=3_000_000, help="of a training")
    parser.add_argument("--seed", type=cli.converter("--seed", int), default=0, help="of both")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parser().parse(argv)
    if arguments.what not in ("learn", "play"):
        raise UserError(f"{arguments.what}: no such thing; {nearest(arguments.what, ('learn', 'play'))}")
    for flag, given, known in (("--game", arguments.game, GAMES), ("--who", arguments.who, WHO)):
        for name in given:
            if name not in known:
                raise UserError(f"{flag} {name}: unknown; {nearest(name, known)}")
    who = arguments.who or WHO
    if not (Path(arguments.purejaxql) / "purejaxql" / "pqn_minatar.py").is_file():
        raise UserError(
            f"--purejaxql {arguments.purejaxql}: holds no purejaxql/pqn_minatar.py; name a checkout's folder"
        )
    rows: list[dict[str, Any]] = []
    with contextlib.ExitStack() as stack:
        if arguments.what == "play":
            gymnax, pgx = (stack.enter_context(worker(arguments.purejaxql)) for _ in range(2))
        for game in arguments.game or GAMES:
            if arguments.what == "play":
                found = [row for size in SIZES for row in rates(gymnax, pgx, game, size)]
            else:
                found = []
                if "purejaxql" in who:
                    found.append(theirs(arguments.purejaxql, game, arguments.frames, arguments.seed))
                if "tfdqn" in who:
                    found.append(ours(game, arguments.frames, arguments.seed))
            for row in found:
                rows.append({"game": game, **row, "load": os.getloadavg()[1]})
                cli.say(json.dumps({key: value for key, value in rows[-1].items() if key != "curve"}))
            learning.write(Path(arguments.json), rows)
    return 0


def worker(checkout: str) -> line.Process:
    """The process in which JAX runs."""
    command = [str(environments.python("purejaxql")), "-P", "-m", "benchmarks.peers.purejaxql_worker"]
    variables = {"PYTHONPATH": str(environments.ROOT), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    return line.Process([*command, str(Path(checkout).absolute())], variables)


def theirs(checkout: str, game: str, frames: int, seed: int) -> dict[str, Any]:
    """purejaxql's training: see `purejaxql_worker.Worker.train`."""
    with worker(checkout) as process:
        trained = process.ask(do="train", game=game, frames=frames, seed=seed, evaluations=10)
    return {"who": "purejaxql", "seed": seed, **trained}


def ours(game: str, frames: int, seed: int) -> dict[str, Any]:
    """A training of the package's, as a user would run it, with what decides a score as gymnax has it.

    Its score is the last agent's, as purejaxql's is, over the first episode of each of `EPISODES` environments.
    `cpu_seconds` are those of the whole process, its start, compiler and evaluations included.
    """
    cut = CUT.get(game, DEFAULT_CUT)
    preset = configuration.resolve({"env": f"minatar_{game}", "learner": "pqn"})
    updates = frames // (preset.num_envs * preset.num_steps) * preset.epochs * preset.minibatches
    with tempfile.TemporaryDirectory() as folder:
        flags = (
            f"--env minatar_{game} --learner pqn --sticky-actions {STICKY.get(game, 0)} --total-env-frames {frames} "
        )
        flags += f"--learning-rate-decay-updates {updates} --epsilon-decay-env-frames {frames // 10} "
        flags += f"--eval-every-frames {frames // 10} --eval-max-frames {cut} --device cpu --seed {seed}"
        command = [sys.executable, "-m", "tfdqn.train", *flags.split(), "--logdir", folder, "--run-name", "run"]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(
            [*command, "--json"], cwd=environments.ROOT, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if done.returncode:
            raise UserError(f"{game}: training ended with code {done.returncode}", done.returncode)
        result = json.loads(done.stdout.splitlines()[-1])
        curve = learning.curve(Path(folder) / "run")
        return {
            "who": "tfdqn",
            "seed": seed,
            "flags": flags,
            "env_frames": result["env_frames"],
            "seconds": result["train_seconds"],
            "cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
            "compile_seconds": result["compile_seconds"],
            "score": last_score(Path(folder) / "run", cut),
            "score_whole": last_score(Path(folder) / "run", None),
            "best_score_uncut": result["score_mean"],
            "curve": [
                {
                    "env_frames": point["env_frames"],
                    "seconds": round(point["wall_seconds"] - result["compile_seconds"], 2),  # evaluations included
                    "score": point["eval/score_mean"],
                }
                for point in curve
            ],
        }


def last_score(run_dir: Path, cut: int | None) -> float:
    """Mean score of a run's last agent; episodes are cut after so many frames, None: by their own limit of 10,000."""
    from tfdqn.envs import make_for
    from tfdqn.learners import build_agent
    from tfdqn.programs.evaluation import Evaluator
    from tfdqn.runs import models, run_config

    config = run_config.read_config(run_dir, {})
    env = make_for(config)
    agent = build_agent(config, env)
    models.load_weights(agent, run_dir / models.MODELS["final"])
    evaluator = Evaluator(config, env, agent, "/CPU:0")
    return float(evaluator.evaluate(EPISODES, config.seed, max_frames=cut).scores.mean())


def rates(gymnax: line.Process, pgx: line.Process, game: str, num_envs: int) -> list[dict[str, Any]]:
    """Env frames a second of random play, frames drawn: the median over repeats taken in turn.

    Others use the machine, too: beside the seconds of the clock stand those of the processor.
    """
    import numpy as np

    from benchmarks import timing
    from benchmarks.env_case import EnvBench

    bench = EnvBench(f"minatar_{game}", num_envs, True, "/CPU:0")

    def timed(count: int) -> dict[str, float]:
        start, cpu = time.perf_counter(), time.process_time()
        bench.run(count)
        return {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu}

    players = {"tfdqn": timed}
    for library, process in {"gymnax": gymnax, "pgx": pgx}.items():
        if library == "pgx" or game != "seaquest":
            process.ask(do="build", game=game, library=library, num_envs=num_envs)
            players[library] = lambda count, process=process: process.ask(do="time", count=count)
    counts = {"tfdqn": timing.burn_in(bench, timing.Effort(1, REPEAT_SECONDS, REPEAT_SECONDS))}
    for name, play in players.items():
        if name not in counts:
            counts[name] = 50
            for _ in range(3):  # warms it, too
                counts[name] = max(1, round(counts[name] * REPEAT_SECONDS / play(counts[name])["seconds"]))
    samples = {name: [] for name in players}
    for _ in range(REPEATS):
        for name, play in players.items():
            samples[name].append(play(counts[name]))
    return [
        {
            "who": name,
            "num_envs": num_envs,
            "frames_per_second": float(np.median([counts[name] * num_envs / s["seconds"] for s in taken])),
            "frames_per_cpu_second": float(np.median([counts[name] * num_envs / s["cpu_seconds"] for s in taken])),
        }
        for name, taken in samples.items()
    ]


if __name__ == "__main__":
    cli.run(main)
