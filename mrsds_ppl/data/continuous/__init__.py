"""One continuous recording as trials: its pieces, and which are held out together. Imports errors and padding only."""
