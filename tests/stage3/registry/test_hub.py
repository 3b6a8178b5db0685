"""Push and pull against a hub on this machine that speaks the real one's calls. Each test names the bug it catches."""

from pathlib import Path

import pytest
from hub_server import TOKEN, Entry, HubServer
from huggingface_hub import ModelCard

from labkit.errors import LabError
from stage3_agents_llmops.registry.file_registry import FileRegistry
from stage3_agents_llmops.registry.hub import draft_of, pull, push, tag_of
from stage3_agents_llmops.registry.interface import Conflict, Damaged
from stage3_agents_llmops.registry.model_card import model_card
from stage3_agents_llmops.registry.release import Lineage

REPO = "shop/customer-service"


@pytest.fixture(scope="module")
def server():
    with HubServer() as hub:
        yield hub


@pytest.fixture
def hub(server, monkeypatch):
    """An empty hub that HF_ENDPOINT and HF_TOKEN point at."""
    server.repos.clear()
    server.objects.clear()
    server.calls.clear()
    server.before_commit = lambda repo: None
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return server


def test_a_release_goes_and_comes_back(hub, bench, tmp_path):
    """Catches: a file that is lost on the way, a release that gets another name, a large file that is sent twice."""
    lineage = Lineage({"train": "1" * 64}, "c" * 40)
    release = bench.registry.publish(bench.draft("a", lineage=lineage, metrics={"exact": 0.8}, note="first"))
    pushed = push(bench.registry, 1, REPO, token=TOKEN)
    assert pushed.tag == tag_of(release.sha256) and hub.repos[REPO].refs[pushed.tag] == pushed.commit
    manifest = pull(REPO, tmp_path / "came", pushed.tag)
    assert manifest.sha256 == release.sha256 and manifest == release.manifest
    elsewhere = FileRegistry(tmp_path / "elsewhere")
    assert elsewhere.publish(draft_of(tmp_path / "came", manifest)).sha256 == release.sha256
    assert not (tmp_path / "came" / "README.md").exists()
    uploads = len([call for call in hub.calls if call.startswith("PUT /lfs/")])
    bench.publish("b")
    push(bench.registry, 2, REPO, token=TOKEN)
    assert uploads >= 3 and len([call for call in hub.calls if call.startswith("PUT /lfs/")]) == uploads
    assert pull(REPO, tmp_path / "newest").sha256 == bench.registry.get(2).sha256
    assert pull(REPO, tmp_path / "first", pushed.tag).sha256 == release.sha256


def test_files_of_the_last_release_do_not_stay(hub, bench, tmp_path):
    """Catches: a file that the new release does not have and the repository still hands out."""
    draft = bench.draft("a")
    (draft.parts["graph"] / "old.txt").write_text("old")
    bench.registry.publish(draft)
    push(bench.registry, 1, REPO, token=TOKEN)
    (draft.parts["graph"] / "old.txt").unlink()
    bench.registry.publish(draft)
    push(bench.registry, 2, REPO, token=TOKEN)
    assert "graph/old.txt" not in hub.tree(REPO) and "graph/prompt.txt" in hub.tree(REPO)
    pull(REPO, tmp_path / "came")


def test_the_card(hub, bench):
    """Catches: a card without figures, one that the hub cannot read, text that becomes markup."""
    hostile = "better | <script>alert(1)</script>\n# heading"
    lineage = Lineage({"train": "1" * 64})
    bench.registry.publish(bench.draft("a", metrics={"exact": 0.8125}, note=hostile, lineage=lineage))
    push(bench.registry, 1, REPO, token=TOKEN, base_model="Qwen/Qwen2.5-7B-Instruct")
    text = hub.tree(REPO)["README.md"].decode()
    card = ModelCard(text).data
    assert (card.license, card.base_model, card.language) == ("apache-2.0", "Qwen/Qwen2.5-7B-Instruct", ["en", "zh"])
    assert [(result.metric_type, result.metric_value) for result in card.eval_results] == [("exact", 0.8125)]
    assert "| exact | 0.8125 |" in text and bench.registry.get(1).sha256 in text
    body = text.split("---\n", 2)[2]
    assert "<script>" not in body and "\n# heading" not in body
    assert card.library_name == "transformers" and "AutoModelForCausalLM" in body
    bench.registry.publish(bench.draft("b", evaluated=False))
    push(bench.registry, 2, REPO, token=TOKEN)
    assert "**This release was not evaluated.**" in hub.tree(REPO)["README.md"].decode()


@pytest.mark.parametrize(("file", "library", "says"), [
    ("config.json", "transformers", ["AutoModelForCausalLM"]), ("model.json", None, []),
    ("adapter_config.json", "peft", ["AutoModelForCausalLM", "PeftModel"]),
])  # fmt: skip
def test_the_card_says_how_this_model_is_loaded(bench, file, library, says):
    """Catches: advice to load a classifier as a language model."""
    draft = bench.draft("a")
    (draft.parts["model"] / "config.json").rename(draft.parts["model"] / file)
    text = model_card(bench.registry.publish(draft), REPO)
    assert ModelCard(text).data.library_name == library
    assert [word for word in ("AutoModelForCausalLM", "PeftModel") if word in text] == says
    assert f"--repo {REPO}" in text


def test_of_two_who_push_one_is_told(hub, bench):
    """Catches: a commit over somebody else's."""
    bench.publish("a", "b")
    push(bench.registry, 1, REPO, token=TOKEN)
    hub.before_commit = lambda repo: repo.commit({"theirs.txt": Entry(b"theirs")})
    with pytest.raises(Conflict, match="somebody else pushed"):
        push(bench.registry, 2, REPO, token=TOKEN)
    assert set(hub.tree(REPO)) == {"theirs.txt"}


@pytest.mark.parametrize("path", ["graph/prompt.txt", "model/weights/model.safetensors"])
def test_a_mirror_that_changes_a_file_is_found_out(hub, bench, tmp_path, path):
    """Catches: a download that is believed."""
    bench.publish("a")
    push(bench.registry, 1, REPO, token=TOKEN)
    repo = hub.repos[REPO]
    entry = repo.commits[repo.refs["main"]][path]
    if entry.lfs:
        hub.objects[entry.lfs] = b"!" + hub.objects[entry.lfs][1:]
    else:
        repo.commits[repo.refs["main"]][path] = Entry(b"!")
    with pytest.raises((Damaged, LabError)):
        pull(REPO, tmp_path / "came")
    assert not (tmp_path / "came").exists() and not list(tmp_path.glob(".tmp-*"))


def test_a_mirror_that_gives_another_release_is_found_out(hub, bench, tmp_path):
    """Catches: an older release, whole and correct, under the tag of a newer one."""
    bench.publish("a", "b")
    first, second = (push(bench.registry, version, REPO, token=TOKEN) for version in (1, 2))
    hub.repos[REPO].refs[second.tag] = first.commit
    with pytest.raises(Damaged, match=first.tag):
        pull(REPO, tmp_path / "came", second.tag)


def test_a_damaged_release_is_not_sent(hub, bench):
    """Catches: damage that spreads."""
    bench.publish("a")
    bench.damage(b"a", b"x")
    with pytest.raises(Damaged):
        push(bench.registry, 1, REPO, token=TOKEN)
    assert not hub.repos


def test_commands(hub, bench, cli, tmp_path):
    """Catches: commands that fail outside the tests above."""
    bench.publish("a")
    bench.registry.set_alias("champion", 1)
    code, out, err = cli("push", "--registry", bench.place, "--repo", REPO)
    assert code == 0 and "tag release-" in out, err
    tag = out.split()[-1]
    words = ("--repo", REPO, "--revision", tag, "--target", tmp_path / "came")
    code, out, err = cli("pull", *words, "--publish", "--registry", tmp_path / "mine")
    assert code == 0 and "version 1 of this registry" in out, err
    assert FileRegistry(tmp_path / "mine").get(1).sha256 == bench.registry.get(1).sha256
    assert cli("pull", *words)[0] == 0, "the same release again is no error"


@pytest.mark.parametrize(("words", "error"), [
    (("push",), "where to?"),
    (("push", "--repo", "no-owner"), "'no-owner' is no repository"),
    (("push", "--repo", REPO, "--ref", "shadow"), "the registry has no alias shadow"),
    (("pull",), "which one?"),
    (("pull", "--repo", REPO), "where to?"),
    (("pull", "--repo", "shop/none", "--target", "x"), "has no shop/none, or not for you"),
    (("pull", "--repo", REPO, "--revision", "v9", "--target", "x"), "has no such revision"),
    (("pull", "--repo", REPO, "--target", "x", "--endpoint", "http://127.0.0.1:9"), "cannot be reached"),
])  # fmt: skip
def test_bad_input_is_two_lines(hub, bench, cli, tmp_path, monkeypatch, words, error):
    """Catches: a traceback of the client library."""
    monkeypatch.chdir(tmp_path)
    bench.publish("a")
    bench.registry.set_alias("champion", 1)
    push(bench.registry, 1, REPO, token=TOKEN)
    code, _, err = cli(*words, *(("--registry", bench.place) if words[0] == "push" else ()))
    lines = err.splitlines()
    assert code == 2 and error in lines[0] and lines[1].startswith("  try: ") and len(lines) == 2, err
    assert not Path("x").exists()


def test_a_wrong_token_is_said(hub, bench, cli, monkeypatch):
    """Catches: "401 Client Error" and nothing to do about it."""
    bench.publish("a")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    code, _, err = cli("push", "--registry", bench.place, "--ref", 1, "--repo", REPO)
    assert code == 2 and "HF_TOKEN=... of an account that may write" in err and "hf_wrong" not in err
