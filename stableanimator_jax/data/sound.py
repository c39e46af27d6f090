"""The driving video's sound, carried over to the MP4 that was made from it."""

from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from heapq import merge
from itertools import chain
from pathlib import Path

import av
from av.audio.frame import AudioFrame
from av.container import InputContainer
from av.error import FFmpegError
from av.filter import Graph
from av.packet import Packet
from av.stream import Discard, Stream

from stableanimator_jax.data.decoding import seconds
from stableanimator_jax.errors import InputError, as_input_error, reason_of
from stableanimator_jax.files import ffmpeg_name, replacing, require_file

# What an MP4 holds and players play there; anything else becomes AAC.
_COPIED_CODECS = ("aac", "mp3", "ac3", "eac3", "opus", "flac", "alac")
_AAC_RATES = (48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000)

# Seconds of copied sound before the range, which decoders need to come right (Opus asks for the most) and which
# the MP4's edit list tells players to leave out.
_PREROLL = 0.08


def check_sound(source: Path, video: Path | str) -> bool:
    """Find out before any computing whether `copy_sound(source, video)` will have something to carry over.

    Returns:
        whether `source` has sound.

    Raises:
        InputError: `video` is no MP4 by its name, or `source` cannot be read.
    """
    if Path(video).suffix.lower() != ".mp4":
        raise InputError(f"{video} cannot hold sound; write an .mp4, or leave the sound out")
    return _has_sound(source)


def _has_sound(source: Path) -> bool:
    require_file(source, "sound")
    with _open(source) as container:
        stream = container.streams.best("audio")
        if stream is not None and stream.codec_context is None:
            raise InputError(f"the sound of {source} is of a kind that cannot be read; leave the sound out")
        return stream is not None


def copy_sound(source: Path, video: Path | str, start: float = 0.0, end: float | None = None) -> bool:
    """Give a finished MP4 the sound of the video that it was made from, from `start` to `end` or its own end.

    The pictures are copied as they are, and so is sound that an MP4 can hold (AAC, MP3, AC-3, E-AC-3, Opus, FLAC,
    ALAC), cut to whole packets, so that it may end up to a packet (some 20 ms) early; other sound becomes AAC. All
    is written to a temporary neighbour that takes the video's place when it is whole; until then, and after an
    error, the video is as it was.

    Args:
        video: the MP4, whatever it is called, as `open_writer` makes it, whose first picture is `source`'s at `start`.
        start: seconds from `source`'s first picture.
        end: seconds from `source`'s first picture; the video's length from `start` where None or later than that.

    Returns:
        whether there was any sound in that range; if not, the video is as it was.

    Raises:
        InputError: `source` cannot be read; or the sound is damaged, or the video cannot be written.
    """
    video = Path(video)
    if not _has_sound(source):
        return False
    require_file(video, "video")
    try:
        with _open(source) as sound, _open(video) as pictures, replacing(video) as temporary:
            copied = _mux(temporary, pictures, sound, start, end)
            if not copied:
                raise _NoSound
    except _NoSound:
        return False
    except FFmpegError as e:
        raise InputError(f"cannot carry the sound of {source} over to {video}: {reason_of(e)}") from e
    return True


class _NoSound(Exception):
    """Nothing was in the range: what was written is not to be kept."""


def _open(path: Path) -> InputContainer:
    with as_input_error(f"cannot read sound or pictures from {path}", FFmpegError):
        return av.open(ffmpeg_name(path))


def _mux(output: Path, pictures: InputContainer, sound: InputContainer, start: float, end: float | None) -> bool:
    picture_stream = pictures.streams.video[0]
    sound_stream = sound.streams.best("audio")
    assert isinstance(sound_stream, av.AudioStream)
    length = seconds(picture_stream, picture_stream.duration)
    length = length if end is None else min(length, end - start)
    # Both on the source's own clock, which need not begin at 0.
    source_pictures = sound.streams.best("video")
    begin = start + (seconds(source_pictures, source_pictures.start_time) if source_pictures else 0.0)
    for stream in sound.streams:
        stream.discard = Discard.default if stream is sound_stream else Discard.all

    with av.open(ffmpeg_name(output), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        picture_output = container.add_stream_from_template(picture_stream)
        if sound_stream.codec_context.codec.canonical_name in _COPIED_CODECS:
            sound_output = container.add_stream_from_template(sound_stream)
            sound_packets = _cut(sound_stream, begin, length)
        else:
            rate = sound_stream.rate if sound_stream.rate in _AAC_RATES else _AAC_RATES[0]
            sound_output = container.add_stream("aac", rate)
            sound_output.layout = "mono" if sound_stream.channels == 1 else "stereo"
            sound_packets = _encode(sound_stream, sound_output, begin, length)
        first = next(sound_packets, None)
        if first is None:
            return False
        picture_packets = (p for p in pictures.demux(picture_stream) if p.dts is not None)
        # In order of time, as players read them.
        streams = _of(picture_output, picture_packets), _of(sound_output, chain([first], sound_packets))
        for packet in merge(*streams, key=_time):
            container.mux_one(packet)
    return True


def _of(stream: Stream, packets: Iterator[Packet]) -> Iterator[Packet]:
    for packet in packets:
        packet.stream = stream
        yield packet


def _time(packet: Packet) -> Fraction:
    return (packet.dts or 0) * packet.time_base


def _cut(stream: av.AudioStream, begin: float, length: float) -> Iterator[Packet]:
    """The stream's packets in the range, timed from its beginning."""
    container = stream.container
    assert isinstance(container, InputContainer)
    unit = Fraction(1, stream.rate)  # the file's own may be as coarse as a packet
    for packet in container.demux(stream):
        if packet.pts is None or packet.dts is None:
            continue
        time, duration = packet.pts * packet.time_base - begin, (packet.duration or 0) * packet.time_base
        if time + duration > length + unit:
            return
        if time + duration > -_PREROLL:
            packet.pts = packet.dts = round(time / unit)
            packet.duration = round(duration / unit)
            packet.time_base = unit
            yield packet


def _encode(stream: av.AudioStream, output: av.AudioStream, begin: float, length: float) -> Iterator[Packet]:
    """The range of the stream, sample by sample, in the output's codec; holes are filled with silence."""
    container = stream.container
    assert isinstance(container, InputContainer)
    graph = Graph()
    source = graph.add_abuffer(template=stream)
    graph.link_nodes(
        source,
        graph.add("aresample", f"{output.rate}:async=1"),
        graph.add("atrim", f"start={begin:.6f}:end={begin + length:.6f}"),
        graph.add("asetpts", f"PTS-{begin:.6f}/TB"),
        graph.add("abuffersink"),
    ).configure()
    for frame in container.decode(stream):
        if frame.time is not None and frame.time > begin + length + 1:
            break
        try:
            graph.push(frame)
        except EOFError:  # it has all that it wants
            break
        yield from _encoded(graph, output)
    with suppress(EOFError):
        graph.push(None)
    yield from _encoded(graph, output)
    yield from output.encode(None)


def _encoded(graph: Graph, output: av.AudioStream) -> Iterator[Packet]:
    with suppress(BlockingIOError, EOFError):  # the graph wants another frame, or is at its end
        while True:
            frame = graph.pull()
            assert isinstance(frame, AudioFrame)
            yield from output.encode(frame)
