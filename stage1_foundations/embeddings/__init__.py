"""Which embedding model, and how do you know? See README.md."""
