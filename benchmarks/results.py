"""Rows of results: what was measured, against what, on which machine."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import floor
from benchmarks.specs import Spec
from benchmarks.timing import Bench, Sample, median_and_spread

ROOT = Path(__file__).resolve().parent.parent


def machine(device: str) -> dict[str, Any]:
    """What every row says about where it comes from; no names of machines or users."""
    import numpy
    import tensorflow as tf

    import tfdqn

    described = "CPU"
    if "GPU" in device:
        gpu = tf.config.get_visible_devices("GPU")[0]
        described = tf.config.experimental.get_device_details(gpu).get("device_name", "GPU")
    return {
        "device": described,
        "cpu": cpu_name(),
        "threads": threads(),
        "load_before": round(os.getloadavg()[0], 2),  # processes that wanted to run in the last minute
        "versions": {
            "tfdqn": tfdqn.__version__,
            "tensorflow": tf.__version__,
            "numpy": numpy.__version__,
            "python": platform.python_version(),
        },
        "commit": commit(),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def threads() -> int:
    """CPU threads that share one operation in this process: as `devices.choose_device` or the user chose, or all."""
    chosen = os.environ.get("TF_NUM_INTRAOP_THREADS", "")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (int(chosen) if chosen.isdigit() else 0) or cores


def placed(row: dict[str, Any], where: dict[str, Any]) -> dict[str, Any]:
    """A row and where it comes from; what it says of itself counts, such as the threads of its own process."""
    return row | where | row


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def commit() -> str:
    """The tree's commit, with "+" where it has been changed since; "" outside git."""
    try:
        command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"]
        return subprocess.run(command, capture_output=True, text=True, check=True, encoding="utf-8").stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def empty_row(spec: Spec, metric: str | None, unit: str | None) -> dict[str, Any]:
    from tfdqn.envs import make

    return {
        "name": spec.name,
        "case": spec.case,
        "env": spec.env,
        "variant": spec.variant,
        "num_envs": spec.num_envs,
        "batch": spec.batch,
        "metric": metric,
        "unit": unit,
        "median": None,
        "spread": None,
        "floor": None,
        "ratio": None,
        "reference": None,
        "game_version": make(spec.env).version,
    }


def rate_rows(spec: Spec, bench: Bench, samples: Sequence[Sample], limits: dict[str, Sequence[Sample]]) -> list[dict]:
    """One row a metric. `ratio` is the share of the limit that is reached: the median over repeats, each against the
    limits as they were in the same repeat."""
    rows = []
    for metric, unit in bench.units.items():
        rates = [sample.work[metric] / sample.seconds for sample in samples]
        row = empty_row(spec, metric, unit)
        row["median"], row["spread"] = median_and_spread(rates)
        bounds = []
        for sample, copy, matmul in zip(samples, limits["floor/copy"], limits["floor/matmul"], strict=True):
            seconds, reference = floor.seconds_at_best(bench, copy, matmul)
            if seconds:
                bounds.append(sample.work[metric] / sample.count / seconds)
                row["reference"] = reference
        if bounds:
            row["floor"] = median_and_spread(bounds)[0]
            row["ratio"] = median_and_spread([rate / bound for rate, bound in zip(rates, bounds, strict=True)])[0]
        rows.append(row)
    return rows


def limit_rows(case: str, limits: dict[str, Sequence[Sample]]) -> list[dict[str, Any]]:
    """The machine's limits as they were during a case."""
    rows = []
    for name, metric, unit in (("floor/copy", "bytes", "B/s"), ("floor/matmul", "operations", "operations/s")):
        median, spread = median_and_spread([sample.work[metric] / sample.seconds for sample in limits[name]])
        row = dict.fromkeys(("env", "num_envs", "batch", "floor", "ratio", "reference", "game_version"))
        row |= {"name": f"{name}/{case}", "case": "floor", "variant": name.split("/")[1], "metric": metric}
        rows.append(row | {"unit": unit, "median": median, "spread": spread})
    return rows


def cost_row(
    spec: Spec, metric: str, unit: str, values: Sequence[float], bound: float | None, reference: str | None
) -> dict[str, Any]:
    """A row of a metric where less is better; its `ratio` is floor over median, so 1 is the limit here as well."""
    row = empty_row(spec, metric, unit)
    row["median"], row["spread"] = median_and_spread(values)
    if bound:
        row["floor"], row["ratio"], row["reference"] = bound, bound / row["median"], reference
    return row


def skipped_row(spec: Spec, reason: str, *, failed: bool = False) -> dict[str, Any]:
    """In the place of numbers: `skipped` says why there are none, `failed` that they were to be expected."""
    return empty_row(spec, None, None) | {"skipped": reason, "failed": failed}


def derived_rows(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What two rows of one run say together: the replay's share of an iteration, and its growth with the replay."""
    rate = {(row["name"], row["metric"]): row["median"] for row in rows}
    found = []

    def add(name, metric, share, reference, like):
        row = {key: like[key] for key in like} | {"name": name, "metric": metric, "unit": "1", "median": share}
        found.append(row | {"spread": None, "floor": None, "ratio": None, "reference": reference})

    for row in rows:
        if row["case"] != "loop" or row["metric"] != "updates":
            continue
        sample = rate.get((f"replay/{row['env']}/sample/n{row['num_envs']}/b{row['batch']}", "transitions"))
        if row["variant"] == "large-full-cave" and sample:  # the same stack, n-step, batch and rows
            share = row["median"] * row["batch"] / sample
            add(row["name"], "sample share of an iteration's time", share, "replay sample", row)
        for grown in ("large-1-percent", "large-full"):
            if row["variant"].startswith(grown):
                small = row["name"].replace(grown, "small-full")
                if (small, "updates") in rate:
                    slower = rate[small, "updates"] / row["median"]
                    add(row["name"], "time of an iteration against a small replay", slower, small, row)
    return found


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows for people."""
    lines = [f"{'name':<44} {'metric':<14} {'median':>12} {'spread':>7} {'floor':>12} {'ratio':>7}  reference"]
    for row in rows:
        spread = f"{row['spread']:.1%}" if row["spread"] is not None else ""
        ratio = f"{row['ratio']:.3%}" if row["ratio"] is not None else ""
        lines.append(
            f"{row['name']:<44} {row['metric'] or 'skipped':<14} {number(row['median']):>12} {spread:>7} "
            f"{number(row['floor']):>12} {ratio:>7}  {row['reference'] or row.get('skipped') or ''}"
        )
    return "\n".join(line.rstrip() for line in lines)


def number(value: float | None) -> str:
    """Four digits that matter, thousands apart."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
