"""Where to cut a document, and how do you know? See README.md."""
