// The cave's rules, in whole numbers, as tfdqn/envs/cave/rules.py has them: a game of a seed is the same in every bit.
"use strict";

const Cave = (() => {
  const SIZE = 48; // rows and columns of the screen
  const PLAYER_COLUMN = 15; // where the player meets walls and blocks; it is drawn in the column before
  const PLAYER_ROW = 24; // the player's height relative to the screen, always
  const TAIL_LENGTH = 15;
  const TIME_LIMIT = 10000; // frames; the episode is truncated in the frame that passes it

  // Walls. An edge of the opening is told in 1/ROW rows: see rules.py.
  const ROW = 6250000;
  const EDGE_PER_CENTRE = 3, EDGE_PER_OPENING = 1500000, EDGE_PER_HEIGHT = 500000;
  const START_CENTRE = 50000000, START_OPENING = 55, MIN_OPENING = 30, WALL_SHRINK_PERIOD = 51;
  const WALL_DRAWS = 10000000;
  const UP = 6000000, UP_AGAIN = 2000000, UP_ZERO = 6000000;
  const DOWN = 4000000, DOWN_AGAIN = 8000000, DOWN_ZERO = 4000000;

  const FIRST_BLOCK_TIME = 51, BLOCK_PERIOD = 21, BLOCK_HEIGHT = 6, BLOCK_WIDTH = 2, NUM_BLOCKS = 3;

  const WALL_LEVEL = 102, BLOCK_LEVEL = 128, TAIL_LEVEL = 204, PLAYER_LEVEL = 255;

  // What a player knows who remembers all screens, as in super_resolution.py: bounds in 25ths of a row of the world.
  const PARTS = 25, UNKNOWN = 1e8;

  // ---- draws, as in tfdqn/seeds.py

  const U64 = (word) => BigInt.asUintN(64, word);
  const GOLDEN = 0x9E3779B97F4A7C15n;

  function mix(word) {
    word = U64((word ^ (word >> 30n)) * 0xBF58476D1CE4E5B9n);
    word = U64((word ^ (word >> 27n)) * 0x94D049BB133111EBn);
    return word ^ (word >> 31n);
  }

  /** Number `index` of the seed (stream, counter): a BigInt below 2**63. */
  function draw(stream, counter, index) {
    const start = mix(U64(mix(BigInt(stream)) + BigInt(counter)));
    return mix(U64(start + BigInt(index + 1) * GOLDEN)) & 0x7FFFFFFFFFFFFFFFn;
  }

  /** The word that names a stream of a seed; `words` are whole numbers. */
  function streamOf(seed, name, ...words) {
    const head = sha256(`(${[seed, `'${name}'`, ...words].join(", ")})`)[0];
    return ((head >>> 24) | ((head >>> 8) & 0xff00) | ((head << 8) & 0xff0000) | (head << 24)) >>> 0;
  }

  /** Eight words of the SHA-256 of an ASCII text (FIPS 180-4). `crypto.subtle` is missing on plain http pages. */
  function sha256(text) {
    const primes = [];
    for (let n = 2; primes.length < 64; n++) if (primes.every((p) => n % p)) primes.push(n);
    const fraction = (x) => ((x - Math.floor(x)) * 2 ** 32) | 0;
    const constants = primes.map((p) => fraction(Math.cbrt(p)));
    const hash = primes.slice(0, 8).map((p) => fraction(Math.sqrt(p)));
    const length = text.length;
    const words = new Int32Array(((length + 8) >> 6) * 16 + 16);
    for (let i = 0; i < length; i++) words[i >> 2] |= text.charCodeAt(i) << (24 - 8 * (i & 3));
    words[length >> 2] |= 0x80 << (24 - 8 * (length & 3));
    words[words.length - 1] = 8 * length;
    const turned = (x, by) => (x >>> by) | (x << (32 - by));
    const w = new Int32Array(64);
    for (let block = 0; block < words.length; block += 16) {
      for (let i = 0; i < 64; i++) {
        if (i < 16) { w[i] = words[block + i]; continue; }
        const a = w[i - 15], b = w[i - 2];
        w[i] = w[i - 16] + w[i - 7] + (turned(a, 7) ^ turned(a, 18) ^ (a >>> 3)) +
          (turned(b, 17) ^ turned(b, 19) ^ (b >>> 10));
      }
      let [a, b, c, d, e, f, g, h] = hash;
      for (let i = 0; i < 64; i++) {
        const ofE = turned(e, 6) ^ turned(e, 11) ^ turned(e, 25), ofA = turned(a, 2) ^ turned(a, 13) ^ turned(a, 22);
        const one = (h + ofE + ((e & f) ^ (~e & g)) + constants[i] + w[i]) | 0;
        const two = (ofA + ((a & b) ^ (a & c) ^ (b & c))) | 0;
        [h, g, f, e, d, c, b, a] = [g, f, e, (d + one) | 0, c, b, a, (one + two) | 0];
      }
      [a, b, c, d, e, f, g, h].forEach((word, i) => { hash[i] = (hash[i] + word) | 0; });
    }
    return hash;
  }

  // ---- the game

  const clipped = (value, low, high) => Math.min(Math.max(value, low), high);
  const clippedRow = (distance, row) => Math.trunc(clipped(distance, 0, SIZE * row) / row);
  const opening = (time) => Math.max(START_OPENING - Math.trunc(Math.max(time, 0) / WALL_SHRINK_PERIOD), MIN_OPENING);

  /** What is known of one edge in each column: nothing yet. */
  const unseen = () => ({ low: new Int32Array(SIZE).fill(-UNKNOWN), high: new Int32Array(SIZE).fill(UNKNOWN) });

  class Game {
    /**
     * A new game.
     *
     * `seed` and `episode` are those of `python -m tfdqn.evaluate --seed`, whose first episode has number 0.
     */
    constructor(seed = 0, episode = 0) {
      this.stream = streamOf(seed, "final_evaluation", 0, 0);
      this.episode = episode;
      this.time = 0; // frames since the start
      this.speed = 0; // downwards, 0.08 rows a frame
      this.slope = 0; // how the newest wall column moved: 1, 0 or -1
      this.tail = new Int32Array(TAIL_LENGTH); // newest heights, oldest first, 0.08 rows from 24
      this.centres = new Int32Array(SIZE).fill(START_CENTRE); // of walls, left to right; they wrap far from the start
      this.blockTops = new Int32Array(NUM_BLOCKS); // newest first, in rows of the world
      this.top = unseen();
      this.bottom = unseen();
      this.isCrashed = this.isOver = false;
      this.see();
    }

    get height() { return this.tail[TAIL_LENGTH - 1]; }

    /** Frames survived; the one that passes the time limit is none. */
    get score() { return Math.min(this.time, TIME_LIMIT); }

    /** One frame; `isHeld` is whether the button is. */
    step(isHeld) {
      const number = draw(this.stream, this.time + 1, this.episode);
      const wide = BigInt(WALL_DRAWS);
      this.advance(isHeld, Number(number % wide), Number((number / wide) & 0x7FFFFFFFn));
    }

    /** One frame on draws from elsewhere: `wall` in 0..WALL_DRAWS-1, `rank` >= 0. */
    advance(isHeld, wall, rank) {
      const { tail, centres } = this;
      const time = ++this.time;
      this.speed += isHeld ? -1 : 1;
      const height = this.height + this.speed;
      tail.copyWithin(0, 1);
      tail[TAIL_LENGTH - 1] = height;

      const goesUp = wall > (this.slope === 1 ? UP_AGAIN : UP);
      const goesDown = !goesUp && wall < (this.slope === -1 ? DOWN_AGAIN : DOWN);
      const move = goesUp ? wall - UP_ZERO : goesDown ? wall - DOWN_ZERO : 0;
      this.slope = goesUp ? 1 : goesDown ? -1 : 0;
      centres.copyWithin(0, 1);
      centres[SIZE - 1] += move;

      if (this.blockAge(0) === 0) {
        this.blockTops.copyWithin(1, 0);
        // Rows of the world, not of the screen, since they are cut off toward zero.
        const middle = this.fromPlayer(SIZE - 1) + EDGE_PER_HEIGHT * height, half = EDGE_PER_OPENING * opening(time);
        const lowest = Math.trunc((middle - half) / ROW);
        const end = Math.trunc((middle + half - BLOCK_HEIGHT * ROW) / ROW);
        this.blockTops[0] = lowest + rank % (end - lowest);
      }

      for (const edge of [this.top, this.bottom]) {
        edge.low.copyWithin(0, 1);
        edge.high.copyWithin(0, 1);
        edge.low[SIZE - 1] = -UNKNOWN;
        edge.high[SIZE - 1] = UNKNOWN;
      }
      this.see();
      this.isCrashed = this.hitsWall() || this.hitsBlock();
      this.isOver = this.isCrashed || time > TIME_LIMIT;
    }

    /** How far a wall's centre lies below row 0 of the screen, in 1/ROW rows; of numbers that have wrapped, too. */
    fromPlayer(column) {
      return (EDGE_PER_CENTRE * this.centres[column] - EDGE_PER_HEIGHT * this.height) | 0;
    }

    /** Upper and lower edge of a column's opening, relative to the screen, in 1/ROW rows. */
    edges(column) {
      const half = EDGE_PER_OPENING * opening(this.time - (SIZE - 1 - column)), middle = this.fromPlayer(column);
      return [middle - half, middle + half];
    }

    /** Frames since the k-th newest block appeared; -1 if there is none or it has left the screen. */
    blockAge(k) {
      const sinceFirst = this.time - FIRST_BLOCK_TIME;
      const age = (((sinceFirst % BLOCK_PERIOD) + BLOCK_PERIOD) % BLOCK_PERIOD) + k * BLOCK_PERIOD;
      return age <= sinceFirst && age <= SIZE ? age : -1;
    }

    hitsWall() {
      const [top, bottom] = this.edges(PLAYER_COLUMN);
      return PLAYER_ROW * ROW <= top || bottom <= PLAYER_ROW * ROW;
    }

    hitsBlock() {
      for (let k = 0; k < NUM_BLOCKS; k++) {
        const age = this.blockAge(k), column = SIZE - age;
        const above = 25 * PLAYER_ROW + 2 * this.height - 25 * this.blockTops[k]; // 25ths of a row below its top
        // Both ends are in: the hit box is a column wider than the block, and its lower edge counts.
        const isInColumns = age >= 0 && column <= PLAYER_COLUMN && PLAYER_COLUMN <= column + BLOCK_WIDTH;
        if (isInColumns && 0 <= above && above <= 25 * BLOCK_HEIGHT) return true;
      }
      return false;
    }

    /** First row of a column's opening, and the first one after it, 0..48. */
    openingRows(column) {
      const [top, bottom] = this.edges(column);
      return [clippedRow(top, ROW), clippedRow(bottom, ROW)];
    }

    /** Note what this screen tells of the walls. */
    see() {
      const screenTop = 2 * this.height;
      for (let column = 0; column < SIZE; column++) {
        const [start, end] = this.openingRows(column);
        if (end <= start) continue; // a column that is all wall does not tell whether its opening is above or below
        for (const [edge, row] of [[this.top, start], [this.bottom, end]]) {
          const low = screenTop + PARTS * row;
          if (row > 0) edge.low[column] = Math.max(edge.low[column], low);
          if (row < SIZE) edge.high[column] = Math.min(edge.high[column], low + PARTS);
        }
      }
    }

    /** How much of the row that an edge cuts lies above it, as far as is known, 0..24 25ths. */
    cut(edge, column, row) {
      const low = edge.low[column], high = edge.high[column];
      if (low <= -UNKNOWN || high >= UNKNOWN) return 0;
      return clipped(Math.floor((low + high) / 2) - 2 * this.height - PARTS * row, 0, PARTS - 1);
    }

    /** First row of a column's block, the first one after it, and how much of the first is free, in 25ths. */
    blockRows(column) {
      let start = 0, end = 0, cut = 0;
      for (let k = 0; k < NUM_BLOCKS; k++) {
        const age = this.blockAge(k), offset = column - (SIZE - age);
        if (offset < 0 || offset >= BLOCK_WIDTH) continue;
        const top = 25 * this.blockTops[k] - 2 * this.height;
        if (top >= 0) cut = top % PARTS;
        // A block that crosses the top edge is not drawn, but one of which less than a row is off is.
        if (age < 0 || Math.trunc(top / 25) < 0) continue;
        start = Math.min(Math.trunc(top / 25), SIZE);
        end = Math.min(Math.trunc((top + 25 * BLOCK_HEIGHT) / 25), SIZE);
      }
      return [start, end, cut];
    }

    /**
     * The screen that the agent sees, with super-resolution: 48 columns of 48 levels 0..255.
     *
     * `screen` [48 * 48] uint8 is written to and returned, column by column.
     */
    observe(screen = new Uint8Array(SIZE * SIZE)) {
      for (let column = 0; column < SIZE; column++) {
        const [start, end] = this.openingRows(column), [blockStart, blockEnd, blockCut] = this.blockRows(column);
        const pixels = screen.subarray(SIZE * column, SIZE * (column + 1));
        pixels.fill(0);
        // Later over earlier: the tail and the player, the block, the walls.
        if (column < TAIL_LENGTH) {
          const entry = this.tail[Math.min(column + 1, TAIL_LENGTH - 1)];
          const hundredths = 100 * PLAYER_ROW - 50 + 8 * (entry - this.height);
          const row = hundredths < 0 ? SIZE : clippedRow(hundredths, 100);
          if (row < SIZE) pixels[row] = column === PLAYER_COLUMN - 1 ? PLAYER_LEVEL : TAIL_LEVEL;
        }
        pixels.fill(BLOCK_LEVEL, blockStart, blockEnd);
        pixels.fill(WALL_LEVEL, 0, start);
        pixels.fill(WALL_LEVEL, end, SIZE);

        // Rows that an edge cuts are as bright as the part of them that is covered.
        if (blockCut > 0) {
          const covered = Math.floor((BLOCK_LEVEL * (PARTS - blockCut)) / PARTS);
          if (blockStart < SIZE && pixels[blockStart] === BLOCK_LEVEL) pixels[blockStart] = covered;
          if (blockEnd < SIZE && pixels[blockEnd] !== WALL_LEVEL) {
            pixels[blockEnd] = Math.floor((BLOCK_LEVEL * blockCut) / PARTS);
          }
        }
        if (start < SIZE && pixels[start] === 0) {
          pixels[start] = Math.floor((WALL_LEVEL * this.cut(this.top, column, start)) / PARTS);
        }
        if (end < SIZE) {
          pixels[end] = Math.floor((WALL_LEVEL * (PARTS - this.cut(this.bottom, column, end))) / PARTS);
        }
      }
      return screen;
    }
  }

  return {
    SIZE, PLAYER_COLUMN, PLAYER_ROW, TAIL_LENGTH, TIME_LIMIT, ROW, BLOCK_HEIGHT, BLOCK_WIDTH, NUM_BLOCKS,
    WALL_LEVEL, BLOCK_LEVEL, TAIL_LEVEL, PLAYER_LEVEL, Game, draw, streamOf, sha256,
  };
})();

if (typeof module !== "undefined") module.exports = Cave;
