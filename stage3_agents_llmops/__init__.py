"""Stage 3: agents that work for a shop, and the operations around a model that is in use."""
