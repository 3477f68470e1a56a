"""Rung 6: real weights, from an alias, a Hugging Face folder, a name of its hub or a GGUF file."""
