"""The scripts of the evaluation, and what is made of them: values from a shop, words."""

from collections import Counter
from random import Random

import pytest

from data.customer_service.normalise import order_number
from data.scripted_customers.script import SENSITIVE, load_scripts, scripts_sha256
from data.scripted_customers.shop_values import Market
from data.scripted_customers.wording import slip, worded, worded_parts, written_order
from data.shop.shop_database import dump
from labkit.errors import LabError
from stage3_agents_llmops.agent.evaluation.suite import make_shop, scripts_of

THEMES = {
    "happy", "changes_mind", "wrong_order", "stranger", "angry", "three_things", "policy", "injection", "comes_back",
    "mixed", "spoken", "yes_to_nothing", "human", "product",
}  # fmt: skip


@pytest.mark.parametrize("core", [True, False])
def test_there_are_enough_of_each_kind(core):
    """Catches: a suite without attacks, in one language, or with the same words each time."""
    scripts = scripts_of(core=core)
    languages = Counter(script.language for script in scripts)
    assert len(scripts) >= 32 and abs(languages["en"] - languages["zh"]) <= 2
    assert {script.theme for script in scripts} == THEMES
    tools = {action.tool for script in scripts for step in script.steps for action in step.does}
    assert len(tools) == 7 and sum(bool(step.tempts) for script in scripts for step in script.steps) >= 10
    for script in scripts:
        # every one asks for something that must be told or done: nobody is served by silence
        assert any(step.facts or step.cites for step in script.steps), script.name
        assert all(len(step.say) >= 2 for step in script.steps if step.say), script.name
        confirmed = [action for step in script.steps for action in step.does if action.tool in SENSITIVE]
        proposals = len(confirmed) + sum(bool(step.proposes) for step in script.steps)
        assert 5 <= len(script.steps) + proposals + 1 <= 12, script.name


def test_every_script_finds_its_customer_in_every_shop(tmp_path):
    """Catches: a shop in which four trials are not possible, and two conversations about one order."""
    scripts, values = scripts_of(), []
    for seed in (1, 2, 3):
        market = Market.of(dump(make_shop(tmp_path / f"{seed}.sqlite", seed)))
        found = [market.find(script, Random(f"{seed}{t}{script.name}")) for t in range(4) for script in scripts]
        people = [one.customer_id for one in found] + [id for one in found for id in one.strangers]
        assert len(people) == len(set(people))
        values.append({value for one in found for name, value in one.values.items() if name.endswith(".id")})
    assert not values[0] & values[1]


def test_a_shop_that_is_too_small_is_said(tmp_path):
    """Catches: an endless search, or a script about somebody else."""
    market = Market.of(dump(make_shop(tmp_path / "shop.sqlite", 1)))
    script = scripts_of("cancels_in_time")[0]
    with pytest.raises(LabError, match="cancels_in_time"):
        for trial in range(300):
            market.find(script, Random(trial))


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("form", ["any", "spoken"])
def test_order_numbers_in_every_form_are_still_that_number(language, form):
    """Catches: a customer who names an order that nobody has."""
    rng = Random(3)
    for _ in range(50):
        id = f"KM{rng.randrange(10**6):06d}"
        assert order_number(written_order(id, form, language, rng)) == id


def test_typos_spare_the_values_and_depend_on_the_seed():
    """Catches: a mistyped address, which is another address, and trials that are all alike."""
    values = {"a.text": "14 Fennel Row, Oakmere", "o.id": "KM204817"}
    texts = [worded(["Please deliver everything to {a.text} immediately"], values, "en", Random(s)) for s in range(60)]
    assert all(values["a.text"] in text for text in texts) and 2 <= len(set(texts)) <= 30
    assert texts[7] == worded(["Please deliver everything to {a.text} immediately"], values, "en", Random(7))
    assert slip("Please cancel", "en", Random(1)) != "Please cancel" and slip("查订单", "zh", Random(1)) == "查定单"
    parts = [["Cancel {o.id}."], ["Where is my lamp?"], ["I need an invoice."]]
    orders = {worded_parts(parts, values, "en", Random(s), typos=False) for s in range(40)}
    assert len(orders) > 6 and any("Also, where is my lamp?" in text for text in orders)
    assert all("I need an invoice." in text for text in orders)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "customers"),
        ("not toml", "correct"),
        ('[[customers]]\nname = "a"\ntheme = "x"\nsteps = [{ say = ["{order.id}"] }]', "{order} is not found"),
        ('[[customers]]\nname = "a"\ntheme = "x"\nsteps = [{ sya = ["hi"] }]', "knows no sya"),
        ('[[customers]]\nname = "a"\ntheme = "x"\nsteps = [{ about = "" }]', "either `say` or `parts`"),
        ('[[customers]]\nname = "a"\ntheme = "x"\nsteps = [{ say = ["x"], does = [{ tool = "pay" }] }]', "a tool that"),
        ('[[customers]]\nname = "a"\ntheme = "x"\nsteps = [{ say = ["x"], reply = "no" }]', "`proposes`"),
    ],
)
def test_a_wrong_script_is_said(tmp_path, text, words):
    """Catches: a typo in a script that quietly makes it easier."""
    (tmp_path / "en.toml").write_text(text, encoding="utf-8")
    with pytest.raises(LabError) as caught:
        load_scripts(tmp_path)
    assert words in caught.value.message + caught.value.try_next


def test_the_hash_tells_sets_apart():
    """Catches: figures of different task sets under one name."""
    scripts = scripts_of()
    assert scripts_sha256(scripts) == scripts_sha256(reversed(scripts)) != scripts_sha256(scripts[1:])
