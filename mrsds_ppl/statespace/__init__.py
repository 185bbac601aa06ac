"""Mathematics of state-space models on arrays: chains of states, small matrices, smoothers and filters.

Imports nn, data, backend.
"""
