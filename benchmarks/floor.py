"""The least time that a step can take on a device: its operations and its bytes, against the device's peaks.

python benchmarks/floor.py

Nothing is computed: tensors without contents pass through the network, and what every operation reads, writes
and multiplies is added up. Two sums of bytes are shown: ``all`` as the operations are, one after another, and
``fused`` if everything between convolutions and matrix products happened within them.

The peaks are an H100 SXM's by NVIDIA's data sheet: 989 TFLOP/s (bf16, dense) and 3.35 TB/s.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from measuring import table, write_json
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from calr_cli.models.encoder import Encoder
from calr_cli.models.folding import fold_batch_norms

PEAK_OPERATIONS, PEAK_BYTES = 989e12, 3.35e12
PRODUCTS = ("convolution", "mm", "addmm", "bmm")
TARGETS = {"training step": 4_000, "extraction": 9_000}
"""Images per second."""


@dataclass
class Cost:
    """Multiplications and additions, bytes read and written (by products alone: ``fused``), operations."""

    flops: int = 0
    bytes: int = 0
    fused: int = 0
    operations: int = 0


class _Counting(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.cost = Cost()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        is_view = any(r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns)
        outputs = [x for x in tree_leaves(result) if isinstance(x, Tensor)]  # none: a question about a tensor
        if outputs and not is_view and not name.startswith("empty"):
            inputs = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
            # A batch norm reads everything once for the statistics and once to apply them.
            times = 2 if "batch_norm" in name else 1
            moved = times * sum(map(_size, inputs)) + sum(map(_size, outputs))
            self.cost.bytes += moved
            self.cost.operations += 1
            if name.removesuffix("_backward") in PRODUCTS:
                self.cost.fused += moved
        return result


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _empty(network: nn.Module, mode: FakeTensorMode) -> None:
    """Take the contents from all weights."""
    for module in network.modules():
        for name, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            setattr(module, name, mode.from_tensor(tensor))


def cost(work: Callable[[], object]) -> Cost:
    """What ``work`` takes."""
    counting = _Counting()
    with FlopCounterMode(display=False) as flops, counting:
        work()
    counting.cost.flops = flops.get_total_flops()
    return counting.cost


def step_cost(arch: str, images: int, groups: int, height: int, width: int) -> dict[str, Cost]:
    """Step -> its cost in bf16, without augmentation, loss and update of the weights."""
    encoder = Encoder(arch).train()
    encoder.precision = torch.bfloat16
    folded = fold_batch_norms(copy.deepcopy(encoder).eval())
    mode = FakeTensorMode()
    _empty(encoder, mode)
    _empty(folded, mode)
    with mode:
        group = torch.empty(images // groups, 3, height, width, memory_format=torch.channels_last)

        def train() -> None:
            with torch.autocast("cpu", torch.bfloat16, enabled=False):
                for _ in range(groups):
                    encoder(group).sum().backward()

        costs = {"training step": cost(train)}
        batch = torch.empty(images, 3, height, width, memory_format=torch.channels_last)
        with torch.no_grad():
            costs["extraction"] = cost(lambda: folded(batch))
    return costs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", default="resnet50")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--groups", type=int, default=4)
    parser.add_argument("--height", type=int, default=256)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    costs = step_cost(options.arch, options.images, options.groups, options.height, options.width)
    rows: list[dict[str, Any]] = []
    for step, found in costs.items():
        products, memory = 1e3 * found.flops / PEAK_OPERATIONS, 1e3 * found.bytes / PEAK_BYTES
        fused = max(products, 1e3 * found.fused / PEAK_BYTES)
        target = 1e3 * options.images / TARGETS[step]
        rows.append(
            {
                "step": step,
                "TFLOP": found.flops / 1e12,
                "GB, all": found.bytes / 1e9,
                "GB, fused": found.fused / 1e9,
                "operations": found.operations,
                "ms of products": products,
                "ms of bytes": memory,
                "ms, fused": fused,
                "target, ms": target,
                "floor of target": max(products, memory) / target,
                "fused of target": fused / target,
            }
        )
    size = f"{options.images} images of {options.height} x {options.width} in {options.groups} groups"
    print(table(f"floor, {options.arch}, {size}, one H100", rows, list(rows[0])))
    write_json(options.json, {"rows": rows})


if __name__ == "__main__":
    main()
