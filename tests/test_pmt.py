import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dclib.pmt import PowerMeanTransform, power_mean_transform

values = st.floats(-1e4, 1e4, allow_nan=False)


@given(st.lists(values, min_size=1, max_size=8))
def test_equals_the_formula(xs):
    result = power_mean_transform(torch.tensor([xs], dtype=torch.float64))[0].tolist()
    logs = [math.copysign(math.log1p(abs(x)), x) for x in xs]
    expected = logs + [math.copysign(log * log, x) for log, x in zip(logs, xs, strict=True)]
    assert result == pytest.approx(expected, rel=1e-12, abs=1e-300)


@given(st.lists(values, min_size=1, max_size=8))
def test_odd(xs):
    x = torch.tensor([xs])
    assert torch.equal(power_mean_transform(-x), -power_mean_transform(x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_finite_doubled_and_same_dtype(dtype):
    x = torch.tensor([[0.0, 1e4, -1e4]], dtype=dtype)
    result = power_mean_transform(x)
    assert result.dtype == dtype
    assert result.shape == (1, 3 * PowerMeanTransform.width_multiplier)
    assert torch.isfinite(result).all()
    assert result[0, 0] == result[0, 3] == 0


def test_accurate_near_zero_in_half_precision():
    x = torch.tensor([[1e-3, 1e-4, 6e-5]], dtype=torch.float16)
    result = power_mean_transform(x)[:, :3].double()
    exact = torch.log1p(x.double())
    assert torch.allclose(result, exact, rtol=1e-3, atol=0)
    naive = torch.log(1 + x).double()  # what 2019 computed: 6e-5 becomes 0
    assert (naive - exact).abs().max() > 0.5 * exact.min()


def test_float32_inside_autocast():
    x = torch.full((1, 1), 37.0)
    with torch.autocast("cpu", torch.bfloat16):
        result = power_mean_transform(x)
    assert result.dtype == torch.float32
    assert torch.equal(result, power_mean_transform(x))


def test_integers_are_refused():
    with pytest.raises(TypeError, match="floating-point"):
        power_mean_transform(torch.ones(1, 2, dtype=torch.long))
