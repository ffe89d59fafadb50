"""Pictures as characters: two pixels in each, one above the other."""

from __future__ import annotations

import numpy as np

UPPER_HALF = "▀"
SHADES = " ░▒▓█"  # of levels of grey, where there are no colours


def fitted(picture: np.ndarray, columns: int, rows: int) -> np.ndarray:
    """A picture [H, W, 3] uint8 in a size that fits into so many characters, an even number of pixels high.

    It is enlarged by a whole number, or made smaller as far as it has to be, each pixel a mean of those it stands for.
    """
    height, width, _ = picture.shape
    factor = min(columns // width, 2 * rows // height)
    if factor >= 1:
        picture = picture.repeat(factor, axis=0).repeat(factor, axis=1)
    else:
        from PIL import Image

        share = min(columns / width, 2 * rows / height)
        size = max(int(width * share), 1), max(int(height * share), 1)
        picture = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX))
    return np.pad(picture, [(0, picture.shape[0] % 2), (0, 0), (0, 0)])


def lines_of(picture: np.ndarray, colours: bool, true_colours: bool) -> list[str]:
    """A picture [H, W, 3] uint8, H even, as H / 2 lines of W characters.

    Args:
      colours: whether there are any; else shades of grey, of two pixels together.
      true_colours: all of them, or the 256 of most terminals.
    """
    if not colours:
        grey = picture.astype(np.float32).mean(axis=-1).reshape(picture.shape[0] // 2, 2, -1).mean(axis=1)
        shades = np.minimum(grey / 256 * len(SHADES), len(SHADES) - 1).astype(int)
        # What is not black is seen.
        shades = np.maximum(shades, (grey > 0).astype(int))
        return ["".join(SHADES[shade] for shade in row) for row in shades]
    numbers = None if true_colours else _of_256(picture)
    lines = []
    for top in range(0, picture.shape[0], 2):
        line, last = "", None
        for column in range(picture.shape[1]):
            pair = (top, column), (top + 1, column)
            if numbers is None:
                ink = [";".join(map(str, (2, *picture[place].tolist()))) for place in pair]
            else:
                ink = [f"5;{numbers[place]}" for place in pair]
            if ink != last:
                line, last = f"{line}\x1b[38;{ink[0]};48;{ink[1]}m", ink
            line += UPPER_HALF
        lines.append(line + "\x1b[0m")
    return lines


def _of_256(picture: np.ndarray) -> np.ndarray:
    """The nearest of a terminal's 6 x 6 x 6 colours and 24 greys, [H, W] int."""
    levels = np.array([0, 95, 135, 175, 215, 255])
    wanted = picture.astype(int)
    each = np.abs(wanted[..., np.newaxis] - levels).argmin(axis=-1)
    cube = levels[each]
    grey = np.clip((wanted.mean(axis=-1).round().astype(int) - 8 + 5) // 10, 0, 23)
    grey_level = 8 + 10 * grey
    is_grey = ((wanted - grey_level[..., np.newaxis]) ** 2).sum(axis=-1) < ((wanted - cube) ** 2).sum(axis=-1)
    return np.where(is_grey, 232 + grey, 16 + 36 * each[..., 0] + 6 * each[..., 1] + each[..., 2])
