"""Variants: named ways of asking. Each is a function from an `Ask` to a `Draft`, or a family of such functions.

A package of yours adds one with

    [project.entry-points."wdct_dist.variants"]
    my_variant = "my_package.my_module:my_variant"
"""
