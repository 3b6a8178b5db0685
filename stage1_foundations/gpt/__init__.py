"""The mini-GPT: a transformer language model written by hand, from tokenizer to trained weights."""
