"""A first RAG on LlamaIndex, with its inner steps laid open: README.md says in which order to read it."""
