"""A private copy of a network that shares its weights: what is hooked or switched on it, nobody else sees."""

from collections import OrderedDict
from functools import partial
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

# How torch names the module inside a compiled one and inside a checkpointed one.
_WRAPPED = ("_orig_mod", "_checkpoint_wrapped_module")
# Switches of timm, transformers and torchvision that recompute activations: hooks inside would run twice, or unseen.
_CHECKPOINTING = ("grad_checkpointing", "gradient_checkpointing", "memory_efficient")


def replica(model: nn.Module, float32: bool = False) -> nn.Module:
    """The same network once more: own modules, hooks and modes, the same storage of weights and buffers.

    Another thread may run, train, copy or pickle the model meanwhile; the copy is in evaluation mode, its weights are
    frozen, compiled parts run as they were written and checkpointing is off. Hooks of the model are kept, since some
    compute weights. What `torch.inference_mode` made is cloned, as nothing can be differentiated through it.

    Args:
        model: any network; parts in TorchScript cannot be copied and are shared.
        float32: whether weights in half precision are converted, which takes memory of its own.
    """
    copied = _Copier(float32).of(model)
    assert isinstance(copied, nn.Module)
    return copied


class _Copier:
    """Copies modules and the containers that hold them, each once; everything else is shared."""

    def __init__(self, float32: bool) -> None:
        self._made: dict[int, Any] = {}
        self._float32 = float32

    def of(self, value: Any) -> Any:
        if isinstance(value, nn.Module | Tensor):
            if id(value) not in self._made:
                self._made[id(value)] = self._tensor(value) if isinstance(value, Tensor) else None
                if isinstance(value, nn.Module):
                    self._module(value)
            return self._made[id(value)]
        if isinstance(value, MethodType) and isinstance(value.__self__, nn.Module):
            return MethodType(value.__func__, self.of(value.__self__))
        if type(value) is partial:
            named = {name: self.of(argument) for name, argument in value.keywords.items()}
            return partial(self.of(value.func), *map(self.of, value.args), **named)
        if type(value) in (dict, OrderedDict):
            # Copied first, in one step of the interpreter: another thread may add an entry at any time.
            return type(value)((key, self.of(item)) for key, item in value.copy().items())
        if type(value) in (list, tuple):
            return type(value)([self.of(item) for item in tuple(value)])
        return value

    def _module(self, module: nn.Module) -> None:
        inner = next((module._modules[name] for name in _WRAPPED if name in module._modules), None)
        if inner is not None or isinstance(module, torch.jit.ScriptModule):
            self._made[id(module)] = module if inner is None else self.of(inner)
            return
        copied: nn.Module = object.__new__(type(module))
        self._made[id(module)] = copied  # before its parts, which may refer to it
        for name, value in module.__dict__.copy().items():
            copied.__dict__[name] = self.of(value)
        copied.__dict__.pop("_compiled_call_impl", None)
        copied.__dict__["training"] = False
        for name in _CHECKPOINTING:
            if copied.__dict__.get(name) is True:
                copied.__dict__[name] = False

    def _tensor(self, tensor: Tensor) -> Tensor:
        plain = tensor.clone() if tensor.is_inference() else tensor
        if self._float32 and tensor.dtype in (torch.float16, torch.bfloat16):
            plain = plain.float()
        if type(tensor) is nn.Parameter:
            return nn.Parameter(plain.detach(), requires_grad=False)
        return plain.detach() if plain.requires_grad and type(tensor) is Tensor else plain
