"""Weaviate without a server: names, errors. With one, the conformance suite asks the rest."""

import uuid

import numpy as np
import pytest

from labkit.errors import LabError
from stage2_rag_finetune_deploy.vector_db import CollectionSpec, Record, open_store, weaviate_features
from stage2_rag_finetune_deploy.vector_db.weaviate_store import (
    WeaviateStore,
    class_name,
    scalar_property,
    spec_name,
    uuid_of,
)
from tests.stage2.vector_db.weaviate_stand_in import WeaviateStandIn


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


def test_features_against_the_stand_in():
    """Catches: a feature's code that does not speak the protocol, a lacking feature that ends the command.

    The stand-in has neither references nor tenants: those two are told as lacking.
    """
    vectors = np.eye(4)
    with WeaviateStandIn() as server, WeaviateStore(server.url, grpc_port=server.grpc_port) as store:
        found = weaviate_features.try_all(store.client, vectors)
        assert store.client.collections.list_all() == {}
    assert found["vectorizer none"] == "the nearest to its own vector: 'the river bank'"
    assert "'0 ranked': 0" in found["hybrid, alpha"] and "'1 ranked': 2" in found["hybrid, alpha"]
    assert found["cross references"].startswith("not here") and found["multi-tenancy"].startswith("not here")


def test_a_server_that_goes_away():
    """Catches: an endless wait, a traceback of gRPC instead of one line."""
    with WeaviateStandIn() as server:
        store = WeaviateStore(server.url, grpc_port=server.grpc_port, patience=0)
        store.create(CollectionSpec("docs", 4)).upsert([Record("a", np.ones(4))])
    with pytest.raises(LabError, match="lost Weaviate at http"):
        store.collections()
    store.close()


def test_an_address_where_nothing_listens(dead_port):
    """Catches: a wait, a traceback of httpx."""
    with pytest.raises(LabError, match="cannot reach Weaviate"):
        open_store("weaviate", f"http://127.0.0.1:{dead_port}")
