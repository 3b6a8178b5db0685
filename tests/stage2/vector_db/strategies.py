"""Random filters over the fields of the test records."""

from hypothesis import strategies as st

from stage2_rag_finetune_deploy.vector_db import And, Eq, In, Not, Or, Range

LANGUAGES = ["en", "zh", 'a"b\\c', "d'e\nf", "", "en ", "EN", '" or "" == "', "中文", "\\", "%", "🦡"]
years = st.integers(1910, 2030) | st.sampled_from([-(2**53), 2**53])
prices = st.integers(-80, 200).map(lambda n: n / 7) | st.floats(-1e6, 1e6) | st.sampled_from([0.1, -4.29, 1e300])


def bounds(numbers: st.SearchStrategy) -> st.SearchStrategy[dict]:
    """Some of the four bounds of a Range."""
    names = st.sets(st.sampled_from(["at_least", "above", "at_most", "below"]), max_size=2)
    return names.flatmap(lambda chosen: st.fixed_dictionaries({name: numbers for name in chosen}))


leaves = st.one_of(
    st.builds(Eq, st.just("language"), st.sampled_from(LANGUAGES)),
    st.builds(Eq, st.just("year"), years),
    st.builds(Eq, st.just("price"), prices),
    st.builds(Eq, st.just("draft"), st.booleans()),
    st.builds(In, st.just("language"), st.lists(st.sampled_from(LANGUAGES), max_size=4)),
    st.builds(In, st.just("year"), st.lists(years, max_size=5)),
    st.builds(In, st.just("price"), st.lists(prices, max_size=3)),
    st.builds(In, st.just("draft"), st.lists(st.booleans(), max_size=2)),
    bounds(years).map(lambda limits: Range("year", **limits)),
    bounds(prices).map(lambda limits: Range("price", **limits)),
)

filters = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda parts: And(*parts)),
        st.lists(inner, max_size=3).map(lambda parts: Or(*parts)),
        inner.map(Not),
    ),
    max_leaves=6,
)

fields = st.fixed_dictionaries(
    {"language": st.sampled_from(LANGUAGES), "year": years, "price": prices, "draft": st.booleans()}
)
