"""Films of episodes: several side by side, and below each what the agent thinks. Shapes: A actions."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tfdqn.config import Config
from tfdqn.envs import Environment
from tfdqn.errors import UserError
from tfdqn.learners.base import Agent
from tfdqn.shown.games import AgentPlayer, OneGame

LINE = 14  # pixels of a line of words
LEAST_WIDTH = 180  # of an episode with words below it
_BACK, _INK, _DIM, _CHOSEN = (16, 16, 20), (235, 235, 235), (110, 110, 120), (80, 200, 120)
_GAP = 4  # pixels between episodes


class Shot(NamedTuple):
    """A frame of an episode, and what the agent does there."""

    picture: np.ndarray  # [H, W, 3] uint8, or [H, W] levels of the game's palette
    frame: int
    score: float
    action: int | None  # None where the episode is over
    values: np.ndarray | None  # [A] float32, what it takes each action to be worth


def shots(
    config: Config, env: Environment, agent: Agent, seed: int, episodes: int = 1, levels: bool = False
) -> Iterator[list[Shot]]:
    """Frame by frame, a shot of each of some greedy episodes; one that is over stays as it ended.

    Args:
      levels: of a game that shows its palette, the levels themselves.

    Raises:
      UserError: the game has no pictures.
    """
    first = AgentPlayer(config, agent)
    players = [first, *(first.another() for _ in range(episodes - 1))]
    games = [OneGame(config, env, seed, number) for number in range(episodes)]
    try:
        for game, player in zip(games, players, strict=True):
            player.begin(game)
        last: list[Shot | None] = [None] * episodes
        while any(shot is None or shot.action is not None for shot in last):
            for number, (game, player) in enumerate(zip(games, players, strict=True)):
                if last[number] is None or last[number].action is not None:
                    last[number] = _shot(env, game, player, levels)
            yield list(last)
    finally:
        for game in games:
            game.close()


def _shot(env: Environment, game: OneGame, player: AgentPlayer, levels: bool) -> Shot:
    picture = game.levels() if levels else game.picture()
    if picture is None:
        raise UserError(f"{env.name} has no pictures: give it a method render(state) -> [N, H, W, 3] uint8")
    frame, score = game.frames, game.score
    if game.is_over:
        return Shot(picture, frame, score, None, None)
    player.play(game)
    return Shot(picture, frame, score, player.action, player.values)


class Sheet:
    """Puts shots side by side, each with words below it if asked for.

    Args:
      names: of the game's actions.
      rows, columns: of episodes.
      scale: screen pixels a game pixel.
      overlay: whether there are words: frame, score, and the action values as bars.
    """

    def __init__(self, names: Sequence[str], rows: int, columns: int, scale: int, overlay: bool):
        self._names, self._rows, self._columns, self._scale, self._overlay = names, rows, columns, scale, overlay
        self._low, self._high = np.inf, -np.inf  # of all action values so far
        self._font = ImageFont.load_default()

    def draw(self, shots: Sequence[Shot]) -> np.ndarray:
        """The picture of one moment, [H, W, 3] uint8, both even, as films are encoded."""
        tiles = [self._tile(shot) for shot in shots]
        height, width, _ = tiles[0].shape
        gap = _GAP if len(tiles) > 1 else 0
        size = (self._rows * (height + gap) - gap, self._columns * (width + gap) - gap)
        sheet = np.empty([size[0] + size[0] % 2, size[1] + size[1] % 2, 3], np.uint8)
        sheet[:] = _BACK
        places = itertools.product(range(self._rows), range(self._columns))
        for (row, column), tile in zip(places, tiles, strict=True):
            top, left = row * (height + gap), column * (width + gap)
            sheet[top : top + height, left : left + width] = tile
        return sheet

    def _tile(self, shot: Shot) -> np.ndarray:
        picture = shot.picture.repeat(self._scale, axis=0).repeat(self._scale, axis=1)
        if not self._overlay:
            return picture if shot.action is not None or self._rows * self._columns == 1 else picture // 2
        width = max(picture.shape[1], LEAST_WIDTH)
        image = Image.new("RGB", (width, picture.shape[0] + LINE * (len(self._names) + 1) + 2), _BACK)
        image.paste(Image.fromarray(picture), ((width - picture.shape[1]) // 2, 0))
        pen, top = ImageDraw.Draw(image), picture.shape[0] + 1
        over = "" if shot.action is not None else "  over"
        pen.text((4, top), f"frame {shot.frame:,}  score {shot.score:,.6g}{over}", fill=_INK, font=self._font)
        if shot.values is not None:
            self._low, self._high = min(self._low, shot.values.min()), max(self._high, shot.values.max())
            for number, (name, value) in enumerate(zip(self._names, shot.values, strict=True)):
                self._bar(pen, top + LINE * (number + 1), width, name, float(value), number == shot.action)
        return np.asarray(image)

    def _bar(self, pen: ImageDraw.ImageDraw, top: int, width: int, name: str, value: float, is_chosen: bool) -> None:
        left, right = 62, width - 60
        share = 0.5 if self._high <= self._low else (value - self._low) / (self._high - self._low)
        ink = _CHOSEN if is_chosen else _DIM
        pen.text((4, top), name[:9], fill=_INK if is_chosen else _DIM, font=self._font)
        pen.rectangle([left, top + 3, left + round(share * (right - left)), top + LINE - 4], fill=ink)
        pen.text((right + 6, top), f"{value:.3g}", fill=_INK if is_chosen else _DIM, font=self._font)


def save_mp4(path: Path, pictures: Sequence[np.ndarray], frames_per_second: float) -> None:
    """Write pictures [H, W, 3] uint8, H and W even, as H.264 in an MP4."""
    import imageio_ffmpeg

    height, width, _ = pictures[0].shape
    writer = imageio_ffmpeg.write_frames(
        str(path), (width, height), fps=frames_per_second, quality=8, macro_block_size=2, ffmpeg_log_level="error"
    )
    writer.send(None)
    try:
        for picture in pictures:
            writer.send(np.ascontiguousarray(picture))
    finally:
        writer.close()
