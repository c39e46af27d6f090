"""The record of a run: there and back, hashes that notice changes, files that are whole or not there."""

import hashlib
import json

import pytest

from stableanimator_jax.errors import InputError
from stableanimator_jax.files import replacing
from stableanimator_jax.perception.skeleton import SkeletonStyle
from stableanimator_jax.provenance import sha256_of, versions
from stableanimator_jax.sampling.config import SamplingConfig, Strength
from stableanimator_jax.scripts.sample.record import (
    InputFile,
    Record,
    as_meant_now,
    read_record,
    version_changes,
    write_record,
)
from stableanimator_jax.scripts.sample.settings import SampleConfig


def record(**changes) -> Record:
    fields = {
        "configuration": SampleConfig().to_dict(),
        "inputs": {"reference": InputFile("/photo.png", "00"), "poses": InputFile(None, "11")},
        "versions": versions(),
        "result": {"frames": 3},
    }
    return Record(**fields | changes)


def test_there_and_back(tmp_path):
    write_record(tmp_path / "a.json", record())
    assert read_record(tmp_path / "a.json") == record()


@pytest.mark.parametrize(
    "config",
    [
        SampleConfig(),
        SampleConfig(width=64, height=128, output_fps=12.5, fit="pad", sampling=SamplingConfig(seed=7, steps=3)),
        SampleConfig(sampling=SamplingConfig().with_preset("fast")),
        SampleConfig(
            sampling=SamplingConfig(pose=Strength(0.8, 0, 0.5), face=Strength(1.5), image=Strength(start=0.2)),
            skeletons=SkeletonStyle("faint", "off"),
        ),
    ],
)
def test_configuration_there_and_back(config):
    absolute = config.absolute()
    assert SampleConfig.from_dict(json.loads(json.dumps(absolute.to_dict()))) == absolute
    assert absolute.output.is_absolute()
    assert absolute.checkpoint == "embedded"


def test_a_record_from_before_there_were_strengths_and_styles():
    old = SampleConfig(sampling=SamplingConfig(seed=7)).to_dict()
    del old["skeletons"], old["sampling"]["pose"], old["sampling"]["face"], old["sampling"]["image"]
    assert SampleConfig.from_dict(old) == SampleConfig(sampling=SamplingConfig(seed=7))


@pytest.mark.parametrize(("switch", "meant"), [(True, "linear"), (False, "off")])
def test_a_record_from_when_align_was_a_switch(switch, meant):
    old = SampleConfig(poses_fps=5).to_dict() | {"align": switch}
    assert SampleConfig.from_dict(as_meant_now(old)) == SampleConfig(align=meant, poses_fps=5)


def test_version_changes():
    assert version_changes(record().versions) == ""
    assert version_changes(versions() | {"jax": "0.0.1", "gone": "1"}).startswith("jax 0.0.1 then, ")


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": "another"}', '{"format": "stableanimator-jax sampling run"}']
)
def test_not_a_record(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match=r"a\.json"):
        read_record(tmp_path / "a.json")


@pytest.mark.parametrize("field", ["configuration", "inputs", "versions", "result"])
@pytest.mark.parametrize("value", [None, 3, {"reference": {"path": "x"}}])
def test_damaged_record(tmp_path, field, value):
    write_record(tmp_path / "a.json", record())
    data = json.loads((tmp_path / "a.json").read_text())
    data[field] = value
    if field != "inputs" and isinstance(value, dict):
        data["surplus"] = value
    (tmp_path / "a.json").write_text(json.dumps(data))
    with pytest.raises(InputError, match="is damaged"):
        read_record(tmp_path / "a.json")


def test_sha256(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_bytes(b"one")
    b.write_bytes(b"two")
    assert sha256_of([a]) == hashlib.sha256(b"one").hexdigest()
    both = sha256_of([a, b], tmp_path)
    assert both != sha256_of([b, a], tmp_path) != sha256_of([b], tmp_path)
    b.write_bytes(b"Two")
    assert sha256_of([a, b], tmp_path) != both
    with pytest.raises(InputError, match=r"cannot read .*missing"):
        sha256_of([tmp_path / "missing"])


def test_replacing(tmp_path):
    target = tmp_path / "a.json"
    target.write_text("old")

    def interrupted():
        with replacing(target) as path:
            path.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert target.read_text() == "old"
    with replacing(target) as path:
        path.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    with pytest.raises(InputError, match=r"cannot write .*b\.json"), replacing(tmp_path / "none" / "b.json") as path:
        path.write_text("x")
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
