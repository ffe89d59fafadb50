"""The games again: one episode at a time, in plain Python, read from the rules and sharing nothing with `tfdqn.envs`.

Heights are `decimal.Decimal`: exact here, and `int()` of one truncates toward zero, as the originals' floats do.
"""

from decimal import Decimal

import numpy as np

SINGLE, EVERY_FIVE = None, 4


class CatchReference:
    def __init__(self, size, max_jump, post_after=EVERY_FIVE):
        self.size, self.max_jump, self.post_after = size, max_jump, post_after

    def reset(self, start_paddle, start_column):
        self.paddle = start_paddle
        self.balls = [[0, start_column]]  # [row, column], oldest first
        self.since_ball = 0
        self.time = 0
        return self.frame()

    def allowed_columns(self):
        last = self.balls[-1][1]
        return [column for column in range(self.size) if 3 <= abs(column - last) <= self.max_jump]

    def step(self, action, ball_rank):
        """Play a frame; return (frame, reward, termination, truncation)."""
        if action == 1:
            self.paddle = max(0, self.paddle - 1)
        elif action == 2:
            self.paddle = min(self.paddle + 1, self.size - 3)
        for ball in self.balls:
            ball[0] += 1
        if self.since_ball == self.post_after:
            self.since_ball = 0
            allowed = self.allowed_columns()
            self.balls.append([0, allowed[ball_rank % len(allowed)]])
        else:
            self.since_ball += 1
        self.time += 1
        reward, termination = 0, False
        row, column = self.balls[0]
        landed = row == self.size - 1
        if landed:
            reward = 1 if self.paddle <= column < self.paddle + 3 else -1
            termination = reward == -1 or self.post_after is SINGLE
        frame = self.frame()
        if landed:
            del self.balls[0]
        return frame, reward, termination, self.time > 500 and not termination

    def frame(self):
        frame = np.zeros((self.size, self.size), np.uint8)
        frame[self.size - 1, self.paddle : self.paddle + 3] = 255
        for row, column in self.balls:
            frame[row, column] = 128
        return frame


class CaveReference:
    def reset(self):
        self.y, self.speed = Decimal(24), Decimal(0)
        self.walls = [(Decimal(24), Decimal("26.4"))] * 48  # (centre, height of the opening) in rows
        self.centre, self.opening, self.slope, self.since_shrink = Decimal("0.5"), Decimal("0.55"), 0, 0
        self.tail = [Decimal(24)] * 15
        self.blocks = []  # [column, top], oldest first
        self.since_block = 0
        self.time = 0
        return self.frame()

    def block_rows(self):
        """Allowed top rows of a block that appears now."""
        centre, height = self.walls[-1]
        return range(int(centre - height / 2), int(centre + height / 2 - 6))

    def step(self, action, wall, block_rank):
        """Play a frame; `wall` is the draw in 1e-7; return (frame, reward, termination, truncation)."""
        ends = self.advance(action, wall, block_rank)
        return self.frame(), *ends

    def advance(self, action, wall, block_rank):
        """Play a frame without drawing it, which is most of the work."""
        self.speed += Decimal("-0.08") if action == 1 else Decimal("0.08")
        self.y += self.speed
        self._wall(wall * Decimal("1e-7"))
        self.tail = [*self.tail[1:], self.y]
        self.time += 1
        for block in self.blocks:
            block[0] -= 1
        self.since_block += 1
        if self.since_block > 20 and self.time > 50:
            self.since_block = 0
            allowed = self.block_rows()
            self.blocks.append([48, allowed[block_rank % len(allowed)]])
        centre, height = self.walls[15]
        crash = self.y <= centre - height / 2 or self.y >= centre + height / 2
        for column, top in self.blocks:
            crash = crash or (column <= 15 <= column + 2 and top <= self.y <= top + 6)
        self.blocks = [block for block in self.blocks if block[0] >= 0]
        return -1 if crash else 0, crash, self.time > 10_000 and not crash

    def _wall(self, u):
        self.since_shrink += 1
        if self.since_shrink > 50:
            self.since_shrink = 0
            self.opening = max(self.opening - Decimal("0.01"), Decimal("0.3"))
        up = Decimal("0.2") if self.slope == 1 else Decimal("0.6")
        down = Decimal("0.8") if self.slope == -1 else Decimal("0.4")
        if u > up:
            self.centre += (u - Decimal("0.6")) / 10
            self.slope = 1
        elif u < down:
            self.centre -= (Decimal("0.4") - u) / 10
            self.slope = -1
        else:
            self.slope = 0
        self.walls = [*self.walls[1:], (48 * self.centre, 48 * self.opening)]

    def frame(self):
        half, shift = Decimal("0.5"), self.y - 24
        frame = np.zeros((48, 48), np.uint8)

        def fill(first, stop, columns, level):
            """Rows first .. stop-1, as far as they are on the screen."""
            frame[max(first, 0) : max(stop, 0), columns] = level

        for i in range(1, 15):
            height = self.tail[i]
            fill(int(height - half - shift), int(height + half - shift), i - 1, 204)
        frame[23, 14] = 255
        for column, top in self.blocks:
            first = int(top - shift)
            if first >= 0:
                fill(first, int(top + 6 - shift), slice(column, column + 2), 128)
        for column, (centre, height) in enumerate(self.walls):
            fill(0, int(centre - shift - height / 2), column, 102)
            fill(int(centre - shift + height / 2), 48, column, 102)
        return frame
