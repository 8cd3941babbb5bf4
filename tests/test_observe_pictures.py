"""Pictures and recordings: which frames have changed, what is too large or none at all, what time they are from."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import av
import pytest
from PIL import Image

from muse.errors import ContentsError
from observe.screens import frames, images
from observe.screens import video as recordings
from observe.screens.frames import changed_frames, picture_files
from observe.screens.images import LONGEST_SIDE, changed_share, clock_of, opened, sketch, small
from observe.screens.video import frames_of
from observe.segments.segments import Segment, segments_of
from tests.journal_folder import JournalFolder, run
from tests.screens import DAY, put_screens, screen, segment


def only_segment() -> Segment:
    (found,) = segments_of(DAY)
    return found


def huge_png(path: Path, side: int) -> None:
    """A PNG of one colour with `side` by `side` pixels, a few bytes for each thousand: a bomb."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compressobj(9)
    body = b"".join(rows.compress(b"\0" * (side // 8 + 1)) for _ in range(side)) + rows.flush()
    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b""))


def test_a_clock_in_the_corner_is_no_change_and_a_line_of_text_is() -> None:
    before = sketch(screen(1, clock="14:00"))
    assert changed_share(before, sketch(screen(1, clock="14:59"))) < images.CHANGED_SHARE
    written = screen(1)
    written.paste("#203040", (40, 200, 340, 212))
    assert changed_share(before, sketch(written)) > images.CHANGED_SHARE


def test_only_frames_that_changed_are_kept_and_blank_ones_are_counted(journal: JournalFolder) -> None:
    folder = segment(journal.path)
    put_screens(folder, [1, 1, 2, 2, 2, 3])
    Image.new("RGB", (640, 400), "black").save(folder / "screen_7.png")
    looked = changed_frames(only_segment())
    assert [frame.file for frame in looked.frames] == ["screen_1.png", "screen_3.png", "screen_6.png"]
    assert (looked.unchanged, looked.blank, looked.troubles) == (3, 1, ())


def test_numbers_in_names_count_by_their_value_and_times_in_names_by_theirs(journal: JournalFolder) -> None:
    folder = segment(journal.path)
    put_screens(folder, range(1, 12))
    assert [path.stem for path in picture_files(only_segment())][-2:] == ["screen_10", "screen_11"]
    other = segment(journal.path, name="150000_600")
    screen(1).save(other / "b_150501.png")
    screen(2).save(other / "Screenshot 2026-11-03 at 15.00.07.png")
    looked = changed_frames(segments_of(DAY)[1])
    assert [(frame.file[0], frame.at_s) for frame in looked.frames] == [("S", 7.0), ("b", 301.0)]


def test_the_time_of_a_photograph_is_read_from_its_metadata(journal: JournalFolder) -> None:
    exif = Image.Exif()
    exif[0x0132] = "2026:11:03 14:02:30"
    screen(1).save(segment(journal.path) / "photo.jpg", exif=exif)
    (frame,) = changed_frames(only_segment()).frames
    assert (frame.at_s, frame.picture.media_type) == (150.0, "image/jpeg")


def test_what_is_sent_is_small_and_has_no_metadata(journal: JournalFolder) -> None:
    exif = Image.Exif()
    exif[0x010E] = "my secret place"
    exif[0x0112] = 6
    screen(1, size=(4000, 3000)).save(segment(journal.path) / "photo.jpg", exif=exif)
    (frame,) = changed_frames(only_segment()).frames
    assert b"secret" not in frame.picture.data
    (folder := journal.path / "sent.jpg").write_bytes(frame.picture.data)
    with Image.open(folder) as sent:
        assert max(sent.size) == LONGEST_SIDE
        assert sent.height > sent.width


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16", "CMYK"])
def test_every_mode_of_picture_is_read(mode: str, tmp_path: Path) -> None:
    form = "tif" if mode == "CMYK" else "png"
    screen(3).convert("L" if mode == "I;16" else mode).convert(mode).save(tmp_path / f"screen.{form}")
    with opened(tmp_path / f"screen.{form}") as image:
        assert small(image).mode == "RGB"


def test_a_bomb_is_told_and_not_unpacked(journal: JournalFolder) -> None:
    folder = segment(journal.path)
    huge_png(folder / "screen_1.png", 30_000)
    huge_png(folder / "screen_2.png", 7_000)
    screen(1).save(folder / "screen_3.png")
    looked = changed_frames(only_segment())
    assert [frame.file for frame in looked.frames] == ["screen_3.png"]
    assert [trouble.file for trouble in looked.troubles] == ["screen_1.png", "screen_2.png"]
    assert all("40,000,000" in trouble.error for trouble in looked.troubles)


def test_a_file_of_too_many_bytes_is_not_read(journal: JournalFolder) -> None:
    path = segment(journal.path) / "screen_1.png"
    with path.open("wb") as file:
        file.truncate(images.MOST_BYTES + 1)
    (trouble,) = changed_frames(only_segment()).troubles
    assert "150,000,001 bytes" in trouble.error


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no picture at all",
        b"\x89PNG\r\n\x1a\n",
        b"GIF89a\xff\xff\xff\xff",
        b"RIFF....WEBPVP8 ",
        b"\xff\xd8\xff\xe0",
    ],
)
@pytest.mark.parametrize("ending", [".png", ".gif", ".webp", ".jpg", ".tif", ".mp4"])
def test_a_file_that_is_no_picture_is_told_and_the_others_are_looked_at(
    content: bytes, ending: str, journal: JournalFolder
) -> None:
    folder = segment(journal.path)
    (folder / f"a{ending}").write_bytes(content)
    screen(1).save(folder / "b.png")
    looked = changed_frames(only_segment())
    assert [frame.file for frame in looked.frames] == ["b.png"]
    assert [trouble.file for trouble in looked.troubles] == [f"a{ending}"]


def test_a_picture_that_is_half_written_is_told_and_read_when_it_is_whole(journal: JournalFolder) -> None:
    path = segment(journal.path) / "screen_1.png"
    screen(1).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert changed_frames(only_segment()).troubles
    path.write_bytes(whole)
    assert len(changed_frames(only_segment()).frames) == 1


@pytest.mark.parametrize("ending", ["gif", "webp", "png"])
def test_frames_of_an_animation_are_sampled_in_time(ending: str, journal: JournalFolder) -> None:
    shown = [screen(number) for number in (1, 1, 2, 2, 3, 3)]
    path = segment(journal.path) / f"140100.{ending}"
    shown[0].save(path, save_all=True, append_images=shown[1:], duration=2_000, loop=0)
    looked = changed_frames(only_segment())
    assert [(frame.offset_s, frame.at_s) for frame in looked.frames] == [(0.0, 60.0), (4.0, 64.0), (8.0, 68.0)]


def test_frames_that_stand_for_a_moment_are_passed_over(tmp_path: Path) -> None:
    shown = [screen(number) for number in range(40)]
    shown[0].save(tmp_path / "fast.gif", save_all=True, append_images=shown[1:], duration=100, loop=0)
    assert [offset_s for offset_s, _ in frames_of(tmp_path / "fast.gif")] == [0.0, 2.0]


def test_an_animation_without_an_end_is_cut_off_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recordings, "MOST_DECODED", 10)
    shown = [screen(number) for number in range(40)]
    shown[0].save(tmp_path / "long.gif", save_all=True, append_images=shown[1:], duration=100, loop=0)
    seen: list[float | None] = []
    with pytest.raises(ContentsError, match="Cut it into pieces"):
        seen += [offset_s for offset_s, _ in frames_of(tmp_path / "long.gif")]


def video(path: Path, numbers: list[int], *, rate: int = 2) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 640, 400, "yuv420p"
        for number in numbers:
            container.mux(stream.encode(av.VideoFrame.from_image(screen(number))))
        container.mux(stream.encode())


def test_frames_of_a_video_are_sampled_in_time(journal: JournalFolder) -> None:
    video(segment(journal.path) / "screen_140000.mp4", [1] * 8 + [2] * 8 + [3] * 8)
    looked = changed_frames(only_segment())
    assert [frame.at_s for frame in looked.frames] == [0.0, 4.0, 8.0]
    assert {frame.picture.media_type for frame in looked.frames} == {"image/jpeg"}
    assert looked.troubles == ()


def test_a_video_that_is_cut_off_gives_what_it_has(journal: JournalFolder) -> None:
    path = segment(journal.path) / "screen.avi"
    video(path, [1] * 8 + [2] * 8)
    path.write_bytes(path.read_bytes()[:-2_000])
    looked = changed_frames(only_segment())
    assert looked.frames


def test_more_changes_than_a_segment_may_have_are_told(journal: JournalFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "MOST_FRAMES", 2)
    put_screens(segment(journal.path), [1, 2, 3])
    looked = changed_frames(only_segment())
    assert (len(looked.frames), len(looked.troubles)) == (2, 1)


def test_the_time_in_a_name_is_told_from_other_numbers() -> None:
    assert clock_of(Path("screen_140512.png")) == 14 * 3600 + 5 * 60 + 12
    assert clock_of(Path("Screenshot_20261103-140512.png")) == 14 * 3600 + 5 * 60 + 12
    assert clock_of(Path("screen_992512.png")) is None
    assert clock_of(Path("screen_1.png")) is None


def test_metadata_that_is_cut_off_does_not_lose_the_picture(journal: JournalFolder) -> None:
    path = segment(journal.path) / "photo.jpg"
    screen(1).save(path)
    whole, cut = path.read_bytes(), b"Exif\0\0II*\0\x08\0\0\0\x05\0\x12\x01\x03\0"
    path.write_bytes(whole[:2] + b"\xff\xe1" + (len(cut) + 2).to_bytes(2, "big") + cut + whole[2:])
    looked = changed_frames(only_segment())
    assert (len(looked.frames), looked.troubles) == (1, ())


WITHOUT_PYAV = """
import sys

class Nowhere:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "av":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Nowhere())
from observe.screens.frames import changed_frames
from observe.segments.segments import segments_of
print(changed_frames(segments_of(sys.argv[1])[0]).troubles[0].error)
"""


def test_a_video_without_pyav_says_what_to_install(journal: JournalFolder) -> None:
    video(segment(journal.path) / "screen.mp4", [1])
    assert "pip install 'muse-router[video]'" in run(WITHOUT_PYAV, DAY)
