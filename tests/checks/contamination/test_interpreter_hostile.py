"""Hostile programs end as `undecided`, within the limits of the specification's section 14, point 6."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from checks.contamination.interpreter import interpret
from checks.contamination.interpreter_limits import STEPS_MAX

CHILD = """
import json, resource, sys
from checks.contamination.interpreter import interpret
programs = json.load(sys.stdin)
interpret("def f(): return 1", "f", [])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
resource.setrlimit(resource.RLIMIT_CPU, (len(programs) + 5, len(programs) + 5))
told = {}
for name, source in programs.items():
    outcome = interpret(source, "f", [])
    told[name] = [outcome.word, outcome.undecided or outcome.error]
    # Nothing is given back to the system: what one program took, all that follow stand on.
print(json.dumps({"told": told, "grown": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before}))
"""


def body(*lines: str) -> str:
    return "def f():\n" + "\n".join(f"    {line}" for line in lines) + "\n"


HOSTILE = {
    "power": body("return 10**10**8"),
    "power_of_power": body("x = 2", "while True:", "    x = x ** x"),
    "product_growth": body("x = 3", "while True:", "    x *= x"),
    "shift": body("return 1 << 10**9"),
    "shift_in_place": body("x = 1", "while True:", "    x <<= 1000"),
    "factorial": "import math\n" + body("return math.factorial(10**7)"),
    "comb": "import math\n" + body("return math.comb(10**9, 5 * 10**8)"),
    "perm": "import math\n" + body("return math.perm(10**6)"),
    "lcm": "import math\n" + body("x = 1", "for i in range(1, 10**6):", "    x = math.lcm(x, i)"),
    "int_of_text": body("return int('9' * 99999)"),
    "round_digits": body("return round(5, -10**9)"),
    "pow_mod": body("x = (1 << 4095) - 1", "while True:", "    pow(3, x, x - 2)"),
    "list_repeated": body("return [0] * 10**10"),
    "tuple_repeated": body("return (0,) * 10**10"),
    "text_repeated": body("return 'a' * 10**10"),
    "text_doubling": body("s = 'ab'", "while True:", "    s += s"),
    "text_wide_kept": body("a = []", "while True:", "    a.append('\\U0001f600' * 90000 + str(len(a)))"),
    "lists_kept": body("a = []", "while True:", "    a.append([a] * 90000)"),
    "dicts_kept": body("a = []", "while True:", "    a.append(dict(zip(range(90000), range(90000))))"),
    "sets_kept": body("a = []", "while True:", "    a.append(set(range(300 + len(a), 90000)))"),
    "big_numbers_kept": body("a = []", "while True:", "    a.append((1 << 4000) + len(a))"),
    "list_doubling": body("a = [1]", "while True:", "    a.extend(a)"),
    "list_slices": body("a = [1]", "while True:", "    a[len(a):] = a"),
    "list_added": body("a = [1]", "while True:", "    a = a + a"),
    "list_appended_in_its_loop": body("a = [1]", "for x in a:", "    a.append(x)"),
    "nested_for_ever": body("a = []", "while True:", "    a = [a]"),
    "nested_in_itself": body("a = []", "a.append(a)", "return a"),
    "nested_shared_compared": body("a, b = [0], [0]", *["a, b = [a, a], [b, b]"] * 60, "return a == b"),
    "nested_shared_printed": body("a = [0]", *["a = [a, a]"] * 60, "return str(a)"),
    "nested_shared_hashed": body("a = (0,)", *["a = (a, a)"] * 60, "return {a}"),
    "nested_shared_sorted": body("a, b = [0], [0]", *["a, b = [a, a], [b, b]"] * 60, "return sorted([a, b])"),
    "nested_shared_in_view": body("a, b = [0], [0]", *["a, b = [a, a], [b, b]"] * 60, "return a in {1: b}.values()"),
    "nested_shared_max": body("a, b = [0], [0]", *["a, b = [a, a], [b, b]"] * 60, "return max(a, b)"),
    "nested_shared_in_dict": body("a, b = [0], [0]", *["a, b = [a, a], [b, b]"] * 60, "return {1: a} == {1: b}"),
    "recursion": "def f():\n    return f()\n",
    "recursion_lambda": body("g = lambda h, n: h(h, n + 1)", "return g(g, 0)"),
    "recursion_y": body("return (lambda x: x(x))(lambda x: x(x))"),
    "recursion_key": "def f(x=0):\n    return sorted([1, 2], key=f)\n",
    "recursion_generator": "def f(x=0):\n    return sum(f(y) for y in [1, 2])\n",
    "recursion_map": "def f(x=0):\n    return list(map(f, [1, 2]))\n",
    "generators_chained": body("g = (x for x in [1])", "while True:", "    g = (x for x in g)"),
    "generators_wrapped": "def w(h):\n    return (y for x in [0] for y in h)\n"
    + body("g = [1]", "while True:", "    g = w(g)"),
    "maps_chained": body("g = [1]", "while True:", "    g = map(str, g)"),
    "generator_product": body("return sum(1 for a in range(9999) for b in range(9999) for c in range(9999))"),
    "generator_kept": body("return list(x for x in range(10**9))"),
    "range_list": body("return list(range(10**12))"),
    "range_huge": body("return sorted(range(10**1000))"),
    "range_sum": body("return sum(range(10**12))"),
    "range_contains_float": body("return [0.5 in range(10**15) for x in range(10**5)]"),
    "range_starred": body("return [*range(10**12)]"),
    "range_call": body("return max(*range(10**12))"),
    "range_unpacked": body("a, *b = range(10**12)"),
    "comprehension_nested": body("return [[[0 for a in range(999)] for b in range(999)] for c in range(999)]"),
    "set_comprehension": body("return {x * 2**40 for x in range(10**7)}"),
    "dict_comprehension": body("return {x: [x] * 1000 for x in range(10**7)}"),
    "hash_collisions": body("p = 2**61 - 1", "d = {}", "for i in range(10**6):", "    d[i * p] = i"),
    "hash_collisions_float": body("d = set()", "for i in range(10**6):", "    d.add(1.5 * i)"),
    "percent_width": body("return '%1000000000d' % 1"),
    "percent_star": body("return '%*d' % (10**9, 1)"),
    "percent_precision": body("return '%.999999999f' % 1"),
    "percent_many": body("return '%90000d' * 900 % ((1,) * 900)"),
    "f_string_width": body("return f'{1:1000000000}'"),
    "f_string_precision": body("return f'{1.5:.999999999f}'"),
    "f_string_nested_width": body("w = 10**9", "return f'{1:{w}}'"),
    "f_string_many": body("return f'{1:90000}{1:90000}'"),
    "format_width": body("return format(1, '999999999')"),
    "format_digits": body("return format('a', '9' * 90000)"),
    "format_method": body("return '{:999999999}'.format(1)"),
    "format_attribute": body("return '{0.__class__}'.format(1)"),
    "format_repeated": body("return ('{0}' * 9000).format('a' * 9000)"),
    "join": body("return ('a' * 90000).join(['b'] * 90000)"),
    "replace": body("return ('a' * 90000).replace('a', 'b' * 90000)"),
    "replace_empty": body("return ('a' * 90000).replace('', 'b' * 90000)"),
    "zfill": body("return '1'.zfill(10**9)"),
    "ljust": body("return '1'.ljust(10**9)"),
    "center": body("return '1'.center(10**9, 'x')"),
    "expandtabs": body("return 'a\\t'.expandtabs(10**9)"),
    "translate": body("return ('a' * 99999).translate({97: 'b' * 99999})"),
    "search": body("s = 'a' * 90000", "while True:", "    s.rfind('b' + 'a' * 45000)"),
    "search_in": body("s = 'a' * 2400", "t = 'a' * 1200 + 'b'", "while True:", "    t in s"),
    "split": body("a = []", "while True:", "    a.append(('a ' * 49999).split())"),
    "text_in_list": body("a = ['x' * 90000 + 'a'] * 9000", "return ['x' * 90000 + 'b' in a for i in range(10**5)]"),
    "number_in_list": body("a = list(range(90000))", "while True:", "    -1 in a"),
    "sort_with_key": body("a = list(range(90000))", "while True:", "    a.sort(key=lambda x: -x)"),
    "sort_again": body("a = [x * 7919 % 30011 for x in range(9999)]", "while True:", "    b = sorted(a)"),
    "sort_long_texts": body("a = ['x' * 90000 + str(i) for i in range(99)]", "while True:", "    sorted(a)"),
    "copy_again": body("a = list(range(90000))", "while True:", "    b = a[:]"),
    "sum_of_lists": body("return sum([[0] * 9000] * 9000, [])"),
    "set_update": body("s = set()", "while True:", "    s.update(range(len(s), len(s) + 90000))"),
    "dict_update": body("d = {}", "while True:", "    d.update({len(d) + i: 0 for i in range(100)})"),
    "set_emptied": body("s = {str(i) for i in range(9000)}", "while s:", "    s.pop()"),
    "strip": body("a = 'a' * 99999", "while True:", "    a.strip('b' * 50000 + 'a')"),
    "insert_first": body("a = []", "while True:", "    a.insert(0, 1)"),
    "wide_words_kept": body("x = []", "s = '\\U0001f600 ' * 40000", "while True:", "    x.append(s.split())"),
    "wide_padding_kept": body("x = []", "while True:", "    x.append('\\U0001f600'.rjust(90000))"),
    "views_joined": body("d = {i: i for i in range(9000)}", "while True:", "    d.items() | d.items()"),
    "closures_kept": body("a = []", "while True:", "    a.append(lambda x=a: x)"),
    "factorials": "import math\n" + body("while True:", "    math.factorial(500)"),
    "key_tuple": body("t = tuple(range(50000))", "while True:", "    {t: 1}"),
    "nested_in_each_other": body("a = []", "b = [a]", "a.append(b)", "return a == b"),
    "loop": body("while True:", "    pass"),
    "loop_else": body("while True:", "    continue"),
    "walrus": body("n = 1", "while (n := n + 1):", "    pass"),
    "walrus_comprehension": body("t = [1]", "return [t := t + t for i in range(10**6)]"),
    "star_arguments": "def g(*a): return g(*a, *a)\n" + body("return g(1)"),
    "star_star": "def g(**k): return g(**k)\n" + body("return g(a=1)"),
    "dunder": body("return ().__class__.__base__.__subclasses__()"),
    "dunder_function": body("return f.__globals__"),
    "dunder_code": body("return (lambda: 0).__code__"),
    "dunder_text": body("return 'a'.__class__"),
    "dunder_import": body("return __import__('os').system('true')"),
    "dunder_builtins": body("return __builtins__"),
    "import_os": "import os\n" + body("return os.listdir('/')"),
    "import_from": "from os import system\n" + body("return system('true')"),
    "import_inside": body("import sys", "return sys.path"),
    "math_dunder": "import math\n" + body("return math.__loader__"),
    "eval": body("return eval('1')"),
    "exec": body("exec('x = 1')"),
    "compile": body("return compile('1', '', 'eval')"),
    "open": body("return open('/etc/passwd').read()"),
    "getattr": body("return getattr(1, 'real')"),
    "globals": body("return globals()"),
    "type_of_three": body("return type('A', (), {})"),
    "type_of_function": body("return type(f)"),
    "class_trick": "class A:\n    def __del__(self): pass\n" + body("return A()"),
    "class_inside": body("class A(metaclass=f): pass", "return A"),
    "exception_in_finally": body("try:", "    return 1", "finally:", "    1 / 0"),
    "try_loop": body("while True:", "    try:", "        f()", "    except Exception:", "        pass"),
    "with": body("with f() as g:", "    pass"),
    "yield": body("yield 1"),
    "yield_from": body("yield from f()"),
    "await": "async def f():\n    return await f()\n",
    "match": body("match 1:", "    case _:", "        return 1"),
    "decorator": "@print\n" + body("return 1"),
    "complex": body("return (-8) ** 0.5"),
    "complex_literal": body("return 1j"),
    "bytes": body("return b'a' * 10**10"),
    "number_literal": body("return 0x" + "f" * 99999),
    "text_literal": body("return '" + "a" * 150_000 + "'"),
    "deep_signs": body("return " + "-" * 90_000 + "1"),
    "deep_sum": body("return " + "1+" * 90_000 + "1"),
    "deep_calls": body("return f" + "()" * 90_000),
    "deep_subscripts": body("return f" + "[0]" * 60_000),
    "deep_lambda": body("return " + "lambda:" * 20_000 + "1"),
    "deep_brackets": body("return " + "[" * 90_000 + "]" * 90_000),
    "deep_conditions": body("return " + "1 if f else " * 15_000 + "1"),
    "deep_elif": body("if f: pass", *["elif f: pass"] * 9000),
    "f_string_fields": body("return f'" + "{1}" * 60_000 + "'"),
    "wide": body("return [" + "1," * 90_000 + "]"),
}


NAMED = (
    "power",
    "list_repeated",
    "recursion",
    "text_doubling",
    "dunder",
    "generators_chained",
    "range_sum",
    "try_loop",
)
"""Those that section 14 names, and a few."""

QUICK = tuple(dict.fromkeys((*NAMED, *tuple(HOSTILE)[::8])))
"""Of the default run; the rest are in the slow one."""


def run(names: tuple[str, ...]) -> tuple[dict[str, list[str]], int]:
    """Return each program's word and name, and the memory that the process grew by, in kB."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD],
        input=json.dumps({name: HOSTILE[name] for name in names}), capture_output=True, text=True, check=True,
        timeout=250, cwd=Path(__file__).parents[3],
    )  # fmt: skip
    answer = json.loads(done.stdout)
    return answer["told"], answer["grown"]


def check(names: tuple[str, ...]) -> None:
    told, grown = run(names)
    assert len(told) == len(names) >= 20
    assert {name: outcome for name, outcome in told.items() if outcome[0] != "undecided"} == {}
    # The processor time of the whole child is limited to one second a program by the kernel.
    assert grown < 200_000


def test_hostile_programs_are_undecided_within_a_second_and_200_megabytes() -> None:
    check(QUICK)


@pytest.mark.slow
def test_all_hostile_programs_are_undecided_within_a_second_and_200_megabytes() -> None:
    check(tuple(HOSTILE))


def test_fewer_steps_end_sooner() -> None:
    source = body("x = 0", "for i in range(1000):", "    x += i", "return x")
    assert interpret(source, "f", [], steps=1000).undecided == "limit:steps"
    assert interpret(source, "f", []).value == 499_500
    assert STEPS_MAX == 200_000
