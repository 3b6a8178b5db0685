"""What Weaviate has beyond the narrow interface, tried on a live one: each function is an example to copy from."""

from collections.abc import Callable

import numpy as np
import weaviate
from weaviate.classes.config import Configure, DataType, Property, ReferenceProperty
from weaviate.classes.data import DataObject
from weaviate.classes.query import Filter, HybridFusion, QueryReference
from weaviate.classes.tenants import Tenant
from weaviate.exceptions import WeaviateBaseError

from stage2_rag_finetune_deploy.vector_db.patience import reason

NAME, OTHER = "FeaturePassage", "FeatureBook"


def own_vectors(client: weaviate.WeaviateClient, vectors: np.ndarray) -> str:
    """Vectorizer none: the collection takes the vectors it is given."""
    passages = make_passages(client)
    texts = ("a badger by the river", "the river bank", "an otter")
    passages.data.insert_many(
        [DataObject({"text": text, "page": n}, vector=vectors[n].tolist()) for n, text in enumerate(texts)]
    )
    found = passages.query.near_vector(vectors[1].tolist(), limit=1)
    return f"the nearest to its own vector: {found.objects[0].properties['text']!r}"


def hybrid(client: weaviate.WeaviateClient, vectors: np.ndarray) -> str:
    """alpha 0 is BM25 alone, 1 is vectors alone; fused by rank or by scores stretched to 0..1."""
    own_vectors(client, vectors)
    passages, first = client.collections.use(NAME), {}
    for alpha in (0.0, 0.5, 1.0):
        for fusion in (HybridFusion.RANKED, HybridFusion.RELATIVE_SCORE):
            options = {"vector": vectors[2].tolist(), "alpha": alpha, "fusion_type": fusion, "limit": 1}
            found = passages.query.hybrid("badger", **options)
            first[f"{alpha:g} {fusion.name.lower()}"] = int(found.objects[0].properties["page"])
    return f"first page by alpha and fusion: {first}"


def cross_references(client: weaviate.WeaviateClient, vectors: np.ndarray) -> str:
    """A passage points to its book; a search filters by the book's year and brings its title along."""
    client.collections.delete(OTHER)
    books = client.collections.create(
        OTHER,
        vector_config=Configure.Vectors.self_provided(),
        properties=[Property(name="title", data_type=DataType.TEXT), Property(name="year", data_type=DataType.INT)],
    )
    passages = make_passages(client, [ReferenceProperty(name="book", target_collection=OTHER)])
    for number, year in enumerate((1908, 1972)):
        book = books.data.insert({"title": f"book {number}", "year": year}, vector=vectors[number].tolist())
        text = {"text": f"of {number}", "page": 1}
        passages.data.insert(text, vector=vectors[number].tolist(), references={"book": book})
    found = passages.query.near_vector(
        vectors[0].tolist(), limit=2, filters=Filter.by_ref("book").by_property("year").greater_than(1950),
        return_references=QueryReference(link_on="book", return_properties=["title"]),
    )  # fmt: skip
    titles = [one.references["book"].objects[0].properties["title"] for one in found.objects]
    client.collections.delete(OTHER)
    return f"passages of books after 1950: {titles}"


def multi_tenancy(client: weaviate.WeaviateClient, vectors: np.ndarray) -> str:
    """A shard for each tenant: nobody's search can reach another's rows, and a tenant is dropped in one step."""
    passages = make_passages(client, multi_tenancy_config=Configure.multi_tenancy(enabled=True))
    passages.tenants.create([Tenant(name="anna"), Tenant(name="bo")])
    for tenant, count in (("anna", 3), ("bo", 1)):
        for number in range(count):
            passages.with_tenant(tenant).data.insert({"text": tenant, "page": number}, vector=vectors[number].tolist())
    seen = {
        name: len(passages.with_tenant(name).query.near_vector(vectors[0].tolist(), limit=9).objects)
        for name in ("anna", "bo")
    }
    passages.tenants.remove(["bo"])
    return f"each sees its own rows: {seen}; left after one was dropped: {list(passages.tenants.get())}"


def make_passages(client: weaviate.WeaviateClient, references: list | None = None, **options: object) -> object:
    """A new collection of texts and pages."""
    client.collections.delete(NAME)
    return client.collections.create(
        NAME,
        vector_config=Configure.Vectors.self_provided(),
        properties=[Property(name="text", data_type=DataType.TEXT), Property(name="page", data_type=DataType.INT)],
        references=references,
        **options,
    )


def try_all(client: weaviate.WeaviateClient, vectors: np.ndarray) -> dict[str, str]:
    """Every feature by name, and what happened."""
    trials: dict[str, Callable[[weaviate.WeaviateClient, np.ndarray], str]] = {
        "vectorizer none": own_vectors,
        "hybrid, alpha": hybrid,
        "cross references": cross_references,
        "multi-tenancy": multi_tenancy,
    }
    found = {}
    for name, trial in trials.items():
        try:
            found[name] = trial(client, vectors)
        except WeaviateBaseError as error:
            found[name] = f"not here: {reason(error)}"
    client.collections.delete([NAME, OTHER])
    return found
