"""CUDA devices that only pretend: values stay on the CPU, the rules and the costs are those of GPUs.

`pretended_cuda` is a context in which torch says that it has CUDA devices. Their tensors

- refuse to be mixed with tensors of other devices, and to become NumPy arrays, as those on GPUs do;
- compute with the CPU's kernels, and so give the CPU's bits;
- count operations, copied bytes, and every time that the host would wait for a GPU, with the line of
  ``calr_cli`` that made it wait;
- refuse to be used on a stream that has not waited for the stream they were copied on, or that the allocator
  has not been told of (`Tensor.record_stream`).

What is pretended is what Python sees: inside of torch the tensors are on the CPU, because autograd asks a
driver for a stream where they are not. Autocast is therefore the CPU's, which has the same list of operations
for what the networks consist of. Communication between processes is not pretended.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

import calr_cli
from calr_cli import transfer

PACKAGE = Path(calr_cli.__file__).parent
CPU = torch.device("cpu")
MEMORY = 80 << 30
aten = torch.ops.aten

_WAITING = {
    aten._local_scalar_dense.default: "the value of a tensor",
    aten.nonzero.default: "nonzero",
    aten.masked_select.default: "masked_select",
    aten.equal.default: "equal",
    aten.is_nonzero.default: "bool",
    aten._unique2.default: "unique",
    aten.unique_dim.default: "unique",
    aten.unique_consecutive.default: "unique",
    aten.bincount.default: "bincount",
    aten.repeat_interleave.Tensor: "repeat_interleave",
}
_INDEXING = (
    aten.index.Tensor,
    aten.index_put.default,
    aten.index_put_.default,
    aten._index_put_impl_.default,
)
_WITHOUT_KERNEL = {"empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "_unsafe_view"}
_FACTORIES = {
    getattr(torch, name)
    for name in (
        *("empty", "zeros", "ones", "full", "rand", "randn", "randint", "randperm", "arange", "linspace"),
        *(
            "eye",
            "tensor",
            "as_tensor",
            "empty_strided",
            "zeros_like",
            "ones_like",
            "full_like",
            "empty_like",
        ),
        *("rand_like", "randn_like", "tril_indices", "triu_indices", "scalar_tensor"),
    )
}
_MOVES = {torch.Tensor.to, torch.Tensor.cpu, torch.Tensor.cuda}


@dataclass(frozen=True)
class Wait:
    """A wait of the host for the device.

    Attributes:
        why: The operation that needs a value on the host, or the copy.
        where: The innermost line of calr_cli: ``training/step.py:97``.
    """

    why: str
    where: str


@dataclass
class Record:
    """What the devices have done.

    Attributes:
        operations: Number of each operation, those that only make a view included.
        launches: Number of each operation that starts at least one kernel or copy.
        waits: In their order.
        copied: Bytes between host and devices, in either direction.
        places: Number of operations on each device.
    """

    operations: Counter[str] = field(default_factory=Counter)
    launches: Counter[str] = field(default_factory=Counter)
    waits: list[Wait] = field(default_factory=list)
    copied: int = 0
    places: Counter[str] = field(default_factory=Counter)

    def clear(self) -> None:
        """Begin again."""
        self.operations.clear()
        self.launches.clear()
        self.waits.clear()
        self.places.clear()
        self.copied = 0

    def wait(self, why: str) -> None:
        """Remember that the host waits."""
        self.waits.append(Wait(why, _line_of_calr()))

    def operation(self, func: Any, place: torch.device) -> None:
        """Count an operation."""
        name = str(func)
        self.places[str(place)] += 1
        self.operations[name] += 1
        if _has_kernel(func):
            self.launches[name] += 1

    def copy(self, what: str, size: int, overlaps: bool) -> None:
        """Count a copy; it ``overlaps`` the host's work if it is from or to pinned memory and asked to."""
        self.operations[what] += 1
        self.launches[what] += 1
        self.copied += size
        if not overlaps:
            self.wait(f"copy, {what}")


class _State:
    """The one machine that is pretended."""

    record = Record()
    count = 0
    current = 0
    pinned: dict[int, StorageWeakRef] = {}  # noqa: RUF012  by address
    streams: list[PretendedStream] = []  # noqa: RUF012  the last is the current one


class PretendedTensor(torch.Tensor):
    """A tensor that says that it is on a CUDA device; ``held`` is the tensor that has the values."""

    held: torch.Tensor
    place: torch.device
    copied: PretendedEvent | None = None
    users: tuple[PretendedStream, ...] = ()
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: torch.Tensor, place: torch.device) -> PretendedTensor:
        self = torch.Tensor._make_wrapper_subclass(
            cls,
            held.size(),
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device=CPU,
        )
        self.held, self.place = held, place
        return self

    def __init__(self, held: torch.Tensor, place: torch.device) -> None:
        pass

    @property
    def device(self) -> torch.device:
        return self.place

    @property
    def is_cuda(self) -> bool:
        return True

    @property
    def is_cpu(self) -> bool:
        return False

    def get_device(self) -> int:
        return self.place.index

    def data_ptr(self) -> int:
        return self.held.data_ptr()

    def record_stream(self, stream: PretendedStream) -> None:
        self.users = (*self.users, stream)

    def tolist(self) -> Any:
        return on_host(self).tolist()

    def numpy(self, **_: Any) -> Any:
        raise TypeError(f"can't convert {self.place} device type tensor to numpy. Use Tensor.cpu() first.")

    def __array__(self, *_: Any, **__: Any) -> Any:
        return self.numpy()

    def __repr__(self, **_: Any) -> str:
        return f"PretendedTensor({self.held!r}, device='{self.place}')"

    def __reduce_ex__(self, protocol: Any) -> Any:
        return on_host(self).__reduce_ex__(protocol)

    def __deepcopy__(self, memo: dict[int, Any]) -> PretendedTensor:
        if id(self) in memo:
            return memo[id(self)]
        made = PretendedTensor(self.held.detach().clone(), self.place).requires_grad_(self.requires_grad)
        if isinstance(self, torch.nn.Parameter):
            made = torch.nn.Parameter(made.detach(), self.requires_grad)
        if self.grad is not None:
            made.grad = self.grad.__deepcopy__(memo)
        memo[id(self)] = made
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        leaves = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        if func is aten.copy_.default:
            return _copy_into(*args, **kwargs)
        place = _common_device(func, leaves)
        for leaf in leaves:
            _require_copied(leaf)
        _State.record.operation(func, place)
        if func in _WAITING:
            _State.record.wait(_WAITING[func])
        elif func in _INDEXING:
            _index(args[1])
        found = func(*tree_map(_held, args), **tree_map(_held, {**kwargs, **_on_cpu(kwargs)}))
        return _wrapped(func, args, kwargs, found, place)


def on_host(tensor: torch.Tensor) -> torch.Tensor:
    """The values of ``tensor`` in host memory, waited for."""
    if not isinstance(tensor, PretendedTensor):
        return tensor
    _State.record.copy("to the host", tensor.held.nbytes, overlaps=False)
    return tensor.held.detach().clone()


class _Functions(TorchFunctionMode):
    """What Python calls with a device: factories and moves."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _MOVES:
            return _move(func, *args, **kwargs)
        if func is torch.Tensor.backward:  # the backward of our own functions comes here, too
            with self:
                return _backward(*args, **kwargs)
        if func is torch.Tensor.pin_memory:
            return _pin(args[0].clone())
        if func is torch.Tensor.is_pinned:
            return _is_pinned(args[0])
        if func is torch.Tensor.new_tensor and isinstance(args[0], PretendedTensor):
            like = {"dtype": args[0].dtype, "device": args[0].place}
            return _make(torch.tensor, args[1:], {**like, **kwargs})
        if func in _FACTORIES:
            return _make(func, args, kwargs)
        return func(*args, **kwargs)


def _backward(tensor: torch.Tensor, gradient: Any = None, *args: Any, **kwargs: Any) -> None:
    torch.autograd.backward(tensor, gradient, *args, **kwargs)


def _make(func: Any, args: Any, kwargs: dict[str, Any]) -> torch.Tensor:
    device, pin = kwargs.get("device"), kwargs.pop("pin_memory", False)
    of_pretended = bool(args) and isinstance(args[0], PretendedTensor)
    if device is None or torch.device(device).type != "cuda":
        if device is not None and of_pretended and func is torch.as_tensor:
            return on_host(args[0])
        made = func(*args, **kwargs)
        return _pin(made) if pin else made
    place = _indexed(device)
    if of_pretended:
        made = func(args[0].held, *args[1:], **{**kwargs, "device": CPU})
    else:
        made = func(*args, **{**kwargs, "device": CPU})
    if func in (torch.tensor, torch.as_tensor) and not of_pretended:
        _State.record.copy("to the device", made.nbytes, overlaps=False)
    else:
        name = func.__name__
        _State.record.operations[name] += 1
        _State.record.launches[name] += name not in _WITHOUT_KERNEL
    if not made.requires_grad:
        return PretendedTensor(made, place)
    return PretendedTensor(made.detach(), place).requires_grad_()


def _move(func: Any, tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """`Tensor.to`, `Tensor.cpu` and `Tensor.cuda`."""
    if func is torch.Tensor.cpu:
        args = (CPU,)
    elif func is torch.Tensor.cuda:
        args = (torch.device("cuda", *args[:1]), None, *args[1:])
    if args and isinstance(args[0], torch.Tensor):
        args = (args[0].device, args[0].dtype, *args[1:])
    elif args and isinstance(args[0], torch.dtype):
        args = (None, *args)
    options = {**dict(zip(("device", "dtype", "non_blocking", "copy"), args, strict=False)), **kwargs}
    overlaps, target = bool(options.pop("non_blocking", False)), options.pop("device", None)
    options = {name: value for name, value in options.items() if value is not None}
    target = tensor.device if target is None else _indexed(target)
    if target == tensor.device:
        return torch.Tensor.to(tensor, **options) if options else tensor
    options.pop("copy", None)
    if tensor.device.type == "cpu" and options.get("dtype", tensor.dtype) != tensor.dtype:
        tensor = torch.Tensor.to(tensor, options["dtype"])  # on the host, into memory that is not pinned
    moved: torch.Tensor = _Move.apply(tensor, target, overlaps)
    return torch.Tensor.to(moved, **options) if options else moved


class _Move(torch.autograd.Function):
    """A copy to another device."""

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor, target: torch.device, non_blocking: bool) -> torch.Tensor:
        ctx.source = tensor.device
        held = _held(tensor)
        if target.type == "cpu":
            _State.record.copy(
                "to the host", held.nbytes, overlaps=False
            )  # or values would be read too early
            return held.detach().clone()
        what = "to the device" if ctx.source.type == "cpu" else "between devices"
        pinned = what == "between devices" or _is_pinned(tensor)
        _State.record.copy(what, held.nbytes, overlaps=pinned and non_blocking)
        moved = PretendedTensor(held.detach().clone(), target)
        stream = _State.streams[-1]
        stream.copies += 1
        moved.copied, moved.users = stream.record_event(), (stream,)
        return moved

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return _Move.apply(gradient, ctx.source, False), None, None


def _copy_into(target: torch.Tensor, source: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
    places = {target.device.type, source.device.type}
    if places == {"cuda"}:
        _State.record.operation(aten.copy_.default, target.device)
    else:
        host = target if target.device.type == "cpu" else source
        what = "to the host" if host is target else "to the device"
        _State.record.copy(what, source.nbytes, overlaps=non_blocking and _is_pinned(host))
    _held(target).copy_(_held(source))
    return target


def _common_device(func: Any, tensors: list[torch.Tensor]) -> torch.device:
    """The device of an operation.

    Raises:
        RuntimeError: There are several.
    """
    places = {tensor.device for tensor in tensors if isinstance(tensor, PretendedTensor)}
    on_cpu = [t for t in tensors if not isinstance(t, PretendedTensor)]
    if func in _INDEXING:  # positions may be on the CPU; they are copied
        on_cpu = [t for t in on_cpu if t.dtype not in (torch.int64, torch.int32, torch.bool, torch.uint8)]
    if torch.Tag.pointwise in func.tags or func in _INDEXING:
        on_cpu = [t for t in on_cpu if t.ndim]
    if len(places) + bool(on_cpu) > 1:
        names = ", ".join(sorted({*map(str, places), *(["cpu"] if on_cpu else [])}))
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found at least two devices, {names}! "
            f"({func}, {_line_of_calr()})"
        )
    return next(iter(places))


def _require_copied(tensor: torch.Tensor) -> None:
    if not isinstance(tensor, PretendedTensor) or tensor.copied is None:
        return
    stream, copied = _State.streams[-1], tensor.copied
    if stream is not copied.stream and stream.seen.get(copied.stream, 0) < copied.copies:
        raise RuntimeError(f"read before it is copied ({_line_of_calr()})")
    if stream not in tensor.users:
        raise RuntimeError(f"its memory may be reused while it is read ({_line_of_calr()})")


def _index(indices: Any) -> None:
    for index in indices:
        if index is None:
            continue
        if index.dtype in (torch.bool, torch.uint8):
            _State.record.wait("indexing with a mask")
        if not isinstance(index, PretendedTensor) and not _is_pinned(index):
            _State.record.copy("to the device", index.nbytes, overlaps=False)


def _wrapped(func: Any, args: Any, kwargs: Any, found: Any, place: torch.device) -> Any:
    """The results of an operation; those that it has written to are the arguments themselves."""
    given = dict(zip((argument.name for argument in func._schema.arguments), args, strict=False)) | kwargs
    targets = [given[name] for name in _written(func)]
    for target in targets:
        if isinstance(target, PretendedTensor) and target.shape != target.held.shape:
            raise NotImplementedError(f"{func} gives a tensor another shape")
    written = iter(targets)
    results = found if isinstance(found, tuple) else (found,)
    wrapped = [
        next(written)
        if returned.alias_info is not None and returned.alias_info.is_write
        # A list of tensors is one result.
        else tree_map(lambda value: _put(value, place), result)
        for result, returned in zip(results, func._schema.returns, strict=False)
    ]
    return tuple(wrapped) if isinstance(found, tuple) else wrapped[0] if wrapped else None


def _put(value: Any, place: torch.device) -> Any:
    return PretendedTensor(value, place) if isinstance(value, torch.Tensor) else value


def _held(value: Any) -> Any:
    return value.held if isinstance(value, PretendedTensor) else value


def _on_cpu(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {"device": CPU} if kwargs.get("device") is not None else {}


@cache
def _written(func: Any) -> tuple[str, ...]:
    """Names of the arguments that an operation writes to."""
    return tuple(a.name for a in func._schema.arguments if a.alias_info is not None and a.alias_info.is_write)


@cache
def _has_kernel(func: Any) -> bool:
    returned = [r.alias_info for r in func._schema.returns]
    is_view = bool(returned) and all(alias is not None and not alias.is_write for alias in returned)
    return not is_view and func.overloadpacket.__name__ not in _WITHOUT_KERNEL


def _pin(tensor: torch.Tensor) -> torch.Tensor:
    storage = tensor.untyped_storage()
    _State.pinned[storage.data_ptr()] = StorageWeakRef(storage)
    return tensor


def _is_pinned(tensor: torch.Tensor) -> bool:
    if isinstance(tensor, PretendedTensor):
        return False
    known = _State.pinned.get(tensor.untyped_storage().data_ptr())
    return known is not None and not known.expired()


def _indexed(device: Any) -> torch.device:
    device = torch.device("cuda", device) if isinstance(device, int) else torch.device(device)
    if device.type != "cuda":
        return device
    index = _State.current if device.index is None else device.index
    if index >= _State.count:
        raise RuntimeError("CUDA error: invalid device ordinal")
    return torch.device("cuda", index)


def _line_of_calr() -> str:
    frame = sys._getframe(1)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(PACKAGE):
            return f"{path.relative_to(PACKAGE).as_posix()}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return "outside of calr_cli"


class PretendedStream:
    """A stream, which does its work at once.

    Attributes:
        copies: Number of copies it was given.
        seen: For how many copies of other streams it has waited.
    """

    def __init__(self, *_: Any, **__: Any) -> None:
        self.cuda_stream = 0
        self.copies = 0
        self.seen: dict[PretendedStream, int] = {}

    def wait_stream(self, other: PretendedStream) -> None:
        self.wait_event(other.record_event())

    def wait_event(self, event: PretendedEvent) -> None:
        self.seen[event.stream] = max(self.seen.get(event.stream, 0), event.copies)

    def record_event(self, event: PretendedEvent | None = None) -> PretendedEvent:
        event = event or PretendedEvent()
        event.record(self)
        return event

    def query(self) -> bool:
        return True

    def is_capturing(self) -> bool:
        return False

    def synchronize(self) -> None:
        _State.record.wait("synchronize")


class PretendedEvent:
    """An event, which has always happened."""

    stream: PretendedStream
    copies = 0

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def record(self, stream: PretendedStream | None = None) -> None:
        self.stream = stream or _State.streams[-1]
        self.copies = self.stream.copies

    def wait(self, stream: PretendedStream | None = None) -> None:
        (stream or _State.streams[-1]).wait_event(self)

    def query(self) -> bool:
        return True

    def elapsed_time(self, _: Any) -> float:
        return 1.0

    def synchronize(self) -> None:
        _State.record.wait("synchronize")


def _set_device(device: Any) -> None:
    _State.current = _indexed(device).index


@contextmanager
def _device(device: Any) -> Iterator[None]:
    before = _State.current
    if device is not None:
        _set_device(device)
    try:
        yield
    finally:
        _State.current = before


@contextmanager
def _stream(stream: PretendedStream) -> Iterator[None]:
    _State.streams.append(stream)
    try:
        yield
    finally:
        _State.streams.pop()


def _patches(bf16: bool) -> dict[str, Callable[..., Any]]:
    def nothing(*_: Any, **__: Any) -> None: ...

    return {
        "is_available": lambda: True,
        "is_initialized": lambda: True,
        "device_count": lambda: _State.count,
        "current_device": lambda: _State.current,
        "set_device": _set_device,
        "device": _device,
        "is_bf16_supported": lambda including_emulation=True: bf16,
        "get_device_name": lambda device=None: "pretended GPU",
        "get_device_capability": lambda device=None: (9, 0),
        "get_device_properties": lambda device=None: SimpleNamespace(
            name="pretended GPU", total_memory=MEMORY, major=9, minor=0, multi_processor_count=132
        ),
        "mem_get_info": lambda device=None: (MEMORY, MEMORY),
        "memory_allocated": lambda device=None: 0,
        "memory_reserved": lambda device=None: 0,
        "max_memory_allocated": lambda device=None: 0,
        "reset_peak_memory_stats": nothing,
        "empty_cache": nothing,
        "manual_seed": nothing,
        "manual_seed_all": nothing,
        "is_current_stream_capturing": lambda: False,
        "synchronize": lambda device=None: _State.record.wait("synchronize"),
        "stream": _stream,
        "current_stream": lambda device=None: _State.streams[-1],
        "default_stream": lambda device=None: _State.streams[0],
        "Stream": PretendedStream,
        "Event": PretendedEvent,
        "_lazy_init": nothing,
    }


class _Autocast(torch.autocast):
    """Autocast on the CPU in place of CUDA."""

    def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:
        super().__init__("cpu" if device_type == "cuda" else device_type, *args, **kwargs)


def _grouped(group: Callable[..., dict[Any, Any]]) -> Callable[..., dict[Any, Any]]:
    """Optimisers and averages group tensors by device inside of torch, where these are on the CPU."""

    def grouped(lists: Any, with_indices: bool = False) -> dict[Any, Any]:
        groups = group(lists, with_indices)
        return {
            (members[0][0].device, kind): (members, rest) for (_, kind), (members, rest) in groups.items()
        }

    return grouped


@contextmanager
def pretended_cuda(count: int = 1, *, bf16: bool = False) -> Iterator[Record]:
    """A context in which there are ``count`` CUDA devices; gives the record of what they do.

    Args:
        count: Number of devices.
        bf16: Whether they have instructions for bf16, so that ``precision: auto`` takes it.
    """
    if _State.count:
        raise RuntimeError("there are pretended devices already")
    _State.record, _State.count, _State.current = Record(), count, 0
    _State.streams = [PretendedStream()]
    with ExitStack() as stack:
        for name, replacement in _patches(bf16).items():
            stack.enter_context(patch.object(torch.cuda, name, replacement))
        if hasattr(torch, "accelerator"):  # since 2.6
            stack.enter_context(patch.object(torch.accelerator, "current_stream", PretendedStream))
        stack.enter_context(patch.object(transfer, "copy_stream", PretendedStream))  # a real one is kept
        stack.enter_context(patch.object(torch, "autocast", _Autocast))
        # The values of tensors that change in inference mode would have to be made in it, too.
        stack.enter_context(patch.object(torch, "inference_mode", torch.no_grad))
        name = "_group_tensors_by_device_and_dtype"
        stack.enter_context(patch.object(torch._C, name, _grouped(getattr(torch._C, name))))
        stack.enter_context(_Functions())
        # Module.to would copy a pretended tensor into the parameter that there is.
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        try:
            yield _State.record
        finally:
            torch.__future__.set_overwrite_module_params_on_conversion(False)
            _State.count = 0
            _State.pinned.clear()
