"""Nothing: LLaMA-Factory imports torchaudio also for text, and its build for a CPU is not on the package index."""
