"""A page for weights that a visitor's photo and driving video go with: faces and poses are found in both."""

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from stableanimator_jax.scripts.app.serving import open_page
from stableanimator_jax.scripts.app.settings import AppConfig
from tests.app.conftest import UNCLOSED, Served, free_port
from tests.app.visitor import API, Client
from tests.data.clips import encode
from tests.perception import standin_models, standin_poses
from tests.training.mini_model import save_mini_model

pytestmark = UNCLOSED

FRAMES = 6


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Weights, the models that look, a photo, and films: of somebody who walks, and of nobody."""
    place = tmp_path_factory.mktemp("driving")
    save_mini_model(place / "mini")
    standin_poses.write_models(place / "dwpose")
    standin_models.write_models(place / "faces")
    picture = np.zeros((200, 200, 3), np.uint8)
    standin_poses.draw_person(picture, (60, 30, 140, 170))
    picture[10:19, 135:144] = (255, 0, 0)  # a face
    Image.fromarray(picture).save(place / "photo.png")
    frames = [np.zeros((120, 160, 3), np.uint8) for _ in range(FRAMES)]
    for i, frame in enumerate(frames):
        standin_poses.draw_person(frame, (40 + 4 * i, 30, 80 + 4 * i, 100))
    sound = {"samples": np.sin(np.arange(48000) / 20) * 0.3}
    encode(place / "walk.mov", frames, codec="png", rate=8, pixels="rgb24", sound=sound)
    encode(place / "empty.mov", [np.zeros((120, 160, 3), np.uint8)] * 3, codec="png", rate=8, pixels="rgb24")
    return place


@pytest.fixture(scope="module")
def served(collected, place: Path) -> Iterator[Served]:
    models = {"checkpoint": str(place / "mini"), "dwpose": place / "dwpose", "insightface_root": place / "faces"}
    with open_page(AppConfig(port=free_port(), max_frames=FRAMES - 1, **models)) as served:
        yield Served(*served)


@pytest.fixture
def client(served: Served) -> Iterator[Client]:
    client = Client(served.page, served.address)
    yield client
    client.leave()


def asked(client: Client, place: Path, film: str, **changes) -> list:
    """The page's fields with the photo and a film."""
    files = {"photo": client.upload(place / "photo.png"), "driving": client.upload(place / film)}
    return client.fields(**files, movement="driving", **changes)


def test_what_was_found_in_photo_and_film(served: Served, client: Client, place: Path):
    done = client.call("check", asked(client, place, "walk.mov"))
    assert done["success"], done
    said, body, *_ = done["output"]["data"]
    assert "Checked" in said
    assert f"{FRAMES - 1} frames of 64x64" in body["value"]
    assert "walk.mov" in body["value"]
    assert str(place) not in body["value"]
    assert str(served.workshop.root) not in body["value"]


def test_a_film_of_nobody_and_none_at_all_are_told_of(client: Client, place: Path):
    for fields, words in (
        (asked(client, place, "empty.mov"), "empty.mov"),
        (client.fields(photo=client.upload(place / "photo.png"), movement="driving"), "driving video"),
        (client.fields(movement="driving", driving=client.upload(place / "walk.mov")), "photo"),
    ):
        done = client.call("animate", fields)
        assert not done["success"]
        assert words in done["output"]["error"]
        assert str(place) not in done["output"]["error"]


@pytest.mark.long
def test_the_video_has_the_films_sound(served: Served, client: Client, place: Path, tmp_path: Path):
    done = client.call("animate", asked(client, place, "walk.mov", faces="published", sound=True))
    assert done["success"], done
    said, _, _, video, _, plot, _ = done["output"]["data"]
    assert f"Made {FRAMES - 1} frames of 64x64" in said
    assert plot["visible"]
    status, body = client.request(f"{API}/file={video['value']['path']}")
    assert status == 200
    (tmp_path / "made.mp4").write_bytes(body)
    with av.open(str(tmp_path / "made.mp4")) as made:
        assert [stream.type for stream in made.streams] == ["video", "audio"]
        assert sum(1 for _ in made.decode(video=0)) == FRAMES - 1
