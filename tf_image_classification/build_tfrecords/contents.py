"""What a file is that no decoder here reads, by its first bytes: a reason in words that its owner knows."""

from __future__ import annotations

from tf_image_classification.build_tfrecords.rejection import CAMERA_RAW

_ZIP = "zip archive, not an image"

# The signatures of https://en.wikipedia.org/wiki/List_of_file_signatures, and each format's own specification.
_BY_FIRST_BYTES = (
    (b"version https://git-lfs", "Git LFS pointer, not the file (run: git lfs pull)"),
    (b"%PDF", "PDF, not an image"),
    (b"%!PS", "PostScript, not an image"),
    (b"8BPS", "Photoshop file (PSD)"),
    (b"\0\0\1\0", "Windows icon (ICO)"),
    (b"\0\0\2\0\0\0\0\0", "Targa image (TGA)"),
    (b"\0\0\2\0", "Windows cursor (CUR)"),
    (b"icns", "macOS icon (ICNS)"),
    (b"\xff\x0a", "JPEG XL image"),
    (b"\0\0\0\x0cJXL ", "JPEG XL image"),
    (b"\xff\xd8\xff\xf7", "JPEG-LS image"),
    (b"II\xbc\x01", "JPEG XR image"),
    (b"\x76\x2f\x31\x01", "OpenEXR image"),
    (b"#?RADIANCE", "Radiance HDR image"),
    (b"DDS ", "DirectDraw texture (DDS)"),
    (b"gimp xcf", "GIMP file (XCF)"),
    (b"SIMPLE  =", "FITS file"),
    (b"\x89HDF\r\n\x1a\n", "HDF5 file, not an image"),
    (b"\x93NUMPY", "NumPy array, not an image"),
    (b"\x80\x04", "Python pickle, not an image"),
    (b"FUJIFILMCCD-RAW", CAMERA_RAW),
    (b"IIU\0", CAMERA_RAW),  # Panasonic
    (b"IIRO", CAMERA_RAW),  # Olympus
    (b"IIRS", CAMERA_RAW),
    (b"MMOR", CAMERA_RAW),
    (b"FOVb", CAMERA_RAW),  # Sigma
    (b"\0MRM", CAMERA_RAW),  # Minolta
    (b"PK\3\4", _ZIP),
    (b"PK\5\6", _ZIP),
    (b"\x1f\x8b", "gzip archive, not an image"),
    (b"BZh", "bzip2 archive, not an image"),
    (b"\xfd7zXZ\0", "xz archive, not an image"),
    (b"7z\xbc\xaf\x27\x1c", "7z archive, not an image"),
    (b"Rar!\x1a\x07", "RAR archive, not an image"),
    (b"\x28\xb5\x2f\xfd", "zstd archive, not an image"),
    (b"\x1a\x45\xdf\xa3", "video (Matroska or WebM), not an image"),
    (b"FLV\1", "video (FLV), not an image"),
    (b"\0\0\1\xba", "video (MPEG), not an image"),
    (b"\0\0\1\xb3", "video (MPEG), not an image"),
    (b"OggS", "audio or video (Ogg), not an image"),
    (b"ID3", "audio (MP3), not an image"),
    (b"\x00\x05\x16\x07", "macOS AppleDouble file (._ prefix), not an image"),
    (b"\x00\x05\x16\x00", "macOS AppleDouble file (._ prefix), not an image"),
    (b"\0\0\0\1Bud1", "macOS .DS_Store, not an image"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "Microsoft Office file or Thumbs.db, not an image"),
    (b"SQLite format 3\0", "SQLite database, not an image"),
)
_OF_RIFF = {b"AVI ": "video (AVI), not an image", b"WAVE": "audio (WAV), not an image"}
# Major brands of ISO base media files: https://mp4ra.org/registered-types/brands
_HEIC_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"mif2"})
_AVIF_BRANDS = frozenset({b"avif", b"avis"})
_RAW_BRAND = b"crx "  # Canon CR3
_TEXT_BEGINNING = 1024


def is_heic(data: bytes) -> bool:
    """Whether it is an HEIF file that is not AVIF: what phones call HEIC."""
    brands = _brands(data)
    return bool(brands) and brands[0] in _HEIC_BRANDS and not _AVIF_BRANDS.intersection(brands)


def is_jpeg_2000(data: bytes) -> bool:
    """Whether it is a JP2 file or a bare codestream (ITU-T T.800)."""
    return data.startswith((b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  "))


def name_of(data: bytes) -> str | None:
    """What a file without a decoder is, as a reason for its rejection; None: unknown."""
    for signature, name in _BY_FIRST_BYTES:
        if data.startswith(signature):
            return name
    if data.startswith(b"RIFF"):
        return _OF_RIFF.get(data[8:12])
    if brands := _brands(data):
        if brands[0] == _RAW_BRAND:
            return CAMERA_RAW
        return None if _AVIF_BRANDS.intersection(brands) else "video (MP4 or QuickTime), not an image"
    if data[128:132] == b"DICM":
        return "DICOM file, not an image"
    if data[4:8] in (b"moov", b"mdat", b"wide"):  # QuickTime before it had brands
        return "video (MP4 or QuickTime), not an image"
    return _name_of_text(data)


def _brands(data: bytes) -> list[bytes]:
    """Major brand and compatible brands of an ISO base media file (ISO/IEC 14496-12); empty: it is none."""
    if data[4:8] != b"ftyp":
        return []
    size = int.from_bytes(data[:4], "big")
    return [data[8:12], *(data[begin : begin + 4] for begin in range(16, min(size, len(data), 512) - 3, 4))]


def _name_of_text(data: bytes) -> str | None:
    beginning = data[:_TEXT_BEGINNING].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if beginning.startswith((b"<!doctype html", b"<html", b"<head", b"<body")):
        return "HTML page, not an image"
    if beginning.startswith((b"<svg", b"<?xml", b"<!doctype svg", b"<!--")):
        if b"<svg" in beginning:
            return "SVG drawing, not pixels"
        return "HTML page, not an image" if b"<html" in beginning else "XML, not an image"
    if beginning.startswith((b"{", b"[")):
        return "JSON, not an image"
    if beginning.startswith((b"data:image/", b"/9j/", b"ivborw0kgg")):
        return "base64 text of an image, not the image"
    if not data.strip(b"\0"):
        return "file of zero bytes only"
    return None
