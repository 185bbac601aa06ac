"""The loop, its state and history, the objective, stages, restarts. Imports guides and what is below them."""
