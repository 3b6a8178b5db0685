"""Each test names the bug that it catches."""

import logging
import warnings

import pytest
from matplotlib import rcParams
from PIL import Image

from labkit.errors import LabError
from stage2_rag_finetune_deploy.finetune import hand_drawn


@pytest.mark.parametrize("name", sorted(hand_drawn.FIGURES))
def test_draws_with_the_fonts_there_are(name, tmp_path, caplog):
    """Catches: comic fonts that few machines have (a warning for each text), a style that stays, a huge file."""
    before = dict(rcParams)
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        path = hand_drawn.FIGURES[name](tmp_path / f"{name}.png")
    assert not [record for record in caplog.records if "findfont" in record.getMessage()]
    assert rcParams["path.sketch"] is None and rcParams["font.size"] == before["font.size"]
    assert path.stat().st_size < 120_000
    with Image.open(path) as image:
        assert image.width > 1000 and len(image.convert("RGB").getcolors(256)) > 10  # not an empty sheet


def test_out_is_a_file(tmp_path):
    """Catches: a traceback from mkdir."""
    (tmp_path / "taken").touch()
    with pytest.raises(LabError, match="is a file"):
        hand_drawn.run_draw(hand_drawn.DrawConfig(out=tmp_path / "taken"), "")
