"""A small world of drawn people, in which all of the package's trainable weights are trained (README.md)."""
