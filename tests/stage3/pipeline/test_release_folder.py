"""The recipe: the data check, a built release, and releases with one thing wrong."""

import asyncio
import json
import shutil
from pathlib import Path

import pytest

import data
from data.help_articles import HelpArticle, load_help_articles
from labkit.errors import LabError
from labkit.files import write_json, write_text
from stage3_agents_llmops.agent import AgentSettings
from stage3_agents_llmops.agent.knowledge import Knowledge
from stage3_agents_llmops.agent.release import ReleaseFolder
from stage3_agents_llmops.agent.text_encoder import load_e5
from stage3_agents_llmops.agent.understanding import build_understander
from stage3_agents_llmops.agent.understanding.classifier import load_classifier, utterances
from stage3_agents_llmops.agent.understanding.stored_classifier import load_stored, save_classifier
from stage3_agents_llmops.pipeline import package, training_data
from stage3_agents_llmops.pipeline.bad_releases import KINDS, make_bad
from stage3_agents_llmops.pipeline.package import build, check_data, data_sha256, draft
from stage3_agents_llmops.registry.file_registry import FileRegistry

ASKED = (
    "cancel KM204817, I ordered it twice", "Where is my parcel?", "我要退货，杯子碎了",
    "I need an invoice for KM204817",
)  # fmt: skip
SMALL = 0.2  # share of the frames that the tests' releases learn from: seconds instead of half a minute


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release, trained on few utterances."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(package, "KEPT", SMALL)
        return build(tmp_path_factory.mktemp("release") / "good", overrides={"max_handoffs": 3})


def understood(folder: Path) -> list[tuple[str, float]]:
    """(intent, confidence) of ASKED by a release's model, as the agents would have it."""
    release = ReleaseFolder.open(folder)
    understander = build_understander(AgentSettings(shop=folder, state_dir=folder, release=folder), release)

    async def all_of_them() -> list[tuple[str, float]]:
        found = [await understander.understand(text) for text in ASKED]
        return [(each.intent, round(each.confidence, 6)) for each in found]

    return asyncio.run(all_of_them())


# -- the data check


def test_the_courses_data_passes_and_is_counted() -> None:
    figures = check_data()
    assert figures["utterances"] > 4000 and figures["intents"] == 14
    assert figures["articles"] == 80 and figures["questions_answered"] == 1.0
    assert figures["utterances_en"] + figures["utterances_zh"] == figures["utterances"]
    sums = data_sha256()
    assert set(sums) == {"customer-service/train", "customer-service/validation", "short-requests/train", "help-centre"}
    assert all(len(sum) == 64 for sum in sums.values())


def line(**changes: object) -> str:
    return json.dumps({"text": "my lamp flickers, take it back", "intent": "return_item", "language": "en"} | changes)


def test_utterances_from_production_are_learnt_from_and_named(tmp_path: Path) -> None:
    more = tmp_path / "more.jsonl"
    write_text(more, "\n".join([line(), line(text="取消 KM204817", intent="cancel_order", language="zh")]))
    assert check_data(more)["utterances_added"] == 2
    assert data_sha256(more).keys() - data_sha256().keys() == {"production"}


@pytest.mark.parametrize(("text", "what"), [
    ("{", "line 1"), ("[]", "line 1"), (line(intent="cancle_order"), "cancle_order"), (line(language="fr"), "language"),
    (line(slots={"colour": "red"}), "no slot colour"), (line(slots={"reason": "because"}), "no reason 'because'"),
    (line(label="x"), "unknown field label"), (line(text="  "), "no text"), ('{"text": "hello"}', "line 1"),
])  # fmt: skip
def test_a_label_that_is_none_stops_the_pipeline(tmp_path: Path, text: str, what: str) -> None:
    more = tmp_path / "more.jsonl"
    write_text(more, text + "\n")
    with pytest.raises(LabError, match=what):
        check_data(more)


def test_a_sentence_of_the_test_set_is_not_learnt_from(tmp_path: Path) -> None:
    item = utterances("test")[0]
    more = tmp_path / "more.jsonl"
    write_text(more, line(text=f"  {item.text.upper()} ", intent=item.intent, language=item.language))
    with pytest.raises(LabError, match="a sentence that releases are judged by"):
        check_data(more)


def article(id: str = "window", language: str = "en", text: str = "You have 30 days.") -> HelpArticle:
    return HelpArticle(id, language, "Returns", "returns", text)


@pytest.mark.parametrize(("articles", "what"), [
    ([], "no articles"),
    ([article()], "one language only"),
    ([article(), article(language="zh", text="打 13812345678 找李明。")], "personal data"),
])  # fmt: skip
def test_articles_that_customers_should_not_get_stop_the_pipeline(articles: list[HelpArticle], what: str) -> None:
    with pytest.raises(LabError, match=what):
        check_data(articles=articles)
    assert check_data(articles=[article(), article(language="zh", text="30 天内可退。")])["articles"] == 2


def test_too_little_data_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_data, "utterances", lambda split: [])
    with pytest.raises(LabError, match="utterances to learn from"):
        check_data()


# -- the release


def test_a_built_release_understands_and_knows_what_the_checkout_knows(good: Path) -> None:
    intents = [intent for intent, _ in understood(good)]
    assert intents == ["cancel_order", "order_status", "return_item", "invoice"]
    release = ReleaseFolder.open(good)
    assert {(each.language, each.id) for each in release.articles} == {
        (each.language, each.id) for each in load_help_articles()}  # fmt: skip
    assert release.applied_to(AgentSettings(shop=good, state_dir=good)).max_handoffs == 3
    assert set(release.search_settings()) >= {"variant", "k", "thresholds"}
    assert release.model["data"] == data_sha256()


def test_a_whole_folder_is_kept_and_another_recipe_is_refused(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package, "KEPT", SMALL)
    before = {path: path.stat().st_mtime_ns for path in good.rglob("*")}
    assert build(good, overrides={"max_handoffs": 3}) == good
    assert {path: path.stat().st_mtime_ns for path in good.rglob("*")} == before
    for other in ({"seed": 2, "overrides": {"max_handoffs": 3}}, {"overrides": {}}):
        with pytest.raises(LabError, match="another recipe"):
            build(good, **other)
    with pytest.raises(LabError, match="cannot set colour"):
        build(good.with_name("x"), overrides={"colour": "red"})


def test_a_build_that_was_killed_goes_on(good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package, "KEPT", SMALL)
    half = tmp_path / "half"
    shutil.copytree(good / "model", half / "model")
    (half / ".tmp-1234-rag").mkdir()  # what the killed one was writing
    monkeypatch.setattr(package, "make_model", None)  # it must not be trained again
    build(half, overrides={"max_handoffs": 3})
    assert ReleaseFolder.open(half).id == ReleaseFolder.open(good).id
    assert not list(half.glob(".tmp-*"))


def test_two_seeds_learn_from_other_frames() -> None:
    items = utterances("train")
    kept = [{item.id for item in items if package.learnt_from(seed)(item)} for seed in (1, 1, 2)]
    assert kept[0] == kept[1] != kept[2]
    assert all(0.94 < len(each) / len(items) < 0.99 for each in kept)
    frames = {item.id.rsplit("#", 1)[0] for item in items} - {id.rsplit("#", 1)[0] for id in kept[0]}
    assert not [id for id in kept[0] if id.rsplit("#", 1)[0] in frames]  # whole frames


def test_stage_twos_adapter_becomes_a_release(tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    with pytest.raises(LabError, match="no adapter_config"):
        build(tmp_path / "release", adapter=adapter)
    write_json(adapter / "adapter_config.json", {"base_model_name_or_path": "smollm2-135m-instruct", "r": 8})
    (adapter / "adapter_model.safetensors").write_bytes(b"weights")
    release = ReleaseFolder.open(build(tmp_path / "release", adapter=adapter))
    assert (release.model["kind"], release.model["base"]) == ("adapter", "smollm2-135m-instruct")
    write_json(adapter / "adapter_config.json", {"base_model_name_or_path": str(data.fetch("smollm2-135m-instruct"))})
    elsewhere = ReleaseFolder.open(build(tmp_path / "elsewhere", adapter=adapter))
    assert elsewhere.model["base"] == "smollm2-135m-instruct"  # no path of the machine that trained it
    assert str(Path.home()) not in (elsewhere.folder / "model" / "adapter_config.json").read_text()
    with pytest.raises(LabError, match="nothing serves it"):
        build_understander(AgentSettings(shop=tmp_path, state_dir=tmp_path), release)
    served = AgentSettings(shop=tmp_path, state_dir=tmp_path, endpoint="http://127.0.0.1:9/v1")
    assert build_understander(served, release).first.client is not None


def test_it_is_published_with_its_lineage_and_comes_back_the_same(good: Path, tmp_path: Path) -> None:
    report = write_json(tmp_path / "evaluation.json", {"metrics": {"pass_1": 0.9}})
    registry = FileRegistry(tmp_path / "registry")
    published = registry.publish(draft(good, report, "ab" * 32, note="first"))
    lineage = published.manifest.lineage
    assert lineage.data == data_sha256() and lineage.parent == "ab" * 32 and lineage.evaluation
    loaded = registry.load(published.version, tmp_path / "loaded")
    assert ReleaseFolder.open(loaded).id == published.sha256[:12]
    assert understood(loaded) == understood(good)


# -- the classifier as files


def test_the_courses_classifier_survives_being_stored(tmp_path: Path) -> None:
    course = load_classifier()
    save_classifier(course, tmp_path / "one")
    stored = load_stored(tmp_path / "one", load_e5())
    texts = [item.text for item in utterances("validation")[:40]]
    vectors = course.embed(texts)
    assert abs(course.probabilities(texts, vectors) - stored.probabilities(texts, vectors)).max() < 1e-5
    assert course.reasons(texts, vectors) == stored.reasons(texts, vectors)
    save_classifier(stored, tmp_path / "two")
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def damage(folder: Path, how: str) -> None:
    if how == "cut off":
        path = folder / "heads.safetensors"
        path.write_bytes(path.read_bytes()[:1000])
    elif how == "missing":
        (folder / "ngrams.json").unlink()
    elif how == "n-grams lost":
        ngrams = json.loads((folder / "ngrams.json").read_text())
        write_json(folder / "ngrams.json", ngrams | {"intent": ngrams["intent"][:-1]})
    else:
        model = json.loads((folder / "model.json").read_text())
        other = model | {"encoder": "another"} if how == "encoder" else {"kind": "classifier"}
        write_json(folder / "model.json", other)


@pytest.mark.parametrize("how", ["cut off", "missing", "n-grams lost", "encoder", "nothing in it"])
def test_a_damaged_classifier_is_refused(good: Path, tmp_path: Path, how: str) -> None:
    shutil.copytree(good / "model", tmp_path / "model")
    damage(tmp_path / "model", how)
    with pytest.raises(LabError):
        load_stored(tmp_path / "model", load_e5())


# -- bad releases


@pytest.fixture(scope="module")
def bad(good: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("bad")
    return {kind: make_bad(kind, good, place / kind) for kind in KINDS}


def test_every_bad_release_is_whole_and_another_one(good: Path, bad: dict[str, Path]) -> None:
    ids = {ReleaseFolder.open(folder).id for folder in (good, *bad.values())}
    assert len(ids) == 5
    for folder in bad.values():
        release = ReleaseFolder.open(folder)
        assert len(release.articles) == 80 and release.overrides["max_handoffs"] == 3
        release.applied_to(AgentSettings(shop=folder, state_dir=folder))


def test_the_wrong_one_is_as_sure_of_itself_as_the_good_one(good: Path, bad: dict[str, Path]) -> None:
    right, wrong = understood(good), understood(bad["wrong"])
    assert all(one[0] != other[0] for one, other in zip(right, wrong, strict=True))
    assert [confidence for _, confidence in right] == [confidence for _, confidence in wrong]


def test_the_wrong_one_cites_articles_that_do_not_answer(bad: dict[str, Path], good: Path) -> None:
    texts = {(each.language, each.id): each.text for each in ReleaseFolder.open(good).articles}
    slipped = {(each.language, each.id): each.text for each in ReleaseFolder.open(bad["wrong"]).articles}
    assert texts.keys() == slipped.keys()
    assert not [key for key in texts if texts[key] == slipped[key]]
    assert sorted(texts.values()) == sorted(slipped.values())


def test_what_makes_the_others_bad_is_their_settings(good: Path, bad: dict[str, Path]) -> None:
    settings = AgentSettings(shop=good, state_dir=good)
    for kind, name in (("errors", "recursion_limit"), ("slow", "typing_pause"), ("unsafe", "ask_before_writing")):
        changed = ReleaseFolder.open(bad[kind]).applied_to(settings)
        assert getattr(changed, name) != getattr(settings, name)
        assert understood(bad[kind]) == understood(good)


@pytest.mark.parametrize(("kind", "what"), [("slowly", "no bad release of kind slowly"), ("slow", "there already")])
def test_a_bad_release_that_cannot_be_made(good: Path, tmp_path: Path, kind: str, what: str) -> None:
    with pytest.raises(LabError, match=what):
        make_bad(kind, good, tmp_path)


def test_the_knowledge_of_a_release_is_the_releases(good: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    shutil.copytree(good, few)
    for path in (few / "rag" / "articles").glob("*/*.md"):
        if path.stem not in ("complaints", "discounts-and-vouchers"):
            path.unlink()
    write_json(few / "rag" / "rag.json", {"variant": "bm25", "k": 2, "thresholds": {"help/en": 0.99}})
    knowledge = Knowledge.open(AgentSettings(shop=few, state_dir=few, release=few))
    found = knowledge.search("How do I complain?", "en")
    assert {passage.id for passage in found} <= {"en/complaints", "en/discounts-and-vouchers"} and found
    assert (knowledge.k, knowledge.thresholds["help", "en"]) == (2, 0.99)


