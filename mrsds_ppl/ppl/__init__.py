"""What makes a switching model a NumPyro program: the primitive, its bound, laws of paths. Imports statespace."""
