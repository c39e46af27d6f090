"""One ONNX network of known shape on ONNX Runtime: images in, arrays out, a batch at a time."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from stableanimator_jax.errors import InputError, first_line
from stableanimator_jax.files import require_file

_BATCH = 16  # images at once, where the model leaves it open


class OnnxModel:
    """A network with one image as input, whose file has been checked."""

    def __init__(
        self,
        path: Path,
        what: str,
        *,
        image: tuple[int, int, int],
        outputs: Sequence[tuple[int, ...]],
        source: str,
        providers: Sequence[str] | None = None,
    ):
        """Load it.

        Args:
            path: the `.onnx` file.
            what: names the model in errors, as in "person detector".
            image: channels, height and width that the network takes.
            outputs: the shape of each output for one image.
            source: where to get the file, for errors.
            providers: ONNX Runtime's execution providers by name; by default CUDA if this build of ONNX Runtime
                has it, else the CPU.

        Raises:
            InputError: no such file, no ONNX model, one of other shapes, or a provider that is not there.
        """
        import onnxruntime  # only some runs need it

        path = path.expanduser()
        self._what, self._outputs = f"{what} {path}", [tuple(shape) for shape in outputs]
        self._mismatch = f"is not the model that is expected; {source}"
        require_model(path, what, source)
        chosen = _providers(providers, onnxruntime.get_available_providers())
        try:
            self._session = onnxruntime.InferenceSession(str(path), providers=chosen)
        except Exception as e:  # ONNX Runtime has exceptions of its own
            raise InputError(f"{self._what} does not load as an ONNX model ({first_line(e)}); {source}") from e
        inputs = self._session.get_inputs()
        given = [node.shape for node in self._session.get_outputs()]
        self._check(len(inputs) == 1 and _fits(inputs[0].shape, image), "input", [i.shape for i in inputs], [image])
        self._check(len(given) == len(self._outputs), "output", given, self._outputs)
        self._check(all(map(_fits, given, self._outputs)), "output", given, self._outputs)
        self._input = inputs[0].name
        fixed = inputs[0].shape[0]
        self._check(fixed == 1 or not isinstance(fixed, int), "input", [inputs[0].shape], [image])
        self._batch = 1 if fixed == 1 else _BATCH

    def __call__(self, images: Iterable[Float32[np.ndarray, "c h w"]]) -> Iterator[tuple[np.ndarray, ...]]:
        """What the network says of each image, in order; images are asked for as they are needed.

        Raises:
            InputError: the outputs are not of the shapes that were expected.
        """
        images = iter(images)
        while batch := list(islice(images, self._batch)):
            results = [np.asarray(r) for r in self._session.run(None, {self._input: np.stack(batch)})]
            shapes = [result.shape for result in results]
            expected = [(len(batch), *shape) for shape in self._outputs]
            self._check(shapes == expected, "output", shapes, self._outputs)
            yield from zip(*results, strict=True)

    def _check(self, right: bool, side: str, shapes: Sequence[Sequence], expected: Sequence[Sequence]) -> None:
        if not right:
            wanted = " and ".join(str(["n", *shape]) for shape in expected).replace("'", "")
            found = " and ".join(str(list(shape)) for shape in shapes).replace("'", "")
            raise InputError(f"{self._what} has {side} {found} in place of {wanted}: it {self._mismatch}")


def require_model(path: Path, what: str, source: str) -> None:
    """Raise `InputError` unless `path` is a non-empty file; what it says ends with where to get it."""
    try:
        require_file(path, what)
    except InputError as e:
        raise InputError(f"{e}; {source}") from e


def _fits(shape: Sequence, expected: Sequence[int]) -> bool:
    """Whether a declared shape, in which names stand for open dimensions, can be a batch of `expected`."""
    return len(shape) == len(expected) + 1 and all(
        given == wanted or not isinstance(given, int) for given, wanted in zip(shape[1:], expected, strict=True)
    )


def _providers(chosen: Sequence[str] | None, available: Sequence[str]) -> list[str]:
    if chosen is None:
        return [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in available]
    for name in chosen:
        if name not in available:
            raise InputError(
                f"this ONNX Runtime has no {name}, only {', '.join(available)}; for CUDA, install onnxruntime-gpu"
            )
    return list(chosen)
