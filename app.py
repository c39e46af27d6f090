"""Serve a page on which people are animated in a browser.

`python app.py --help` says more.
"""

from stableanimator_jax.scripts.app.command import script

if __name__ == "__main__":
    script()
