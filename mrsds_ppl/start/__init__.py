"""Where parameters begin, before joint training: each a :class:`~mrsds_ppl.start.protocol.Start`.

Imports train and what is below it.
"""
