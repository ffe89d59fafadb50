"""Rows and the table of a comparison with peers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import results
from benchmarks.peers import contenders, environments
from benchmarks.peers.contenders import BARS, OURS, PEERS, WORTHY, WORTHY_OPERATIONS
from benchmarks.timing import median_and_spread


def machine() -> dict[str, Any]:
    """Machine, versions of ours and of the peers, commit and date."""
    where = results.machine("/CPU:0")
    versions = pins()
    for package in ("jax", "tf-agents", "stable_baselines3", "torch", "gymnasium"):
        where["versions"][package] = versions[package]
    return where


def pins() -> dict[str, str]:
    """The exact version of every package in the peers' environments."""
    found = {}
    for name in {peer.environment: None for peer in PEERS.values() if peer.environment}:
        for path, _ in environments.REQUIREMENTS[name]:
            # One pin a line; what follows it are a marker, hashes, or a comment.
            found |= dict(re.findall(r"^([A-Za-z0-9_.-]+)==([^\s;]+)", path.read_text(encoding="utf-8"), re.MULTILINE))
    return found


def rate_rows(row: str, timed: Mapping[str, Sequence[Mapping[str, float]]]) -> list[dict[str, Any]]:
    """Two rows a contender. `ratio`: how many times faster tfdqn is in the same repeat, the median over repeats."""
    found = []
    for name, samples in timed.items():
        for metric in ("env_frames", "updates"):
            line = _empty(row, name, metric, f"{metric.replace('_', ' ')}/s")
            line["median"], line["spread"] = median_and_spread([s[metric] / s["seconds"] for s in samples])
            # By processor time: what it would be if nothing else had run, and nothing had waited.
            line["per_cpu_second"] = median_and_spread([s[metric] / s["cpu_seconds"] for s in samples])[0]
            line["matmul_operations_per_second"] = median_and_spread(
                [s["matmul_operations_per_second"] for s in samples]
            )[0]
            if name != OURS:
                pairs = list(zip(timed[OURS], samples, strict=True))
                ratios = [(o[metric] / o["seconds"]) / (p[metric] / p["seconds"]) for o, p in pairs]
                line["ratio"], line["ratio_spread"] = median_and_spread(ratios)
                by_cpu = [(o[metric] / o["cpu_seconds"]) / (p[metric] / p["cpu_seconds"]) for o, p in pairs]
                line["cpu_ratio"] = median_and_spread(by_cpu)[0]
                if metric == "env_frames":
                    line["bar"], line["aim"] = BARS.get((name, row), (None, None))
            found.append(line)
    return found


def learning_rows(row: str, name: str, result: Mapping[str, Any], max_seconds: float) -> list[dict[str, Any]]:
    """Time to a perfect evaluation; `median` is None where it was not reached in `limit` seconds."""
    line = _empty(row, name, "perfect catch8", "s")
    line["median"] = result["seconds"] if result["is_perfect"] else None
    return [line | {"limit": max_seconds} | {key: result[key] for key in ("env_frames", "updates", "best")}]


def judge(rows: Sequence[dict[str, Any]]) -> None:
    """Say in the JAX loop's rows whether it counts as a peer; `counts` is None if it is quick and was not trained."""
    learnt = {row["variant"]: row for row in rows if (row["contender"], row["metric"]) == ("jax", "perfect catch8")}
    for row in rows:
        if (row["contender"], row["metric"]) == ("jax", "env_frames") and row["variant"] in WORTHY:
            learning = learnt.get(row["variant"])
            row["counts"] = None if learning is None else learning["median"] is not None
            if row["median"] < _frames_needed(row):
                row["counts"] = False


def _frames_needed(row: Mapping[str, Any]) -> float:
    """Env frames a second at which the JAX loop is quick, by the machine's matmul rate."""
    return WORTHY[row["variant"]] * row["matmul_operations_per_second"] / WORTHY_OPERATIONS


def _empty(row: str, name: str, metric: str, unit: str) -> dict[str, Any]:
    spec = contenders.spec(row)
    line = results.empty_row(spec, metric, unit)
    for key in ("floor", "reference"):
        del line[key]
    line |= {"case": "peers", "contender": name, "ratio_spread": None, "bar": None, "aim": None}
    return line | ({"threads": 1} if contenders.has_one_thread(row, name) else {})


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """For people: a line a contender and row, as Markdown; what the JAX loop is worth, where `judge` has said so."""
    head = ["row", "contender", "env frames/s", "updates/s", "tfdqn's times as many", "bar", "perfect catch8"]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    by = {(row["variant"], row["contender"], row["metric"]): row for row in rows}
    for variant, name in dict.fromkeys((row["variant"], row["contender"]) for row in rows):
        frames, updates = by.get((variant, name, "env_frames")), by.get((variant, name, "updates"))
        title = PEERS[name].title if name != OURS else OURS
        cells = [f"{frames['env']} N = {frames['num_envs']}, batch {frames['batch']}", title]
        cells += [f"{results.number(r['median'])} (±{r['spread'] / 2:.0%})" for r in (frames, updates)]
        ratio = frames["ratio"]
        cells.append("" if ratio is None else f"{results.number(ratio)} (±{frames['ratio_spread'] / 2:.0%})")
        bar = frames["bar"]
        cells.append("" if bar is None else f"{results.number(bar)}: {'met' if ratio >= bar else 'not met'}")
        cells.append(_learning(by.get((variant, name, "perfect catch8"))))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, *(_worth(row) for row in rows if "counts" in row)])


def _learning(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return ""
    if row["median"] is None:
        return f"not reached in {row['limit']:g} s (best {row['best']:.1f})"
    return f"{row['median']:.1f} s, {results.number(row['env_frames'])} frames"


def _worth(row: Mapping[str, Any]) -> str:
    unknown = "is quick enough; not known to learn: add --learn"
    verdict = {True: "counts", False: "DOES NOT COUNT", None: unknown}[row["counts"]]
    return (
        f"{row['variant']}: the JAX loop {verdict} ({results.number(row['median'])} env frames/s, needed "
        f"{results.number(_frames_needed(row))} at {row['matmul_operations_per_second'] / 1e9:.0f} GFLOP/s)"
    )
