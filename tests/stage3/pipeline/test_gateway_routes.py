"""The table of arms, the draw, the frames and the trace header, by themselves."""

import json
import stat
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labkit.errors import LabError
from stage3_agents_llmops.agent.service.sse import PING, sse_frame
from stage3_agents_llmops.pipeline.gateway import routes as routes_module
from stage3_agents_llmops.pipeline.gateway.admin_token import admin_token, allowed
from stage3_agents_llmops.pipeline.gateway.frames import FrameCutter
from stage3_agents_llmops.pipeline.gateway.routes import Arm, Routes, RoutesConflict, RouteTable, Shadow, parse_routes
from stage3_agents_llmops.pipeline.gateway.routing import Router, unit_of
from stage3_agents_llmops.pipeline.gateway.tracing import next_traceparent

UNITS = [f"C{number}" for number in range(1000, 5000)]


def table(number: int = 0, **weights: float) -> Routes:
    arms = [Arm(name, "cd34" if name == "canary" else "ab12", f"http://127.0.0.1:{8041 + place}", weight)
            for place, (name, weight) in enumerate(weights.items())]  # fmt: skip
    return Routes(number, tuple(arms), None, "rollout-1")


# -- the table


def test_of_two_writers_who_saw_the_same_table_one_wins_and_the_other_is_told(tmp_path: Path) -> None:
    routes = RouteTable.open(tmp_path)
    outcomes: list[str] = []
    start = threading.Barrier(8)

    def write() -> None:
        start.wait()
        try:
            routes.put(table(stable=100))
            outcomes.append("won")
        except RoutesConflict:
            outcomes.append("told")

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(outcomes) == {"won": 1, "told": 7}
    assert routes.routes.number == 1


def test_the_table_outlives_the_process_and_a_damaged_file_is_said(tmp_path: Path) -> None:
    wanted = replace(table(stable=90, canary=10), shadow=Shadow("ef56", "http://127.0.0.1:8049", 0.2))
    routes = RouteTable.open(tmp_path).put(wanted)
    assert RouteTable.open(tmp_path).routes == routes == replace(wanted, number=1)
    (tmp_path / "routes.json").write_text('{"number": 1, "arms": [')
    with pytest.raises(LabError, match="cannot be read"):
        RouteTable.open(tmp_path)


def test_on_a_full_disk_the_table_changes_all_the_same_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    routes = RouteTable.open(tmp_path)
    routes.put(table(stable=100))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(routes_module, "write_json", full)
    assert routes.put(table(1, stable=50, canary=50)).number == 2
    assert not routes.persisted
    assert RouteTable.open(tmp_path).routes.number == 1  # what a restart would find
    monkeypatch.undo()
    assert routes.save_again()
    assert RouteTable.open(tmp_path).routes.number == 2


@pytest.mark.parametrize(("value", "what"), [
    ({"arms": []}, "no number"),
    ({"number": "1"}, "number of the table"),
    ({"number": 0, "arms": [{"name": "a", "release": "x", "backend": "http://h:1"}]}, "has no weight"),
    ({"number": 0, "arms": [{"name": "a", "release": "x", "backend": "http://h:1", "weight": 90}]}, "sum to 90"),
    ({"number": 0, "arms": [{"name": "a", "release": "x", "backend": "http://h:1", "weight": True}]}, "weight"),
    ({"number": 0, "arms": [{"name": "a", "release": "x", "backend": "ftp://h:1", "weight": 100}]}, "no address"),
    ({"number": 0, "arms": [{"name": "a", "release": "x", "backend": "http://h:1/path", "weight": 100}]}, "no address"),
    ({"number": 0, "arms": [{"name": "a", "release": "x", "backend": "http://h", "weight": 100}]}, "no address"),
    ({"number": 0, "arms": [{"name": "a", "release": "x", "backend": "http://h:1", "weight": 50}] * 2}, "two arms"),
    ({"number": 0, "arms": [], "shadow": {"release": "x", "backend": "http://h:1", "share": 2}}, "share"),
    ({"number": 0, "wieghts": []}, "no field wieghts"),
    ([], "no JSON object"),
])  # fmt: skip
def test_a_table_with_a_mistake_is_refused_by_name(value: object, what: str) -> None:
    with pytest.raises(LabError, match=what):
        parse_routes(value)


def test_a_table_survives_json() -> None:
    wanted = replace(table(3, stable=90, canary=10), shadow=Shadow("ef56", "http://127.0.0.1:8049", 0.2))
    assert parse_routes(json.loads(json.dumps(wanted.as_dict()))) == wanted


# -- the draw


def test_customers_keep_their_arm_and_move_only_into_the_one_that_grows(tmp_path: Path) -> None:
    router = Router(table(stable=90, baseline=5, canary=5), tmp_path / "exposures.sqlite")
    before = {unit: router.draw(unit)[0].name for unit in UNITS}
    assert before == {unit: router.draw(unit)[0].name for unit in UNITS}
    counts = Counter(before.values())
    assert 140 < counts["canary"] < 260 and 140 < counts["baseline"] < 260
    router.use(table(1, stable=50, baseline=25, canary=25))
    moves = Counter((before[unit], router.draw(unit)[0].name) for unit in UNITS)
    moved = {pair for pair in moves if pair[0] != pair[1]}
    assert moved == {("stable", "baseline"), ("stable", "canary")}


def test_another_rollout_draws_other_customers(tmp_path: Path) -> None:
    first = Router(table(stable=90, canary=10), tmp_path / "a.sqlite")
    second = Router(replace(table(stable=90, canary=10), salt="rollout-2"), tmp_path / "b.sqlite")
    early = [{unit for unit in UNITS if router.draw(unit)[0].name == "canary"} for router in (first, second)]
    assert len(early[0] & early[1]) < 0.25 * len(early[0])  # a tenth of a tenth, not the same people again


def test_who_met_an_arm_is_written_once_for_each_table(tmp_path: Path) -> None:
    router = Router(table(1, stable=50, canary=50), tmp_path / "exposures.sqlite")
    for _ in range(3):
        arm, assignment = router.draw("C1001")
        router.expose(assignment)
    router.use(table(2, stable=50, canary=50))
    router.expose(router.draw("C1001")[1])
    rows = router.exposures.rows()
    assert [(row.experiment, row.unit, row.arm) for row in rows] == [
        ("rollout-1.1", "C1001", arm.name), ("rollout-1.2", "C1001", arm.name)]  # fmt: skip


def test_one_arm_is_no_experiment_and_no_arm_is_no_service(tmp_path: Path) -> None:
    router = Router(table(stable=100), tmp_path / "exposures.sqlite")
    assert router.draw("C1001") == (router.routes.arms[0], None)
    router.use(Routes())
    with pytest.raises(LabError, match="no release is in service"):
        router.draw("C1001")


def test_the_shadow_is_drawn_independently_of_the_arms(tmp_path: Path) -> None:
    routes = replace(table(stable=50, canary=50), shadow=Shadow("ef56", "http://127.0.0.1:8049", 0.2))
    router = Router(routes, tmp_path / "exposures.sqlite")
    shares = {}
    for name in ("stable", "canary"):
        mine = [unit for unit in UNITS if router.draw(unit)[0].name == name]
        shares[name] = sum(map(router.shadowed, mine)) / len(mine)
    assert all(0.17 < share < 0.23 for share in shares.values())


def test_who_stands_in_for_an_arm_has_the_same_release_if_anybody_has(tmp_path: Path) -> None:
    router = Router(table(stable=85, baseline=5, canary=10), tmp_path / "exposures.sqlite")
    stable, baseline, canary = router.routes.arms
    assert router.candidates(baseline) == [baseline, stable, canary]
    assert router.candidates(canary) == [canary, stable, baseline]


@pytest.mark.parametrize(("authorization", "thread", "unit"), [
    ("Bearer C1001.abc", "th_1", "C1001"), ("bearer  C1001.abc", None, "C1001"), ("Bearer nonsense", "th_1", "th_1"),
    (None, "th_1", "th_1"), ("", None, "1.2.3.4"), ("Bearer ../x.abc", None, "1.2.3.4"),
])  # fmt: skip
def test_the_unit_is_the_customer_else_the_conversation(
    authorization: str | None, thread: str | None, unit: str
) -> None:
    assert unit_of(authorization, thread, "1.2.3.4") == unit


# -- frames

texts = st.text(alphabet=st.characters(blacklist_categories=("Cs",)), max_size=40)


@settings(deadline=None)  # a busy machine is no failure
@given(
    st.lists(st.tuples(st.sampled_from(["token", "start", "end"]), texts), min_size=1, max_size=8),
    st.lists(st.integers(0, 2000), max_size=12),
)
def test_however_a_stream_is_cut_its_frames_come_out_whole_and_unchanged(
    events: list[tuple[str, str]], cuts: list[int]
) -> None:
    raw = [sse_frame(type, json.dumps({"text": text}), id=number) for number, (type, text) in enumerate(events, 1)]
    stream = PING.join([b"", *raw])
    places = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    cutter = FrameCutter()
    frames = [frame for start, end in zip(places, places[1:], strict=False) for frame in cutter.feed(stream[start:end])]
    told = [frame for frame in frames if frame.id is not None]
    assert [frame.raw for frame in told] == raw
    assert [(frame.id, frame.type, json.loads(frame.data)["text"]) for frame in told] == [
        (number, type, text) for number, (type, text) in enumerate(events, 1)]  # fmt: skip


def test_a_frame_without_an_end_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    from stage3_agents_llmops.pipeline.gateway import frames

    monkeypatch.setattr(frames, "LONGEST", 1000)
    cutter = FrameCutter()
    with pytest.raises(ValueError, match="without an end"):
        for _ in range(3):
            cutter.feed(b"data: " + b"x" * 500)


# -- headers and the token


def test_a_trace_is_gone_on_with_and_nonsense_begins_a_new_one() -> None:
    given_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    trace_id, header = next_traceparent(f"00-{given_id}-00f067aa0ba902b7-01")
    assert trace_id == given_id and header.startswith(f"00-{given_id}-") and "00f067aa0ba902b7" not in header
    for nonsense in (None, "", "x", f"00-{'0' * 32}-00f067aa0ba902b7-01", f"ff-{given_id}-00f067aa0ba902b7-01"):
        trace_id, header = next_traceparent(nonsense)
        assert trace_id != given_id and len(trace_id) == 32 and header.split("-")[1] == trace_id


def test_the_admins_token_is_the_owners_alone(tmp_path: Path) -> None:
    token = admin_token(tmp_path)
    assert token == admin_token(tmp_path)
    assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600
    assert allowed(f"Bearer {token}", token)
    for wrong in (None, "", token, f"Bearer {token}x", "Bearer ", f"Basic {token}", "Bearer é"):
        assert not allowed(wrong, token)
    (tmp_path / "token").chmod(0o644)
    with pytest.raises(LabError, match="others can read"):
        admin_token(tmp_path)
