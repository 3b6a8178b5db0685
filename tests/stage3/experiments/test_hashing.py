"""Each test names the bug that it catches."""

import pytest
from scipy.stats import chisquare

from stage3_agents_llmops.experiments.hashing import (
    SEGMENTS,
    fnv1a32,
    growthbook_hash,
    growthbook_ranges,
    hashed,
    segment,
    uniform,
)

# GrowthBook, packages/sdk-js/test/cases.json (spec 0.5.4), section `hash`: seed, value, version, bucket.
GROWTHBOOK_HASHES = [
    ("", "a", 1, 0.22), ("", "b", 1, 0.077), ("b", "a", 1, 0.946), ("ef", "d", 1, 0.652),
    ("asdf", "8952klfjas09ujk", 1, 0.549), ("", "123", 1, 0.011), ("", '___)((*":&', 1, 0.563),
    ("seed", "a", 2, 0.0505), ("seed", "b", 2, 0.2696), ("foo", "ab", 2, 0.2575), ("foo", "def", 2, 0.2019),
    ("89123klj", "8952klfjas09ujkasdf", 2, 0.124), ("90850943850283058242805", "123", 2, 0.7516),
    ("()**(%$##$%#$#", '___)((*":&', 2, 0.0128), ("abc", "def", 99, None),
]  # fmt: skip

# the same file, section `getBucketRange`: arms, coverage, weights, ranges
GROWTHBOOK_RANGES = [
    ((2, 1, None), [(0, 0.5), (0.5, 1)]),
    ((2, 0.5, None), [(0, 0.25), (0.5, 0.75)]),
    ((2, 0, None), [(0, 0), (0.5, 0.5)]),
    ((4, 1, None), [(0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1)]),
    ((2, 1, [0.4, 0.6]), [(0, 0.4), (0.4, 1)]),
    ((3, 1, [0.2, 0.3, 0.5]), [(0, 0.2), (0.2, 0.5), (0.5, 1)]),
    ((3, 0.2, [0.2, 0.3, 0.5]), [(0, 0.04), (0.2, 0.26), (0.5, 0.6)]),
    ((2, -0.2, None), [(0, 0), (0.5, 0.5)]),
    ((2, 1.5, None), [(0, 0.5), (0.5, 1)]),
    ((2, 1, [0.4, 0.1]), [(0, 0.5), (0.5, 1)]),
    ((2, 1, [0.7, 0.6]), [(0, 0.5), (0.5, 1)]),
    ((4, 1, [0.4, 0.4, 0.2]), [(0, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1)]),
    ((2, 1, [0.4, 0.5999]), [(0, 0.4), (0.4, 0.9999)]),
]


@pytest.mark.parametrize(("seed", "value", "version", "bucket"), GROWTHBOOK_HASHES)
def test_growthbook_hash_vectors(seed, value, version, bucket):
    """Catches: another prime, another order of seed and value, one hash in place of two."""
    assert growthbook_hash(seed, value, version) == bucket


@pytest.mark.parametrize(("arguments", "ranges"), GROWTHBOOK_RANGES)
def test_growthbook_range_vectors(arguments, ranges):
    """Catches: coverage that shifts the later arms, weights that are not mended as GrowthBook does."""
    assert growthbook_ranges(*arguments) == [pytest.approx(pair) for pair in ranges]


def test_fnv_published_vectors():
    """Catches: FNV-1 in place of FNV-1a. Source: draft-eastlake-fnv, appendix C."""
    assert [fnv1a32(text) for text in ("", "a", "foobar")] == [0x811C9DC5, 0xE40C292C, 0xBF9CF968]


def test_fnv_beyond_ascii_follows_javascript():
    """Catches: UTF-8 bytes where `charCodeAt` gives UTF-16 units: Chinese ids would land elsewhere than in the SDK."""
    units = [0x5BA2, 0xD83D, 0xDE00]  # 客 and a smiley outside the basic plane
    value = 0x811C9DC5
    for code in units:
        value = (value ^ code) * 0x01000193 % 2**32
    assert fnv1a32("客\U0001f600") == value


def test_hashed_is_planouts():
    """Catches: other digits or another separator. Choices of PlanOut's own test_assignment.py, unit 4, test_salt."""
    assert hashed("test_salt", "foo", "4") % 2 == 1  # 'b' of ['a', 'b']
    assert hashed("test_salt", "foo", "4") % 8 == 7
    assert hashed("test_salt", "bar", "4") % 2 == 0
    assert hashed("test_salt", "baz", "4") % 2 == 0


def test_uniform_is_open():
    """Catches: a 0 whose logarithm is minus infinity, a 1 that no arm owns."""
    assert 0 < 0.5 / 2**60 <= uniform("a", "b") <= (2**60 - 0.5) / 2**60 <= 1


@pytest.mark.parametrize("ids", ["{}", "u-{:08d}", "user_{}@example.org", "{0:x}-{0:o}"])
def test_segments_are_even_for_ids_in_order(ids):
    """Catches: a hash that keeps the order of the ids in it. 20,000 ids, 100 cells, p > .001."""
    counts = [0] * 100
    for number in range(20_000):
        counts[segment("layer", "user", ids.format(number)) * 100 // SEGMENTS] += 1
    assert chisquare(counts).pvalue > 0.001


def test_a_bare_modulo_fails_where_the_hash_passes():
    """Catches: a test of evenness that nothing fails. Ids that end in 0 to 4 only, as of a shop with two databases."""
    ids = [number for number in range(20_000) if number % 10 < 5]
    by_modulo, by_hash = [0] * 10, [0] * 10
    for number in ids:
        by_modulo[number % 10] += 1
        by_hash[segment("layer", "user", str(number)) * 10 // SEGMENTS] += 1
    assert chisquare(by_modulo).pvalue < 1e-100
    assert chisquare(by_hash).pvalue > 0.001
