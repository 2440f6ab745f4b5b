"""Engines: they turn prompts into answers. `protocol` says what an engine is, `build` makes the configured one."""
