"""Messages with personal data. Each test names the bug that it catches."""

from collections import Counter

import pytest

from data.pii_set import KINDS, LANGUAGES, load_pii, read
from labkit.errors import LabError


def test_there_are_enough_of_both_sorts_in_both_languages():
    """Catches: a set that is measured in one language only, and one without look-alikes."""
    assert len(load_pii(positive=True)) >= 60 and len(load_pii(positive=False)) >= 40
    assert set(Counter(sample.language for sample in load_pii())) == set(LANGUAGES)
    assert {kind for sample in load_pii() for kind, _ in sample.secrets} == set(KINDS)
    assert len({sample.text for sample in load_pii()}) == len(load_pii())


def test_a_leak_is_seen_through_spaces_and_in_part():
    """Catches: a mask that leaves the last four digits plus some, or only takes the dashes out, and passes."""
    sample = next(one for one in load_pii("en") if one.secrets == (("card", "4111 1111 1111 1111"),))
    assert sample.leaked(sample.text) and sample.leaked("4111-1111-1111-1111") and sample.leaked("x4111 11111 x")
    assert not sample.leaked("Charge it to [card] please.") and not sample.leaked("ends in 1111")


@pytest.mark.parametrize(("samples", "lookalikes"), [(["no mark"], []), (["[1](dog)"], []), ([], ["[1](phone)"])])
def test_a_message_in_the_wrong_list_is_named(tmp_path, samples, lookalikes):
    """Catches: a positive without a secret, which nothing can leak."""
    path = tmp_path / "en.toml"
    path.write_text(f"samples = {samples!r}\nlookalikes = {lookalikes!r}\n", encoding="utf-8")
    with pytest.raises(LabError, match="en.toml, en-"):
        read(path)


def test_an_unknown_language_is_refused():
    """Catches: a misspelt language that yields nothing, and a test that passes on nothing."""
    with pytest.raises(LabError, match="'fr'"):
        load_pii("fr")
