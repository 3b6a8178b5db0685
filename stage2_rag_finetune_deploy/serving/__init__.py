"""Serving a language model: an engine by hand, vLLM, and how to measure both."""
