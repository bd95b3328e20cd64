import copy
import importlib
import io
import shutil
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dclib.train import apex as apex_module
from dclib.train import precision as module
from dclib.train.amp import Precision
from dclib.train.apex import ApexAmp, try_steps
from dclib.train.precision import choose_precision, make_precision, why_no_apex

KINDS = ("fp32", "float16", "bfloat16", "apex")
SCALED = ("float16", "apex")  # with a dynamic loss scale
TOLERANCE = {"fp32": 1e-7, "bfloat16": 3e-2}  # others: 3e-3
IMAGES = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(8) % 2


@pytest.fixture
def apex(tmp_path, monkeypatch):
    """The stand-in as `apex.amp`, importable here and in child processes."""
    folder = tmp_path / "site" / "apex" / "amp"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    shutil.copy(Path(__file__).with_name("apex_standin.py"), folder / "__init__.py")
    monkeypatch.syspath_prepend(folder.parents[1])
    yield importlib.import_module("apex.amp")
    ApexAmp().restore()
    for name in ("apex", "apex.amp"):
        del sys.modules[name]


def make(kind):
    if kind == "apex":
        return ApexAmp("cpu")
    return Precision("cpu", None if kind == "fp32" else getattr(torch, kind))


@pytest.fixture(params=KINDS)
def kind(request, apex):
    return request.param


@pytest.fixture(params=SCALED)
def scaled_kind(request, apex):
    return request.param


class Samples(nn.Module):
    """As training wraps a model: (B, 3, H, W) -> (1, B, 2)."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        return self.model(images)[None]


def tiny(norm=True):
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4) if norm else nn.Identity()
    return nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))


class Run:
    """A model in training."""

    def __init__(self, precision, model=None, optimizer=torch.optim.SGD, **options):
        self.precision, self.model = precision, model or tiny()
        optimizer = optimizer(self.model.parameters(), **({"lr": 0.1} | options))
        self.network, self.optimizer = precision.prepare(Samples(self.model), optimizer)

    def add(self, images=IMAGES, labels=LABELS, share=1.0, spoil=1.0):
        """Gradients of (a part of) a step; returns the loss."""
        with self.precision.forward():
            loss = F.cross_entropy(self.network(images).mean(0), labels) * share
        self.precision.backward(loss * spoil, self.optimizer)
        return loss.item()

    def finish(self):
        self.precision.step(self.optimizer)
        self.optimizer.zero_grad()

    def steps(self, n=1, **options):
        for _ in range(n):
            self.loss = self.add(**options)
            self.finish()
        return self

    def weights(self):
        return torch.cat([p.detach().float().flatten() for p in self.model.parameters()])

    def scale(self):
        state = self.precision.state_dict()
        return state["scale"] if "scale" in state else state["loss_scaler0"]["loss_scale"]

    def end(self):
        self.precision.restore()
        return self.weights()


def snapshot():
    """Everything that Apex could replace."""
    rnn = torch.nn.modules.rnn
    names = [dict(vars(place)) for place in (torch, F, torch.Tensor, rnn)]
    return [*names, dict(rnn._rnn_impls)]


def assert_untouched(before):
    for old, new in zip(before, snapshot()):
        assert all(new.get(name) is value for name, value in old.items())
        # torch may have loaded names of its own lazily, Apex must not have left any
        assert not any(apex_module._from_apex(new[name]) for name in new.keys() - old.keys())


def close(kind, expected):
    return pytest.approx(expected, rel=TOLERANCE.get(kind, 3e-3), abs=TOLERANCE.get(kind, 3e-3))


def test_training_steps_are_close_to_float32(kind, capsys):
    reference = Run(Precision()).steps(3)
    run = Run(make(kind)).steps(3)
    loss = run.loss
    assert run.end() == close(kind, reference.weights())
    assert loss == close(kind, reference.loss)
    assert loss < 0.9 * Run(Precision()).add()  # it learns
    assert capsys.readouterr().out == ""


def test_parts_of_a_batch_add_up(kind):
    whole = Run(make(kind), tiny(norm=False)).steps(2)
    expected = whole.end()
    run = Run(make(kind), tiny(norm=False))
    for _ in range(2):
        run.add(IMAGES[:2], LABELS[:2], share=0.25)
        run.add(IMAGES[2:], LABELS[2:], share=0.75)
        run.finish()
    assert run.end() == close(kind, expected)


def test_clipping_sees_gradients_of_true_size(kind):
    reference = Run(Precision())
    reference.add()
    norm = nn.utils.clip_grad_norm_(reference.model.parameters(), 0.1)
    reference.finish()
    run = Run(make(kind))
    run.add()
    parameters = run.precision.unscaled(run.optimizer)
    assert nn.utils.clip_grad_norm_(parameters, 0.1).item() == close(kind, norm.item())
    run.finish()
    assert run.end() == close(kind, reference.weights())


def test_a_fused_optimiser_and_clipping_and_parts_together():
    """torch's scaler hands its scale to a fused optimiser, unless clipping took it away before."""

    def train(precision):
        run = Run(precision, tiny(norm=False), torch.optim.AdamW, lr=1e-3, fused=True)
        for _ in range(3):
            for part in (slice(4), slice(4, 8)):
                run.add(IMAGES[part], LABELS[part], share=0.5)
            nn.utils.clip_grad_norm_(precision.unscaled(run.optimizer), 0.1)
            run.finish()
        return run.end()

    assert train(Precision("cpu", torch.float16)) == close("float16", train(Precision()))


def test_an_overflow_skips_the_step_and_halves_the_scale(scaled_kind, capsys):
    run = Run(make(scaled_kind))
    before = run.weights()
    run.add(spoil=1e36)
    run.finish()
    assert torch.equal(run.weights(), before)
    assert run.scale() == 2**15
    run.steps()
    assert not torch.equal(run.weights(), before)
    assert torch.isfinite(run.end()).all()
    assert capsys.readouterr().out == ""


def test_an_overflow_in_one_part_skips_the_whole_step(scaled_kind):
    run = Run(make(scaled_kind))
    before = run.weights()
    run.add(spoil=1e36)
    run.add()
    run.finish()
    assert torch.equal(run.weights(), before)


def test_the_scale_doubles_after_2000_steps(scaled_kind):
    run = Run(make(scaled_kind))
    state = run.precision.state_dict()
    counter = state.get("loss_scaler0", state)
    counter["unskipped" if "unskipped" in counter else "_growth_tracker"] = 1999
    run.precision.load_state_dict(state)
    run.steps()
    assert run.scale() == 2**17


@pytest.mark.parametrize("early", [True, False])
def test_a_saved_run_goes_on_exactly(kind, early):
    """Whether the weights are loaded before or after `prepare`."""
    options = {"optimizer": torch.optim.AdamW, "lr": 1e-3, "fused": True}
    run = Run(make(kind), **options).steps(2)
    if kind in SCALED:
        run.steps(spoil=1e36).steps(2)
    states = run.model.state_dict(), run.optimizer.state_dict()
    file = io.BytesIO()
    torch.save((*states, run.precision.state_dict()), file)
    expected = run.steps(3).end()

    model_state, optimizer_state, state = torch.load(io.BytesIO(file.getvalue()), weights_only=True)
    model = tiny()
    model.load_state_dict({k: v + (not early) for k, v in model_state.items()})
    again = Run(make(kind), model, **options)
    again.model.load_state_dict(model_state)
    again.optimizer.load_state_dict(optimizer_state)
    again.precision.load_state_dict(state)
    assert torch.equal(again.steps(3).end(), expected)


def interrupt(where, run):
    """A step that fails as when memory runs out."""

    def fail(*args):
        raise torch.OutOfMemoryError("out of memory")

    module = run.model[-1 if where == "forward" else 2]
    if where == "forward":
        hook = module.register_forward_hook(fail)
    else:
        hook = module.register_full_backward_hook(fail)
    with pytest.raises(torch.OutOfMemoryError):
        run.add()
    hook.remove()


@pytest.mark.parametrize("where", ["forward", "backward", "unscaled"])
@pytest.mark.parametrize("spoil", [1.0, 1e36])
def test_an_abandoned_step_leaves_no_trace(kind, where, spoil):
    model = tiny(norm=False)
    expected = Run(make(kind), copy.deepcopy(model)).steps(2).end()
    run = Run(make(kind), model).steps()
    if kind in SCALED:
        run.steps(spoil=1e36)  # a scale that is not the first one
    run.add(spoil=spoil)  # an earlier part of the step
    if where == "unscaled":
        run.precision.unscaled(run.optimizer)
    else:
        interrupt(where, run)
    run.precision.abandon(run.optimizer)
    for parameter in (*model.parameters(), *Precision().unscaled(run.optimizer)):
        assert parameter.grad is None
    if kind in SCALED and spoil == 1:
        assert run.scale() == 2**15
    assert run.steps().end() == close("fp32", expected)


def test_without_abandoning_a_weight_is_cast_twice(apex):
    """Why `abandon` is needed: the stand-in has the fault of the original."""
    run = Run(ApexAmp("cpu"))
    interrupt("forward", run)
    with pytest.raises(IndexError):
        run.add()
    run.precision.abandon(run.optimizer)
    run.steps()


def test_an_abandoned_step_holds_no_gradients(apex):
    """They would take the memory that the next try needs."""
    run = Run(ApexAmp("cpu"))
    run.add()
    interrupt("backward", run)
    stash = run.optimizer._amp_stash.all_fp32_grad_stash
    assert any(gradient is not None for gradient in stash)
    run.precision.abandon(run.optimizer)
    assert not any(gradient is not None for gradient in stash)


def test_evaluation_of_the_bare_model_between_steps(kind):
    reference = Run(Precision()).steps().model.eval()(IMAGES).detach()
    run = Run(make(kind)).steps()
    run.model.eval()
    for _ in range(2):
        with run.precision.evaluating(), torch.inference_mode():
            logits = run.model(IMAGES).float()
    run.model.train()
    run.steps()  # under O1 an IndexError, had the evaluation used Apex's cache
    assert logits == close(kind, reference)


def test_other_work_is_not_cast(kind):
    run = Run(make(kind))
    with run.precision.uncast():
        assert (torch.eye(2) @ torch.eye(2)).dtype == torch.float32
    cast = (torch.eye(2) @ torch.eye(2)).dtype == torch.float16
    assert cast == (kind == "apex")


def test_an_exception_in_an_evaluation_leaves_the_casts_on(apex):
    run = Run(ApexAmp("cpu"))
    with pytest.raises(KeyboardInterrupt), run.precision.evaluating():
        assert torch.mm(torch.eye(2), torch.eye(2)).dtype == torch.float16  # by torch's autocast
        assert not apex._amp_state.handle._is_active
        raise KeyboardInterrupt
    assert apex._amp_state.handle._is_active


def test_frozen_weights_stay_and_train_again(kind):
    run = Run(make(kind), optimizer=torch.optim.AdamW, weight_decay=0.5).steps()
    conv, head = run.model[0], run.model[4]
    conv.requires_grad_(False)
    before = conv.weight.clone(), head.weight.clone()
    run.steps(2)
    assert torch.equal(conv.weight, before[0])  # nor do they decay
    assert not torch.equal(head.weight, before[1])
    conv.requires_grad_(True)
    run.steps()
    assert not torch.equal(conv.weight, before[0])


def test_nothing_stays_patched(kind):
    Run(Precision()).steps()  # what torch loads lazily
    before = snapshot()
    run = Run(make(kind)).steps()
    assert ("__matmul__" in vars(torch.Tensor)) == (kind == "apex")
    run.end()
    assert_untouched(before)
    run.end()
    assert_untouched(before)


def test_a_restored_model_is_plain(kind):
    run = Run(make(kind)).steps()
    run.end()
    for value in run.model.state_dict().values():
        assert value.dtype in (torch.float32, torch.int64)
    assert not any(module._state_dict_hooks for module in run.model.modules())
    run.model.half()
    assert run.model.state_dict()["0.weight"].dtype == torch.float16
    run.model.float().eval()
    with torch.no_grad():
        run.model(IMAGES)
    for _ in range(2):  # as Grad-CAM does: two passes with gradients, one weight used twice
        logits = run.model(IMAGES)
        assert logits.dtype == torch.float32
    logits.sum().backward()
    nn.LSTM(2, 2)(torch.randn(3, 1, 2))
    torch.zeros(2, dtype=torch.float16).exp_()


def test_a_function_imported_meanwhile_is_harmless(apex):
    run = Run(ApexAmp("cpu"))
    linear, add = F.linear, torch.Tensor.add
    run.end()
    weight = nn.Parameter(torch.eye(2))
    for _ in range(2):
        assert linear(torch.eye(2), weight).dtype == torch.float32
    assert add(torch.eye(2), torch.eye(2).half()).dtype == torch.float32


def test_restored_after_a_refused_optimiser(apex):
    before, model = snapshot(), tiny()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer._amp_stash = None
    precision = ApexAmp("cpu")
    with pytest.raises(RuntimeError, match=r"only be passed through amp\.initialize once"):
        precision.prepare(model, optimizer)
    precision.restore()
    assert_untouched(before)
    assert model(IMAGES).dtype == torch.float32


def test_a_run_that_was_never_restored_does_not_spoil_the_next(apex):
    before = snapshot()
    Run(ApexAmp("cpu")).steps()
    run = Run(ApexAmp("cpu")).steps()
    assert not apex_module._from_apex(torch.mm.__wrapped__)  # patched once, not twice
    run.end()
    assert_untouched(before)


def test_names_and_what_they_come_to(apex):
    assert str(make_precision("fp32", "cpu")) == "float32"
    assert str(make_precision("torch", torch.device("cpu"))) == "bfloat16 by torch AMP"
    with pytest.raises(ValueError, match=r"precision must be one of .* not 'fp16'"):
        make_precision("fp16", "cpu")
    with pytest.raises(ValueError, match=r'needs an NVIDIA GPU .* on cpu; use precision="auto"'):
        make_precision("apex", "cpu")


@pytest.mark.parametrize(
    ("units", "said"), [(True, "bfloat16 by torch AMP"), (False, "float32"), (None, "float32")]
)
def test_a_cpu_gets_bfloat16_where_it_has_units_for_it(monkeypatch, units, said):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: units)
    if units is None:  # a torch that does not say
        monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported")
    name = "torch" if units else "fp32"
    assert choose_precision("auto", "cpu") == (name, f"Training in {said}.")
    sentence = f"Apex cannot be used: this run is on cpu. Training in {said}."
    assert choose_precision("apex", "cpu") == (name, sentence)
    assert str(make_precision("fp32", "cpu")) == "float32"


@pytest.mark.filterwarnings("ignore:.*GradScaler is enabled, but CUDA is not available")
@pytest.mark.parametrize(("native", "half"), [(True, "bfloat16"), (False, "float16")])
def test_a_gpu_gets_bfloat16_where_it_has_it(monkeypatch, native, half):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    expected = ("torch", f"Training in {half} by torch AMP.")
    assert choose_precision("auto", "cuda") == choose_precision("torch", "cuda:0") == expected


def test_apex_or_its_substitute_is_announced(apex, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    monkeypatch.setattr(module, "why_no_apex", lambda: None)
    assert choose_precision("apex", "cuda") == ("apex", "Training in float16 by Apex O1.")
    assert make_precision("apex", "cuda").name == "apex"
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(module, "why_no_apex", lambda: "it is too old")
    sentence = "Apex cannot be used: it is too old. Training in bfloat16 by torch AMP."
    assert choose_precision("apex", "cuda") == ("torch", sentence)
    assert make_precision("apex", "cuda").name == "torch"
    assert capsys.readouterr().out == sentence + "\n"


@pytest.fixture
def gpu(monkeypatch):
    """As if there were one; and no trial is remembered."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(module, "_worked", False)


def test_what_is_missing(gpu, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(apex_module.importlib.util, "find_spec", lambda name: None)
    assert why_no_apex() == "the package is not installed"
    monkeypatch.undo()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert why_no_apex() == "there is no NVIDIA GPU"


@pytest.mark.parametrize("file", ["apex/__init__.py", "apex.py", "apex/apex/amp/__init__.py"])
def test_another_apex(gpu, monkeypatch, tmp_path, file):
    """The web toolkit of that name, a newer one without amp, a clone in the working directory."""
    path = tmp_path / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("raise SystemExit('must not be imported')")
    monkeypatch.syspath_prepend(tmp_path)
    assert why_no_apex().startswith("the installed apex has no amp")


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo ok", None),
        ("kill -SEGV $$", "a trial at O1 crashed with SIGSEGV"),
        ("exec sleep 60", "a trial at O1 did not end within 1 s"),
        ("exit 3", "a trial at O1 failed with exit status 3"),
        (
            "echo noise >&2; echo 'IndexError: tuple index out of range.' >&2; exit 1",
            "a trial at O1 failed with IndexError: tuple index out of range",
        ),
    ],
)
def test_a_trial_in_a_child_process(gpu, apex, monkeypatch, tmp_path, script, reason):
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho $@ >> {tmp_path}/calls\n{script}\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setattr(module, "TRIAL_SECONDS", 1)
    assert [why_no_apex(), why_no_apex()] == [reason, reason]
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls == ["-m dclib.train.apex"] * (2 if reason else 1)  # success is remembered


def test_the_child_sees_what_this_process_can_import(gpu, apex, monkeypatch, tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho $PYTHONPATH >&2; exit 1")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    assert f"{tmp_path / 'site'}:" in why_no_apex()


def test_the_trial_itself(apex):
    before = snapshot()
    try_steps(device="cpu", n=1)
    assert_untouched(before)


def test_the_trial_as_a_program(apex, monkeypatch, capsys):
    monkeypatch.setattr(apex_module, "what_is_missing", lambda: None)
    monkeypatch.setattr(apex_module, "try_steps", lambda: print("tried"))
    apex_module.main()
    assert capsys.readouterr().out == "tried\nok\n"

    for error, said in (
        (RuntimeError("\nno such kernel\nmore"), "RuntimeError: no such kernel"),
        (AssertionError(), "AssertionError: no message"),
    ):
        failing = Mock(side_effect=error)
        monkeypatch.setattr(apex_module, "try_steps", failing)
        with pytest.raises(SystemExit, match=f"^{said}$"):
            apex_module.main()


def test_the_program_without_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match=r"^Apex cannot be used: there is no NVIDIA GPU\.$"):
        apex_module.main()
