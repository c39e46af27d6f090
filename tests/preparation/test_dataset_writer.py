from stableanimator_jax.preparation.dataset_writer import TRAIN, VALIDATION, split_of


def test_splits_follow_the_name_and_the_share():
    names = [f"folder/video {i}.mp4" for i in range(2000)]
    chosen = [name for name in names if split_of(name, 0.1) == VALIDATION]
    assert 150 < len(chosen) < 250
    assert all(split_of(name, 0.2) == VALIDATION for name in chosen)  # a larger share only adds
    assert all(split_of(name, 0) == TRAIN for name in names)
