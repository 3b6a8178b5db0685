"""A shop for every test."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from data.shop import create_shop  # noqa: E402


@pytest.fixture(scope="session")
def shop_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return create_shop(tmp_path_factory.mktemp("shop") / "shop.sqlite", seed=3)


@pytest.fixture
def folder(tmp_path: Path, shop_file: Path) -> Path:
    """The state folder that services share, with a fresh shop."""
    state = tmp_path / "state"
    state.mkdir()
    (state / "shop.sqlite").write_bytes(shop_file.read_bytes())
    return state
