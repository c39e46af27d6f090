"""The drawn world's recipe, step by step (examples/drawn_world/README.md); each can be stopped and started again.

    python -m examples.drawn_world COMMAND

with arcface, vae, image-encoder, dataset, base, fit, curves, ship, glasses, evaluate, limits, compare, gallery,
alignment, control, drift or ablate.

`python -m examples.drawn_world COMMAND --help` explains a command's flags.
"""

import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

from stableanimator_jax.errors import InputError
from stableanimator_jax.runtime import keep_compiled_programs
from stableanimator_jax.scripts.cli import parse_flags, run_command, run_script


def main(argv: Sequence[str]) -> None:
    """Run one command. Raises `InputError`."""
    run_command(argv, _COMMANDS, prog="python -m examples.drawn_world", description=__doc__ or "")


def _command(name: str, module: str, config: str, function: str, what: str) -> Callable[[Sequence[str]], None]:
    def run(flags: Sequence[str]) -> None:
        try:
            part: Any = importlib.import_module(f"examples.drawn_world.{module}")
        except ModuleNotFoundError as e:  # scikit-image, for its picture metrics
            raise InputError(f"{name} needs {e.name}, which is not installed: pip install -e '.[test]'") from e
        settings = parse_flags(
            flags, getattr(part, config)(), prog=f"python -m examples.drawn_world {name}", description=what
        )
        keep_compiled_programs()
        getattr(part, function)(settings)

    return run


_COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    "arcface": _command("arcface", "arcface", "ArcFaceTraining", "train", "ArcFace for drawn faces."),
    "vae": _command("vae", "vae", "VAETraining", "train", "The temporal VAE for drawn people."),
    "image-encoder": _command(
        "image-encoder", "image_encoder", "ImageEncoderTraining", "train", "CLIP's vision tower."
    ),
    "dataset": _command("dataset", "dataset", "DatasetConfig", "write", "The dataset that train.py takes."),
    "base": _command("base", "base", "BaseConfig", "assemble", "What StableAnimator's training begins from."),
    "fit": _command("fit", "animator", "AnimatorTraining", "train", "StableAnimator, for some minutes."),
    "ablate": _command("ablate", "ablations", "AblationConfig", "ablate", "The paper's ablations."),
    "evaluate": _command("evaluate", "ablations", "EvaluationConfig", "evaluate", "One checkpoint's measures."),
    "glasses": _command("glasses", "glasses", "GlassesTraining", "train", "What tells whether a face wears glasses."),
    "limits": _command("limits", "limits", "LimitsConfig", "limits", "What a video could reach at best."),
    "compare": _command("compare", "compare", "CompareConfig", "compare", "Evaluations beside each other."),
    "gallery": _command("gallery", "gallery", "GalleryConfig", "gallery", "Unseen people in unseen motions, moving."),
    "alignment": _command("alignment", "misaligned", "AlignmentConfig", "alignment", "Misaligned drivers."),
    "control": _command("control", "control", "ControlConfig", "control", "What each strength and style does."),
    "drift": _command("drift", "drift", "DriftConfig", "drift", "One long video, hundred frames by hundred frames."),
    "curves": _command("curves", "curves", "CurvesConfig", "plot_curves", "The loss curves as a picture."),
    "ship": _command("ship", "ship", "ShipConfig", "ship", "Trained weights into the package."),
}

if __name__ == "__main__":
    sys.exit(run_script(main))
