"""Several sessions of one kind of recording, as one set of trials. Imports the rest of data."""
