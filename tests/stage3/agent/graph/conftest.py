"""A fresh shop for every test, copied from one that is made once."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # graph_stand_ins, also for the process that is killed

from graph_stand_ins import copy_of_shop  # noqa: E402

from stage3_agents_llmops.agent.settings import AgentSettings  # noqa: E402


@pytest.fixture(scope="session")
def shop_template(tmp_path_factory):
    return copy_of_shop(tmp_path_factory.mktemp("shop"))


@pytest.fixture
def settings(tmp_path, shop_template):
    return AgentSettings(shop=copy_of_shop(tmp_path, shop_template), state_dir=tmp_path / "state")
