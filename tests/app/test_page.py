"""The page as its visitors' requests meet it: checks, videos, cancelling, records; and requests that no page sends."""

import io
import json
import os
import time
import urllib.parse
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stableanimator_jax.data.video import read_frames
from stableanimator_jax.shipped import EXAMPLE
from tests.app.conftest import UNCLOSED, Served
from tests.app.visitor import API, Client
from tests.scripts.sample_script import photo

pytestmark = UNCLOSED


@pytest.fixture
def client(served: Served):
    client = Client(served.page, served.address)
    yield client
    served.workshop.visitors.leave(client.session)


def left(served: Served) -> set[str]:
    """Files of visitors that are still there."""
    shop = served.workshop
    paths = {Path(folder, name) for folder, _, names in os.walk(shop.root) for name in names}
    return {str(path) for path in paths - shop.visitors.shipped}


def value(output) -> str:
    """The path of a file among a function's outputs."""
    return output["value"]["path"]


def until(condition, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def test_a_check_shows_what_was_found_and_its_files_go_with_the_visitor(served: Served, client: Client):
    done = client.call("check", client.fields())
    assert done["success"]
    said, body, preview, *rest = done["output"]["data"]
    assert "Checked; nothing was animated" in said
    assert "32 frames of 64x64" in body["value"]
    assert "predicted time" in body["value"]
    assert body["value"].count("data:image/png;base64,") == 7
    assert str(served.workshop.root) not in json.dumps(body)
    status, video = client.request(f"{API}/file={value(preview)}")
    assert (status, video[4:8]) == (200, b"ftyp")
    assert not any(output["visible"] for output in rest)
    assert not list(served.workshop.jobs.iterdir())

    client.leave()
    until(lambda: not left(served))
    assert client.request(f"{API}/file={value(preview)}")[0] in (403, 404)


@pytest.mark.long
def test_a_video_its_record_and_the_fields_filled_in_again(served: Served, client: Client, tmp_path: Path):
    place = client.upload(photo(tmp_path / "my photo.png"))
    done = client.call("animate", client.fields(photo=place, seed=5, preset="fast", steps=2))
    assert done["success"], done
    said, _, _, video, sheet, plot, record = done["output"]["data"]
    assert "Made 32 frames of 64x64" in said
    assert not plot["visible"]
    for output, name in ((video, "a.mp4"), (sheet, "a.png"), (record, "a.json")):
        status, body = client.request(f"{API}/file={urllib.parse.quote(value(output))}")
        assert status == 200
        (tmp_path / name).write_bytes(body)
    with read_frames(tmp_path / "a.mp4") as (info, frames):
        assert (info.width, info.height, len(list(frames))) == (64, 64, 32)
    Image.open(tmp_path / "a.png").verify()
    text = (tmp_path / "a.json").read_text()
    assert str(served.workshop.root) not in text
    configuration = json.loads(text)["configuration"]
    assert configuration["reference"] == "my photo.png"
    assert not list(served.workshop.jobs.iterdir())

    status, answer = client.at_once("record", [client.upload(tmp_path / "a.json")])
    assert status == 200
    assert answer["data"][:-1] == [5, "fast", 2, 64, 64, "off", "linear", False]

    client.leave()
    until(lambda: not left(served))


@pytest.mark.long
def test_a_cancelled_video_leaves_nothing_and_the_next_one_runs(served: Served, client: Client):
    assert client.begin("animate", client.fields(steps=100))[0] == 200
    visitor = served.workshop.visitors.of(client.session)
    until(lambda: visitor.job is not None and visitor.job.standing.label == "denoising", 120)
    assert "Cancelled" in client.at_once("cancel", [])[1]["data"][0]
    (done,) = (message for message in client.messages() if message["msg"] == "process_completed")
    assert "Cancelled." in done["output"]["data"][0]
    assert not list(served.workshop.jobs.iterdir())
    assert "any more" in client.at_once("cancel", [])[1]["data"][0]
    other = Client(served.page, served.address)
    assert other.call("check", other.fields())["success"]
    other.leave()


@pytest.mark.long
def test_who_leaves_ends_their_job(served: Served, client: Client):
    client.begin("animate", client.fields(steps=100))
    visitor = served.workshop.visitors.of(client.session)
    until(lambda: visitor.job is not None and visitor.job.standing.label == "denoising", 120)
    client.leave()
    job = visitor.job
    assert job is not None
    until(lambda: job.ended, 60)
    until(lambda: not left(served))
    assert not served.workshop.device.locked()


def picture(kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(file, kind)
    return file.getvalue()


def bomb() -> bytes:
    """What says that it is 2 GB when unpacked."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("keypoints.npy", b"\0" * 1000)
    return file.getvalue().replace((1000).to_bytes(4, "little"), (2 * 10**9).to_bytes(4, "little"))


KEYPOINTS = {"width": 64, "height": 64, "people": []}
BAD_FILES = {
    "empty.png": ("photo", b""),
    "text.png": ("photo", b"no picture"),
    "cut.png": ("photo", picture("PNG")[:40]),
    "cut.jpg": ("photo", picture("JPEG")[:200]),
    "page.html": ("photo", b"<script>alert(1)</script>"),
    "bomb.svg": ("photo", b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>"),
    "photo.mp4": ("photo", b"\0\0\0\x18ftypmp42"),
    "large.bmp": ("photo", b"BM" + (60000).to_bytes(4, "little") * 13),
    "empty.json": ("poses", b""),
    "cut.json": ("poses", b'{"people": ['),
    "list.json": ("poses", b"[1, 2, 3]"),
    "deep.json": ("poses", b"[" * 100_000),
    "huge.json": ("poses", json.dumps(KEYPOINTS | {"width": 10**30}).encode()),
    "nan.json": ("poses", b'{"width": NaN, "height": 64}'),
    "empty.npy": ("poses", b""),
    "pickle.npy": ("poses", b"\x93NUMPY\x01\0v\0{'descr': '|O', 'fortran_order': False, 'shape': (1,), }".ljust(128)),
    "bomb.npz": ("poses", bomb()),
    "bad.npz": ("poses", b"PK\x03\x04"),
    "empty.mp4": ("poses", b""),
    "text.mp4": ("poses", b"no video at all"),
    "cut.gif": ("poses", picture("GIF")[:20]),
    "one.png": ("poses", picture("PNG")),
    "etc.txt": ("poses", b"root:x:0:0"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_are_refused_in_one_line(served: Served, client: Client, tmp_path: Path, name: str):
    field, content = BAD_FILES[name]
    (tmp_path / name).write_bytes(content)
    place = client.upload(tmp_path / name)
    given = {"photo": place} if field == "photo" else {"poses": [place], "movement": "poses"}
    done = client.call("animate", client.fields(**given))
    refused(served, done)
    client.leave()
    until(lambda: not left(served))


def refused(served: Served, done: dict, words: str = "") -> None:
    assert not done["success"]
    told = done["output"]["error"]
    assert isinstance(told, str)
    assert words in told.lower()
    assert len(told.splitlines()) == 1
    assert not any(part in told for part in ("Traceback", "went wrong", str(served.workshop.root), "/tmp"))
    assert not list(served.workshop.jobs.iterdir())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": -1}, "seed"),
        ({"seed": 2**32}, "seed"),
        ({"seed": 0.5}, "seed"),
        ({"seed": "7"}, "seed"),
        ({"seed": None}, "seed"),
        ({"seed": True}, "seed"),
        ({"steps": 0}, "steps"),
        ({"steps": 10**30}, "steps"),
        ({"steps": 1e308}, "steps"),
        ({"steps": [1]}, "steps"),
        ({"preset": "fastest"}, "preset"),
        ({"preset": {"a": 1}}, "preset"),
        ({"width": 64, "height": None}, "both"),
        ({"width": 100_000, "height": 64}, "width"),
        ({"width": -64, "height": 64}, "width"),
        ({"width": 72, "height": 64}, "multiples of 16"),
        ({"faces": 3}, "face"),
        ({"align": "../linear"}, "alignment"),
        ({"sound": "yes"}, "sound"),
        ({"movement": "driving"}, "move"),
        ({"movement": "poses"}, "poses"),
        ({"movement": 7}, "movement"),
        ({"photo": None}, "photo"),
    ],
)
def test_values_that_no_page_sends_are_refused(served: Served, client: Client, changes: dict, words: str):
    refused(served, client.call("animate", client.fields(**changes)), words)


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd", "file:///etc/passwd", "../../../etc/passwd", "http://127.0.0.1:1/a.png", "", "\0",
        "~/.ssh/id_rsa",
        "/proc/self/environ", "CACHE/../../../../etc/passwd", "CACHE", "CACHE/none.png",
    ],
)  # fmt: skip
@pytest.mark.parametrize("field", ["photo", "poses"])
def test_no_file_is_read_that_was_not_uploaded(served: Served, client: Client, path: str, field: str):
    place = {"path": path.replace("CACHE", str(served.workshop.cache)), "meta": {"_type": "gradio.FileData"}}
    given = {"photo": place} if field == "photo" else {"poses": [place], "movement": "poses"}
    done = client.call("animate", client.fields(**given))
    assert not done["success"]
    assert "root:" not in json.dumps(done)
    assert "Traceback" not in json.dumps(done)
    assert not list(served.workshop.jobs.iterdir())


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd", "file:///etc/passwd", "../../../../etc/passwd", "%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "CACHE/../../../etc/passwd", "pyproject.toml", "/proc/self/environ", "CACHE",
    ],
)  # fmt: skip
def test_no_file_is_served_that_is_not_the_pages(served: Served, client: Client, path: str):
    status, body = client.request(f"{API}/file={path.replace('CACHE', str(served.workshop.cache))}")
    assert status in (403, 404)
    assert b"root:" not in body


def test_files_that_are_too_large_are_refused(served: Served, client: Client, tmp_path: Path):
    (tmp_path / "large.png").write_bytes(b"\0" * 1_100_000)
    with pytest.raises(AssertionError, match="maximum allowed size"):
        client.upload(tmp_path / "large.png")
    assert not left(served)


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{", b'{"data": 1}', b'{"data": [], "fn_index": 999, "session_hash": "x"}', b'{"fn_index": -1}'],
)
def test_requests_without_sense_leave_nothing(served: Served, client: Client, body: bytes):
    for place in ("queue/join", "run/cancel", "upload"):
        status, text = client.request(f"{API}/{place}", body)
        assert status >= 400 or b"event_id" in text
        assert b"Traceback" not in text
    assert not left(served)


RECORD = {
    "format": "stableanimator-jax sampling run", "inputs": {}, "versions": {}, "result": {}, "hjb": [],
    "configuration": {
        "reference": "/etc/passwd", "driving": "/etc/passwd", "checkpoint": "/etc", "width": 64, "height": 64,
        "sampling": {
            "seed": 3, "steps": 7, "schedule": "aligned", "sampler": "euler", "guidance_interval": [0.0, 1000.0],
            "cache_interval": 1, "cache_branch": 0, "window": 9,
        },
        "hjb": {"iterations": "paper"}, "align": "limbs", "sound": True,
    },
}  # fmt: skip


def test_of_a_record_numbers_and_choices_are_taken(client: Client, tmp_path: Path):
    (tmp_path / "a.json").write_text(json.dumps(RECORD))
    status, answer = client.at_once("record", [client.upload(tmp_path / "a.json")])
    assert status == 200
    assert answer["data"][:-1] == [3, "balanced", 7, 64, 64, "paper", "limbs", True]
    assert "no field for window" in answer["data"][-1]
    assert "passwd" not in json.dumps(answer)


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "{}", "null", "[" * 100_000, json.dumps(RECORD | {"configuration": []}),
        json.dumps(RECORD | {"configuration": {"sampling": {"seed": 1e400}, "hjb": {}}}),
        json.dumps(RECORD).replace('"seed": 3', '"seed": ' + "9" * 5000),
        json.dumps(RECORD).replace('"steps": 7', '"steps": "../../etc/passwd"'),
        json.dumps(RECORD).replace('"limbs"', "[[]]"), json.dumps(RECORD).replace('"paper"', '{"a": 1}'),
    ],
)  # fmt: skip
def test_bad_records_are_refused(client: Client, tmp_path: Path, text: str):
    (tmp_path / "a.json").write_text(text)
    status, answer = client.at_once("record", [client.upload(tmp_path / "a.json")])
    if text.count('"paper"') == 0 and '{"a": 1}' in text:
        assert status == 200  # an unknown amount of optimisation is the published one
        return
    assert status == 500
    assert isinstance(answer["error"], str)
    assert "went wrong" not in answer["error"]
    assert "/" not in answer["error"].replace("number, or", "")


def test_two_visitors_with_one_photo_do_not_lose_it(served: Served, client: Client, tmp_path: Path):
    file = photo(tmp_path / "a.png")
    other = Client(served.page, served.address)
    for visitor in (client, other):
        place = visitor.upload(file)
        assert not visitor.call("check", visitor.fields(photo=place, seed=-1))["success"]
    other.leave()
    until(lambda: len(served.workshop.visitors) == 1)
    assert Path(place["path"]).is_file()
    assert (EXAMPLE / "reference.png").is_file()
