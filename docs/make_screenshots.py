"""Makes the pictures of docs/screens.md from the program as it is: `python -m docs.make_screenshots`.

Trains two short runs, runs the commands in terminals, and takes TensorBoard's page with a headless Chromium, which must
be installed: `chromium`, or what CHROMIUM names. Takes some minutes. Arguments are the pictures to make; without, all.
"""

from __future__ import annotations

import html
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.text import Text

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "docs" / "screens"
MOST_BYTES = 120_000
COLUMNS, ROWS = 96, 30
CELL = 12, 24  # pixels of a character
PAPER, INK = "#111111", "#d0d0d0"


def main(argv: list[str]) -> int:
    makers: dict[str, Callable[[Path, Path], None]] = {
        "panel": panel,
        "plot": plot,
        "watch": watch,
        "games": games,
        "tensorboard": tensorboard,
    }
    unknown = set(argv) - set(makers)
    if unknown:
        print(f"no such picture: {', '.join(sorted(unknown))}; there are {', '.join(makers)}", file=sys.stderr)
        return 2
    OUT.mkdir(exist_ok=True)
    runs = Path(os.environ.get("TFDQN_SCREENSHOT_RUNS") or tempfile.mkdtemp(prefix="tfdqn-screens-"))
    runs.mkdir(exist_ok=True)
    for name, make in makers.items():
        if not argv or name in argv:
            path = OUT / f"{name}.png"
            make(runs, path)
            print(f"{path.relative_to(ROOT)}: {path.stat().st_size:,} bytes", flush=True)
    return 0


def train(runs: Path, seed: int) -> str:
    """A short run in a terminal, and what it wrote there; nothing if it is there already."""
    if (runs / f"catch16-seed-{seed}" / "final.keras").is_file():
        return ""
    command = ["-m", "tfdqn.train", "--env", "catch16", "--total-env-frames", "600000", "--no-stop-at-goal"]
    command += ["--device", "cpu", "--seed", str(seed), "--logdir", ".", "--run-name", f"catch16-seed-{seed}"]
    return typed(command, cwd=runs)


def typed(command: list[str], **options: object) -> str:
    """What a command of Python's writes in a terminal until it ends."""
    from tests.terminal import Terminal

    with Terminal(command, COLUMNS, ROWS, COLORTERM="truecolor", **options) as terminal:
        if terminal.end(900):
            raise SystemExit(f"{' '.join(command)}: {terminal.text[-2000:]}")
        return terminal.text


def panel(runs: Path, out: Path) -> None:
    shutil.rmtree(runs / "catch16-seed-0", ignore_errors=True)
    written = train(runs, 0)
    frames = re.findall(r"╭.*?╯", written, flags=re.S)
    # In the middle of the run, when every number is known.
    terminal_picture(frames[len(frames) * 2 // 3], out)


def plot(runs: Path, out: Path) -> None:
    for seed in (0, 1):
        train(runs, seed)
    terminal_picture(typed(["-m", "tfdqn.plot", "."], cwd=runs), out)


def watch(runs: Path, out: Path) -> None:
    from tests.terminal import Terminal

    with Terminal(
        ["-m", "tfdqn.watch", "--pretrained", "cave", "--seed", "1"], 110, 26, COLORTERM="truecolor"
    ) as terminal:
        terminal.read_until(lambda text: re.search(r"frame 2\d\d", text) is not None, 600)
        terminal.press("q")
        terminal.end()
    shown = [screen for screen in terminal.text.split("\x1b[H") if re.search(r"frame 2\d\d", screen)]
    terminal_picture(shown[0].split("\x1b[?")[0], out)


def terminal_picture(written: str, out: Path) -> None:
    """What a terminal shows of these words, colours included, as a picture."""
    from rich.text import Text

    colours_alone = re.sub(r"\x1b\[[?\d;]*[A-LN-Za-ln-z]", "", re.sub(r"\r*\n", "\n", written)).replace("\r", "")
    lines = Text.from_ansi(colours_alone.rstrip("\n")).split("\n")
    width, height = CELL
    size = max(len(line.plain.rstrip()) for line in lines) * width + 16, len(lines) * height + 16
    drawn = [piece for row, line in enumerate(lines) for piece in pieces(line, 8 + row * height)]
    style = f"text {{ font: {height - 4}px 'DejaVu Sans Mono', monospace; white-space: pre }}"
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" width="{size[0]}" height="{size[1]}"><style>{style}</style>'
    page = f'<!doctype html><meta charset="utf-8"><body style="margin: 0; background: {PAPER}">'
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "page.html"
        file.write_text(page + svg + "".join(drawn) + "</svg>", encoding="utf-8")
        chromium(file.as_uri(), size, out)
    lighten(out, 128)


def pieces(line: Text, top: int) -> Iterator[str]:
    """A line of a terminal as SVG; every character has its place, whatever font has it."""
    from rich.console import Console
    from rich.terminal_theme import DIMMED_MONOKAI

    width, height = CELL
    column = 0
    for segment in line.render(Console(color_system="truecolor", force_terminal=True)):
        ink, paper, extra = INK, None, ""
        if style := segment.style:
            if style.color and not style.color.is_default:
                ink = style.color.get_truecolor(DIMMED_MONOKAI).hex
            if style.bgcolor and not style.bgcolor.is_default:
                paper = style.bgcolor.get_truecolor(DIMMED_MONOKAI, foreground=False).hex
            extra = ' font-weight="bold"' * bool(style.bold) + ' opacity="0.6"' * bool(style.dim)
        for character in segment.text:
            left = 8 + column * width
            if paper:
                yield f'<rect x="{left}" y="{top}" width="{width}" height="{height}" fill="{paper}"/>'
            if character in "▀█":  # as a font's own, they would leave gaps
                filled = height if character == "█" else height // 2
                yield f'<rect x="{left}" y="{top}" width="{width}" height="{filled}" fill="{ink}"{extra}/>'
            elif character.strip():
                yield f'<text x="{left}" y="{top + height - 6}" fill="{ink}"{extra}>{html.escape(character)}</text>'
            column += 1


def games(runs: Path, out: Path) -> None:
    """Every game that has pictures, some random frames after its start."""
    import numpy as np
    from PIL import Image, ImageDraw

    from tfdqn import config as configuration
    from tfdqn.envs import make_for, registry
    from tfdqn.shown import games as shown

    tf = shown.tf  # quiet: tfdqn came first

    side, tiles = 192, []
    for name in registry.names():
        config = configuration.resolve({"env": name})
        game = shown.OneGame(config, make_for(config), seed=1)
        if (picture := game.picture()) is None or picture.shape[0] < 8:
            continue
        draws = np.random.default_rng(0)
        for _ in range(24):
            action = int(draws.integers(game.env.num_actions))
            game.step(tf.constant([action], tf.int32))
            if game.is_over:
                game.begin(1)
        picture = np.asarray(game.picture())
        factor = side // max(picture.shape[:2])
        picture = picture.repeat(factor, axis=0).repeat(factor, axis=1)
        tile = Image.new("RGB", (side + 12, side + 32), (17, 17, 17))
        tile.paste(Image.fromarray(picture), (6, 6))
        ImageDraw.Draw(tile).text((6, side + 12), name, fill=(220, 220, 220))
        tiles.append(tile)
    across = 5
    sheet = Image.new("RGB", (across * (side + 12), -(-len(tiles) // across) * (side + 32)), (17, 17, 17))
    for number, tile in enumerate(tiles):
        sheet.paste(tile, (number % across * (side + 12), number // across * (side + 32)))
    sheet.save(out)
    lighten(out, 64)


def tensorboard(runs: Path, out: Path) -> None:
    for seed in (0, 1):
        train(runs, seed)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(runs), "--port", str(port)]
    server = subprocess.Popen([*command, "--host", "127.0.0.1"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        address = f"http://127.0.0.1:{port}/"
        for _ in range(240):
            try:
                with urllib.request.urlopen(f"{address}data/runs", timeout=5) as answer:
                    if b"catch16-seed-1" in answer.read():
                        break
            except (urllib.error.URLError, OSError):
                pass
            time.sleep(0.5)
        else:
            raise SystemExit("TensorBoard does not answer")
        chromium(f"{address}?tagFilter=eval%7Closs#timeseries", (1280, 900), out, "--virtual-time-budget=60000")
    finally:
        server.terminate()
        server.wait()
    lighten(out, 128)


def chromium(address: str, size: tuple[int, int], out: Path, *flags: str) -> None:
    browser = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser") or "chromium"
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", *flags]
    command += ["--window-size={},{}".format(*size), f"--screenshot={out}", address]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode or not out.is_file():
        raise SystemExit(f"{browser}: took no picture of {address}: {done.stderr[-500:]}")


def lighten(path: Path, colours: int) -> None:
    """Save a picture with so many colours; one that is still too large is an error."""
    from PIL import Image

    Image.open(path).convert("RGB").quantize(colours, dither=Image.Dither.NONE).save(path, optimize=True)
    if path.stat().st_size > MOST_BYTES:
        raise SystemExit(f"{path}: {path.stat().st_size:,} bytes, more than {MOST_BYTES:,}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
