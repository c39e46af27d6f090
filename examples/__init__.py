"""What was made with the package, for others to look into and to run in a clone of the repository."""
