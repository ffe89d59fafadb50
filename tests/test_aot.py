"""Programs compiled for a GPU that is not there: what is read in them, and what fails a comparison."""

import json
import re
import sys
from pathlib import Path

import pytest

from benchmarks import line
from benchmarks.aot import __main__ as aot
from benchmarks.aot import cases, hlo, rows
from benchmarks.peers import environments
from tests import aot_programs
from tfdqn import learners
from tfdqn.envs import registry
from tfdqn.errors import UserError

ROOT = Path(__file__).parent.parent
CASE = cases.Case("catch8", "default", "dqn")
COMPILED = {"temporary_bytes": 3 * 2**19, "host_bytes": 0}
BY_NUMBER = {iterations: name for name, iterations in aot_programs.PROGRAMS.items()}


def recorded(iterations):
    return (aot_programs.DATA / f"{BY_NUMBER[iterations]}.hlo.txt").read_text("utf-8")


def row_of(iterations, text=None, **changes):
    """The row of a recorded program, of which `text` is what has become of it."""
    found = rows.row(CASE, aot_programs.told(iterations), COMPILED | changes, text or recorded(iterations))
    return found | {"one_graph": True}


# Reading.


def test_launches_are_counted_by_decision_update_round_and_chunk():
    """By hand, from the recorded texts: a round's own, its loops' and, where turns are not known, their conditions'."""
    one, four = row_of(1), row_of(4)
    assert [one[name] for name in rows.LAUNCHES] == [8 + (5 * 7 + 6) + 1, 8, 7, 5]
    assert [four[name] for name in rows.LAUNCHES] == [-(-(4 + 4 * 6 + 2 * (2 + 3 * 7) + 1) // 4), 6, 7, 5]
    assert one["dynamic_loops"] == ["while", "while/while", "while/while/while"]
    assert four["dynamic_loops"] == ["while", "while/while"]
    for found in (one, four):
        assert (found["in_place"], found["copies"], found["host_transfers"]) == (True, [], [])
        assert (found["precision"], found["temporary_mib"]) == ("float32", 1.5)
        assert json.loads(json.dumps(found)) == found


def test_rounds_are_the_outermost_loop_or_that_in_a_loop_of_reports():
    """As today's programs, whose updates are counted or one that is no loop, and as earlier ones."""
    gradient = hlo.Instruction("g", "f32[2]", "fusion", "", 'metadata={op_name="gradient_tape/while/MatMul"}')

    def program(*loops):  # from the outermost: name, turns and work
        inner = ()
        for name, turns, work in reversed(loops):
            inner = (hlo.Loop(name, turns, turns is None, int(turns is None), work, inner),)
        return hlo.Loop("", 1, False, 0, (), inner)

    def found(*loops):
        rounds, update = rows._rounds_and_update(program(*loops), 4)
        return rounds.op_name, update and (update.op_name, update.turns)

    assert found(("while", None, ()), ("while/while", 4, (gradient,))) == ("while", ("while/while", 4))
    assert found(("while", None, (gradient,))) == ("while", None)
    earlier = [("while", None, ()), ("while/while", None, ()), ("while/while/while", None, (gradient,))]
    assert found(*earlier) == ("while/while", ("while/while/while", 4))
    with pytest.raises(ValueError, match="no gradients"):
        found(("while", None, ()))


@pytest.mark.parametrize("iterations", BY_NUMBER)
def test_every_line_of_a_computation_is_read(iterations):
    text = recorded(iterations)
    module = hlo.parse(text)
    assert sum(map(len, module.computations.values())) == len(re.findall(r"^  (?:ROOT )?%?\S+ = ", text, re.MULTILINE))
    called = {name for each in module.computations.values() for i in each for name in i.called("body", "calls")}
    assert called <= module.computations.keys() and module.entry in module.computations


def test_a_round_without_a_loop_of_updates_learns_in_itself():
    """As A2C: the update is what a round does beside its decisions."""
    text = recorded(4).replace("gradient_tape", "elsewhere")
    gradient = '%planted = f32[64]{0} rng-bit-generator(%PART), metadata={op_name="gradient_tape/while/while/MatMul"}'
    found = row_of(4, planted(text, gradient))
    assert (found["launches_interaction"], found["launches_update"]) == (6, (4 + 1) + 2 * (2 + 3 * 7) + 1)


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ("f32[2,3]{1,0}", 24),
        ("(bf16[8]{0}, (s64[], pred[5]{0}), u8[2,2,2]{2,1,0:S(5)})", 16 + 8 + 5 + 8),
        ("token[]", 0),
        ("f8e4m3fn[16]{0}", 16),
        ("s4[10]{0}", 5),
    ],
)
def test_bytes_of_shapes(shape, size):
    assert hlo.bytes_of(shape) == size


def test_a_loops_gradient_turns_as_often_as_the_loop():
    body = hlo.Loop("a/while", 25, False, 1, (), ())
    gradient = hlo.Loop("gradient_tape/a/while/a/while_grad", None, True, 1, (), ())
    other = hlo.Loop("a/while_1", None, True, 1, (), ())
    outer = hlo.Loop("a", None, True, 1, (), (body, gradient, other)).with_turns(4)
    assert [loop.turns for loop in outer.loops] == [25, 25, 4]
    assert outer.total() == 26 + 5  # conditions, before each turn and after the last


@pytest.mark.parametrize(
    ("line", "precision"),
    [
        ("%d = f32[2,2]{1,0} dot(%a, %b), lhs_contracting_dims={1}, rhs_contracting_dims={0}", "tf32"),
        ("%d = f32[2,2]{1,0} dot(%a, %b), operand_precision={highest,highest}", "float32"),
        ("%d = f32[2,2]{1,0} dot(%a, %b), algorithm=dot_bf16_bf16_f32", "bfloat16"),
        ("%d = f32[2,2]{1,0} dot(%h, %h), lhs_contracting_dims={1}", "bfloat16"),
        ('%d = (f32[2,2]{1,0}, s8[8]{0}) custom-call(%a, %b), custom_call_target="__cublas$gemm", backend_config='
         '{"precision_config":{"operand_precision":["HIGHEST","HIGHEST"],"algorithm":"ALG_UNSET"}}', "float32"),
        ('%d = (f32[2,2]{1,0}, s8[8]{0}) custom-call(%a, %b), custom_call_target="__cudnn$convForward", backend_config='
         '{"precision_config":{"operand_precision":["DEFAULT","DEFAULT"],"algorithm":"ALG_UNSET"}}', "tf32"),
        ("%d = s32[2,2]{1,0} dot(%i, %i), lhs_contracting_dims={1}", None),
    ],
)  # fmt: skip
def test_precision_of_products(line, precision):
    text = f"""HloModule m

ENTRY %main (a: f32[2,2]) -> f32[2,2] {{
  %a = f32[2,2]{{1,0}} parameter(0)
  %b = f32[2,2]{{1,0}} parameter(1)
  %h = bf16[2,2]{{1,0}} parameter(2)
  %i = s32[2,2]{{1,0}} parameter(3)
  {line}
}}
"""
    assert hlo.precisions(hlo.parse(text)) == [each for each in (precision,) if each]


@pytest.mark.parametrize("text", ["", "no module", "HloModule m\n", recorded(1).replace("gradient_tape", "elsewhere")])
def test_what_is_no_training_program_is_refused(text):
    with pytest.raises(ValueError, match=r"no HLO module|no training program"):
        rows.row(CASE, aot_programs.told(1), COMPILED, text)


def test_a_round_whose_decisions_are_not_found_is_refused():
    text = recorded(4).replace('op_name="while/while/while"', 'op_name="while/while/while_7"')
    with pytest.raises(ValueError, match="no loop of 4 decisions"):
        row_of(4, text)


# What is planted into a recorded program, and must be found.


def planted(text, instruction, inside="while/while"):
    """One more line in the body of a loop; %PART in it is some value there."""
    [body] = {
        name for i in instructions(text) if i.opcode == "while" and i.op_name == inside for name in i.called("body")
    }
    begin = re.search(rf"^%{re.escape(body)} .*\{{\n", text, re.MULTILINE).end()
    part = re.match(r"\s*%(\S+) =", text[begin:])[1]
    return (
        text[: text.index("\n", begin) + 1]
        + f"  {instruction.replace('PART', part)}\n"
        + text[text.index("\n", begin) + 1 :]
    )


def instructions(text):
    return [each for found in hlo.parse(text).computations.values() for each in found]


HOST = [
    "%planted = ((f32[64]{0}), token[]) infeed(%PART), infeed_config=\"x\"",
    "%planted = token[] outfeed(%PART, %PART), outfeed_shape=f32[64]{0}",
    "%planted = (f32[64]{0}, u32[], token[]) send(%PART, %PART), channel_id=1, is_host_transfer=true",
    "%planted = (f32[64]{0}, u32[], token[]) recv(%PART), channel_id=1, is_host_transfer=true",
    "%planted = f32[64]{0:S(5)} copy(%PART)",
    '%planted = f32[64]{0} custom-call(%PART), custom_call_target="xla_ffi_python_gpu_callback"',
]  # fmt: skip


@pytest.mark.parametrize("iterations", BY_NUMBER)
@pytest.mark.parametrize("instruction", HOST)
def test_a_planted_host_transfer_is_found(iterations, instruction):
    found = row_of(iterations, planted(recorded(iterations), instruction))
    [words] = [words for words in rows.worse(row_of(iterations), found) if "host" in words]
    assert words.startswith("a new transfer to the host: ") and words.endswith(" planted")


def test_memory_of_the_host_is_a_transfer():
    assert row_of(1, host_bytes=100)["host_transfers"] == ["100 bytes of the host's memory"]


@pytest.mark.parametrize("iterations", BY_NUMBER)
def test_a_planted_launch_is_found_where_it_is(iterations):
    base, text = row_of(iterations), recorded(iterations)
    small = "%planted = f32[64]{0} rng-bit-generator(%PART)"
    inside = {1: ("while/while", "launches_interaction"), 4: ("while/while/while", "launches_interaction")}[iterations]
    assert named(base, row_of(iterations, planted(text, small, inside[0]))) == {"launches_iteration", inside[1]}
    update = {1: "while/while/while", 4: "while/while/while_1/while"}[iterations]
    assert named(base, row_of(iterations, planted(text, small, update))) == {"launches_iteration", "launches_update"}
    assert named(base, row_of(iterations, text.replace("ENTRY", "ENTRY", 1))) == set()
    entry = re.sub(r"(ENTRY .*\{\n)", r"\1  %planted = f32[64]{0} sort(%x)\n", text)
    assert named(base, row_of(iterations, entry)) == {"launches_chunk"}


def named(base, new):
    """What is worse, by its first word."""
    return {words.split(":")[0] for words in rows.worse(base, new)}


@pytest.mark.parametrize("iterations", BY_NUMBER)
def test_a_planted_copy_is_found(iterations):
    base = row_of(iterations)
    small = planted(recorded(iterations), "%planted = f32[1024,255]{1,0} copy(%PART)")
    assert row_of(iterations, small)["copies"] == []  # below a MiB
    large = row_of(iterations, planted(recorded(iterations), "%planted = f32[1024,256]{0,1} copy(%PART)"))
    assert large["copies"] == [
        {"loop": "while/while", "what": "copy f32[1024,256]{0,1}", "made_by": "", "mib": 1.0, "times": 1}
    ]
    assert "a new copy: 1.0 MiB copy f32[1024,256]{0,1} in while/while" in rows.worse(base, large)
    assert large["in_place"]  # it is another array


def test_copies_count_as_often_as_they_happen():
    text = planted(recorded(4), "%planted = f32[1024,256]{0,1} copy(%PART)", "while/while/while_1/while")
    assert row_of(4, text)["copies_mib"] == 2 * 3 * 1.0 / 4  # epochs, minibatches; decisions


def test_a_fusion_is_a_copy_if_it_only_moves():
    module = """HloModule m

%moving (p: u8[4,1024,1024]) -> f32[1024,1024] {
  %p = u8[4,1024,1024]{2,1,0} parameter(0)
  %s = u8[1,1024,1024]{2,1,0} slice(%p), slice={[0:1], [0:1024], [0:1024]}
  %b = u8[1024,1024]{1,0} bitcast(%s)
  ROOT %c = f32[1024,1024]{1,0} convert(%b)
}

%computing (q: f32[1024,1024]) -> f32[1024,1024] {
  %q = f32[1024,1024]{1,0} parameter(0)
  %t = f32[1024,1024]{0,1} transpose(%q), dimensions={1,0}
  ROOT %m = f32[1024,1024]{1,0} multiply(%q, %t)
}

%scaling (r: u8[1024,1024]) -> f32[1024,1024] {
  %r = u8[1024,1024]{1,0} parameter(0)
  %v = f32[1024,1024]{1,0} convert(%r)
  %n = f32[] constant(255)
  %d = f32[1024,1024]{1,0} broadcast(%n), dimensions={}
  ROOT %w = f32[1024,1024]{1,0} divide(%v, %d)
}

%scaling_two (k: u8[1024,1024], l: u8[1024,1024]) -> (f32[1024,1024], f32[1024,1024]) {
  %k = u8[1024,1024]{1,0} parameter(0)
  %l = u8[1024,1024]{1,0} parameter(1)
  %n = f32[] constant(255)
  %d = f32[1024,1024]{1,0} broadcast(%n), dimensions={}
  %x = f32[1024,1024]{1,0} convert(%k)
  %y = f32[1024,1024]{1,0} convert(%l)
  %g = f32[1024,1024]{1,0} divide(%x, %d)
  %h = f32[1024,1024]{1,0} divide(%y, %d)
  ROOT %o = (f32[1024,1024]{1,0}, f32[1024,1024]{1,0}) tuple(%g, %h)
}

%weighing (u: u8[1024,1024], e: f32[1024,1024]) -> f32[1024,1024] {
  %u = u8[1024,1024]{1,0} parameter(0)
  %e = f32[1024,1024]{1,0} parameter(1)
  %i = f32[1024,1024]{1,0} convert(%u)
  ROOT %j = f32[1024,1024]{1,0} multiply(%i, %e)
}

%filling () -> f32[1024,1024] {
  %z = f32[] constant(0)
  ROOT %f = f32[1024,1024]{1,0} broadcast(%z), dimensions={}
}

ENTRY %main (a: u8[4,1024,1024], b: f32[1024,1024]) -> f32[1024,1024] {
  %a = u8[4,1024,1024]{2,1,0} parameter(0)
  %b = f32[1024,1024]{1,0} parameter(1)
  %one = f32[1024,1024]{1,0} fusion(%a), kind=kLoop, calls=%moving
  %s = u8[1024,1024]{1,0} parameter(2)
  %two = f32[1024,1024]{1,0} fusion(%b), kind=kLoop, calls=%computing
  %scaled = f32[1024,1024]{1,0} fusion(%s), kind=kLoop, calls=%scaling
  %both = (f32[1024,1024]{1,0}, f32[1024,1024]{1,0}) fusion(%s, %s), kind=kLoop, calls=%scaling_two
  %weighed = f32[1024,1024]{1,0} fusion(%s, %b), kind=kLoop, calls=%weighing
  %three = f32[1024,1024]{1,0} fusion(), kind=kLoop, calls=%filling
  ROOT %four = f32[1024,1024]{0,1} transpose(%b), dimensions={1,0}
}
"""
    found = hlo.parse(module)
    assert [each.name for each in hlo.copies(found, hlo.tree(found))] == ["one", "scaled", "both", "four"]


@pytest.mark.parametrize(
    "instruction", ["copy(%PART)", "select(%PART, %PART, %PART)", "reverse(%PART), dimensions={0}"]
)
def test_a_replay_that_is_written_anew_is_not_in_place(instruction):
    text = planted(recorded(1), f"%planted = f32[8192,64]{{1,0}} {instruction}")
    assert row_of(1, text)["in_place"] is False
    assert "the replay is copied" in rows.worse(row_of(1), row_of(1, text))


def test_a_replay_that_may_not_be_written_over_is_not_in_place():
    text = re.sub(r"input_output_alias=\{.*?\}, entry", "entry", recorded(1))
    assert row_of(1, text)["in_place"] is False
    told = aot_programs.told(1) | {"has_replay": False}
    assert rows.row(CASE, told, COMPILED, text)["in_place"] is None  # there is none


def test_a_planted_loop_of_unknown_turns_is_found():
    counted = re.search(r', backend_config=\{"known_trip_count":\{"n":"2"\}[^\n]*', recorded(4))
    found = row_of(4, recorded(4).replace(counted[0], ""))
    [words] = [words for words in rows.worse(row_of(4), found) if "turns" in words]
    assert words == "a new loop whose turns are not known: while/while/while_1"


def test_other_things_that_are_worse_are_said():
    base = row_of(1)
    assert rows.worse(base, base) == [] == rows.worse(rows.failed_row(CASE, "x"), base)
    assert rows.worse(base, rows.failed_row(CASE, "too fragmented")) == ["does not compile any more: too fragmented"]
    assert rows.worse(base, base | {"one_graph": False}) == ["no longer one CUDA graph"]
    assert rows.worse(base | {"one_graph": False}, base) == []
    assert rows.worse(base, base | {"precision": "float32+tf32"}) == ["products of float32 are rounded to TF32"]
    assert rows.worse(row_of(4), row_of(4) | {"launches_update": 6}) == []  # better is not worse


# Cases, and the command.


def test_cases_are_every_learner_of_every_game_and_its_other_presets():
    names = [case.name for case in cases.all_cases()]
    assert len(set(names)) == len(names)
    assert {f"{env}/default/{learner}" for env in registry.names() for learner in learners.LEARNERS} <= set(names)
    assert [case.name for case in cases.select(["catch8/article", "cave/default/pqn"])] == [
        "catch8/article/dqn",
        "cave/default/pqn",
    ]
    assert [case.who for case in cases.select(["catch8/population"])] == [
        f"{learner}, population 16" for learner in learners.LEARNERS
    ]
    assert len(cases.select(["catch8"])) == 2 * len(learners.LEARNERS) + 1
    assert cases.select([]) == cases.all_cases()


BAD = [
    (["--case", "cach8"], "--case cach8: unknown; did you mean 'catch8'"),
    (["--case", "catch"], "did you mean 'catch8'"),
    (["--case", "cave/default/pqm"], "did you mean 'cave/default/pqn'"),
    (["--case", ""], "--case : unknown"),
    (["--base", "no-such-revision", "--case", "catch8"], "no such revision"),
    (["--bse", "HEAD"], "did you mean '--base'"),
    (["--json", "no/such/folder/x.json"], "not a file that can be written"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_bad_arguments_are_one_line(arguments, message):
    with pytest.raises(UserError, match=message) as raised:
        aot.main(arguments)
    assert "\n" not in str(raised.value)


@pytest.fixture
def measured(monkeypatch, tmp_path):
    """Rows that trees have, by case, in place of compiling: `measured[tree][case]`, a line of failure or changes."""
    found = {"base": {}, "new": {}}

    class Scripted:
        def __init__(self, tree, folder):
            self._rows = found["new" if tree == aot.ROOT else "base"]

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def row(self, case):
            chosen = self._rows.get(case.name, {})
            if isinstance(chosen, str):
                return rows.failed_row(case, chosen)
            return row_of(1) | {"case": f"{case.env}/{case.preset}", "learner": case.learner} | chosen

    monkeypatch.setattr(aot, "Workers", Scripted)
    monkeypatch.setattr(aot.signal, "signal", lambda *_: None)
    monkeypatch.setattr(aot, "checkout", lambda revision: _Checkout(tmp_path))
    return found


class _Checkout:
    def __init__(self, folder):
        self._folder = folder

    def __enter__(self):
        return self._folder

    def __exit__(self, *_):
        pass


def test_rows_are_printed_and_written(measured, capsys, tmp_path):
    assert aot.main(["--case", "catch8/default", "--json", str(tmp_path / "rows.json")]) == 0
    written = json.loads((tmp_path / "rows.json").read_text("utf-8"))
    assert [row["learner"] for row in written] == list(learners.LEARNERS)
    wanted = "case learner compiled launches_iteration launches_update dynamic_loops in_place copies_mib host_transfers"
    assert {*wanted.split(), "precision", "temporary_mib", "one_graph", "commit"} <= written[0].keys()
    table = capsys.readouterr().out.splitlines()
    assert len(table) == 2 + 4 and {len(line.split(" | ")) for line in table} == {len(rows.COLUMNS)}
    assert table[2].startswith(
        "| catch8/default | dqn | yes | 50 | 8 | 7 | 5 | 3 | yes | 0 | none | float32 | 1.5 | yes"
    )


def test_what_does_not_compile_fails(measured, capsys):
    measured["new"] = {
        "catch8/default/pqn": "LookupError: no such game",
        "catch8/default/a2c": {"compiled": False, "with": "without Triton's products", "error": "CANCELLED"},
    }
    assert aot.main(["--case", "catch8/default"]) == 1
    table = capsys.readouterr().out
    assert (
        "| pqn | no: LookupError: no such game |" in table and "| a2c | only without Triton's products | 50 |" in table
    )
    measured["base"] = measured["new"]
    assert aot.main(["--case", "catch8/default", "--base", "HEAD"]) == 0  # it is not worse


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"launches_update": 8}, "launches_update: 8, 7 in the base"),
        (
            {"dynamic_loops": ["while", "while/while", "while/while/while", "more"]},
            "a new loop whose turns are not known: more",
        ),
        ({"host_transfers": ["infeed x"]}, "a new transfer to the host: infeed x"),
        (
            {"copies_mib": 2.0, "copies": [{"loop": "while", "what": "copy f32[2]", "mib": 2.0, "times": 1}]},
            "a new copy: 2.0 MiB copy f32[2] in while",
        ),
    ],
)
def test_a_worse_program_fails_the_comparison(measured, capsys, changes, words):
    measured["new"] = {"catch8/default/pqn": changes}
    assert aot.main(["--case", "catch8/default", "--base", "HEAD~1"]) == 1
    said = capsys.readouterr().err
    assert "4 compared with HEAD~1, 1 worse" in said and f"catch8/default pqn: {words}" in said
    measured["base"] = measured["new"]
    assert aot.main(["--case", "catch8/default", "--base", "HEAD~1"]) == 0


def test_nothing_to_compare_is_an_error(measured):
    measured["base"] = {"catch8/article/dqn": "AttributeError: no such thing"}
    with pytest.raises(UserError, match="nothing could be compared with HEAD"):
        aot.main(["--case", "catch8/article", "--base", "HEAD"])


def answering(monkeypatch, **faults):
    """Workers whose processes answer at once; `faults` by name: how often they fail first, and whether they die."""
    asked = []

    class Process:
        def __init__(self, name):
            self._name = name

        def ask(self, **request):
            asked.append((self._name, request.get("options")))
            times, is_gone = faults.get(self._name, (0, False))
            if times:
                faults[self._name] = (times - 1, is_gone)
                raise line.WorkerFailed(self, "CANCELLED: too fragmented", is_gone=is_gone)
            if self._name == "program":
                Path(request["path"]).write_text(recorded(1), "utf-8")
            answer = {"chip": "H200", "jaxlib": "1", "one_graph": True} | COMPILED
            return aot_programs.told(1) if self._name == "lowering" else answer

        def __exit__(self, *_):
            asked.append((self._name, "gone"))

    monkeypatch.setattr(aot.Workers, "_start", lambda self, name: Process(name))
    return asked


@pytest.mark.parametrize("is_gone", [False, True])
def test_a_product_that_triton_cannot_take_is_compiled_otherwise(monkeypatch, tmp_path, is_gone):
    asked = answering(monkeypatch, program=(1, is_gone))
    with aot.Workers(ROOT, tmp_path) as workers:
        found = workers.row(CASE)
    assert (found["compiled"], found["launches_update"], found["one_graph"]) == (False, 7, True)
    assert found["with"] == "without Triton's products" and "too fragmented" in found["error"]
    assert ("program", {}) in asked and ("program", aot.WITHOUT_TRITON) in asked
    assert asked.count(("program", "gone")) == 1 + is_gone


@pytest.mark.parametrize("name", ["lowering", "program", "graphs"])
def test_a_process_that_dies_does_not_spoil_the_cases_after_it(monkeypatch, tmp_path, name):
    answering(monkeypatch, **{name: (2, True)})
    with aot.Workers(ROOT, tmp_path) as workers:
        found = [workers.row(CASE) for _ in range(3)]
    assert not found[0]["compiled"] and "too fragmented" in found[0]["error"]
    assert found[2]["compiled"]


def test_the_compilers_environments_are_pinned():
    for environment, chip, _ in (aot.PROGRAM, aot.GRAPHS):
        [(path, with_dependencies)] = environments.REQUIREMENTS[environment]
        pins = [each for each in path.read_text("utf-8").splitlines() if not each.startswith("#")]
        assert not with_dependencies and all(re.fullmatch(r"[\w-]+==\d[\w.]*", pin) for pin in pins)
        assert "NVIDIA H200" in (ROOT / "benchmarks" / "aot" / chip).read_text("utf-8")


def test_the_command_starts_without_tensorflow():
    code = "import sys, benchmarks.aot.__main__; sys.exit('tensorflow' in sys.modules)"
    path = f"import sys; sys.path.insert(0, {str(ROOT)!r}); "
    done = line.subprocess.run([sys.executable, "-c", path + code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# With the compilers themselves: makes their environments, once, of 1.1 GB each.


@pytest.mark.slow
def test_what_is_planted_in_tensorflow_is_found_in_what_xla_makes_of_it(tmp_path):
    with aot_programs.Compiler(ROOT, tmp_path) as compiler:
        for iterations in BY_NUMBER:
            found = {}
            for plant in ("", "launch", "copy", "loop"):
                said, text = compiler.optimized(iterations, plant)
                found[plant] = rows.row(CASE, aot_programs.told(iterations), said, text) | {"one_graph": None}
            base = found[""]
            recorded_row = row_of(iterations, temporary_bytes=0) | {"one_graph": None}
            assert base | {"temporary_mib": 0.0} == recorded_row | {"temporary_mib": 0.0}  # the recording is true
            assert "launches_iteration" in named(base, found["launch"])
            assert {"a new copy", "the replay is copied"} <= named(base, found["copy"])
            assert "a new loop whose turns are not known" in named(base, found["loop"])
            assert not {"a new copy", "the replay is copied"} & (
                named(base, found["launch"]) | named(base, found["loop"])
            )


@pytest.mark.slow
def test_catch8_compiles_for_a_gpu(tmp_path, capsys):
    assert aot.main(["--case", "catch8/default/dqn", "--json", str(tmp_path / "rows.json")]) == 0
    [found] = json.loads((tmp_path / "rows.json").read_text("utf-8"))
    assert found["compiled"] and found["in_place"] and found["one_graph"] and "H200" in found["chip"]
    assert (found["host_transfers"], found["precision"]) == ([], "float32")
    assert 0 < found["launches_update"] < found["launches_iteration"] < 1000
