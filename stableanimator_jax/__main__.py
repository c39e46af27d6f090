"""`python -m stableanimator_jax COMMAND`, as the program `stableanimator`."""

from stableanimator_jax.scripts.main import script

if __name__ == "__main__":
    script()
