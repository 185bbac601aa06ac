"""One file a command of the command line, thin over fit and fitted."""
