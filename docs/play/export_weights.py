"""Write the packaged cave agent's weights for the browser: `python docs/play/export_weights.py`.

The result, `weights.js` beside this file, is a script: unlike a file of bytes, a browser reads it also where the page
was opened from a folder. What it holds equals the agent in every bit. A packaged agent's matrices are on a grid (see
`benchmarks.package_agent.rounded`), so that a weight is a whole number times a power of two; the lower bytes of these
numbers and the upper ones, most of which are 0, are packed apart.
"""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np

import tfdqn  # noqa: F401, chooses Keras 2
from tfdqn.runs import models, run_config

OUT = Path(__file__).with_name("weights.js")
VARIABLE = "CAVE_AGENT"
LAYERS = ("columns", "dense", "residual0", "residual1", "residual2")
HEADS = ("value", "advantage")


def packaged_agent() -> tuple[Any, Any]:
    """The packaged cave agent and the configuration that it plays by."""
    from tfdqn.envs import make_for
    from tfdqn.learners import build_agent

    folder = models.pretrained_folder("cave")
    config = run_config.read_config(folder)
    agent = build_agent(config, make_for(config))
    models.load_weights(agent, folder / models.BEST_MODEL)
    return agent, config


def named_weights(agent: Any) -> dict[str, np.ndarray]:
    """The agent's weights, float32, by the names that agent.js has for them.

    Raises:
      ValueError: it is not the network that agent.js computes.
    """
    dense = [layer for layer in agent.online.layers if hasattr(layer, "kernel")]
    norms = [layer for layer in agent.online.layers if hasattr(layer, "gamma")]
    names = [*LAYERS, *(f"{head}_hidden" for head in HEADS), *(f"{head}_out" for head in HEADS)]
    # In front of what it feeds, but for the columns' own.
    norm_names = ["columns_norm", *(f"{name}_norm" for name in LAYERS[2:]), "last_norm"]
    norm_names += [f"{head}_norm" for head in HEADS]
    if (len(dense), len(norms)) != (len(names), len(norm_names)):
        raise ValueError(f"{len(dense)} layers and {len(norms)} norms: agent.js has {len(names)} and {len(norm_names)}")
    weights = {}
    for name, layer in zip(names, dense, strict=True):
        weights |= {f"{name}/kernel": layer.kernel.numpy(), f"{name}/bias": layer.bias.numpy()}
    for name, layer in zip(norm_names, norms, strict=True):
        weights |= {f"{name}/gamma": layer.gamma.numpy(), f"{name}/beta": layer.beta.numpy()}
    return weights


def step_of(weights: np.ndarray) -> float:
    """The largest power of two of which all weights are multiples that two bytes hold."""
    for exponent in range(30):
        scaled = weights * 2.0**exponent
        if np.array_equal(scaled, np.round(scaled)) and np.abs(scaled).max() < 2**15 - 128:
            return 2.0**-exponent
    raise ValueError("a matrix is on no grid: package the agent with benchmarks.package_agent")


def packed(weights: dict[str, np.ndarray], config: Any) -> tuple[dict[str, Any], bytes]:
    """What agent.js has to know of the weights, and their bytes."""
    matrices = {name: values for name, values in weights.items() if values.ndim == 2}
    vectors = {name: values for name, values in weights.items() if values.ndim == 1}
    steps = {name: step_of(values) for name, values in matrices.items()}
    numbers = np.concatenate([np.round(values / steps[name]).ravel() for name, values in matrices.items()]).astype(int)
    upper = (numbers + 128) // 256
    lower = numbers - 256 * upper
    content = [part.astype(np.int8).tobytes() for part in (lower, upper)]
    content += [values.astype("<f4").tobytes() for values in vectors.values()]
    known = {
        "atoms": config.atoms,
        "lowest": config.value_min,
        "highest": config.value_max,
        "matrices": [
            {"name": name, "rows": values.shape[0], "columns": values.shape[1], "step": steps[name]}
            for name, values in matrices.items()
        ],
        "vectors": [{"name": name, "length": len(values)} for name, values in vectors.items()],
    }
    return known, b"".join(content)


def script(known: dict[str, Any], content: bytes) -> str:
    """The text of weights.js."""
    zipped = zlib.compress(content, 9)
    data = base64.b85encode(zipped, pad=True).decode()
    head = json.dumps({**known, "bytes": len(zipped)}, indent=1)
    return (
        "// Written by export_weights.py: the packaged cave agent's weights.\n"
        f'const {VARIABLE} = {head.removesuffix("}").rstrip()},\n "data": "{data}"\n}};\n'
        f'if (typeof module !== "undefined") module.exports = {VARIABLE};\n'
    )


def read(text: str) -> tuple[dict[str, Any], bytes]:
    """What `packed` returned, from the text of weights.js."""
    start, end = text.index("{"), text.index("};\n") + 1
    known = json.loads(text[start:end])
    zipped = base64.b85decode(known.pop("data"))[: known.pop("bytes")]
    return known, zlib.decompress(zipped)


def main() -> None:
    agent, config = packaged_agent()
    OUT.write_text(script(*packed(named_weights(agent), config)), encoding="ascii")
    print(f"{OUT}: {OUT.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
