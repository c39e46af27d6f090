"""Train or finetune StableAnimator, on one device or on many.

`python train.py --help` says more.
"""

from stableanimator_jax.scripts.train.command import script

if __name__ == "__main__":
    script()
