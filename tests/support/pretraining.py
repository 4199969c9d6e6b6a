"""Files as programs write them that pretrain networks on images of persons, with made-up weights."""

from __future__ import annotations

from argparse import Namespace
from pathlib import PurePosixPath
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

State = dict[str, Tensor]

HEAD = {"head.mlp.0.weight": torch.ones(4, 4), "head.last_layer.weight_v": torch.ones(4, 4)}
OPTIONS = Namespace(arch="vit_small", lr=5e-4, output=PurePosixPath("/tmp/out"), more=SimpleNamespace(a=[1]))


def under(prefix: str, state: State) -> State:
    return {prefix + name: value for name, value in state.items()}


def dino(backbone: State, *, prefix: str = "module.backbone.", head: str = "module.") -> dict[str, Any]:
    """DINO, TransReID-SSL, PersonViT and CION: student, teacher, and everything that a training needs."""
    other = {name: torch.zeros_like(value) for name, value in backbone.items()}
    return {
        "student": under(prefix, other) | under(head, HEAD),
        "teacher": under(prefix, backbone) | under(head, HEAD),
        "optimizer": {"state": {}, "param_groups": [{"lr": 5e-4, "params": [0]}]},
        "epoch": 100,
        "args": OPTIONS,
        "dino_loss": {"center": torch.zeros(1, 4)},
    }


def moco(backbone: State) -> dict[str, Any]:
    """MoCo v2 as LUPerson trains it: query and key encoder, and the queue."""
    heads = {"fc.0.weight": torch.ones(4, 4), "fc.2.weight": torch.ones(4, 4)}
    other = {name: torch.zeros_like(value) for name, value in backbone.items()}
    state = under("encoder_q.", backbone | heads) | under("encoder_k.", other | heads)
    state |= {"queue": torch.ones(4, 8), "queue_ptr": torch.zeros(1, dtype=torch.long)}
    return {"epoch": 200, "arch": "resnet50", "state_dict": under("module.", state), "optimizer": {}}


def moco_v3(backbone: State) -> dict[str, Any]:
    """MoCo v3: base and momentum encoder with their heads, and a predictor."""
    heads = {"head.0.weight": torch.ones(4, 4)}
    other = {name: torch.zeros_like(value) for name, value in backbone.items()}
    state = under("base_encoder.", backbone | heads) | under("momentum_encoder.", other | heads)
    return {"state_dict": under("module.", state | {"predictor.0.weight": torch.ones(4, 4)}), "epoch": 300}


def swav(backbone: State) -> dict[str, Any]:
    """SwAV: a plain network with its projection and its prototypes."""
    heads = {"projection_head.0.weight": torch.ones(4, 4), "prototypes.weight": torch.ones(3, 4)}
    return under("module.", backbone | heads)
