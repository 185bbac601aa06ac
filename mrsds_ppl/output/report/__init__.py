"""One page about a fit."""
