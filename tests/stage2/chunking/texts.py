"""Strategies: documents that are nasty on purpose."""

from hypothesis import strategies as st

WORDS = [
    "the", "cache", "Mr. Brown", "e.g. this", "3.14", "don't", "naïve", "supercalifragilistic" * 3, "🙂🙂", "a" * 200,
    "缓存", "他说：“好。”", "下午三点，", "Q:", "#5", "`code`",
]  # fmt: skip
ENDS = [" ", ". ", "? ", "! ", "\n", "\n\n", "。", "！", "; ", ", ", "   ", "\t", "\n \n", "\r\n", "\u2028"]
prose = st.lists(st.tuples(st.sampled_from(WORDS), st.sampled_from(ENDS)), max_size=80).map(
    lambda parts: "".join(word + end for word, end in parts)
)
titles = st.sampled_from(["Install", "On Linux", "缓存", "A `b` [c](d)", "x " * 60, ""])
heading = st.tuples(st.integers(1, 6), titles).map(lambda pair: f"{'#' * pair[0]} {pair[1]}\n")
fenced = prose.map(lambda text: f"```python\n# not a heading\n{text.replace('`', '')}\n```\n")
paragraph = prose.map(lambda text: text + "\n\n")
markdown = st.lists(st.one_of(paragraph, heading, fenced, st.just("Title\n=====\n")), max_size=10).map("".join)
name = st.sampled_from(["Ada", "Bo Li", "林若溪", "Dr. O'Neil"])
turn = st.tuples(st.integers(0, 7200), name, prose).map(
    lambda parts: f"[{parts[0] // 3600:02d}:{parts[0] // 60 % 60:02d}:{parts[0] % 60:02d}] {parts[1]}: "
    f"{' '.join(parts[2].split())}\n"
)
transcript = st.lists(turn, max_size=25).map("".join)
statement = st.sampled_from([
    "x = 1\n", "# a comment\n", "\n", "x = '''two\n# lines'''\n", "y = [\n  1,\n]\n", "x = 2; y = 3\n",
    "if x:\n    y = 1\nelse:\n    y = 2\n",
])  # fmt: skip
name_of = st.sampled_from(["f", "g", "long_name_of_a_function"])


def indented(text: str) -> str:
    return "".join(f"    {line}" if line.strip() else line for line in text.splitlines(keepends=True))


block = st.lists(statement, max_size=12).map("".join)
before = st.sampled_from(["", "@wraps\n", "# why\n@wraps\n"])
function = st.tuples(before, st.sampled_from(["def", "async def"]), name_of, block).map(
    lambda parts: f"{parts[0]}{parts[1]} {parts[2]}(a, b):\n    '''Doc.'''\n{indented(parts[3])}\n"
)
klass = st.tuples(name_of, st.lists(st.one_of(statement, function), max_size=5).map("".join)).map(
    lambda parts: f"class {parts[0].title()}:\n    '''Doc.'''\n{indented(parts[1])}\n"
)
python = st.lists(st.one_of(statement, function, klass), max_size=8).map("".join)
anything = st.one_of(prose, markdown, transcript, python, st.text(max_size=300))
