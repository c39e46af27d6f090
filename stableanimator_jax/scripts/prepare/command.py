"""Make training data: a dataset out of videos, masks and embeddings for folders of frames, latents computed ahead.

    stableanimator prepare videos FOLDER --output ROOT --insightface-root DIR --dwpose DIR
    stableanimator prepare faces FOLDER --insightface-root DIR
    stableanimator prepare encode ROOT --checkpoint DIR
    stableanimator prepare encode LIST.txt --size 512x512 --checkpoint DIR

`videos` takes videos or folders NAME/images/frame_0.png, … and makes ROOT for training, with ROOT/report.md to look
at. It can be stopped at any time and started again. `faces` writes NAME/faces/frame_0.png, … and
NAME/embeddings.npy, with which such folders can be trained on as they are. `encode` keeps what the checkpoint's VAE and
CLIP make of every frame, in ROOT/encoded or LIST.encoded, so that training need not run them in every step.
`stableanimator prepare COMMAND --help` explains a command's flags.
Exit status: 0 done, 2 something in the input is wrong (one line on stderr says what), 130 interrupted.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

from stableanimator_jax.commands import called
from stableanimator_jax.errors import InputError
from stableanimator_jax.preparation.config import EncodeConfig, FacesConfig, VideosConfig
from stableanimator_jax.scripts.cli import leave, parse_flags, run_command, run_script


def main(argv: Sequence[str]) -> None:
    """Run one command. Raises `InputError`."""
    run_command(
        argv, {"videos": _videos, "faces": _faces, "encode": _encode}, prog=called("prepare"), description=__doc__ or ""
    )


def _videos(flags: Sequence[str]) -> None:
    config = parse_flags(
        flags, VideosConfig(), prog=f"{called('prepare')} videos", description="Videos to a dataset for training."
    )
    from stableanimator_jax.preparation.run import run  # OpenCV and others: slow, and not for --help

    with _said_to_go_on():
        result = run(config)
    for note in result.notes:
        print(f"warning: {note}", file=sys.stderr)
    for video in result.failed:
        print(f"left out: {video.name}: {video.why}")
    for reason, count in result.dropped.items():
        print(f"left out: {count} clip{'s' * (count > 1)}: {reason}")
    done = "is there already" if result.already_there else "is ready"
    print(f"{config.output} {done}: {result.clips} clip{'s' * (result.clips != 1)}; see {config.output}/report.md")


def _faces(flags: Sequence[str]) -> None:
    config = parse_flags(
        flags, FacesConfig(), prog=f"{called('prepare')} faces", description="Face masks and embeddings for folders."
    )
    from stableanimator_jax.preparation.mask_tool import mask_folders

    results = mask_folders(config)
    for result in results:
        if result.why is None and result.written:
            print(f"{result.folder}: {' and '.join(result.written)}, a face in {result.with_face} of {result.frames}")
        elif result.why is None:
            print(f"{result.folder}: has both already; --overwrite makes them anew")
    if failed := [result for result in results if result.why is not None]:
        raise InputError("\n".join(str(result.why) for result in failed))


def _encode(flags: Sequence[str]) -> None:
    what = "Latents and embeddings ahead of training."
    config = parse_flags(flags, EncodeConfig(), prog=f"{called('prepare')} encode", description=what)
    from stableanimator_jax.preparation.encoding import encode

    with _said_to_go_on():
        result = encode(config)
    clips, size = f"{result.clips} clip{'s' * (result.clips != 1)}", f"{result.bytes / 1e9:.3g} GB"
    if not result.encoded and not result.damaged:
        print(f"{result.folder} is there already: {clips}, {size}")
    else:
        speed = f"{result.frames} frames in {result.seconds:.1f} s on {result.device}"
        print(f"{result.folder} is ready: {clips} ({result.encoded} of them now: {speed}), {size}")
    if result.damaged:
        raise InputError(
            f"{len(result.damaged)} of {clips} cannot be read and are left out; training does without them, if they "
            f"are no more than --data.damaged allows: {'; '.join(result.damaged[:5])}"
            + (f"; and {len(result.damaged) - 5} more" if len(result.damaged) > 5 else "")
        )


@contextmanager
def _said_to_go_on() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        print("note: the same command goes on where this one was stopped", file=sys.stderr)
        raise


def script(argv: Sequence[str] | None = None) -> NoReturn:
    """The program `prepare_data.py`, or `stableanimator prepare`."""
    leave(run_script(main, argv))
