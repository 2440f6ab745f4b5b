"""Dispatch: which engine does what, and what happens when one dies.

`plan`, `scheduler` and `faults` are pure. `worker` is what an engine's process runs. `ray_driver` and `local` execute.
"""
