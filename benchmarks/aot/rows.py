"""A row of what a compiled program is like, and whether one is worse than another. Standard library only."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.aot import hlo
from benchmarks.aot.cases import Case

# What is counted in whole launches; a decision's and an update's are those of one turn.
LAUNCHES = ("launches_iteration", "launches_interaction", "launches_update", "launches_chunk")


def row(case: Case, program: Mapping[str, Any], compiled: Mapping[str, Any], text: str) -> dict[str, Any]:
    """What a program is like.

    Args:
      case: which one.
      program: what `lowering` says of it.
      compiled: what `compiling` says of it.
      text: its optimized HLO.

    Raises:
      ValueError: it is no training program.
    """
    module = hlo.parse(text)
    whole = hlo.tree(module)
    rounds, update = _rounds_and_update(whole, program["updates"])
    iterations = program["iterations"]
    interaction = _interaction(rounds, iterations)
    turns = rounds.total() + rounds.condition
    own = rounds.launches if interaction is None else interaction.total()
    # Where a round is one update there is no loop of them: it is what the round does but its decisions.
    learning = update.total() if update else turns - (interaction.all_turns() if interaction else own)
    found = [
        {
            "loop": loop.op_name,
            "what": f"{each.opcode} {each.shape}",
            "made_by": each.op_name,
            "mib": _mib(each.bytes),
            "times": times,
        }
        for loop, times in _times(rounds, 1)
        for each in hlo.copies(module, loop)
    ]
    transfers = hlo.host_transfers(module)
    if compiled["host_bytes"]:
        transfers.append(f"{compiled['host_bytes']} bytes of the host's memory")
    return {
        **_named(case),
        "compiled": True,
        "launches_iteration": -(-turns // iterations),
        "launches_interaction": own,
        "launches_update": learning,
        "launches_chunk": whole.launches,
        "iterations_a_round": iterations,
        "dynamic_loops": [loop.op_name for loop in whole.walk() if loop.is_dynamic],
        "in_place": _is_in_place(module, whole) if program["has_replay"] else None,
        "copies_mib": round(sum(each["mib"] * each["times"] for each in found) / iterations, 1),
        "copies": found,
        "host_transfers": transfers,
        "precision": "+".join(hlo.precisions(module)),
        "temporary_mib": _mib(compiled["temporary_bytes"]),
    }


def failed_row(case: Case, words: str) -> dict[str, Any]:
    """The row of a program that could not be made or compiled; `words` say why."""
    return {**_named(case), "compiled": False, "error": words}


def _named(case: Case) -> dict[str, str]:
    return {"case": f"{case.env}/{case.preset}", "learner": case.who}


def _mib(size: int) -> float:
    return round(size / hlo.MIB, 1)


def _rounds_and_update(whole: hlo.Loop, updates: int) -> tuple[hlo.Loop, hlo.Loop | None]:
    """The loop of rounds, with turns for the loops in it, and that of updates in it, if there is one.

    A program is a loop of rounds; an earlier one was a loop until reports are due, and in it one of rounds. An update
    is where gradients are: a single one of a round is no loop.
    """
    path = _path_to_gradients(whole)
    if not path:
        raise ValueError("no training program: no gradients in a loop of rounds")
    rounds = path[len(path) > 1 and path[0].is_dynamic and path[1].is_dynamic].with_turns(updates)
    path = _path_to_gradients(rounds)
    return rounds, path[-1] if path else None


def _path_to_gradients(outer: hlo.Loop) -> list[hlo.Loop]:
    """The loops, from the outermost in `outer`, down to the first that itself computes gradients."""
    for loop in outer.loops:
        if any("gradient_tape" in each.op_name for each in loop.work):
            return [loop]
        if below := _path_to_gradients(loop):
            return [loop, *below]
    return []


def _interaction(rounds: hlo.Loop, iterations: int) -> hlo.Loop | None:
    """The loop of decisions; None where a round is one decision.

    Raises:
      ValueError: there is none where there should be.
    """
    if iterations == 1:
        return None
    for loop in rounds.loops:
        if loop.op_name == f"{rounds.op_name}/while":  # the first one that is made in a round
            return loop
    raise ValueError(f"no training program: no loop of {iterations} decisions in a round")


def _times(loop: hlo.Loop, times: int) -> Iterable[tuple[hlo.Loop, int]]:
    """A loop and those in it, each with how often a turn of it happens."""
    yield loop, times
    for inner in loop.loops:
        yield from _times(inner, times * inner.turns)


def _is_in_place(module: hlo.Module, whole: hlo.Loop) -> bool:
    """Whether the largest variable, which a replay's frames are, is only written into, and any other is not copied."""
    shapes = sorted(hlo.aliased(module).values(), key=hlo.bytes_of)
    if not shapes:
        return False
    large = [shape for shape in shapes if hlo.bytes_of(shape) >= hlo.MIB] or shapes[-1:]
    work = [each for loop in (whole, *whole.walk()) for each in loop.work]
    copied = any(
        each.opcode.startswith("copy") and hlo.is_written_anew(module, each, s) for each in work for s in large
    )
    return not copied and not any(hlo.is_written_anew(module, each, large[-1]) for each in work)


def worse(base: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """In what a program is worse than the base's; nothing where the base had none to compare with."""
    if not base["compiled"]:
        return []
    if not new["compiled"]:
        return [f"does not compile any more: {new['error']}"]
    found = [f"{name}: {new[name]}, {base[name]} in the base" for name in LAUNCHES if new[name] > base[name]]
    for name, title in (
        ("dynamic_loops", "loop whose turns are not known"),
        ("host_transfers", "transfer to the host"),
    ):
        if len(new[name]) > len(base[name]):
            found.append(f"a new {title}: {', '.join(_more(base[name], new[name]))}")
    copies = [[f"{each['mib']} MiB {each['what']} in {each['loop']}" for each in row["copies"]] for row in (base, new)]
    if len(copies[1]) > len(copies[0]) or new["copies_mib"] > base["copies_mib"]:
        found.append(f"a new copy: {', '.join(_more(*copies)) or 'an old one more often'}")
    for name, words in (("in_place", "the replay is copied"), ("one_graph", "no longer one CUDA graph")):
        if base[name] and not new[name]:
            found.append(words)
    if "tf32" in new["precision"] and "tf32" not in base["precision"]:
        found.append("products of float32 are rounded to TF32")
    return found


def _more(base: Sequence[str], new: Sequence[str]) -> list[str]:
    """What there is more of than in the base."""
    return sorted((collections.Counter(new) - collections.Counter(base)).elements())


COLUMNS = (
    "case",
    "learner",
    "compiles",
    "launches an iteration",
    "a decision",
    "an update",
    "once a chunk",
    "loops of unknown turns",
    "replay in place",
    "copies, MiB an iteration",
    "host transfers",
    "products",
    "temporary, MiB",
    "one CUDA graph",
)


def table(rows: Iterable[Mapping[str, Any]]) -> str:
    """The rows in Markdown."""
    lines = [COLUMNS, ["---"] * len(COLUMNS)]
    for each in rows:
        if "launches_iteration" not in each:
            lines.append([each["case"], each["learner"], f"no: {each['error']}", *[""] * (len(COLUMNS) - 3)])
            continue
        answers = {True: "yes", False: "no", None: "-"}
        lines.append(
            [
                each["case"],
                each["learner"],
                "yes" if each["compiled"] else f"only {each['with']}",
                *(f"{each[name]:,}" for name in LAUNCHES),
                str(len(each["dynamic_loops"])),
                answers[each["in_place"]],
                f"{each['copies_mib']:g}",
                str(len(each["host_transfers"]) or "none"),
                each["precision"] or "none",
                f"{each['temporary_mib']:g}",
                answers[each["one_graph"]],
            ]
        )
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
