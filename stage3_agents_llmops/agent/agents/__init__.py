"""The agents: each a compiled graph of its own that reads, decides, and writes nothing."""
