import numpy as np
import onnx
import pytest

from stableanimator_jax.errors import InputError
from stableanimator_jax.perception.faces import FaceAnalyser, load_face_embedding
from tests.data.clips import one_line
from tests.perception.standin_models import CELL, TEMPLATE, half_size, write_models

SIDE = 640  # the detector's own size: nothing is scaled


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("insightface")
    write_models(root / "models" / "antelopev2")
    return root


@pytest.fixture(scope="module")
def analyser(root):
    return FaceAnalyser(root)


def scene(*faces: tuple[int, int, int]):
    """A grey-blue RGB picture with faces: (row, column) of a cell, and its red."""
    image = np.full((SIDE, SIDE, 3), (40, 60, 90), np.uint8)
    for row, column, red in faces:
        image[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL] = (red, 0, 0)
    return image


def box_of(row: int, column: int, red: int):
    centre, half = np.array([column + 0.5, row + 0.5]) * CELL, half_size(red)
    return np.concatenate([centre - half, centre + half])


def test_box_and_landmarks(analyser):
    face = analyser.embedding(scene((5, 8, 255)))
    np.testing.assert_allclose(face.box, box_of(5, 8, 255), atol=0.1)
    side = 2 * half_size(255)
    np.testing.assert_allclose(face.landmarks, face.box[:2] + TEMPLATE / 112 * side, atol=0.1)
    assert 0.6 < face.score < 0.7
    assert (face.box.dtype, face.landmarks.dtype, face.embedding.dtype) == (np.float32,) * 3
    assert face.embedding.shape == (512,)


def test_channel_order(analyser):
    """The detector and the recogniser both see red where the picture is red, and blue where it is blue."""
    blue = scene((5, 8, 255))[..., ::-1]
    assert analyser.embedding(np.ascontiguousarray(blue)) is None

    image = scene((5, 8, 255))
    left, top, right, bottom = box_of(5, 8, 255).round().astype(int)
    middle_x, middle_y = (left + right) // 2, (top + bottom) // 2
    around = np.ones((SIDE, SIDE), bool)
    around[5 * CELL : 6 * CELL, 8 * CELL : 9 * CELL] = False
    colours = {(0, 0): (0, 255, 0), (0, 1): (0, 0, 255), (1, 0): (30, 200, 120), (1, 1): (80, 90, 250)}
    quadrants = []
    for (down, right_side), colour in colours.items():
        rows = slice(middle_y, bottom) if down else slice(top, middle_y)
        columns = slice(middle_x, right) if right_side else slice(left, middle_x)
        image[rows, columns][around[rows, columns]] = colour
        quadrants.append(image[rows, columns].mean(axis=(0, 1)))
    face = analyser.embedding(image)
    expected = (np.concatenate(quadrants) - 127.5) / 127.5
    np.testing.assert_allclose(face.embedding[:12], expected, atol=0.05)
    assert not face.embedding[12:].any()
    assert np.linalg.norm(face.embedding) > 1.2  # raw, not normalised


def test_the_largest_face_not_the_surest(analyser):
    small, large = (3, 3, 150), (12, 12, 250)
    face = analyser.embedding(scene(small, large))
    np.testing.assert_allclose(face.box, box_of(*large), atol=0.1)
    alone = analyser.embedding(scene(small))
    np.testing.assert_allclose(alone.box, box_of(*small), atol=0.1)
    assert alone.score > face.score + 0.05


def test_detection_alone(analyser, monkeypatch):
    """The same place as with the embedding, and the recogniser has nothing to do."""
    image = scene((3, 3, 150), (12, 12, 250))
    face = analyser.embedding(image)

    def refuse(*_):
        raise AssertionError("the recogniser was asked")

    monkeypatch.setattr(analyser._recogniser, "get", refuse)
    found = analyser.detect(image)
    np.testing.assert_array_equal(found.box, face.box)
    np.testing.assert_array_equal(found.landmarks, face.landmarks)
    assert found.score == face.score
    assert (found.box.dtype, found.landmarks.dtype) == (np.float32, np.float32)
    assert analyser.detect(scene()) is None


def test_landmarks_are_in_the_order_that_insightface_aligns_by(analyser):
    from insightface.utils.face_align import arcface_dst

    np.testing.assert_array_equal(arcface_dst, TEMPLATE)
    left_eye, right_eye, nose, left_corner, right_corner = analyser.detect(scene((5, 8, 255))).landmarks
    assert left_eye[0] < nose[0] < right_eye[0]
    assert left_corner[0] < right_corner[0]
    assert left_eye[1] < nose[1] < left_corner[1]


def test_no_face(analyser):
    assert analyser.embedding(scene()) is None


def test_boxes_are_in_pixels_of_the_image(analyser):
    """A picture of another size and aspect is fitted into the detector's."""
    image = scene((5, 8, 255))[: SIDE // 2]
    face = analyser.embedding(np.ascontiguousarray(image[::2, ::2]))
    np.testing.assert_allclose(face.box, box_of(5, 8, 255) / 2, atol=2)  # enlarging blurs the cell: less red


def small_face():
    """Half a cell at 960 pixels, which is enough; a quarter of one at 640, which is not."""
    image = np.zeros((1920, 1920, 3), np.uint8)
    image[964:1012, 484:532, 0] = 255
    return image


def large_face():
    """Red where 1280 pixels are sampled for 320, between which there is black that halving to 640 averages in."""
    image = np.zeros((1280, 1280, 3), np.uint8)
    rows, columns = np.mgrid[384:512, 256:384]
    image[384:512, 256:384, 0] = 255 * (np.isin(rows % 4, (1, 2)) & np.isin(columns % 4, (1, 2)))
    return image


@pytest.mark.parametrize(("image", "size", "place"), [(small_face(), 960, (508, 988)), (large_face(), 320, (320, 448))])
def test_other_sizes_are_tried_before_giving_up(root, analyser, image, size, place):
    found = analyser.detect(image)
    assert np.abs((found.box[:2] + found.box[2:]) / 2 - place).max() < 32 * len(image) / size / 2 + 1
    others = [side for side in (320, 640, 960) if side != size]
    assert FaceAnalyser(root, det_sizes=others).detect(image) is None
    alone = FaceAnalyser(root, det_sizes=[size]).detect(image)
    np.testing.assert_array_equal(alone.box, found.box)
    np.testing.assert_array_equal(alone.landmarks, found.landmarks)


def tried(analyser, monkeypatch) -> list[tuple[int, int]]:
    """The sizes of the detector's inputs from now on."""
    sizes, forward = [], analyser._detector.forward

    def recorded(image, threshold):
        sizes.append(image.shape[1::-1])
        return forward(image, threshold)

    monkeypatch.setattr(analyser._detector, "forward", recorded)
    return sizes


def test_no_size_is_tried_after_a_face_is_found(analyser, monkeypatch):
    sizes = tried(analyser, monkeypatch)
    assert analyser.detect(scene((5, 8, 255))) is not None
    assert sizes == [(640, 640)]
    assert analyser.detect(scene()) is None
    assert sizes[1:] == [(640, 640), (320, 320), (960, 960)]


def test_a_detector_of_one_size_is_run_at_that_one_only(tmp_path, monkeypatch):
    write_models(tmp_path)
    path = tmp_path / "scrfd_standin.onnx"
    model = onnx.load(path)
    for dimension in list(model.graph.input[0].type.tensor_type.shape.dim)[2:]:
        dimension.dim_value = 640
    onnx.save(model, path)
    analyser = FaceAnalyser(tmp_path, det_sizes=[320, 960])
    sizes = tried(analyser, monkeypatch)
    np.testing.assert_allclose(analyser.detect(scene((5, 8, 255))).box, box_of(5, 8, 255), atol=0.1)
    assert analyser.detect(small_face()) is None
    assert sizes == [(640, 640)] * 2


def test_quiet(root, capfd):
    FaceAnalyser(root).embedding(scene((5, 8, 255)))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("nesting", ["models/antelopev2", "models/antelopev2/antelopev2", "antelopev2", "."])
def test_every_nesting_of_the_folder(tmp_path, nesting):
    write_models(tmp_path / nesting)
    assert FaceAnalyser(tmp_path).embedding(scene((5, 8, 255))) is not None


def test_another_pack(tmp_path):
    write_models(tmp_path / "models" / "buffalo_l")
    assert FaceAnalyser(tmp_path, "buffalo_l").embedding(scene()) is None
    with pytest.raises(InputError, match="antelopev2"):
        FaceAnalyser(tmp_path)


def test_missing_models(tmp_path):
    for root in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match=r"antelopev2\.zip") as error:
            FaceAnalyser(root)
        assert f"{root}/models/antelopev2/*.onnx" in one_line(error)


def test_incomplete_or_broken_models(tmp_path):
    write_models(tmp_path / "a", recogniser=False)
    write_models(tmp_path / "b", detector=False)
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "scrfd.onnx").write_bytes(b"not a model")
    for name, words in (("a", "lack the recogniser"), ("b", "no face detector"), ("c", "cannot load")):
        with pytest.raises(InputError, match=words) as error:
            FaceAnalyser(tmp_path / name)
        assert str(tmp_path / name) in one_line(error)


# Embeddings from files


@pytest.mark.parametrize("shape", [(512,), (1, 512)])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64])
def test_load_face_embedding(tmp_path, shape, dtype):
    values = np.arange(512).reshape(shape).astype(dtype)
    np.save(tmp_path / "a.npy", values)
    embedding = load_face_embedding(tmp_path / "a.npy")
    assert embedding.shape == (512,)
    assert embedding.dtype == np.float32
    np.testing.assert_array_equal(embedding, np.arange(512))


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros(511), r"shape \[511\]"),
        (np.zeros((2, 512)), r"shape \[2, 512\]"),
        (np.zeros(()), r"shape \[\]"),
        (np.full(512, np.nan), "not finite"),
        (np.full(512, np.inf), "not finite"),
        (np.full(512, 1e300), "not finite in float32"),
        (np.zeros(512, complex), "complex128"),
        (np.zeros(512, bool), "bool"),
        (np.full(512, "a"), "expected real numbers"),
        (np.array([{}] * 512), "not a plain"),
    ],
)
def test_bad_embeddings(tmp_path, array, words):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(InputError, match=words) as error:
        load_face_embedding(tmp_path / "a.npy")
    assert str(tmp_path / "a.npy") in one_line(error)


def test_bad_embedding_files(tmp_path):
    (tmp_path / "empty.npy").touch()
    (tmp_path / "text.npy").write_text("0.1 0.2\n" * 256)
    np.savez(tmp_path / "a.npz", embedding=np.zeros(512))
    np.save(tmp_path / "cut.npy", np.zeros(512))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "cut.npy").read_bytes()[:1000])
    for path, words in (
        (tmp_path / "missing.npy", "does not exist"),
        (tmp_path, "is a directory"),
        (tmp_path / "empty.npy", "is empty"),
        (tmp_path / "text.npy", "not a plain"),
        (tmp_path / "a.npz", "not a plain"),
        (tmp_path / "cut.npy", "not a plain"),
    ):
        with pytest.raises(InputError, match=words) as error:
            load_face_embedding(path)
        assert str(path) in one_line(error)


@pytest.mark.parametrize(("norm", "warned"), [(1.0, True), (0.8, True), (22.0, False), (0.0, False)])
def test_a_normed_embedding_is_said(tmp_path, capsys, norm, warned):
    direction = np.random.default_rng(0).standard_normal(512)
    np.save(tmp_path / "a.npy", (norm * direction / np.linalg.norm(direction)).astype(np.float32))
    load_face_embedding(tmp_path / "a.npy")
    err = capsys.readouterr().err
    assert err.count("\n") == int(warned)
    if warned:
        assert err.startswith(f"warning: face embedding {tmp_path / 'a.npy'} has norm {norm:.2f}, ")
        assert "raw ones" in err
