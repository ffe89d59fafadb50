"""What XLA made of a program: its optimized and scheduled HLO text, read. Standard library only.

Every instruction that is left in a computation which runs, and is none of those that only name things, is one launch: a
kernel, a library's call or a copy.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator

MIB = 2**20
_BITS = {"pred": 8, "bf16": 16, "c64": 64, "c128": 128, "token": 0}  # the others' names say theirs
# No launches: they name, group or order what others compute, or are loops and calls, whose insides are counted.
_NAMING = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "partition-id", "replica-id"}
_ORDERING = {"after-all", "add-dependency", "opt-barrier", "domain", "copy-done", "async-done", "async-update"}
_NO_LAUNCH = {*_NAMING, *_ORDERING, "while", "call", "conditional"}
_HOST = {"infeed", "outfeed", "send", "send-done", "recv", "recv-done"}
_HOST_MEMORY = re.compile(r"\{[^{}]*S\(5\)[^{}]*\}")  # a layout in XLA's memory space 5: the host's
_HOST_CALL = re.compile(r"callback|MoveToHost|MoveToDevice|PyBuffer", re.IGNORECASE)
_WRITING_INTO = {"dynamic-update-slice", "scatter"}
_PRODUCTS = re.compile(r"__(cublas|cudnn)")
# They move values or write them in another type, and compute none; a frame's bytes as floats from 0 to 1 count, too.
_MOVING = {"copy", "copy-start", "transpose", "reshape", "slice", "concatenate", "pad", "reverse", "convert"}
_SCALING = {"multiply", "divide"}
_FILLING = {*_NAMING, "broadcast"}  # a kernel of nothing but these reads nothing


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a computation."""

    name: str
    shape: str
    opcode: str
    operands: str
    attributes: str

    @property
    def bytes(self) -> int:
        """The size of its result."""
        return bytes_of(self.shape)

    @property
    def op_name(self) -> str:
        """What it was in TensorFlow, such as "while/while/MatMul"; empty where XLA does not say."""
        found = re.search(r'op_name="([^"]*)"', self.attributes)
        return found[1] if found else ""

    def called(self, *keys: str) -> list[str]:
        """The computations that it names under such keys, as "body"."""
        found = []
        for key in keys:
            for one, several in re.findall(rf"\b{key}=(?:%?([\w.\-]+)|\{{([^}}]*)\}})", self.attributes):
                found += [one] if one else [name.strip().lstrip("%") for name in several.split(",")]
        return found


@dataclasses.dataclass(frozen=True)
class Module:
    """A program: its computations by name, and which of them it begins with."""

    header: str
    computations: dict[str, list[Instruction]]
    entry: str


@dataclasses.dataclass(frozen=True)
class Loop:
    """A computation that runs from end to end, and the loops in it; the whole program is one without turns.

    Attributes:
      op_name: the loop's name in TensorFlow.
      turns: how often it runs each time it is come to, as far as is known.
      is_dynamic: only the program finds that out: before every turn the host asks the device for the condition.
      launches: of one turn, without those of the loops in it.
      condition: launches of its condition, before every turn and once after the last.
      work: the instructions that are launched in a turn, without those of the loops in it.
    """

    op_name: str
    turns: int | None
    is_dynamic: bool
    condition: int
    work: tuple[Instruction, ...]
    loops: tuple[Loop, ...]

    @property
    def launches(self) -> int:
        return len(self.work)

    def with_turns(self, unknown: int) -> Loop:
        """The same where the loops in it whose turns are not known have `unknown` ones.

        But the gradient of a loop, which TensorFlow names after it, turns as often as the loop.
        """
        known = {loop.op_name: loop.turns for loop in self.loops}
        loops = []
        for loop in self.loops:
            turns = loop.turns
            if turns is None and loop.op_name.endswith("_grad"):
                origin = loop.op_name.rsplit("/", 1)[-1].removesuffix("_grad")
                turns = next((n for name, n in known.items() if name.rsplit("/", 1)[-1] == origin), None)
            loops.append(dataclasses.replace(loop.with_turns(unknown), turns=unknown if turns is None else turns))
        return dataclasses.replace(self, loops=tuple(loops))

    def total(self) -> int:
        """Launches of one turn with all turns of the loops in it, all of which must be known."""
        return self.launches + sum(loop.all_turns() for loop in self.loops)

    def all_turns(self) -> int:
        """Launches from the first look at its condition to the last."""
        # One whose turns XLA counts needs no condition on the device.
        looks = self.condition * (self.turns + 1) if self.is_dynamic else 0
        return looks + self.turns * self.total()

    def walk(self) -> Iterator[Loop]:
        """The loops in it, an outer one before those in it."""
        for loop in self.loops:
            yield loop
            yield from loop.walk()


def bytes_of(shape: str) -> int:
    """The size of a shape, such as "(f32[2,3]{1,0}, s32[])"."""
    return sum(
        _bits(kind) * math.prod(int(size) for size in sizes.split(",") if size) // 8
        for kind, sizes in re.findall(r"\b([a-z]+\d*\w*)\[([\d,]*)\]", shape)
    )


def _bits(kind: str) -> int:
    if kind in _BITS:
        return _BITS[kind]
    found = re.match(r"[a-z]+(\d+)", kind)
    return int(found[1]) if found else 0


def parse(text: str) -> Module:
    """Read a module's text.

    Raises:
      ValueError: it is none.
    """
    computations: dict[str, list[Instruction]] = {}
    current: list[Instruction] | None = None
    header, entry = "", ""
    for line in text.splitlines():
        if line.startswith("HloModule"):
            header = line
        elif line.startswith("}"):
            current = None
        elif current is None:
            begin = re.match(r"(ENTRY )?%?([\w.\-]+) .*\{$", line)
            if begin:
                current = computations.setdefault(begin[2], [])
                entry = begin[2] if begin[1] else entry
        elif (instruction := _instruction(line)) is not None:
            current.append(instruction)
    if not header or not entry:
        raise ValueError("no HLO module: it has no HloModule line, or no ENTRY computation")
    return Module(header, computations, entry)


def _instruction(line: str) -> Instruction | None:
    head = re.match(r"\s+(?:ROOT )?%?([\w.\-]+) = ", line)
    if not head:
        return None
    rest = line[head.end() :]
    end = _closing(rest, 0) if rest.startswith("(") else re.match(r"\S*", rest).end()
    opcode = re.match(r"\s*([a-z][\w\-]*)(?=\()", rest[end:])
    if not opcode:
        return None
    begin = end + opcode.end()
    stop = _closing(rest, begin)
    return Instruction(head[1], rest[:end], opcode[1], rest[begin + 1 : stop - 1], rest[stop:])


def _closing(text: str, begin: int) -> int:
    """Behind the bracket that closes the one at `begin`."""
    depth = 0
    for bracket in re.finditer(r"[()]", text[begin:]):
        depth += 1 if bracket[0] == "(" else -1
        if depth == 0:
            return begin + bracket.end()
    return len(text)


def tree(module: Module) -> Loop:
    """The program as loops in loops."""
    work, loops = _inside(module, module.entry)
    return Loop("", 1, False, 0, tuple(work), tuple(loops))


def _inside(module: Module, name: str) -> tuple[list[Instruction], list[Loop]]:
    """What a computation launches by itself, and its loops; a branch counts with all its ways."""
    work: list[Instruction] = []
    loops: list[Loop] = []
    for instruction in module.computations[name]:
        if instruction.opcode == "while":
            loops.append(_loop(module, instruction))
        elif instruction.opcode in ("call", "conditional"):
            keys = ("to_apply", "called_computations", "branch_computations", "true_computation", "false_computation")
            for called in instruction.called(*keys):
                more, inner = _inside(module, called)
                work += more
                loops += inner
        elif instruction.opcode not in _NO_LAUNCH:
            work.append(instruction)
    return work, loops


def _loop(module: Module, instruction: Instruction) -> Loop:
    turns = re.search(r'known_trip_count"?:\{"?n"?:"?(\d+)', instruction.attributes)
    (body,), (condition,) = instruction.called("body"), instruction.called("condition")
    work, loops = _inside(module, body)
    looks, _ = _inside(module, condition)
    known = int(turns[1]) if turns else None
    return Loop(instruction.op_name, known, known is None, len(looks), tuple(work), tuple(loops))


def copies(module: Module, loop: Loop, least: int = MIB) -> list[Instruction]:
    """What in a turn of a loop only moves or scales values and writes `least` bytes or more; not of the loops in it."""
    return [each for each in loop.work if each.bytes >= least and _only_moves(module, each)]


def _only_moves(module: Module, instruction: Instruction) -> bool:
    if instruction.opcode != "fusion":
        return instruction.opcode in _MOVING
    fused = _fused(module, instruction)
    inside = [each for name in instruction.called("calls") for each in module.computations.get(name, [])]
    scales = "convert" in fused and all(_scales(each, inside) for each in inside if each.opcode in _SCALING)
    return fused - (_SCALING if scales else set()) <= _MOVING | _FILLING and not fused <= _FILLING


def _scales(instruction: Instruction, inside: list[Instruction]) -> bool:
    """Whether it multiplies or divides by one number: two arrays are multiplied with each other."""
    by_name = {each.name: each for each in inside}
    for name in re.findall(r"%([\w.\-]+)", instruction.operands):
        each = by_name.get(name)
        while each is not None and each.opcode in ("broadcast", "bitcast", "reshape"):
            each = by_name.get(each.operands.lstrip("%"))
        if each is not None and (each.opcode == "constant" or each.shape.split("{")[0].endswith("[]")):
            return True
    return False


def _fused(module: Module, instruction: Instruction) -> set[str]:
    """What a fusion does."""
    return {each.opcode for name in instruction.called("calls") for each in module.computations.get(name, [])}


def is_written_anew(module: Module, instruction: Instruction, shape: str) -> bool:
    """Whether an instruction makes something of that shape and type from scratch, not by writing into what is there."""
    if shape.split("{")[0] not in instruction.shape:
        return False
    if instruction.opcode == "fusion":
        return not _fused(module, instruction) & _WRITING_INTO
    return instruction.opcode not in _WRITING_INTO


def aliased(module: Module) -> dict[int, str]:
    """The shapes of the arguments that the program may write its results over, by number."""
    found = re.search(r"input_output_alias=\{(.*?)\}, \w+=", module.header)
    numbers = [int(number) for number in re.findall(r"\((\d+), \{", found[1])] if found else []
    shapes = {
        int(each.operands): each.shape
        for each in module.computations[module.entry]
        if each.opcode == "parameter" and each.operands.isdigit()
    }
    return {number: shapes[number] for number in numbers if number in shapes}


def host_transfers(module: Module) -> list[str]:
    """The instructions that wait for the host or move something to it or from it, as "opcode name"."""
    found = []
    for instructions in module.computations.values():
        for each in instructions:
            calls_host = each.opcode == "custom-call" and _HOST_CALL.search(each.attributes)
            lies_there = each.opcode not in ("tuple", "get-tuple-element") and _HOST_MEMORY.search(each.shape)
            if each.opcode in _HOST or calls_host or lies_there:
                found.append(f"{each.opcode} {each.name}")
    return found


def precisions(module: Module) -> list[str]:
    """How exactly the factors of the program's products are taken: of bfloat16, float32, tf32 those that occur."""
    found = set()
    for instructions in module.computations.values():
        kinds = {each.name: each.shape.split("[")[0] for each in instructions}
        for each in instructions:
            is_call = each.opcode == "custom-call" and _PRODUCTS.search(each.attributes)
            if each.opcode in ("dot", "convolution") or is_call:
                factors = [kinds.get(name, "") for name in re.findall(r"%([\w.\-]+)", each.operands)[:2]]
                found.add(_precision(factors, each.attributes))
    return sorted(found - {None})


def _precision(factors: list[str], attributes: str) -> str | None:
    if "bf16" in factors:
        return "bfloat16"
    if "f32" not in factors:
        return None
    algorithm = re.search(r"algorithm=(\w+)|\"algorithm\":\"ALG_(\w+)\"", attributes)
    if algorithm and "unset" not in attributes[algorithm.start() : algorithm.end()].lower():
        word = (algorithm[1] or algorithm[2]).lower()
        return "tf32" if "tf32" in word else "bfloat16" if "bf16" in word else "float32"
    return "float32" if re.search(r"operand_precision[\"=:\[{]+\"?highest", attributes, re.IGNORECASE) else "tf32"
