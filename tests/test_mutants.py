"""The tool that plants faults: what it plants, what it leaves alone, what it says was noticed."""

import signal
import subprocess
import textwrap

import pytest

from tests.mutants import covered
from tests.mutants.__main__ import try_all
from tests.mutants.areas import AREAS, EXCLUDED
from tests.mutants.cases import CaseFinder, in_sequence, within
from tests.mutants.covered import Case, CoverageMap, digest, refreshed, stale_tests
from tests.mutants.mutant import Mutant, mutants_of, one_line
from tests.mutants.report import Result, Results, known_equivalents, report
from tests.mutants.sampling import Pool, shared_out, sources
from tests.mutants.source import Source, required_parameters
from tests.mutants.trial import Runner
from tests.mutants.workspace import ROOT, Workspace, repository_files


def faults(code, **named):
    """Each fault of some code as its kind and the changed lines."""
    content = textwrap.dedent(code).encode()
    found = mutants_of("toy.py", content, **named)
    return {
        (mutant.operator, mutant.difference(content).partition(" => ")[2])
        for mutant in found
        if mutant.is_program(content)
    }


@pytest.mark.parametrize(
    ("code", "kind", "becomes"),
    [
        ("y = a + b", "wrong sign", "y = a - b"),
        ("y = (a) - (b)", "wrong sign", "y = (a) + (b)"),
        ("y = -a", "wrong sign", "y = a"),
        ("y -= a", "wrong sign", "y += a"),
        ("y = a * b + c", "dropped term", "y = (a * b)"),
        ("y = a * b + c", "dropped term", "y = a + c"),
        ("y = f(3)", "wrong constant", "y = f(4)"),
        ("y = f(3)", "wrong constant", "y = f(2)"),
        ("y = f(0.5)", "wrong constant", "y = f(1.0)"),
        ("y = f(True)", "wrong constant", "y = f(False)"),
        ("def f(x=0.1): return x", "wrong default", "def f(x=0.2): return x"),
        ("def f(x='y'): return x", "wrong default", "def f(x='all'): return x"),
        ("class A:\n    b: Literal['s', 't'] = 's'", "wrong default", "b: Literal['s', 't'] = 't'"),
        ("class A:\n    b: int = 7", "wrong default", "b: int = 8"),
        ("y = x.sum(-1)", "wrong axis or index", "y = x.sum(-2)"),
        ("y = rearrange(x, 'b (h w) c -> b c h w')", "swapped axes", None),
        ("y = einsum('bi,ij->bij', a)", "swapped axes", "y = einsum('bi,ij->bji', a)"),
        ("height, width = x.shape", "swapped", "width, height = x.shape"),
        ("y = f(rows, columns)", "swapped", "y = f(columns, rows)"),
        ("y = x.permute(0, 2, 3, 1)", "swapped", "y = x.permute(0, 3, 2, 1)"),
        ("y = a < b", "wrong comparison", "y = a <= b"),
        ("y = a < b", "wrong comparison", "y = a >= b"),
        ("y = a is not None", "wrong comparison", "y = a is None"),
        ("y = a and b", "and for or", "y = a or b"),
        ("y = a and b", "half a condition", "y = b"),
        ("y = 1 if f(x) else z", "negated condition", "y = 1 if not (f(x)) else z"),
        ("if a < b:\n    raise ValueError('no')", "forgotten case", "if False:"),
        ("y = net.eval()", "forgotten call", "y = net"),
        ("y = x.clamp(0, 1)", "forgotten call", "y = x"),
        ("y = max(a, b)", "forgotten call", "y = b"),
        ("y = F.softplus(a + b)", "forgotten call", "y = (a + b)"),
        ("optimizer.step()", "forgotten statement", "pass"),
        ("def f(x):\n    x = g(x)\n    return x", "forgotten statement", "pass"),
        ("with torch.no_grad():\n    f()", "forgotten with", "if True:"),
        ("for i in range(n): f()", "off by one", "for i in range(n - 1): f()"),
        ("y = f(a, scale=2)", "dropped keyword", "y = f(a)"),
        ("y = f(scale=2, b=a)", "dropped keyword", "y = f( b=a)"),
        ("y = mode == 'reflect'", "wrong choice", "y = mode == 'replicate'"),
        ("y = state['step']", "wrong choice", "y = state['step_']"),
    ],
)
def test_an_operator_makes_its_mistake(code, kind, becomes):
    found = faults(code)
    if becomes is None:
        assert kind in {name for name, _ in found}
    else:
        assert (kind, becomes) in found


@pytest.mark.parametrize(
    "code",
    [
        *("x.mean((1, 2))", "x.flip(1, 2)", "max(1, 2)", "y in (1, 2)"),
        "try:\n    f()\nexcept (TypeError, RuntimeError):\n    g()",
    ],
)
def test_what_has_no_sequence_is_not_exchanged(code):
    assert "swapped" not in {name for name, _ in faults(code)}
    assert "swapped" in {name for name, _ in faults("x.reshape((1, 2))")}


@pytest.mark.parametrize(
    "code",
    [
        '"""A docstring of 3 words."""',
        "size: int\n'''About size, such as 4.'''",
        "__all__ = ['a', 'b']",
        "logger.info('%d of %d', 1, total + 1)",
        "raise ValueError('more than 3', a + b)",
        "y = print('no', 3)",
        "def f(x: Literal['a', 'b']) -> Annotated[int, 3]: ...",
        "Run: TypeAlias = Callable[[int], 'str']",
        "Run = Callable[[int], 'str']",
        "y = f'{a + 1} of {b}'",
        "if __name__ == '__main__':\n    main(3)",
        "if TYPE_CHECKING:\n    x = 3",
        "if x.device.type == 'cuda':\n    y = a + b",
        "if sys.platform == 'win32':\n    y = a + b",
        "if sys.platform != 'win32':\n    pass\nelse:\n    y = a + b",
        "torch.cuda.synchronize(device=1)",
        "assert a is not None",
        "y = f(a, device=a.device)",
        "parser.add_argument('--size', help='of 3')",
        "value = x.contiguous()",
        "eps = 1e-12",
    ],
)
def test_where_a_fault_means_nothing_none_is_planted(code):
    assert faults(code) == set()


def test_what_runs_here_beside_a_branch_for_windows_gets_faults():
    for code in (
        "if sys.platform == 'win32':\n    pass\nelse:\n    y = a + b",
        "if sys.platform != 'win32':\n    y = a + b",
    ):
        assert {becomes for _, becomes in faults(code)} == {"y = a - b", "y = a", "y = b"}


def test_an_excluded_function_or_file_gets_none():
    code = "class A:\n    def f(self):\n        return a + b\n\ndef g():\n    return 3\n"
    assert faults(code, excluded={""}) == set()
    assert {becomes for _, becomes in faults(code, excluded={"A.f"})} == {"return 4", "return 2"}


def test_exclusions_name_what_exists_and_say_why():
    for (path, name), reason in EXCLUDED.items():
        tree = Source((ROOT / path).read_bytes())
        names = {tree.qualified_name(node) for node in tree.parents}
        assert name == "" or name in names, f"{path}: {name}"
        assert reason


def test_a_keyword_that_every_call_must_give_is_not_dropped():
    code = "@dataclass\nclass A:\n    b: int\n    c: int = 2\n"
    required = required_parameters([Source(code.encode()).tree])
    assert required == {("A", "b")}
    found = faults("y = A(b=x, c=x)", required=required)
    assert {becomes for kind, becomes in found if kind == "dropped keyword"} == {"y = A(b=x)"}


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs a checkout; this is an sdist")
def test_every_python_file_of_the_packages_is_in_one_area():
    found = sources(ROOT)
    packages = ("zoo", "export", "trt_plugins", "recipes")
    wanted = {name for name in repository_files(ROOT) if name.endswith(".py")}
    assert found.keys() == {name for name in wanted if name.split("/")[0] in packages}
    assert set(found.values()) == AREAS.keys()


def test_areas_are_sampled_by_their_lines():
    assert shared_out(10, {"a": 80, "b": 19, "c": 1}) == {"a": 8, "b": 1, "c": 1}
    assert shared_out(2, {"a": 80, "b": 19, "c": 1}) == {"a": 0, "b": 1, "c": 1}
    assert shared_out(10, {"a": 3, "b": 2, "c": 0}) == {"a": 3, "b": 2}


def result(mutant: Mutant, content: bytes, **other) -> Result:
    said = {"verdict": "survived", "by": "", "seconds": 1.0, "ran": 3, "left_out": 0, "tests": "t"}
    where = {"path": mutant.path, "line": mutant.line, "operator": mutant.operator}
    difference = mutant.difference(content)
    return Result(key=mutant.key, area="a", difference=difference, **where, **{**said, **other})


def test_a_key_is_of_one_file_one_place_and_one_fault():
    one = mutants_of("toy.py", b"y = a + b\n")
    assert len({mutant.key for mutant in one}) == len(one)
    again = mutants_of("toy.py", b"y = a + b\n")
    assert [mutant.key for mutant in again] == [mutant.key for mutant in one]
    other = {mutant.key for mutant in mutants_of("toy.py", b"y = a + b\nz = 1\n")}
    assert not other & {mutant.key for mutant in one}


def test_results_outlive_a_killed_run_and_survivors_are_tried_again_by_other_tests(tmp_path):
    content = b"y = a + b\n"
    first, second, third = mutants_of("toy.py", content)
    results = Results(tmp_path / "results.jsonl")
    results.add(result(first, content, verdict="noticed"))
    results.add(result(second, content))
    with (tmp_path / "results.jsonl").open("a") as file:
        file.write('{"key": "cut of')
    results = Results(tmp_path / "results.jsonl")
    assert results.holds(first.key, "t", 0) and results.holds(first.key, "other", 0)
    assert results.holds(second.key, "t", 0) and not results.holds(second.key, "other", 0)
    assert not results.holds(third.key, "t", 0)
    results.add(result(second, content, left_out=4))
    assert results.holds(second.key, "t", 4) and not results.holds(second.key, "t", 3)


def test_equivalents_are_not_counted_and_survivors_are_told(tmp_path):
    content = b"y = a + b\n"
    first, second, third = mutants_of("toy.py", content)
    path = tmp_path / "equivalent.txt"
    path.write_text(f"# why\ntoy.py: {first.difference(content)}  ## a is 0\n")
    known = known_equivalents(path)
    assert known == {"toy.py: y = a + b => y = a - b": "a is 0"}
    found = [result(first, content), result(second, content)]
    text = report([*found, result(third, content, verdict="noticed")], known)
    assert "all                2        1     50%" in text
    assert "toy.py:1  dropped term; 3 tests ran it\n    - y = a + b\n    + y = a" in text


def test_known_equivalents_are_of_lines_that_exist_and_say_why():
    for entry, reason in known_equivalents().items():
        path, _, difference = entry.partition(": ")
        assert difference.partition(" => ")[0] in one_line((ROOT / path).read_text()), entry
        assert reason, entry


def test_the_cheapest_case_of_each_test_runs_first():
    seconds = {"t.py::a[1]": 3, "t.py::a[2]": 1, "t.py::b": 2, "t.py::a[3]": 1.5}
    known = CoverageMap(cases={name: Case(value, {}) for name, value in seconds.items()})
    sequence = in_sequence(list(seconds), known)
    assert sequence == ["t.py::a[2]", "t.py::b", "t.py::a[3]", "t.py::a[1]"]
    assert within(sequence, known, 4) == sequence[:2]
    assert within(sequence, known, 0) == sequence[:1]


def test_a_constant_is_tested_where_it_is_named_and_a_default_where_its_function_runs():
    toy = b"SIDE = 4\n\ndef f(x=3):\n    return x\n\nclass A:\n    tall = False\n"
    user = b"from toy import A, SIDE\n\ndef g():\n    return SIDE\n\ndef h():\n    return 0\n"
    user += b"\nclass B(A):\n    def f(self):\n        return None\n"
    cases = {
        "f": Case(1, {"toy.py": {4}}),
        "g": Case(1, {"user.py": {4}}),
        "h": Case(1, {"user.py": {7}}),
        "B": Case(1, {"user.py": {11}}),
    }
    finder = CaseFinder(CoverageMap(cases=cases), {"toy.py": toy, "user.py": user})
    tests = {mutant.line: finder.cases(mutant) for mutant in mutants_of("toy.py", toy)}
    assert tests == {1: ["g"], 3: ["f"], 7: ["B"]}
    looking = "tests/test_part_defaults.py::test"
    finder.known.cases[looking] = Case(9, {})
    tests = {mutant.line: finder.cases(mutant) for mutant in mutants_of("toy.py", toy)}
    assert tests == {1: [looking, "g"], 3: [looking, "f"], 7: [looking, "B"]}


def test_what_no_test_is_known_to_run_is_tried_with_the_tests_near_it():
    """Coverage misses what a killed process ran; to try nothing would call that a survivor."""
    code = b"def f(x):\n    return -x\n\ndef g(x):\n    return -x\n"
    cases = {"a": Case(2, {"p/one.py": {2}, "q/far.py": {2}}), "b": Case(1, {"p/one.py": {2}})}
    cases["c"] = Case(1, {"p/one.py": {1, 4}})  # imports it alone
    contents = dict.fromkeys(("p/one.py", "p/two.py", "q/far.py", "r/none.py"), code)
    finder = CaseFinder(CoverageMap(cases=cases), contents)
    for path, expected in (("one", ["b", "a"]), ("two", ["b", "a"])):
        [*_, last] = mutants_of(f"p/{path}.py", code)
        assert (finder.cases(last), finder.near(last)) == ([], expected), path
    [*_, last] = mutants_of("r/none.py", code)
    assert finder.near(last) == []


def test_tests_of_what_a_condition_decides_run_first():
    toy = b"def f(x):\n    if x < 1:\n        raise ValueError(x)\n    return x\n"
    cases = {name: Case(seconds, {"toy.py": {2, 4}}) for name, seconds in (("a", 1), ("b", 2))}
    cases["c"] = Case(3, {"toy.py": {2, 3}})
    finder = CaseFinder(CoverageMap(cases=cases), {"toy.py": toy})
    [first, *_] = [mutant for mutant in mutants_of("toy.py", toy) if mutant.line == 2]
    assert finder.cases(first) == ["c", "a", "b"]


def test_only_what_a_change_can_move_is_measured_again(tmp_path):
    (tmp_path / "tests").mkdir()
    texts = {"test_a.py": "import helper", "test_b.py": "", "helper.py": "", "test_c.py": ""}
    for name, text in texts.items():
        (tmp_path / "tests" / name).write_text(text)
    tests = {f"tests/{name}": digest(tmp_path / "tests" / name) for name in texts}
    known = CoverageMap({"x.py": "1", "y.py": "1"}, tests)
    known.cases = {"tests/test_b.py::t": Case(1, {"x.py": {1}})}
    assert stale_tests(known, known.sources, tests, tmp_path) == set()
    moved = {"x.py": "2", "y.py": "1"}
    assert stale_tests(known, moved, tests, tmp_path) == {"tests/test_b.py"}
    changed = {**tests, "tests/test_c.py": "2"}
    assert stale_tests(known, known.sources, changed, tmp_path) == {"tests/test_c.py"}
    changed = {**tests, "tests/helper.py": "2"}
    assert stale_tests(known, known.sources, changed, tmp_path) == {"tests/test_a.py"}


def test_a_run_that_was_cut_off_gives_no_map(tmp_path, monkeypatch):
    killed = subprocess.CompletedProcess([], -15, stdout="", stderr="")
    monkeypatch.setattr("tests.mutants.covered.Workspace", lambda folder, root: Bare(folder))
    monkeypatch.setattr("tests.mutants.covered.subprocess.run", lambda *words, **named: killed)
    with pytest.raises(RuntimeError, match="did not reach the end"):
        refreshed(tmp_path / "map", ["zoo/cli.py"])
    assert not (tmp_path / "map").exists()


def test_what_was_measured_before_a_run_was_cut_off_is_kept(tmp_path, monkeypatch):
    (tmp_path / "tests").mkdir()
    (tmp_path / "x.py").write_text("")
    for name in "abc":
        (tmp_path / "tests" / f"test_{name}.py").write_text("")
    asked = []

    def measure(work, tests, sources):
        asked.extend(tests)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return CoverageMap(cases={f"{tests[0]}::t": Case(1, {})}, imported={"x.py": {len(asked)}})

    monkeypatch.setattr(covered, "Workspace", lambda folder, root: Bare(folder))
    monkeypatch.setattr(covered, "_measure", measure)
    monkeypatch.setattr(covered, "AT_ONCE", 1)
    with pytest.raises(KeyboardInterrupt):
        refreshed(tmp_path / "map", ["x.py"], tmp_path)
    known = refreshed(tmp_path / "map", ["x.py"], tmp_path)
    assert [name[-4] for name in asked] == ["a", "b", "b", "c"]
    assert [name[11] for name in known.cases] == ["a", "b", "c"]
    assert known.imported == {"x.py": {1, 3, 4}}
    assert known == CoverageMap.read(tmp_path / "map")
    refreshed(tmp_path / "map", ["x.py"], tmp_path)
    assert len(asked) == 4


def test_a_file_with_a_test_that_failed_is_measured_again(tmp_path, monkeypatch):
    """It may have failed by chance, and what it runs would stay unknown."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "x.py").write_text("")
    for name in "ab":
        (tmp_path / "tests" / f"test_{name}.py").write_text("")
    asked = []

    def measure(work, tests, sources):
        asked.extend(tests)
        failed = {"tests/test_a.py"} if len(asked) == 1 else set()
        return CoverageMap(cases={f"{tests[0]}::t": Case(1, {})}, failed=failed)

    monkeypatch.setattr(covered, "Workspace", lambda folder, root: Bare(folder))
    monkeypatch.setattr(covered, "_measure", measure)
    monkeypatch.setattr(covered, "AT_ONCE", 1)
    for _ in range(3):
        known = refreshed(tmp_path / "map", ["x.py"], tmp_path)
        assert known.cases.keys() == {"tests/test_a.py::t", "tests/test_b.py::t"}
    assert [name[-4] for name in asked] == ["a", "b", "a"]


WORDS = ("slow", "gpu", "docs")


def test_only_tests_of_the_default_suite_are_measured(toy, tmp_path, monkeypatch):
    """Others would notice faults that nobody hears of, and take hours."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    folder = toy / "tests" / "mutants"
    folder.mkdir()
    (folder / "recorder.py").write_text((ROOT / "tests" / "mutants" / "recorder.py").read_text())
    marked = (f"@pytest.mark.{word}\ndef test_{word}():\n    pass\n" for word in WORDS)
    (toy / "tests" / "test_numbers.py").write_text("import pytest\n" + "".join(marked))
    assert refreshed(tmp_path / "map", ["toyed/numbers.py"], toy).cases == {}
    assert f'-m "{covered.SELECTION}"' in (ROOT / "Makefile").read_text()


def test_the_lines_that_each_test_runs_are_measured(toy, tmp_path, monkeypatch):
    """The recorder is a plugin of pytest, and a new pytest may take it in another way."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # they take a second each time
    folder = toy / "tests" / "mutants"
    folder.mkdir()
    (folder / "recorder.py").write_text((ROOT / "tests" / "mutants" / "recorder.py").read_text())
    tests = (toy / "tests" / "test_numbers.py").read_text()
    (toy / "tests" / "test_numbers.py").write_text(tests + ENDINGS)
    # As a shell does for what it starts in the background.
    heeded = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        known = refreshed(tmp_path / "map", ["toyed/numbers.py"], toy)
    finally:
        signal.signal(signal.SIGINT, heeded)
    assert {name: case.lines for name, case in known.cases.items()} == {
        "tests/test_numbers.py::test_double": {"toyed/numbers.py": {2}},
        "tests/test_numbers.py::test_flat": {"toyed/numbers.py": {5}},
        "tests/test_numbers.py::test_exit": {"toyed/numbers.py": {1, 2, 4, 7}},
        "tests/test_numbers.py::test_interrupt": {},
    }
    assert not known.failed and known.tests.keys() == {"tests/test_numbers.py"}
    assert known.imported == {"toyed/numbers.py": {1, 4, 7}}
    assert all(0 < case.seconds < 10 for case in known.cases.values())
    kept = CoverageMap.read(tmp_path / "map")
    assert kept == known


ENDINGS = """
import os, signal, subprocess, sys

def test_exit():
    code = "import os; from toyed.numbers import double; os._exit(double(3))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 6

def test_interrupt():
    code = "import os, signal; os.kill(os.getpid(), signal.SIGINT)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGINT
"""
"""Tests of a process that leaves without an orderly end, and of one that Ctrl-C ends."""


class Bare:
    """A workspace without files."""

    def __init__(self, folder):
        self.copy, self.scratch = folder, folder / "scratch"

    def environment(self):
        return {}


@pytest.fixture
def toy(tmp_path):
    """A repository with a tested function, one half tested, and one that no test runs."""
    root = tmp_path / "toy-root"
    (root / "toyed").mkdir(parents=True)
    (root / "tests").mkdir()
    code = "def double(x):\n    return 2 * x\n\ndef flat(x):\n    return abs(x)\n\ndef no():\n"
    (root / "toyed" / "numbers.py").write_text(f"{code}    return [not 3]\n")
    tests = "from toyed.numbers import double, flat\n\n"
    tests += "def test_double():\n    assert double(3) == 6\n\n"
    tests += "def test_flat():\n    assert flat(3) == 3\n"
    (root / "tests" / "test_numbers.py").write_text(tests)
    (root / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    return root


def test_a_fault_is_noticed_or_survives_and_the_repository_stays_as_it_is(
    toy, tmp_path, monkeypatch
):
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # they take a second each time
    before = {path: path.read_bytes() for path in toy.rglob("*.py")}
    pool = Pool(toy, areas={"toy": ["toyed/*.py"]})
    cases = {
        "tests/test_numbers.py::test_double": Case(0.01, {"toyed/numbers.py": {2}}),
        "tests/test_numbers.py::test_flat": Case(0.01, {"toyed/numbers.py": {5}}),
    }
    known = CoverageMap(cases=cases)
    mutants = pool.chosen(10, 0)
    assert [mutant.line for mutant in sorted(mutants, key=lambda item: item.line)] == [2, 5, 8]
    with Runner(2, toy, imports=()) as runner:
        results = Results(tmp_path / "results.jsonl")
        try_all(mutants, pool, known, results, runner, 60)
        found = {item.line: item for item in results.found.values()}
        assert (found[2].verdict, found[2].by) == ("noticed", "tests/test_numbers.py::test_double")
        assert (found[5].verdict, found[5].ran) == ("survived", 1)
        assert (found[8].verdict, found[8].ran) == ("survived", 2)
        assert found[8].by == "no test is known to run it, and 2 near it do not notice"
        # A second run finds all of them done.
        written = results.path.read_text()
        try_all(mutants, pool, known, Results(results.path), runner, 60)
        assert results.path.read_text() == written
    assert {path: path.read_bytes() for path in toy.rglob("*.py")} == before


def test_a_copy_is_replaced_and_put_back(toy, tmp_path):
    work = Workspace(tmp_path / "work", toy)
    path = work.copy / "toyed" / "numbers.py"
    original, times = path.read_bytes(), path.stat().st_mtime
    with work.replaced("toyed/numbers.py", b"x = 1\n"):
        assert path.read_bytes() == b"x = 1\n"
        assert int(path.stat().st_mtime) != int(times)
    assert (path.read_bytes(), path.stat().st_mtime) == (original, times)
