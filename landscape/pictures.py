"""Pictures that strangers made: decoded within bounds, by the decoders of common formats alone."""

from __future__ import annotations

import io
import warnings

from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from landscape.wording import one_line

PIXELS = 50_000_000
"""The most that one picture may have; decoding and converting takes some 12 bytes for each."""

# Pillow knows sixty formats, some of which start other programs (EPS runs Ghostscript). A name that is not
# known yet would load them all.
_FORMATS = tuple(
    decoder.format
    for decoder in (
        PngImagePlugin.PngImageFile, JpegImagePlugin.JpegImageFile, BmpImagePlugin.BmpImageFile,
        GifImagePlugin.GifImageFile, WebPImagePlugin.WebPImageFile, TiffImagePlugin.TiffImageFile,
        PpmImagePlugin.PpmImageFile,
    )
)  # fmt: skip


def converted(image: Image.Image, mode: str) -> Image.Image:
    """The picture in another mode, without Pillow's remarks on palettes with transparency."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return image.convert(mode)


def opened(content: bytes) -> Image.Image:
    """The picture in a file's bytes, decoded; the first one of several.

    Raises:
        ValueError: no PNG, JPEG, BMP, GIF, WebP, TIFF or PPM, a damaged one, or over :data:`PIXELS`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks of decoders on what they can do without
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
                if image.width * image.height > PIXELS:
                    raise ValueError(f"{image.width} x {image.height}, over {PIXELS} pixels")
                image.load()
                return image.copy()
    except Exception as error:  # a stranger's file may raise anything
        text = one_line(error, 200)
        text = "no picture" if text.startswith("cannot identify") else text
        raise ValueError(f"it cannot be read as a picture: {text}") from None
