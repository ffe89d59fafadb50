// The packaged cave agent: its weights, which export_weights.py wrote into weights.js, and its network's forward pass.
"use strict";

const Agent = (() => {
  const SIZE = 48;
  const COLUMNS = 2; // of the screen that the first layer reads at a time
  const GROUPS = SIZE / COLUMNS;
  const FRAMES = 2; // of an observation, the older one first
  const FILTERS = 32;
  const EPSILON = 1e-3; // of layer normalisation, Keras' own
  const RESIDUAL = 3; // layers
  const ACTIONS = 2;

  /** Bytes from Python's `base64.b85encode`, which needs no quotes: 5 characters are 4 bytes. */
  function bytesOf(text) {
    const alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~";
    const digits = new Uint8Array(128);
    for (let i = 0; i < 85; i++) digits[alphabet.charCodeAt(i)] = i;
    const bytes = new Uint8Array((text.length / 5) * 4);
    const view = new DataView(bytes.buffer);
    for (let i = 0, at = 0; i < text.length; i += 5, at += 4) {
      let word = 0;
      for (let j = 0; j < 5; j++) word = 85 * word + digits[text.charCodeAt(i + j)];
      view.setUint32(at, word);
    }
    return bytes;
  }

  /**
   * Weights by name, Float32Arrays, of what export_weights.py packed.
   *
   * A matrix is whole numbers times a power of two, of which the lower bytes of all matrices come first and then the
   * upper bytes; behind them are all vectors in float32. They are exactly those of the packaged agent.
   */
  async function unpacked(packed) {
    const zipped = bytesOf(packed.data).subarray(0, packed.bytes);
    const stream = new Blob([zipped]).stream().pipeThrough(new DecompressionStream("deflate"));
    const bytes = await new Response(stream).arrayBuffer();
    const count = packed.matrices.reduce((sum, matrix) => sum + matrix.rows * matrix.columns, 0);
    const lower = new Int8Array(bytes, 0, count), upper = new Int8Array(bytes, count, count);
    const weights = {};
    let at = 0;
    for (const { name, rows, columns, step } of packed.matrices) {
      const kernel = (weights[name] = new Float32Array(rows * columns));
      for (let i = 0; i < kernel.length; i++, at++) kernel[i] = (256 * upper[at] + lower[at]) * step;
    }
    const view = new DataView(bytes, 2 * count);
    at = 0;
    for (const { name, length } of packed.vectors) {
      const vector = (weights[name] = new Float32Array(length));
      for (let i = 0; i < length; i++, at += 4) vector[i] = view.getFloat32(at, true);
    }
    return weights;
  }

  /** Add the product of `inputs` [I] and rows of `kernel` [I, O] from `row` on to `outputs` [O]; zeros cost nothing. */
  function addProduct(outputs, inputs, kernel, row = 0) {
    const width = outputs.length;
    for (let i = 0; i < inputs.length; i++) {
      const input = inputs[i];
      if (input === 0) continue;
      const start = (row + i) * width;
      for (let j = 0; j < width; j++) outputs[j] += input * kernel[start + j];
    }
  }

  /** Layer normalisation and ReLU of `values`, into `outputs`. */
  function normed(values, scale, shift, outputs) {
    const length = values.length;
    let mean = 0, variance = 0;
    for (let i = 0; i < length; i++) mean += values[i];
    mean /= length;
    for (let i = 0; i < length; i++) variance += (values[i] - mean) ** 2;
    const factor = 1 / Math.sqrt(variance / length + EPSILON);
    for (let i = 0; i < length; i++) outputs[i] = Math.max((values[i] - mean) * factor * scale[i] + shift[i], 0);
    return outputs;
  }

  class Network {
    constructor(weights, atoms, lowest, highest) {
      this.weights = weights;
      this.atoms = atoms;
      this.returns = Float32Array.from({ length: atoms }, (_, i) => lowest + (i * (highest - lowest)) / (atoms - 1));
      this.levels = new Float64Array(COLUMNS * SIZE);
    }

    static async load(packed) {
      return new Network(await unpacked(packed), packed.atoms, packed.lowest, packed.highest);
    }

    dense(name, inputs) {
      const outputs = Float64Array.from(this.weights[`${name}/bias`]);
      addProduct(outputs, inputs, this.weights[`${name}/kernel`]);
      return outputs;
    }

    norm(name, values, outputs = new Float64Array(values.length)) {
      return normed(values, this.weights[`${name}/gamma`], this.weights[`${name}/beta`], outputs);
    }

    /** Action values of two screens, the older one first, each as `Game.observe` makes it; from -1 to 0. */
    values(screens) {
      const seen = new Float64Array(GROUPS * FILTERS);
      for (let group = 0; group < GROUPS; group++) {
        const sums = Float64Array.from(this.weights["columns/bias"]);
        for (let frame = 0; frame < FRAMES; frame++) {
          const from = group * COLUMNS * SIZE;
          for (let i = 0; i < this.levels.length; i++) this.levels[i] = screens[frame][from + i] / 255;
          addProduct(sums, this.levels, this.weights["columns/kernel"], frame * COLUMNS * SIZE);
        }
        this.norm("columns_norm", sums, seen.subarray(group * FILTERS, (group + 1) * FILTERS));
      }
      let features = this.dense("dense", seen);
      for (let layer = 0; layer < RESIDUAL; layer++) {
        const branch = this.dense(`residual${layer}`, this.norm(`residual${layer}_norm`, features));
        features = features.map((value, i) => value + branch[i]);
      }
      features = this.norm("last_norm", features);
      const [state, advantage] = ["value", "advantage"].map((name) =>
        this.dense(`${name}_out`, this.norm(`${name}_norm`, this.dense(`${name}_hidden`, features))));
      return this.expected(state, advantage);
    }

    /** The mean return of each action, of the logits of the state's value [K] and of the advantages [A * K]. */
    expected(state, advantage) {
      const { atoms, returns } = this, values = [];
      for (let action = 0; action < ACTIONS; action++) {
        let total = 0, sum = 0;
        const logits = returns.map((_, k) => {
          let mean = 0;
          for (let other = 0; other < ACTIONS; other++) mean += advantage[other * atoms + k] / ACTIONS;
          return state[k] + advantage[action * atoms + k] - mean;
        });
        const largest = Math.max(...logits);
        for (let k = 0; k < atoms; k++) {
          const share = Math.exp(logits[k] - largest);
          total += share;
          sum += share * returns[k];
        }
        values.push(sum / total);
      }
      return values;
    }
  }

  /** A network that plays: it remembers the screen before. */
  class Player {
    constructor(network, game) {
      this.network = network;
      this.screens = [game.observe(), game.observe()]; // the first screen stands for all before it
      this.look();
    }

    /** Take the action of the higher value, as evaluated by `look`. */
    step(game) {
      game.step(this.action === 1);
      const [older, newer] = this.screens;
      this.screens = [newer, game.observe(older)];
      this.look();
    }

    look() {
      this.values = this.network.values(this.screens);
      this.action = this.values[1] > this.values[0] ? 1 : 0; // of equals the first, as argmax takes it
    }
  }

  return { Network, Player, unpacked };
})();

if (typeof module !== "undefined") module.exports = Agent;
