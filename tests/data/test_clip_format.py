import numpy as np
import pytest

from stableanimator_jax.data.clip_format import (
    FIELDS,
    ClipRecord,
    decode_images,
    encode_jpeg,
    encode_png,
    features,
    from_example,
    to_example,
)


def record(frames=3, size=(64, 128), seed=0) -> ClipRecord:
    random = np.random.default_rng(seed)
    smooth = np.linspace(0, 255, size[0])[None, :, None] * np.ones((size[1], 1, 3))
    images = [(smooth * (i + 1) / frames).astype(np.uint8) for i in range(frames)]
    numbers = {
        "points": (134, 2),
        "scores": (134,),
        "boxes": (4,),
        "landmarks": (5, 2),
        "embeddings": (512,),
    }
    return ClipRecord(
        name="wörk/one.mp4-000000",
        source="wörk/one.mp4",
        first_frame=7,
        fps=29.97,
        frames=[encode_jpeg(image) for image in images],
        poses=[encode_png(image) for image in images],
        valid=np.arange(frames) % 2 == 0,
        **{name: random.normal(size=(frames, *shape)).astype(np.float32) for name, shape in numbers.items()},
    )


def test_pngs_come_back_exactly_and_jpegs_nearly():
    random = np.random.default_rng(0)
    noise = random.integers(0, 256, (48, 32, 3)).astype(np.uint8)
    assert np.array_equal(decode_images([encode_png(noise)])[0], noise)
    x, y = np.meshgrid(np.linspace(0, 255, 64), np.linspace(0, 255, 48))
    smooth = np.stack([x, y, 255 - x], axis=-1).astype(np.uint8)
    difference = decode_images([encode_jpeg(smooth)])[0].astype(int) - smooth
    assert np.abs(difference).max() <= 6  # and red is not taken for blue


def test_a_damaged_image_is_told():
    with pytest.raises(ValueError, match="damaged"):
        decode_images([encode_png(np.zeros((8, 8, 3), np.uint8))[:20]])


def test_a_record_survives_tfds_serialisation():
    from tensorflow_datasets.core.example_parser import ExampleParserNp
    from tensorflow_datasets.core.example_serializer import ExampleSerializer

    before = record()
    described = features((64, 128))
    specs = described.get_serialized_info()
    data = ExampleSerializer(specs).serialize_example(described.encode_example(to_example(before)))
    after = from_example(ExampleParserNp(specs).parse_example(data))
    for field in FIELDS:
        expected, got = getattr(before, field), getattr(after, field)
        if isinstance(expected, np.ndarray):
            assert got.dtype == expected.dtype
            assert np.array_equal(got, expected), field
        elif field == "fps":
            assert got == pytest.approx(expected)
        else:
            assert got == expected, field
