"""Dispatch: which engine does what, and what happens when one dies.

`plan`, `scheduler` with `choice`, `suspects` and `queues`, `pool_size` and `faults` are pure. `worker` is what an engine's process runs.
`ray_driver` (in the cluster that `ray_cluster` joins or starts) and `local` execute.
"""
