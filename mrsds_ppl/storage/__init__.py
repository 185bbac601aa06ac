"""Files of a run: where they are, whole or not at all; checkpoints and log. Imports errors."""
