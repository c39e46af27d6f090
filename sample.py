"""Animate the person of a reference image along a sequence of poses.

`python sample.py --help` says more.
"""

from stableanimator_jax.scripts.sample.command import script

if __name__ == "__main__":
    script()
