"""A stand-in for NVIDIA's apex.amp 25.04 that works on CPU tensors; tests install it as `apex.amp`.

It has the interface that dclib uses and the habits of the original, good and bad: O1, its only
level, replaces functions of torch for the whole process, a weight used twice before a backward pass
is an IndexError, `disable_casts` is not safe against exceptions, an optimiser is refused a second
time, and it talks a lot.
"""

import contextlib
import functools
import types
import warnings

import torch
import torch.nn.functional as F

TENSOR, RNN = torch.Tensor, torch.nn.modules.rnn
TO_HALF = {F: ["conv2d", "linear"], torch: ["conv2d", "matmul", "mm"], TENSOR: ["__matmul__", "mm"]}
TO_FLOAT = {
    F: ["softmax", "log_softmax", "cross_entropy"],
    torch: ["exp", "pow", "sum"],
    TENSOR: ["__pow__", "exp", "pow", "sum", "cpu", "pow"],  # one twice, to be harsh
}
PROMOTE = {torch: ["add", "mul", "eq"], TENSOR: ["__add__", "__eq__", "__mul__", "add", "mul"]}
FORBIDDEN = {torch: ["exp_"], TENSOR: ["exp_", "pow_"]}


class Handle:
    def __init__(self):
        self._is_active, self._cache = True, {}

    def _clear_cache(self):
        self._cache.clear()


class LossScaler:
    def __init__(self):
        self._loss_scale, self._unskipped = 2.0**16, 0

    def update_scale(self, overflow):
        self._unskipped = 0 if overflow else self._unskipped + 1
        if overflow:
            self._loss_scale /= 2
        elif self._unskipped == 2000:
            self._loss_scale, self._unskipped = min(self._loss_scale * 2, 2.0**24), 0


class VariableFunctionsShim:
    def __init__(self):
        self.lstm = lambda *args: torch._C._VariableFunctions.lstm(*args)


_amp_state = types.SimpleNamespace(verbosity=1)


def initialize(models, optimizers, opt_level="O1", verbosity=1):
    assert opt_level == "O1"
    warnings.warn("apex.amp is deprecated and will be removed", FutureWarning, stacklevel=2)
    _amp_state.verbosity = verbosity
    _say(f"Selected optimization level {opt_level}")
    if any(p.dtype == torch.float16 for p in models.parameters()):
        raise RuntimeError("Found param with type HalfTensor, expected torch.cuda.FloatTensor.")
    if hasattr(optimizers, "_amp_stash"):
        raise RuntimeError("A given optimizer should only be passed through amp.initialize once.")
    _patch_optimizer(optimizers)
    _amp_state.loss_scalers, _amp_state.handle = [LossScaler()], Handle()
    _patch_torch(_amp_state.handle)
    old_step = optimizers.step

    def new_step(self):
        with disable_casts():
            return old_step()

    optimizers.step = types.MethodType(new_step, optimizers)
    return models, optimizers


@contextlib.contextmanager
def scale_loss(loss, optimizers):
    scaler = _amp_state.loss_scalers[0]
    optimizers._prepare_amp_backward()
    yield loss.float() * scaler._loss_scale
    overflow = optimizers._post_amp_backward(scaler._loss_scale)
    scaler.update_scale(overflow)
    if overflow and not optimizers._amp_stash.already_patched:
        old_step = optimizers.step

        def skip_step():
            _say("Gradient overflow.  Skipping step")
            optimizers.step, optimizers._amp_stash.already_patched = old_step, False

        optimizers.step, optimizers._amp_stash.already_patched = skip_step, True
    _amp_state.handle._clear_cache()


@contextlib.contextmanager
def disable_casts():
    _amp_state.handle._is_active = False
    yield
    _amp_state.handle._is_active = True


def state_dict():
    scaler = _amp_state.loss_scalers[0]
    return {
        "loss_scaler0": {"loss_scale": scaler._loss_scale, "unskipped": scaler._unskipped},
    }


def load_state_dict(state_dict):
    scaler, state = _amp_state.loss_scalers[0], state_dict["loss_scaler0"]
    scaler._loss_scale, scaler._unskipped = state["loss_scale"], state["unskipped"]


def _say(text):
    if _amp_state.verbosity > 0:
        print(text)


def _convert(value, dtype):
    if isinstance(value, torch.Tensor) and value.is_floating_point():
        return value.to(dtype)
    return value


def _patch_optimizer(optimizer):
    methods = {"_prepare_amp_backward": _prepare_backward, "_post_amp_backward": _post_backward}
    optimizer._amp_stash = types.SimpleNamespace(already_patched=False, started=False)
    for name, method in methods.items():
        setattr(optimizer, name, types.MethodType(method, optimizer))


def _prepare_backward(optimizer):
    stash = optimizer._amp_stash
    if not stash.started:
        stash.started = True
        stash.all_fp32_params = [p for group in optimizer.param_groups for p in group["params"]]
    stash.all_fp32_grad_stash = [weight.grad for weight in stash.all_fp32_params]
    for weight in stash.all_fp32_params:
        weight.grad = None


def _post_backward(optimizer, scale):
    """Divide the new gradients by the scale, add the earlier ones; was there an overflow?"""
    stash, overflow = optimizer._amp_stash, False
    earlier = stash.all_fp32_grad_stash
    stash.all_fp32_grad_stash = [None] * len(stash.all_fp32_params)
    for owner, old in zip(stash.all_fp32_params, earlier):
        new, owner.grad = owner.grad, old
        if new is not None:
            overflow |= not torch.isfinite(new).all()
            owner.grad = new.float() / scale + (0 if old is None else old)
    return overflow


def _patch_torch(handle):
    def every(table, wrap):
        for place, names in table.items():
            for name in names:
                setattr(place, name, wrap(getattr(place, name), handle))

    every(TO_HALF, functools.partial(_casting, dtype=torch.float16))
    every(TO_FLOAT, functools.partial(_casting, dtype=torch.float32))
    every(PROMOTE, _promoting)
    every(FORBIDDEN, _forbidding)
    RNN._VF = VariableFunctionsShim()
    relu = RNN._rnn_impls["RNN_RELU"]
    RNN._rnn_impls["RNN_RELU"] = _casting(relu, handle, torch.float16)


def _casting(function, handle, dtype):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        if handle._is_active:
            args = [_cast(arg, handle, dtype) for arg in args]
        return function(*args, **kwargs)

    return wrapper


def _cast(value, handle, dtype):
    cache = handle._cache
    if dtype == torch.float32 or not isinstance(value, torch.nn.Parameter):
        return _convert(value, dtype)
    if value in cache:
        cached = cache[value]
        if value.requires_grad and cached.requires_grad:
            assert cached.grad_fn.next_functions[1][0].variable is value  # IndexError since 2021
        if not torch.is_grad_enabled() or value.requires_grad == cached.requires_grad:
            return cached
    cache[value] = value.to(dtype)
    return cache[value]


def _promoting(function, handle):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        types_ = {arg.dtype for arg in args if isinstance(arg, torch.Tensor)}
        if _amp_state.handle._is_active and types_ == {torch.float16, torch.float32}:
            args = [_convert(arg, torch.float32) for arg in args]
        return function(*args, **kwargs)

    return wrapper


def _forbidding(function, handle):
    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        if any(isinstance(arg, torch.Tensor) and arg.dtype == torch.float16 for arg in args):
            raise NotImplementedError("Cannot call in-place function with fp16 arguments.")
        return function(*args, **kwargs)

    return wrapper
