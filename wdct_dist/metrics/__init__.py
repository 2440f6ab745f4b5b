"""Metrics: what the answers say, as tables. `derive` reads answers, one file a measure follows, `compute` puts them together."""
