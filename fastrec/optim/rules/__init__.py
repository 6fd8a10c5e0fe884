"""The update rules, one file each: a file in this folder that registers a ``Rule`` is an optimiser."""
