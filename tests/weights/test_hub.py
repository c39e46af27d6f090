"""Directories on the Hugging Face hub, as its cache keeps them; nothing here goes online."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from stableanimator_jax.errors import InputError
from stableanimator_jax.weights.checkpoint import describe
from stableanimator_jax.weights.hub import local_directory
from tests.make_stand_ins import make_stand_ins

SVD, ANIMATOR = "stabilityai/stable-video-diffusion-img2vid-xt", "FrancisRing/StableAnimator"


def cached(home: Path, repository: str, revision: str = "main") -> Path:
    """An empty snapshot in the hub's cache, which `revision` points to."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    folder = home / "hub" / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / revision).write_text(commit)
    snapshot = folder / "snapshots" / commit
    snapshot.mkdir(parents=True)
    return snapshot


def offline(home: Path, code: str) -> subprocess.CompletedProcess[str]:
    """huggingface_hub reads its settings when it is imported: a process of its own."""
    environment = os.environ | {
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": "1",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    environment.pop("HF_HUB_CACHE", None)
    lines = [sys.executable, "-c", code]
    return subprocess.run(lines, env=environment, capture_output=True, text=True, timeout=900)


def test_repositories_in_the_cache_are_imported_offline(tmp_path: Path):
    files, home = tmp_path / "files", tmp_path / "home"
    make_stand_ins(files, tiny=True, file_format="safetensors")
    svd = shutil.copytree(files / "SVD", cached(home, SVD), dirs_exist_ok=True)
    vae = Path(svd) / "vae"  # published in half precision only
    (vae / "diffusion_pytorch_model.safetensors").rename(vae / "diffusion_pytorch_model.fp16.safetensors")
    shutil.copytree(files / "Animation", cached(home, ANIMATOR, "v1") / "Animation")
    done = offline(
        home,
        "from pathlib import Path\nfrom stableanimator_jax.weights.importing import import_weights\n"
        f"animator = 'hf://{ANIMATOR}@v1'\n"
        f"import_weights(Path({str(tmp_path / 'c')!r}), svd='hf://{SVD}', stableanimator=animator, arcface=animator)",
    )
    assert done.returncode == 0, done.stderr
    description = describe(tmp_path / "c")
    assert len(description.models) == 6
    assert description.source["vae"]["files"][0]["name"].endswith("vae/diffusion_pytorch_model.fp16.safetensors")


@pytest.mark.parametrize("name", [f"hf://{SVD}", f"hf://{SVD}@v2"])
def test_offline_without_a_copy_is_one_clear_line(name: str, tmp_path: Path):
    done = offline(
        tmp_path,
        "from stableanimator_jax.errors import InputError\n"
        "from stableanimator_jax.weights.published_files import find_svd\n"
        f"try:\n    find_svd({name!r}, with_unet=True)\nexcept InputError as e:\n    print(e)",
    )
    assert done.stdout.startswith(f"{name} cannot be downloaded ("), done.stderr
    assert "is not in the cache: go online, unset HF_HUB_OFFLINE, or download it elsewhere" in done.stdout
    assert len(done.stdout.splitlines()) == 1


@pytest.mark.parametrize("name", ["hf://", "hf://one", "hf://a/b/c", "hf://a/b@", "hf://a b/c"])
def test_names_that_are_no_repository(name: str):
    with pytest.raises(InputError, match=r"is not a repository of the Hugging Face hub: write hf://OWNER/REPOSITORY"):
        local_directory(name, ["*"])


def test_errors_of_the_hub(monkeypatch: pytest.MonkeyPatch):
    import huggingface_hub
    from huggingface_hub import errors

    def http(kind: type[Exception]) -> Exception:
        return kind.__new__(kind)  # without the response that they are made from

    for error, message in (
        (http(errors.GatedRepoError), "is gated: accept its terms"),
        (http(errors.RepositoryNotFoundError), "no such repository, or it is private"),
        (http(errors.RevisionNotFoundError), "the repository has no revision 'main'"),
        (http(errors.HfHubHTTPError), r"cannot be downloaded \(HfHubHTTPError\)"),
        (OSError(28, "No space left on device"), r"cannot be downloaded \(No space left on device\)"),
        (TimeoutError("x"), r"cannot be downloaded \(TimeoutError\)"),
    ):

        def fail(*_args, error: Exception = error, **_kwargs):
            raise error

        monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
        with pytest.raises(InputError, match=message):
            local_directory("hf://owner/name@main", ["*"])


def test_directories_on_disk(tmp_path: Path):
    assert local_directory(str(tmp_path), ["*"]) == tmp_path
    with pytest.raises(InputError, match=r"nowhere does not exist"):
        local_directory(str(tmp_path / "nowhere"), ["*"])
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=r"file is a file; name its directory"):
        local_directory(str(tmp_path / "file"), ["*"])
