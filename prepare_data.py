"""Make training data: a dataset out of videos, masks and embeddings for folders of frames, latents computed ahead.

`python prepare_data.py --help` says more.
"""

from stableanimator_jax.scripts.prepare.command import script

if __name__ == "__main__":
    script()
