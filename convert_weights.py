"""Bring PyTorch's weights in, take ours out, or look into a checkpoint.

`python convert_weights.py --help` says more.
"""

from stableanimator_jax.scripts.convert.command import script

if __name__ == "__main__":
    script()
