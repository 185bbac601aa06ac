"""What computes: devices, compiler flags, cores, trials a few at a time. Imports errors and data."""
