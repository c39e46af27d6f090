"""OpenCV for everything that uses it: `from stableanimator_jax.opencv import cv2`.

Its wheel needs libraries of the system that small machines and containers lack. Without them nothing fails that does
not use it, and what does says what to install.
"""

from typing import TYPE_CHECKING, NoReturn

from stableanimator_jax.errors import InputError


class _Missing:
    def __init__(self, reason: ImportError):
        self._reason = reason

    def __getattr__(self, name: str) -> NoReturn:
        install = "pip install opencv-python"
        if ".so" in str(self._reason):
            install = "install what it needs of the system: apt-get install libgl1 libglib2.0-0 (Debian and Ubuntu)"
        raise InputError(f"OpenCV cannot be loaded ({self._reason}); {install}") from self._reason


if TYPE_CHECKING:
    import cv2 as cv2
else:
    try:
        import cv2
    except ImportError as e:
        cv2 = _Missing(e)


def require_opencv() -> None:
    """Raise `InputError` unless OpenCV can be used: at once, rather than in the midst of work or by another package."""
    _ = cv2.__version__
