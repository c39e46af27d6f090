"""Measure how good animated videos are.

`python evaluate.py --help` says more.
"""

from stableanimator_jax.scripts.evaluate.command import script

if __name__ == "__main__":
    script()
