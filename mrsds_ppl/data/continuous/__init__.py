"""One continuous recording as trials: its pieces, and which of them are held out together. Imports errors only."""
