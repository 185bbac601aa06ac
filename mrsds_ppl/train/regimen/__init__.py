"""Terms that temper training, each off unless it is asked for. Imports models and what is below them."""
