"""The loader's promises: what comes when, on any number of hosts and workers, before and after a restart."""

import multiprocessing
from collections import Counter
from dataclasses import replace
from itertools import islice

import jax
import numpy as np
import pytest

from stableanimator_jax.data.clip_sampling import sample_frames
from stableanimator_jax.data.clips import Clips, joined
from stableanimator_jax.data.loader import LoaderConfig, make_loader, make_plan
from stableanimator_jax.errors import InputError
from tests.data.synthetic_clips import SyntheticClips

CONFIG = LoaderConfig(seed=7, batch_size=4, frames=5, stride=3)
WIDE, TALL = SyntheticClips(11), SyntheticClips(5, size=(16, 32))


def batches(count: int, buckets=(WIDE,), config: LoaderConfig = CONFIG, **where: int) -> list[Clips[np.ndarray]]:
    with make_loader(buckets, config, **where) as loader:
        return list(islice(loader, count))


def require_equal(found: list[Clips[np.ndarray]], wanted: list[Clips[np.ndarray]]) -> None:
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted, strict=True):
        assert jax.tree.structure(a) == jax.tree.structure(b)
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
            assert type(x) is type(y)
            assert np.asarray(x).dtype == np.asarray(y).dtype
            np.testing.assert_array_equal(x, y)


def test_a_batch_holds_what_the_clips_have():
    for batch in batches(3, (TALL,)):
        assert batch.images.frames.shape == batch.poses.shape == (4, 5, 32, 16, 3)
        assert batch.images.frames.dtype == batch.poses.dtype == batch.images.reference.dtype == np.uint8
        assert (batch.masks.shape, batch.masks.dtype) == ((4, 5, 4, 2), bool)
        assert batch.images.reference.shape == (4, 32, 16, 3)
        assert (batch.id_embedding.shape, batch.id_embedding.dtype) == ((4, 512), np.float32)
        for row, name in enumerate(batch.names):
            number = int(name.removeprefix("16x32-"))
            indices = batch.images.frames[row, :, 0, 0, 1]
            np.testing.assert_array_equal(np.diff(indices), [3] * 4)
            clip = TALL[number]
            np.testing.assert_array_equal(batch.images.frames[row], clip.read_frames(indices))
            np.testing.assert_array_equal(batch.poses[row], clip.read_poses(indices))
            np.testing.assert_array_equal(batch.masks[row], clip.read_masks(indices)[:, ::8, ::8])
            reference = int(batch.images.reference[row, 0, 0, 1])
            assert batch.images.reference[row, 0, 0, 0] == number
            assert reference not in indices
            assert reference % 3
            assert (batch.id_embedding[row] == reference).all()


@pytest.mark.parametrize("size", [1, 2, 3])
def test_small_batches(size):
    names = [n for batch in batches(12, (WIDE, TALL), replace(CONFIG, batch_size=size)) for n in batch.names]
    assert len(names) == 12 * size


@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_every_clip_comes_exactly_once_an_epoch_over_all_hosts(hosts):
    """11 clips in batches of 4: epochs end within batches, and 11 batches are four whole ones."""
    found = [batches(11, hosts=hosts, host=host) for host in range(hosts)]
    rows = [name for step in range(11) for host in range(hosts) for name in found[host][step].names]
    epochs = [rows[start : start + 11] for start in range(0, 44, 11)]
    for epoch in epochs:
        assert sorted(epoch) == sorted(WIDE[i].name for i in range(11))
    assert len({tuple(epoch) for epoch in epochs}) == 4  # another order each time
    assert all(len(b.names) == 4 // hosts for host in found for b in host)


@pytest.mark.parametrize("hosts", [2, 4])
def test_several_hosts_together_have_the_batch_of_one(hosts):
    alone = batches(9, (WIDE, TALL))
    found = [batches(9, (WIDE, TALL), host=host, hosts=hosts) for host in range(hosts)]
    require_equal([joined(rows) for rows in zip(*found, strict=True)], alone)


def test_every_batch_is_of_one_bucket_the_same_on_every_host_in_proportion():
    found = [batches(64, (WIDE, TALL), host=host, hosts=2) for host in range(2)]
    shapes = [[b.images.frames.shape[2:4] for b in host] for host in found]
    assert shapes[0] == shapes[1]
    assert Counter(shapes[0]) == {(16, 24): 44, (32, 16): 20}  # 11 and 5 clips
    for step in range(8, 65):  # evenly, not all of one first
        assert abs(shapes[0][:step].count((32, 16)) - step * 5 / 16) < 1
    for bucket in (WIDE, TALL):
        epoch = bucket.count
        rows = [n for a, b in zip(*found, strict=True) for n in a.names + b.names if n.startswith(bucket[0].name[:5])]
        for start in range(0, len(rows) - epoch + 1, epoch):
            assert len(set(rows[start : start + epoch])) == epoch


def test_proportions_can_be_set():
    config = replace(CONFIG, proportions=(1.0, 3.0))
    found = Counter(b.images.frames.shape[2:4] for b in batches(40, (WIDE, TALL), config))
    assert found == {(16, 24): 10, (32, 16): 30}


def test_the_plan_of_a_large_set_is_in_proportion_and_any_step_is_near():
    sizes = [61_347, 7_003]
    plan = make_plan(sizes, replace(CONFIG, batch_size=2))
    buckets = [rows[0].bucket for step in range(3000) if (rows := plan[step])]
    assert buckets.count(1) == pytest.approx(3000 * sizes[1] / sum(sizes), rel=0.01)
    far = plan[10**9]
    assert far is not None
    assert len({row.bucket for row in far}) == 1
    assert far[0].epoch > 1000


@pytest.mark.parametrize("workers", [0, 2])
def test_stopped_and_restored_is_as_uninterrupted(workers):
    config = replace(CONFIG, workers=workers)
    wanted = batches(9, (WIDE, TALL))
    with make_loader((WIDE, TALL), config) as loader:
        found = list(islice(loader, 5))  # in mid-epoch
        state = loader.state()
        next(loader)
        loader.restore(state)
        assert loader.step == 5
    with make_loader((WIDE, TALL), config) as other:
        other.restore(state)
        assert other.state() == state
        found += list(islice(other, 4))
    require_equal(found, wanted)
    assert not multiprocessing.active_children()


def test_a_state_is_good_for_other_numbers_of_hosts_and_workers():
    wanted = batches(6)
    with make_loader((WIDE,), CONFIG, host=1, hosts=2) as loader:
        list(islice(loader, 4))
        state = loader.state()
    with make_loader((WIDE,), CONFIG) as loader:
        loader.restore(state)
        require_equal(list(islice(loader, 2)), wanted[4:])


def test_the_batch_of_any_step_can_be_had_by_itself():
    with make_loader((WIDE, TALL), CONFIG) as loader:
        apart = [loader.batch_at(step) for step in (3, 0, 2)]
        assert loader.step == 0
    whole = batches(4, (WIDE, TALL))
    require_equal(apart, [whole[3], whole[0], whole[2]])


def test_a_closed_loader_goes_on_where_it_was():
    loader = make_loader((WIDE,), CONFIG)
    found = list(islice(loader, 2))
    loader.close()
    found += list(islice(loader, 2))
    loader.close()
    require_equal(found, batches(4))


def test_batches_come_without_shared_memory_too(monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 2**10}))
    require_equal(batches(3, config=replace(CONFIG, workers=1)), batches(3))


def test_a_state_of_other_data_is_refused():
    with make_loader((WIDE,), CONFIG) as loader:
        state = loader.state()
    changed = make_loader((WIDE, TALL), replace(CONFIG, batch_size=2))
    with pytest.raises(InputError, match=r"batch_size was 4 and is 2; clips was \[11\] and is \[11, 5\]"):
        changed.restore(state)
    for broken in (b"", b"[]", b"{}", b'{"step": "x"}', b"\xff"):
        with pytest.raises(InputError, match="cannot be read"):
            changed.restore(broken)
    with pytest.raises(InputError, match="begins at step 0"):
        changed.seek(-1)


def test_another_seed_is_another_order():
    one, two = (batches(3, config=replace(CONFIG, seed=seed)) for seed in (7, 8))
    assert [b.names for b in one] != [b.names for b in two]


def test_a_clip_shows_other_frames_in_the_next_epoch():
    starts: dict[str, set[int]] = {}
    for batch in batches(22):  # 8 epochs
        for name, frames in zip(batch.names, batch.images.frames, strict=True):
            starts.setdefault(name, set()).add(int(frames[0, 0, 0, 1]))
    assert min(len(s) for s in starts.values()) > 2


def test_mirrored_clips_are_mirrored_throughout():
    plain, mirrored = batches(8), batches(8, config=replace(CONFIG, horizontal_flip=True))
    flips = 0
    for a, b in zip(plain, mirrored, strict=True):
        assert a.names == b.names
        np.testing.assert_array_equal(a.id_embedding, b.id_embedding)
        for row, name in enumerate(a.names):
            if np.array_equal(a.images.frames[row], b.images.frames[row]):
                np.testing.assert_array_equal(a.masks[row], b.masks[row])
                continue
            flips += 1
            for x, y in (
                (a.images.frames, b.images.frames),
                (a.poses, b.poses),
                (a.images.reference, b.images.reference),
            ):
                np.testing.assert_array_equal(x[row][..., ::-1, :], y[row])
            number = int(name.partition("-")[2])
            masks = WIDE[number].read_masks(a.images.frames[row, :, 0, 0, 1])
            np.testing.assert_array_equal(masks[:, ::8, ::-8], b.masks[row])
    assert 8 < flips < 24  # of 32


@pytest.mark.parametrize("workers", [0, 1])
def test_a_clip_that_is_too_short_is_named(workers):
    with (
        make_loader((SyntheticClips(3, length=5),), replace(CONFIG, workers=workers)) as loader,
        pytest.raises(InputError, match=r"clip 24x16-\d has 5 frames, but 5 and another"),
    ):
        next(loader)


@pytest.mark.parametrize(
    ("buckets", "changes", "hosts", "message"),
    [
        ((), {}, 1, "no training data"),
        ((WIDE, SyntheticClips(0)), {}, 1, "bucket 1 of the training data has no clips"),
        ((SyntheticClips(2, size=(24, 20)),), {}, 1, "24x20 pixels cannot be encoded"),
        ((WIDE,), {"batch_size": 3}, 2, "batch of 3 clips cannot be shared out among 2 hosts"),
        ((WIDE,), {"proportions": (0.5, 0.5)}, 1, "there are 1 buckets, but 2 proportions"),
    ],
)
def test_what_cannot_be_loaded_is_refused_at_once(buckets, changes, hosts, message):
    with pytest.raises(InputError, match=message):
        make_loader(buckets, replace(CONFIG, **changes), hosts=hosts)


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": -1},
        {"seed": 2**32},
        {"batch_size": 0},
        {"frames": 0},
        {"stride": 0},
        {"workers": -1},
        {"batches_ahead": 0},
        {"damaged": -0.1},
        {"damaged": float("nan")},
        {"damaged": 2},
        {"proportions": (1.0, 0.0)},
        {"proportions": (1.0, float("nan"))},
    ],
)
def test_settings_have_bounds(changes):
    with pytest.raises(InputError, match=f"data.{next(iter(changes)).replace('_', '-')} must be"):
        LoaderConfig(**changes)


def test_frames_do_not_depend_on_where_a_row_is():
    """The frames of a clip in an epoch are those of its own random numbers."""
    batch = batches(1)[0]
    number = int(batch.names[0].partition("-")[2])
    rng = np.random.default_rng([7, 0, 0, number])
    wanted = sample_frames(WIDE[number].has_face, frames=5, stride=3, rng=rng, name="")
    np.testing.assert_array_equal(batch.images.frames[0, :, 0, 0, 1], wanted.indices)


DAMAGED = SyntheticClips(11, unreadable=(3,), not_finite=(8,))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_clip_is_left_out_and_another_comes_in_its_place(workers):
    config = replace(CONFIG, workers=workers, damaged=0.2)
    with make_loader((DAMAGED,), config) as loader:
        found = list(islice(loader, 11))
        assert loader.left_out == {(0, 3): "clip 3 is damaged", (0, 8): "clip 24x16-8 has numbers that are not finite"}
    whole = batches(11)
    for batch, wanted in zip(found, whole, strict=True):
        for row, name in enumerate(wanted.names):
            if name not in ("24x16-3", "24x16-8"):  # everything else is as it would have been
                assert batch.names[row] == name
                np.testing.assert_array_equal(batch.images.frames[row], wanted.images.frames[row])
            else:
                assert batch.names[row] not in ("24x16-3", "24x16-8")
    places = {
        batch.names[row]
        for batch, wanted in zip(found, whole, strict=True)
        for row, name in enumerate(wanted.names)
        if name == "24x16-3"
    }
    assert len(places) > 1  # not the same clip in every epoch


def test_what_comes_in_the_place_of_a_damaged_clip_is_the_same_on_any_number_of_hosts_and_after_a_restart():
    config = replace(CONFIG, damaged=0.2)
    alone = batches(9, (DAMAGED,), config)
    hosts = [batches(9, (DAMAGED,), config, host=host, hosts=2) for host in range(2)]
    for step, rows in enumerate(zip(*hosts, strict=True)):
        assert rows[0].names + rows[1].names == alone[step].names
        np.testing.assert_array_equal(
            np.concatenate([rows[0].images.frames, rows[1].images.frames]), alone[step].images.frames
        )
    with make_loader((DAMAGED,), config) as loader:
        list(islice(loader, 4))
        state = loader.state()
    with make_loader((DAMAGED,), config) as loader:
        loader.restore(state)
        require_equal(list(islice(loader, 5)), alone[4:])


def test_the_state_is_the_same_whatever_is_damaged():
    with make_loader((DAMAGED,), CONFIG) as one, make_loader((WIDE,), CONFIG) as other:
        assert one.state() == other.state()


def test_more_damaged_clips_than_may_be_end_it():
    many = SyntheticClips(11, unreadable=tuple(range(10)))
    with make_loader((many,), replace(CONFIG, damaged=1)) as loader:
        assert {name for batch in islice(loader, 3) for name in batch.names} == {"24x16-10"}
        assert loader.too_many_left_out(loader.left_out) is None
    with (
        make_loader((many,), replace(CONFIG, damaged=0.2)) as loader,
        pytest.raises(InputError, match=r"3 of 11 clips cannot be read, and --data\.damaged 0\.2 lets 2 of them"),
    ):
        next(loader)
    loader = make_loader((DAMAGED,), CONFIG)  # 0.01 of 11: one may be
    assert loader.too_many_left_out({(0, 3): "damaged"}) is None
    assert "2 of 11 clips cannot be read" in str(loader.too_many_left_out({(0, 3): "damaged", (0, 8): "too"}))
    with (
        make_loader((DAMAGED,), replace(CONFIG, damaged=0)) as loader,
        pytest.raises(InputError, match=r"1 of 11 clips cannot be read, and --data\.damaged 0 lets 0 of them"),
    ):
        list(islice(loader, 3))
    none = SyntheticClips(2, unreadable=(0, 1))
    with (
        make_loader((none,), replace(CONFIG, damaged=1)) as loader,
        pytest.raises(InputError, match=r"no clip of bucket 0 of the training data can be read: clip . is damaged"),
    ):
        next(loader)


def test_as_many_clips_that_are_others_are_noticed():
    with make_loader((WIDE,), CONFIG) as loader:
        list(islice(loader, 2))
        state = loader.state()
    other = make_loader((replace(WIDE, version=1),), CONFIG)
    with pytest.raises(InputError, match="the training data changed: content was"):
        other.restore(state)
    step, changes = other.compare(state)
    assert (step, list(changes)) == (2, ["content"])
    assert make_loader((WIDE,), replace(CONFIG, workers=3)).compare(state) == (2, {})


def test_a_worker_that_is_killed_is_told_and_reading_goes_on():
    """Here, in this process, so that every process of a run can end at the same step."""
    with make_loader((WIDE,), replace(CONFIG, workers=1, batches_ahead=1)) as loader:
        found = [next(loader)]
        for process in multiprocessing.active_children():
            process.kill()
        found += list(islice(loader, 8))
        assert loader.lost_worker is not None
        assert loader.lost_worker.startswith("a process that reads training data was killed")
    require_equal(found, batches(9))
