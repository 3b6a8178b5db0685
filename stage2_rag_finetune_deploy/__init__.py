"""Stage 2: chunking, vector databases, RAG, fine-tuning, alignment, quantisation, serving."""
