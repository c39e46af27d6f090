"""Make training data: a dataset out of videos, or masks and embeddings for folders of frames.

    python prepare_data.py videos FOLDER --output ROOT --insightface-root DIR --dwpose DIR
    python prepare_data.py faces FOLDER --insightface-root DIR

`videos` takes videos or folders NAME/images/frame_0.png, … and makes ROOT for training, with ROOT/report.md to look
at. It can be stopped at any time and started again. `faces` writes NAME/faces/frame_0.png, … and
NAME/embeddings.npy, with which such folders can be trained on as they are.
`prepare_data.py COMMAND --help` explains a command's flags.
Exit status: 0 done, 2 something in the input is wrong (one line on stderr says what), 130 interrupted.
"""

import sys
from collections.abc import Sequence

from stableanimator_jax.cli import leave, parse_flags, run_command, run_script
from stableanimator_jax.errors import InputError
from stableanimator_jax.preparation.config import FacesConfig, VideosConfig


def main(argv: Sequence[str]) -> None:
    """Run one command. Raises `InputError`."""
    run_command(argv, {"videos": _videos, "faces": _faces}, prog="prepare_data.py", description=__doc__ or "")


def _videos(flags: Sequence[str]) -> None:
    config = parse_flags(
        flags, VideosConfig(), prog="prepare_data.py videos", description="Videos to a dataset for training."
    )
    from stableanimator_jax.preparation.run import run  # OpenCV and others: slow, and not for --help

    try:
        result = run(config)
    except KeyboardInterrupt:
        print("note: the same command goes on where this one was stopped", file=sys.stderr)
        raise
    for video in result.failed:
        print(f"left out: {video.name}: {video.why}")
    for reason, count in result.dropped.items():
        print(f"left out: {count} clip{'s' * (count > 1)}: {reason}")
    done = "is there already" if result.already_there else "is ready"
    print(f"{config.output} {done}: {result.clips} clip{'s' * (result.clips != 1)}; see {config.output}/report.md")


def _faces(flags: Sequence[str]) -> None:
    config = parse_flags(
        flags, FacesConfig(), prog="prepare_data.py faces", description="Face masks and embeddings for folders."
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


if __name__ == "__main__":
    leave(run_script(main))
