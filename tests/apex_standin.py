"""A stand-in for NVIDIA's apex.amp 25.04 that works on CPU tensors; tests install it as `apex.amp`.

It has the interface that dclib uses and the habits of the original, good and bad: O1 replaces
functions of torch for the whole process, a weight used twice before a backward pass is an
IndexError, `disable_casts` is not safe against exceptions, O2 makes its masters late, an optimiser
is refused a second time, and it talks a lot.
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
    def __init__(self, dynamic):
        self.dynamic, self._loss_scale, self._unskipped = dynamic, 2.0**16 if dynamic else 1.0, 0

    def update_scale(self, overflow):
        self._unskipped = 0 if overflow else self._unskipped + 1
        if overflow:
            self._loss_scale /= 2
        elif self._unskipped == 2000:
            self._loss_scale, self._unskipped = min(self._loss_scale * 2, 2.0**24), 0


class O2StateDictHook:
    def __call__(self, module, state_dict, prefix, local_metadata):
        for key, value in state_dict.items():
            state_dict[key] = value.float() if value.dtype == torch.float16 else value


class VariableFunctionsShim:
    def __init__(self):
        self.lstm = lambda *args: torch._C._VariableFunctions.lstm(*args)


_amp_state = types.SimpleNamespace(verbosity=1)


def initialize(models, optimizers, opt_level="O1", verbosity=1):
    warnings.warn("apex.amp is deprecated and will be removed", FutureWarning, stacklevel=2)
    _amp_state.verbosity, _amp_state.opt_level = verbosity, opt_level
    _say(f"Selected optimization level {opt_level}")
    if any(p.dtype == torch.float16 for p in models.parameters()):
        raise RuntimeError("Found param with type HalfTensor, expected torch.cuda.FloatTensor.")
    if opt_level != "O1":
        _cast_model(models, opt_level)
    if hasattr(optimizers, "_amp_stash"):
        raise RuntimeError("A given optimizer should only be passed through amp.initialize once.")
    _patch_optimizer(optimizers, masters=opt_level == "O2")
    _amp_state.loss_scalers = [LossScaler(dynamic=opt_level in ("O1", "O2"))]
    if opt_level == "O1":
        _amp_state.handle = Handle()
        _patch_torch(_amp_state.handle)
        old_step = optimizers.step

        def new_step(self):
            with disable_casts():
                return old_step()

        optimizers.step = types.MethodType(new_step, optimizers)
    return models, optimizers


@contextlib.contextmanager
def scale_loss(loss, optimizers):
    scaler, handle = _amp_state.loss_scalers[0], getattr(_amp_state, "handle", None)
    if _amp_state.opt_level in ("O0", "O3"):
        yield loss.float()
        return
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
    if _amp_state.opt_level == "O1":
        handle._clear_cache()


@contextlib.contextmanager
def disable_casts():
    _amp_state.handle._is_active = False
    yield
    _amp_state.handle._is_active = True


def master_params(optimizer):
    for group in optimizer.param_groups:
        yield from group["params"]


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


def _cast_model(model, opt_level):
    dtype = torch.float32 if opt_level == "O0" else torch.float16
    for module in model.modules():
        if opt_level == "O2" and isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            continue
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            tensor.data = _convert(tensor.data, dtype)
    old_forward = model.forward

    def new_forward(*args):
        return _convert(old_forward(*[_convert(arg, dtype) for arg in args]), torch.float32)

    model.forward = new_forward
    for module in model.modules():
        module._register_state_dict_hook(O2StateDictHook())


def _patch_optimizer(optimizer, masters):
    methods = {"_prepare_amp_backward": _prepare_backward, "_post_amp_backward": _post_backward}
    if masters:
        methods |= {"step": _step, "zero_grad": _zero_grad}
        methods |= {"_master_params_to_model_params": _to_model}
    stash = optimizer._amp_stash = types.SimpleNamespace(already_patched=False, started=False)
    stash.masters, stash.old_step = masters, optimizer.step
    for name, method in methods.items():
        setattr(optimizer, name, types.MethodType(method, optimizer))


def _lazy_init(optimizer):
    stash = optimizer._amp_stash
    if stash.started:
        return
    stash.started, stash.all_fp16_params, stash.all_fp32_from_fp16_params = True, [], []
    stash.all_fp32_params = []
    for group in optimizer.param_groups:
        for i, weight in enumerate(group["params"]):
            if stash.masters and weight.dtype == torch.float16 and weight.requires_grad:
                group["params"][i] = weight.detach().clone().float().requires_grad_()
                stash.all_fp16_params.append(weight)
                stash.all_fp32_from_fp16_params.append(group["params"][i])
            elif weight.requires_grad or not stash.masters:
                stash.all_fp32_params.append(weight)
    stash.all_fp32_grad_stash = [None] * len(stash.all_fp32_params)
    optimizer.load_state_dict(optimizer.state_dict())


def _prepare_backward(optimizer):
    _lazy_init(optimizer)
    stash = optimizer._amp_stash
    stash.all_fp32_grad_stash = [weight.grad for weight in stash.all_fp32_params]
    for weight in stash.all_fp16_params + stash.all_fp32_params:
        weight.grad = None


def _post_backward(optimizer, scale):
    """Divide the new gradients by the scale, add the earlier ones; was there an overflow?"""
    stash, overflow = optimizer._amp_stash, False
    owners = stash.all_fp32_from_fp16_params + stash.all_fp32_params
    earlier = [master.grad for master in stash.all_fp32_from_fp16_params]
    earlier += stash.all_fp32_grad_stash
    scaled = [weight.grad for weight in stash.all_fp16_params + stash.all_fp32_params]
    stash.all_fp32_grad_stash = [None] * len(stash.all_fp32_params)
    for owner, new, old in zip(owners, scaled, earlier):
        owner.grad = old
        if new is not None:
            overflow |= not torch.isfinite(new).all()
            owner.grad = new.float() / scale + (0 if old is None else old)
    return overflow


def _to_model(optimizer):
    stash = optimizer._amp_stash
    for weight, master in zip(stash.all_fp16_params, stash.all_fp32_from_fp16_params):
        weight.data.copy_(master)


def _step(optimizer):
    optimizer._amp_stash.old_step()
    _to_model(optimizer)
    for master in optimizer._amp_stash.all_fp32_from_fp16_params:
        master.grad = None


def _zero_grad(optimizer):  # takes no set_to_none, and leaves zeros
    _lazy_init(optimizer)
    stash = optimizer._amp_stash
    for weight in stash.all_fp16_params + stash.all_fp32_params:
        if weight.grad is not None:
            weight.grad.zero_()
    for master in stash.all_fp32_from_fp16_params:
        master.grad = None


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
