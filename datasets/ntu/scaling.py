"""Scale videos to small squares at a fixed frame rate with PyAV, and write them as images or AVI files."""

import subprocess

from datasets.ntu.names import BadSample
from datasets.ntu.video import (
    avi_length,
    check_count,
    check_duration,
    check_whole,
    kept_frames,
    read_avi,
    time_line,
    upright,
)

CRF = "17"


def scaled_frames(path, size, fps):
    """Decode a video, turn it upright, and convert it to ``fps`` frames per second of ``size`` x ``size`` (bicubic).

    The time stamps decide when a frame is shown, not the frame rate in the header, so the rate may vary.

    Returns:
        list of PyAV frames in yuv420p.

    Raises:
        BadSample: the file is not a video, has no frames, or ends early.
    """
    import av

    check_whole(path)
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise BadSample("has no video stream")
            stream = container.streams.video[0]
            if stream.codec_context is None:
                raise BadSample("is not a readable video (unknown codec)")
            # One thread, because the work is already divided among processes.
            stream.codec_context.thread_count = 1
            scaled, stamps = _scaled(container, stream, size)
            check_count(len(scaled), stream.frames)
            stamps = time_line(stamps, stream.average_rate, stream.time_base)
            check_duration(stamps, stream, container)
            return _at_rate(scaled, stamps, stream.time_base, fps)
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BadSample(f"is not a readable video ({reason})") from None


def _scaled(container, stream, size):
    """Scale all frames; returns them, and the time stamp that the file has for each."""
    frames, stamps = [], []
    graph, form = None, None
    for frame in container.decode(stream):
        current = frame.width, frame.height, frame.format.name, upright(frame)
        # The frame size may change in the middle of a stream.
        if current != form:
            graph, form = _graph(current, stream.time_base, [("scale", f"{size}:{size}:flags=bicubic")]), current
        stamps.append(frame.pts)
        graph.push(frame)
        frames += _ready(graph)
    return frames, stamps


def _at_rate(frames, stamps, time_base, fps):
    """Convert scaled frames with their time stamps to ``fps`` frames per second."""
    first = frames[0]
    graph = _graph((first.width, first.height, first.format.name, ()), time_base, [("fps", f"fps={fps}")])
    ready = []
    for frame, stamp in zip(frames, stamps, strict=True):
        frame.pts, frame.time_base = stamp, time_base
        graph.push(frame)
        ready += _ready(graph)
    graph.push(None)
    return ready + _ready(graph)


def _graph(form, time_base, filters):
    """Build a filter graph for frames of one ``form``: width, height, pixel format, and filters that rotate them."""
    import av

    width, height, pixels, turns = form
    graph = av.filter.Graph()
    nodes = [graph.add_buffer(width=width, height=height, format=pixels, time_base=time_base)]
    for name, arguments in (*turns, *filters, ("format", "pix_fmts=yuv420p")):
        nodes.append(graph.add(name, arguments))
    graph.link_nodes(*nodes, graph.add("buffersink")).configure()
    return graph


def _ready(graph):
    """The frames that the filters have finished."""
    import av

    frames = []
    while True:
        try:
            frames.append(graph.pull())
        except (av.BlockingIOError, av.EOFError):
            return frames


def encode_clip(path, size, fps, quality):
    """Scale a video and encode those of its frames that training can request.

    Returns:
        (number of frames of the scaled video, list of the numbers of the kept frames, list of their JPEG bytes).

    Raises:
        BadSample: the video cannot be read.
    """
    from av.video.reformatter import Interpolation

    frames = scaled_frames(path, size, fps)
    numbers = kept_frames(len(frames)).tolist()
    images = []
    for number in numbers:
        # Converted via yuv420p with bicubic chroma, as if the frame had been written to a file and read again.
        image = frames[number].to_ndarray(format="bgr24", interpolation=Interpolation.BICUBIC)
        images.append(encode_jpeg(image, quality))
    return len(frames), numbers, images


def encode_jpeg(image, quality):
    """Encode a uint8 (H, W, 3) image with channels blue, green, red as JPEG without chroma subsampling.

    Raises:
        BadSample: the result cannot be decoded again.
    """
    import cv2

    flags = [cv2.IMWRITE_JPEG_QUALITY, quality]
    flags += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    done, encoded = cv2.imencode(".jpg", image, flags)
    back = cv2.imdecode(encoded, cv2.IMREAD_COLOR) if done else None
    if back is None or back.shape != image.shape:
        raise BadSample("has a frame that cannot be stored as JPEG")
    return encoded.tobytes()


def write_avi(source, target, size, fps, ffmpeg=None):
    """Write the scaled video as AVI (H.264, constant rate factor 17), as in the originals' tree.

    Args:
        source, target: Files; ``target`` is written in place, not atomically.
        size, fps: Pixels of a side and frames per second.
        ffmpeg: ffmpeg program to use in place of PyAV.

    Returns:
        Number of frames.

    Raises:
        BadSample: the video cannot be read, or the result does not open with the right number of frames.
    """
    expected = None
    if ffmpeg:
        _write_with_ffmpeg(source, target, size, fps, ffmpeg)
    else:
        expected = _write_with_pyav(source, target, size, fps)
    try:
        length = whole_avi_length(target)
    except BadSample as reason:
        raise BadSample(f"was written as a file that {reason}") from None
    if expected not in (None, length):
        raise BadSample(f"was written as a file of {length} frames, not {expected}")
    return length


def whole_avi_length(path):
    """Number of frames of a video; all of them are decoded to make sure that they are there.

    Raises:
        BadSample: the file is not a readable video, or ends early.
    """
    length = avi_length(path)
    read_avi(path, lambda _: [length - 1])
    return length


def _write_with_pyav(source, target, size, fps):
    import av

    frames = scaled_frames(source, size, fps)
    with av.open(str(target), "w", format="avi") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": CRF})
        stream.width = stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        # Without these a reader would mistake full-range levels for studio levels.
        for fact in ("color_range", "colorspace", "color_primaries", "color_trc"):
            setattr(stream.codec_context, fact, getattr(frames[0], fact))
        for number, frame in enumerate(frames):
            frame.pts, frame.time_base = number, 1 / stream.codec_context.framerate
            frame.pict_type = 0
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return len(frames)


def _write_with_ffmpeg(source, target, size, fps, ffmpeg):
    # ffmpeg itself accepts a truncated file.
    check_whole(source)
    command = [str(ffmpeg), "-nostdin", "-loglevel", "error", "-y", "-i", str(source), "-an"]
    command += ["-vf", f"scale={size}:{size},fps={fps}", "-c:v", "libx264", "-crf", CRF]
    outcome = subprocess.run([*command, "-pix_fmt", "yuv420p", "-f", "avi", str(target)], capture_output=True)
    if outcome.returncode:
        words = outcome.stderr.decode(errors="replace").split()
        raise BadSample(f"makes ffmpeg fail ({' '.join(words)[:200] or outcome.returncode})")
