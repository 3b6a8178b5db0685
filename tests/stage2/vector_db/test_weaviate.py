"""Weaviate without a server: names, errors. With one, the conformance suite asks the rest."""

import uuid

import pytest

from labkit.errors import LabError
from stage2_rag_finetune_deploy.vector_db import open_store
from stage2_rag_finetune_deploy.vector_db.weaviate_store import class_name, scalar_property, spec_name, uuid_of


def test_a_record_has_one_uuid():
    """Catches: a random UUID, with which a second upsert makes a second object."""
    assert uuid_of("readme#1") == uuid_of("readme#1") != uuid_of("readme#2")
    assert uuid.UUID(uuid_of("关羽")).version == 5


def test_names_go_both_ways():
    """Catches: a collection that is created and never found again, because Weaviate capitalises it."""
    assert class_name("docs_2") == "Docs_2" and spec_name("Docs_2") == "docs_2"


def test_text_fields_are_compared_whole():
    """Catches: a filter on "a b" that matches "b a", as word tokens would."""
    assert scalar_property("owner", str).tokenization.value == "field"


def test_an_address_where_nothing_listens(dead_port):
    """Catches: a wait, a traceback of httpx."""
    with pytest.raises(LabError, match="cannot reach Weaviate"):
        open_store("weaviate", f"http://127.0.0.1:{dead_port}")
