"""Runs that last: a folder is their queue; claimed, spawned, recorded, recovered, scheduled, a file here for each.

It speaks to agents by standard input and output only (`python -m muse.agents`). `supervisor.Cortex` is the whole of it.
"""
