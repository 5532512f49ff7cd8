"""Reading YAML, JSON and Python data within limits: quickly, and into plain values only."""

from __future__ import annotations

import time

import pytest

from zoo.errors import RecipeError, ZooError, shown
from zoo.plain_data import DEEPEST, LARGEST, MOST_VALUES, plain_copy, read_json, read_yaml

LAUGHS = [
    "a0: &a0 [x]",
    *(f"a{i}: &a{i} [" + ", ".join([f"*a{i - 1}"] * 9) + "]" for i in range(1, 9)),
]
MERGED = "\n".join(LAUGHS).replace("[x]", "{x: 1}").replace("[", "{<<: [").replace("]", "]}")
CHAIN = ["a0: &a0 [x]", *(f"a{i}: &a{i} [*a{i - 1}]" for i in range(1, 60))]

BAD_YAML = {
    "cyclic alias": ("a: &a [*a]", r"line 1: the alias \*a is part of what it names"),
    "cyclic merge": ("x: 1\na: &a {<<: *a}", r"line 2: the alias \*a is part"),
    "a billion laughs": ("\n".join(LAUGHS), "more than 5,000 values"),
    "merged laughs": (MERGED, "more than 5,000 values"),
    "depth by aliases": (
        "\n".join(CHAIN),
        "line 32: its lists .* more than 32 levels",
    ),
    "3,000 lists": ("[" * 3000 + "]" * 3000, "line 1: its lists .* more than 32 levels"),
    "99,999 brackets": ("[" * 99_999, "more than 32 levels"),
    "20,000 keys": ("\n".join(f"k{i}:" for i in range(20_000)), "100,000 characters"),
    "10,000 short keys": ("\n".join(f"{i:x}x:" for i in range(10_000)), "more than 5,000 values"),
    "no digits": ("a: 0x_", "line 1: '0x_' is not an integer"),
    "no digits below": ("a: 1\nb: 0x_", "line 2: '0x_' is not an integer"),
    "6,000 digits": ("a: " + "1" * 6000, "line 1: '1+.*' is not an integer"),
    "50,000 hexadecimal digits": ("a: 0x" + "f" * 50_000, "a: an integer has more than 64 bits"),
    "65 bits": (f"a: [{2**64}]", r"a\[0\]: an integer has more than 64 bits"),
    "infinity": ("a: {b: .inf}", r"a\.b: expected a finite number, got inf"),
    "infinity by exponent": ("a: 1e999", "a: expected a finite number, got inf"),
    "not a number": ("a: .nan", "a: expected a finite number, got nan"),
    "number as key": ("a: 1\n2: 3", "line 2: the key '2' is not text; put it in quotes"),
    "flag as key": ("on: 3", "line 1: the key 'on' is not text"),
    "list as key": ("[a]: 3", "line 1: the key sequence is not text"),
    "key twice": ("a: 1\na: 2", "key 'a' is given twice in the mapping at line 1"),
    "key twice below": ("b: 0\nc:\n  a: 1\n  a: 2", "'a' is given twice in the mapping at line 3"),
    "tag": ("a: !!bool x", "line 1: the tag .*bool' is not supported"),
    "code": ("!!python/object/apply:os.system [ls]", "the tag .* is not supported"),
    "merged list": ("<<: [1]", "not valid YAML: expected a mapping for merging"),
    "unknown alias": ("a: *b", "not valid YAML: found undefined alias 'b' at line 1, column 4"),
    "value tag": ("a: =", "not valid YAML"),
    "control character": ("a: \0", "not valid YAML: unacceptable character"),
    "beyond unicode": (r'"\U00110000"', "not valid YAML"),
    "far beyond unicode": (r'"\Uffffffff"', "not valid YAML"),
    "half a character": (r'"\ud800"', "characters that do not exist"),
    "two documents": ("--- a\n--- b", "another document at line 2"),
}


@pytest.mark.parametrize(("text", "message"), BAD_YAML.values(), ids=BAD_YAML)
def test_hostile_yaml_is_one_sentence_within_a_second(text, message):
    start = time.process_time()
    with pytest.raises(RecipeError, match=message) as error:
        read_yaml(text)
    assert time.process_time() - start < 1 and len(str(error.value)) < 300


def test_merge_keys_give_defaults_wherever_they_stand():
    text = """
    base: &base {x: 1, y: 2}
    other: &other {y: 5, z: 6}
    one: {<<: *base, x: 3}
    two: {<<: [*base, *other], w: 0}
    deep: {inner: &inner {x: 9, <<: *base}}
    again: {<<: *inner}
    """
    data = read_yaml(text)
    assert data["one"] == {"x": 3, "y": 2}
    assert data["two"] == {"x": 1, "y": 2, "z": 6, "w": 0}
    assert data["deep"]["inner"] == data["again"] == {"x": 9, "y": 2}


def test_an_alias_is_a_copy_of_its_anchor():
    data = read_yaml("a: &a [1, {b: 2}]\nc: *a")
    assert data == {"a": [1, {"b": 2}], "c": [1, {"b": 2}]}
    assert data["a"] is not data["c"] and data["a"][1] is not data["c"][1]


def test_the_largest_seed_is_read():
    assert read_yaml(f"a: {2**64 - 1}") == {"a": LARGEST}


def test_what_looks_like_a_date_is_text():
    assert read_yaml("[2001-13-45, 2001-01-01]") == ["2001-13-45", "2001-01-01"]


@pytest.mark.parametrize("read", [read_yaml, read_json])
def test_so_many_values_and_no_more(read):
    assert len(read("[" + "1, " * (MOST_VALUES - 2) + "1]")) == MOST_VALUES - 1
    with pytest.raises(RecipeError, match="more than 5,000 values"):
        read("[" + "1, " * (MOST_VALUES - 1) + "1]")


def test_what_an_alias_names_counts_as_often_as_it_is_named():
    # The list, its first item [1] with 1 in it, and an alias for each further item of two values.
    most = (MOST_VALUES - 3) // 2
    assert len(read_yaml("[&a [1]" + ", *a" * most + "]")) == 1 + most
    with pytest.raises(RecipeError, match="more than 5,000 values"):
        read_yaml("[&a [1]" + ", *a" * (most + 1) + "]")


def test_levels_are_those_above_and_not_those_beside():
    deep = f"{'[' * (DEEPEST - 1)}{']' * (DEEPEST - 1)}"
    assert len(read_yaml(f"- [1, [2]]\n- {deep}\n- {deep}")) == 3
    with pytest.raises(RecipeError, match=r"^line 3: its lists and mappings are nested more"):
        read_yaml(f"- [1, [2], [[3]]]\n- {{a: [1]}}\n- [{deep}]")


def test_a_name_of_a_number_adds_no_level():
    rest = DEEPEST - 1
    data = read_yaml(f"[&a 7, {'[' * rest}*a{']' * rest}]")
    for _ in range(rest + 1):
        data = data[-1]
    assert data == 7


def test_as_much_as_is_allowed_is_read_within_a_second():
    """A quadratic step would take 24 s for four times as many keys."""
    text = "\n".join(f"key{i}: {i}" for i in range(MOST_VALUES // 2 - 1))
    start = time.process_time()
    assert len(read_yaml(text)) == MOST_VALUES // 2 - 1
    assert time.process_time() - start < 1.5
    deepest = "[" * DEEPEST + "]" * DEEPEST
    assert read_yaml(deepest) == read_json(deepest)
    assert read_yaml(f"[{LARGEST}, -{LARGEST}]") == [LARGEST, -LARGEST]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 99_999, "more than 32 levels"),
        ("[" * 33 + "]" * 33, "more than 32 levels"),
        ("1" * 6000, "more than 64 bits"),
        ("[" + "1," * 6000 + "1]", "more than 5,000 values"),
        ('{"a": NaN}', "a: expected a finite number"),
        ('{"a": [1e999]}', r"a\[0\]: expected a finite number"),
        ('"\\ud800"', "characters that do not exist"),
        ('{"\\ud800": 1}', "characters that do not exist"),
        ("{", "not valid JSON"),
        (" " * 100_001, "100,000 characters"),
    ],
    ids=range(10),
)
def test_hostile_json_is_one_sentence(text, message):
    with pytest.raises(RecipeError, match=message):
        read_json(text)


def test_python_data_must_be_plain():
    cyclic: list[object] = []
    cyclic.append(cyclic)
    for data, message in [
        (cyclic, "more than 32 levels"),
        ({"a": {1: 2}}, "a: the key 1 is not text"),
        ({"a": [{2}]}, r"a\[0\]: expected a number, text, a list or a mapping, got set"),
        ({"a": float("nan")}, "a: expected a finite number"),
    ]:
        with pytest.raises(RecipeError, match=message):
            plain_copy(data)
    given = {"a": (1, [2]), "b": None}
    copied = plain_copy(given)
    assert copied == given and copied["a"][1] is not given["a"][1]


def test_a_text_that_is_not_possible_is_told_with_its_place():
    def told(data):
        with pytest.raises(RecipeError) as found:
            plain_copy(data)
        return str(found.value)

    wrong = "\ud800"
    fault = r"the text '\ud800' has characters that do not exist"
    assert told({wrong: 1}) == told(wrong) == fault
    assert told({"a": {wrong: 1}}) == told({"a": wrong}) == f"a: {fault}"
    assert told({"a": [{"b": wrong}]}) == f"a[0].b: {fault}"
    assert told({1: 1}) == "the key 1 is not text"
    for number in (LARGEST, -LARGEST):
        assert plain_copy([number]) == [number]
        assert told([number + (1 if number > 0 else -1)]).startswith("[0]: an integer has more")


def test_a_message_is_one_printable_line_of_less_than_500_characters():
    message = str(ZooError("first\nsecond\x1b[2J \udcff" + "x" * 5000 + "; the fix"))
    assert message.startswith(r"first second\x1b[2J \udcffxxx") and message.endswith("; the fix")
    assert 400 < len(message) < 500 and message.isprintable()
    assert str(ZooError("a  b")) == "a  b"
    assert len(shown("x" * 10**6)) < 100 and len(shown([[["x" * 99] * 99] * 99] * 99)) < 170
    assert shown(16**9999) == "a number of thousands of digits"


def test_what_is_read_twice_is_not_shared():
    read_yaml("a: [1]")["a"].append(2)
    assert read_yaml("a: [1]") == {"a": [1]}
