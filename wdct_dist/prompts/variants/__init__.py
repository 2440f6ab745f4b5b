"""Variants: named ways of asking. Each is one function from an `Ask` to a `Draft`, registered as an entry point.

A package of yours adds one with

    [project.entry-points."wdct_dist.variants"]
    my_variant = "my_package.my_module:my_variant"
"""
