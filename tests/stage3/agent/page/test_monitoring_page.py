"""The monitor's page in a browser. Each test names the bug that it catches."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parents[1] / "service"), str(Path(__file__).parents[2] / "monitoring")]

from made_runs import runs_over  # noqa: E402
from service_under_test import running  # noqa: E402

from stage3_agents_llmops.monitoring import RunLog  # noqa: E402
from stage3_agents_llmops.monitoring.monitor import Monitor  # noqa: E402
from stage3_agents_llmops.monitoring.serve_command import make_app  # noqa: E402

PATIENCE = 60_000


@pytest.fixture
def watched(tmp_path) -> Iterator[tuple[str, RunLog]]:
    """The page over a table with a good release and a canary that fails."""
    with RunLog(tmp_path / "runs.sqlite") as log:
        now = time.time()
        log.add(*runs_over(100, 250, end=now, release="good"))
        log.add(*runs_over(100, 60, end=now, release="bad", arm="canary", status="failed"))
        with running(make_app(Monitor(log, step=1.0)), tmp_path) as service:
            yield service.url, log


@pytest.mark.parametrize(("width", "locale"), [(1280, "en-GB"), (360, "zh-CN")])
def test_the_page_shows_what_happens(watched, open_page, width, locale):
    """Catches: a script that the page's own policy forbids, a percentile of too few runs, an alert that needs a
    reload, a page wider than a phone."""
    url, log = watched
    page = open_page(f"{url}/dashboard", width, 900, locale=locale)
    page.set_default_timeout(PATIENCE)
    few = "too few samples" if locale == "en-GB" else "样本不足"
    page.wait_for_selector("#figures td")
    assert page.locator("#figures thead th").all_inner_texts()[1:] == ["good", "bad"]
    assert few in page.locator("#figures").inner_text()
    assert page.locator("#charts svg").count() == 6 and page.locator("#charts path").count() > 6
    page.wait_for_selector("#alerts .firing")
    assert "ErrorRateHigh" in page.locator("#alerts .firing").first.inner_text()
    log.add(*runs_over(1, 30, end=time.time(), release="newest"))
    page.locator("#figures thead th").nth(3).wait_for()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.click("#language")
    assert page.locator("h1").inner_text() != (
        "Customer service: monitoring" if locale == "en-GB" else "智能客服：运行监控"
    )
