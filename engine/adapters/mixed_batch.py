"""peft adapters in a batch whose rows use different ones.

peft's own `adapter_names` expects a layer's input to have one row for each row of the batch; some
architectures (OPT) give a layer all tokens of all rows side by side.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn


@contextmanager
def adapters_of_rows(model: nn.Module, names: Sequence[str]) -> Iterator[None]:
    """A context in which row i of each forward pass uses the adapter `names[i]`."""
    from peft.tuners.lora import LoraLayer

    def add_names(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        tokens = len(args[0]) // len(names)  # side by side for each row; 1 where rows are apart
        repeated = [name for name in names for _ in range(tokens)]
        return args, {**kwargs, "adapter_names": repeated}

    layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
    hooks = [layer.register_forward_pre_hook(add_names, with_kwargs=True) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
