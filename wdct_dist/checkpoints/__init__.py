"""Checkpoints: what the configuration names, what it is, and whether it can be evaluated. Nothing here starts an engine.

`sources` turns entries of the configuration into `Source`s, `describe` brings and checks one and gives a `Checkpoint`,
`digest` says what its files are, `gguf` turns GGUF files into safetensors, `fetch` brings a model ahead of a run.
"""
