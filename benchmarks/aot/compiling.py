"""XLA's compiler for a GPU that is not there: `python -m benchmarks.aot.compiling TARGET DUMPS`, in JAX's environment.

JAX's plug-in for CUDA compiles for a chip that is only described to it (TARGET). What it writes down on the way goes to
the folder DUMPS. Neither is an interface that JAX promises to keep: its version is pinned.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

os.environ |= {"JAX_PLATFORMS": "cpu", "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1"}

from benchmarks import line

GRAPH = "kCommandBuffer"  # XLA's name for a CUDA graph


class Compiler:
    """A chip, and what compiles for it."""

    def __init__(self, target: Path, dumps: Path):
        from jax.experimental import topologies

        described = target.read_text(encoding="utf-8")
        topology = topologies.get_topology_desc(platform="cuda", target_config=described, topology="1x1x1")
        self._device, self._dumps = topology.devices[0], dumps

    def compile(self, program: str, options: dict[str, Any], path: str) -> dict[str, Any]:
        """Compile a program, and write its optimized HLO text to `path`.

        Args:
          program: file of an HLO module, as a protocol buffer.
          options: XLA's own, by name.

        Returns:
          `temporary_bytes`, `host_bytes`, `chip`; `jaxlib`, whose version of XLA it is; and `one_graph`: whether all of
          it is one CUDA graph, or None if nothing was written down of that.
        """
        import jaxlib
        from jax._src import compiler
        from jax._src.interpreters import mlir
        from jax._src.lib import _jax, xla_client
        from jaxlib.mlir import ir

        for old in self._dumps.iterdir():
            old.unlink()
        chosen = compiler.get_compile_options(num_replicas=1, num_partitions=1)
        chosen.env_option_overrides = list(options.items())
        with mlir.make_ir_context():
            module = ir.Module.parse(_jax.mlir.hlo_to_stablehlo(Path(program).read_bytes()))
            _drop_copies(module, ir)
            compiled = self._device.client.compile(
                module, executable_devices=xla_client.DeviceList((self._device,)), compile_options=chosen
            )
        [optimized] = compiled.hlo_modules()
        Path(path).write_text(optimized.to_string(), encoding="utf-8")
        memory = compiled.get_compiled_memory_stats()
        parts = ("argument", "output", "temp")
        return {
            "chip": self._device.device_kind,
            "jaxlib": jaxlib.__version__,
            "temporary_bytes": memory.temp_size_in_bytes,
            "host_bytes": sum(getattr(memory, f"host_{part}_size_in_bytes") for part in parts),
            "one_graph": self._is_one_graph(),
        }

    def _is_one_graph(self) -> bool | None:
        """Whether what the host starts, one a line that is not indented, is a single graph."""
        sequences = list(self._dumps.glob("*thunk_sequence_after_thunk_passes.txt"))
        if len(sequences) != 1:
            return None
        started = [each for each in sequences[0].read_text(encoding="utf-8").splitlines() if each[:1].isdigit()]
        return len(started) == 1 and GRAPH in started[0]


def _drop_copies(module: Any, ir: Any) -> None:
    """Take out the copies that TensorFlow put in: StableHLO has none, and XLA puts in those that it needs itself."""
    copies = []

    def look(operation: Any) -> Any:
        if operation.operation.name == "mhlo.copy":
            copies.append(operation.operation)
        return ir.WalkResult.ADVANCE

    module.operation.walk(look)
    for copy in copies:
        copy.results[0].replace_all_uses_with(copy.operands[0])
        copy.erase()


if __name__ == "__main__":
    line.answer({"compile": Compiler(Path(sys.argv[1]), Path(sys.argv[2])).compile})
