"""The order in which the passes run before code is made: needed where code is on disk, too, to find it."""

DEFAULT = (
    "prune", "fold", "simplify", "cse", "control", "hoist", "cse", "guard", "attention", "decompose", "simplify", "cse",
    "transpose", "reshape", "layout",
)
"""What a graph goes through before it is scheduled: the names of `graphc.passes.pipeline`."""
