"""The course's data and models.

    data.fetch("smollm2-135m-instruct")  -> Path of the folder in the cache, downloaded when it is absent
    data.load_text("tiny-shakespeare")   -> str
    data.text_names()                    -> the names that load_text knows

`python -m data list | fetch | verify | path` does the same from a terminal; README.md has the table.
"""

from data.catalog import catalog, fetch, get
from data.texts import load_text, text_names

__all__ = ["catalog", "fetch", "get", "load_text", "text_names"]
