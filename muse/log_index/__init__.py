"""The index of the token log: from a line of the log up to a sum of millions of them.

`scan` reads a file on from where it was left, `tally` sums, `book` is what stands in the SQLite file, `index` keeps it
up with the log; `sums` and `lines` ask it.
"""
