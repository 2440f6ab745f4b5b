"""Alignment: from a run's answers to what a model is trained on. Read `preferences`, then `examples`."""
