// The page: a person or the packaged agent plays the cave; ?watch, ?seed=7, ?episode=3 and ?speed=max preset it.
"use strict";

(() => {
  const FRAMES_PER_SECOND = 30;
  const CALM_MS = 400; // after a crash, in which a button that is still pressed begins nothing
  const BUSY_MS = 12; // of an animation frame that may go into playing
  const KEPT = 150; // action values in the chart
  const HIGHEST_SEED = 2147483647;
  const BEST = "tfdqn cave best";
  const COLOURS = { wall: "#00ccff", block: "#0066ff", trail: "#ff0000", hold: "#ffd24a", release: "#ff7ab8" };

  const find = (id) => document.getElementById(id);
  const [screen, chart, message] = ["screen", "chart", "message"].map(find);
  const wanted = new URLSearchParams(location.search);

  let seed = 0, episode = 0;
  let game, player; // the player is the agent, once its network is there, or nothing
  let network = null, fetching = null;
  let isWatching = false, isRunning = false, isPaused = false, isHeld = false;
  let due = 0, before = 0, endedAt = -Infinity;
  let past = []; // action values, the newest last
  let best = 0;
  try { best = Number(localStorage.getItem(BEST)) || 0; } catch { /* a page from a folder may have no storage */ }

  // ---- games

  const otherSeed = () => Math.floor(Math.random() * 1e6); // short enough to be told to somebody

  /** A seed from a text, or nothing, after telling what is wrong with it. */
  function seedFrom(text) {
    const number = Number(text);
    if (/^\d+$/.test(text.trim()) && number <= HIGHEST_SEED) return number;
    say(`Cave number "${text}": must be a whole number from 0 to ${HIGHEST_SEED}`);
    return null;
  }

  function begin(number, ofSeed = 0) {
    seed = number;
    episode = ofSeed;
    game = new Cave.Game(seed, episode);
    player = isWatching && network ? new Agent.Player(network, game) : null;
    isRunning = isPaused = isHeld = false;
    past = player ? [player.values] : [];
    due = 0;
    find("seed").value = seed;
    find("cave").textContent = seed + (episode ? `, episode ${episode}` : "");
    if (isWatching) { if (player) start(); } else say("Hold to rise. Begin with space, a click or a tap.");
    show();
  }

  function start() {
    isRunning = true;
    say("");
    show();
  }

  function end() {
    isRunning = false;
    endedAt = performance.now();
    if (!isWatching && game.score > best) {
      best = game.score;
      try { localStorage.setItem(BEST, best); } catch { /* then it is kept while the page is open */ }
    }
    const frames = `${game.score.toLocaleString("en")} frames`;
    const how = game.isCrashed ? `Crashed after ${frames}.` : `Reached the limit of ${frames}.`;
    say(`${how} ${isWatching ? "A new cave?" : "Again?"}`);
  }

  async function setMode(watch) {
    isWatching = watch;
    find("play").setAttribute("aria-pressed", !watch);
    find("watch").setAttribute("aria-pressed", watch);
    find("values").hidden = !watch;
    if (watch && !network) {
      begin(seed, episode);
      say("Fetching the agent (2 MB) ...");
      fetching ??= fetched(); // once, however often the button is pressed meanwhile
      try {
        network = await fetching;
      } catch (error) {
        fetching = null;
        say(`The agent could not be loaded: ${error.message}`);
        return;
      }
      if (!isWatching || player) return;
    }
    begin(seed, episode);
  }

  /** The agent's network, whose weights are fetched only now. */
  async function fetched() {
    if (typeof DecompressionStream === "undefined") throw new Error("this browser is too old to unpack it");
    if (typeof CAVE_AGENT === "undefined") await loaded("weights.js");
    return Agent.Network.load(CAVE_AGENT);
  }

  /** Run a script. */
  function loaded(source) {
    return new Promise((resolve, reject) => {
      const script = document.createElement("script");
      script.src = source;
      script.onload = resolve;
      script.onerror = () => reject(new Error(`${source} was not found`));
      document.head.append(script);
    });
  }

  function pause(isWanted = !isPaused) {
    if (!isRunning) return;
    isPaused = isWanted;
    isHeld = false;
    say(isPaused ? "Paused. P or the button goes on." : "");
    show();
  }

  /** The button, a finger or a key goes down or up. */
  function hold(isDown) {
    if (isWatching) return;
    if (!isDown) { isHeld = false; return; }
    if (isPaused) pause(false);
    if (game.isOver) {
      if (performance.now() - endedAt < CALM_MS) return;
      begin(otherSeed());
    }
    if (!isRunning) start();
    isHeld = true;
  }

  // ---- time

  function playFrame() {
    if (player) {
      player.step(game);
      past.push(player.values);
      if (past.length > KEPT) past.shift();
    } else {
      game.step(isHeld);
    }
    if (game.isOver) end();
  }

  function tick(now) {
    const speed = find("speed").value;
    if (isRunning && !isPaused) {
      // A page that was hidden does not catch up.
      due += speed === "max" ? Infinity : (Math.min(now - before, 100) / 1000) * FRAMES_PER_SECOND * Number(speed);
      const until = performance.now() + BUSY_MS;
      while (due >= 1 && isRunning) {
        playFrame();
        due -= 1;
        if (performance.now() > until) { due = 0; break; }
      }
      if (due === Infinity) due = 0;
      show();
    }
    before = now;
    requestAnimationFrame(tick);
  }

  // ---- what is seen

  function say(text) { message.textContent = text; }

  function show() {
    find("score").textContent = game.score.toLocaleString("en");
    find("best").textContent = best.toLocaleString("en");
    find("pause").textContent = isPaused ? "Go on" : "Pause";
    find("pause").disabled = !isRunning;
    // For programs that look at the page.
    Object.assign(document.body.dataset, { score: game.score, height: game.height, isOver: game.isOver, isRunning });
    drawScreen();
    if (isWatching) drawValues();
  }

  /** Give a canvas as many pixels as it is shown with, a multiple of `unit`; returns how many for a unit. */
  function fitted(canvas, unit) {
    const scale = Math.max(1, Math.round((canvas.clientWidth * devicePixelRatio) / unit));
    const width = unit * scale, height = Math.round((width * canvas.clientHeight) / (canvas.clientWidth || 1)) || width;
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    return scale;
  }

  function drawScreen() {
    const size = Cave.SIZE, context = screen.getContext("2d");
    if (find("pixels").checked) {
      Object.assign(screen, { width: size, height: size });
      drawPixels(context);
      return;
    }
    const scale = fitted(screen, size);
    context.setTransform(scale, 0, 0, (screen.height / size), 0, 0);
    context.fillStyle = "#000";
    context.fillRect(0, 0, size, size);

    // The place that touches is the corner at (15, 24), not the pixel beside it: the disc stands on it.
    const x = Cave.PLAYER_COLUMN, y = Cave.PLAYER_ROW, heightOf = (entry) => y + 0.08 * (entry - game.height);
    context.strokeStyle = context.fillStyle = COLOURS.trail;
    context.lineWidth = 0.5;
    context.lineJoin = "round";
    context.beginPath();
    game.tail.forEach((entry, i) => context.lineTo(i + 1, heightOf(entry)));
    context.stroke();
    context.beginPath();
    context.arc(x, y, 0.6, 0, 2 * Math.PI);
    context.fill();

    context.fillStyle = COLOURS.block;
    for (let k = 0; k < Cave.NUM_BLOCKS; k++) {
      const age = game.blockAge(k);
      if (age < 0) continue;
      context.fillRect(size - age, game.blockTops[k] - 0.08 * game.height, Cave.BLOCK_WIDTH, Cave.BLOCK_HEIGHT);
    }
    context.fillStyle = COLOURS.wall;
    for (let column = 0; column < size; column++) {
      const [top, bottom] = game.edges(column).map((edge) => edge / Cave.ROW);
      context.fillRect(column, 0, 1, Math.max(top, 0));
      context.fillRect(column, bottom, 1, Math.max(size - bottom, 0));
    }
  }

  /** The screen as the agent gets it: rows that an edge cuts are dimmer. */
  function drawPixels(context) {
    const size = Cave.SIZE, levels = game.observe(), image = context.createImageData(size, size);
    for (let column = 0; column < size; column++) {
      for (let row = 0; row < size; row++) {
        const level = levels[size * column + row], at = 4 * (size * row + column);
        const wall = level <= Cave.WALL_LEVEL ? level / Cave.WALL_LEVEL : 0;
        const block = !wall && level <= Cave.BLOCK_LEVEL ? level / Cave.BLOCK_LEVEL : 0;
        image.data.set([level > Cave.BLOCK_LEVEL ? 255 : 0, 204 * wall + 102 * block, 255 * (wall + block), 255], at);
      }
    }
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.putImageData(image, 0, 0);
  }

  function drawValues() {
    const newest = past.at(-1);
    ["release", "hold"].forEach((name, action) => {
      find(name).lastElementChild.textContent = newest ? newest[action].toPrecision(2).replace("-", "−") : "";
      find(name).classList.toggle("chosen", Boolean(player) && player.action === action);
    });
    const scale = fitted(chart, 100) / devicePixelRatio, context = chart.getContext("2d");
    const ratio = devicePixelRatio, width = 100 * scale, height = chart.height / ratio, left = 44;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    // The logarithm of what is feared: from 0.0003 on top to 1 at the bottom.
    const y = (value) => 6 + (height - 12) * (1 + Math.log10(Math.min(Math.max(-value, 3e-4), 1)) / 3.523);
    context.font = "11px system-ui, sans-serif";
    context.textBaseline = "middle";
    context.lineWidth = 1;
    for (const value of [-0.001, -0.01, -0.1, -1]) {
      context.fillStyle = "#a3b8c2";
      context.fillText(String(value).replace("-", "−"), 0, y(value));
      context.fillStyle = "#3b525f";
      context.fillRect(left, y(value), width - left, 1);
    }
    context.lineWidth = 1.5;
    ["release", "hold"].forEach((name, action) => {
      context.strokeStyle = COLOURS[name];
      context.beginPath();
      past.forEach((values, i) => context.lineTo(left + ((width - left) * (i + 1)) / KEPT, y(values[action])));
      context.stroke();
    });
  }

  // ---- what is pressed

  const isRise = (event) => event.code === "Space" || event.code === "ArrowUp";
  const isField = (target) => target.matches("input:not([type=checkbox]), select");
  const anew = (number) => begin(number, number === seed ? episode : 0);

  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || isField(event.target)) return;
    if (isRise(event)) {
      // A button that has the focus keeps the space bar for itself.
      if (event.code === "Space" && event.target.matches("button, input")) return;
      event.preventDefault();
      if (!event.repeat) hold(true);
    } else if (!event.repeat) {
      const does = { KeyP: () => pause(), KeyR: () => anew(seed), KeyN: () => begin(otherSeed()),
        KeyW: () => setMode(!isWatching) }[event.code];
      if (does) does();
    }
  });
  addEventListener("keyup", (event) => { if (isRise(event)) hold(false); });
  screen.addEventListener("pointerdown", (event) => {
    event.preventDefault();
    screen.focus({ preventScroll: true });
    // A finger that slides off the screen still holds.
    try { screen.setPointerCapture(event.pointerId); } catch { /* it has gone already */ }
    hold(true);
  });
  for (const name of ["pointerup", "pointercancel"]) screen.addEventListener(name, () => hold(false));
  screen.addEventListener("contextmenu", (event) => event.preventDefault());
  addEventListener("blur", () => hold(false));
  document.addEventListener("visibilitychange", () => { if (document.hidden && !isWatching) pause(true); });
  addEventListener("resize", () => show());

  /** A click does something, and the keys are the game's again. */
  function onClick(id, does) {
    find(id).addEventListener("click", () => { does(); screen.focus({ preventScroll: true }); });
  }
  onClick("play", () => setMode(false));
  onClick("watch", () => setMode(true));
  onClick("pause", () => pause());
  onClick("again", () => anew(seed));
  onClick("other", () => begin(otherSeed()));
  onClick("pixels", show);
  find("speed").addEventListener("change", () => screen.focus({ preventScroll: true }));
  find("seed").addEventListener("change", () => {
    const number = seedFrom(find("seed").value);
    if (number === null) find("seed").value = seed; else begin(number);
  });

  // ---- the beginning

  if (wanted.has("speed") && [...find("speed").options].some((option) => option.value === wanted.get("speed"))) {
    find("speed").value = wanted.get("speed");
  }
  const given = wanted.has("seed") ? seedFrom(wanted.get("seed")) : null;
  seed = given ?? otherSeed();
  episode = given === null ? 0 : Number(/^\d{1,6}$/.exec(wanted.get("episode") ?? "") ?? 0);
  const complaint = message.textContent;
  setMode(wanted.has("watch"));
  if (wanted.has("seed") && given === null) say(complaint);
  requestAnimationFrame((now) => { before = now; tick(now); });
})();
