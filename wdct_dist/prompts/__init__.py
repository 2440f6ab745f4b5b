"""Prompts: from items to what is sent. `build` is the stage, `variants/` the ways of asking."""
