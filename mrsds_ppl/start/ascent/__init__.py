"""Steps on log p(y) itself, for a start by smoothing."""
