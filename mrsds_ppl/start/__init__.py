"""Where parameters begin, before joint training. Imports train and what is below it."""
