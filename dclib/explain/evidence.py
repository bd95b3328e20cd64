"""Which region switches on which neuron, and what that does to the verdict: exact, not estimated.

The head is a maximum over bins, a small perceptron and a BatchNorm that folds into the last layer.
In eval mode, with m_f the maximum of one bin of one channel, found at the cell c(f):

    z_n      = b_n + sum_f T_nf,          T_nf = sum_p W_nfp psi_p(m_f)     input of neuron n's ReLU
    R_n(c)   = sum of T_nf over the maxima found at cell c                  region map of neuron n
    logit_k  = b'_k + sum_n w'_kn relu(z_n)                                 BatchNorm folded
    E_k(c)   = sum of w'_kn R_n(c) over the neurons that are on             evidence map of class k

so that logit_k = const_k + sum_c E_k(c), and the margin likewise, in log-odds. psi_p are the two
halves of the power mean transform, or m itself without it. The maps are also the integrated
gradients (Sundararajan et al., arXiv 1703.01365) of z from an empty feature map, in closed form: a
maximum does not change its place when the map is scaled.

What they do not say: gates and maxima are held as they are in this picture, so that a cell's number
is not what would happen without it (`dclib.explain.hide.leave_one_out` is); a cell is where a
feature fired, not why: it has seen up to 899 pixels a side.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from dclib.model import DeepConnection
from dclib.pmt import power_mean_transform

ALIKE = 0.85  # correlation from which two neurons' maps are drawn as one: 0.7 of the variance
BRANCHES = {"spp+pmt": ("log", "log squared"), "spp": ("maximum",), "plain": ("mean",)}


@dataclass(frozen=True)
class FoldedHead:
    """A network's head in float32 with its BatchNorm folded into the last layer.

    A copy: it does not follow the network's later training.
    """

    weights: tuple[Tensor, ...]  # lin1's: (bins, P branches * C channels, 100) a level
    bias: Tensor  # lin1's, (100,)
    last: Tensor  # weights of the folded last layer, (2, 100)
    offset: Tensor  # its bias, (2,)
    scale: Tensor  # of the BatchNorm, (100,)
    shift: Tensor  # of the BatchNorm, (100,)
    unfolded: Tensor  # weights of the last layer as trained, (2, 100)
    noise: float  # relative variance that dropout gives a neuron
    stage: str
    levels: tuple[int, ...]
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Evidence:
    """What a batch's logits are made of; all in log-odds but for `neuron_maps` and `z`."""

    logits: Tensor  # (B, 2), rebuilt from the parts below
    const: Tensor  # (B, 2), what the biases give
    maps: Tensor  # (B, 2, h, w), evidence of each class; const + the sum over cells = logits
    neuron_maps: Tensor  # (B, 100, h, w), what each cell adds to each neuron's input z
    z: Tensor  # (B, 100), inputs of the neurons' ReLUs; a neuron is on where z > 0
    contributions: Tensor  # (B, 2, 100), what each neuron adds to each logit; 0 where it is off
    budget: Tensor  # (B, 2, L, P), the sum over cells again, by pyramid level and branch
    margin_sd: Tensor  # (B,), standard deviation of the margin under the head's dropout
    stage: str
    levels: tuple[int, ...]
    classes: tuple[str, ...]

    def of_margin(self, quantity: str) -> Tensor:
        """Unhappy minus happy of a quantity (B, 2, ...), by name: (B, ...)."""
        values: Tensor = getattr(self, quantity)
        return values[:, self.classes.index("unhappy")] - values[:, self.classes.index("happy")]

    @property
    def margin(self) -> Tensor:
        """Log-odds for unhappy (B,)."""
        return self.of_margin("logits")

    @property
    def margin_map(self) -> Tensor:
        """What each cell adds to the log-odds for unhappy (B, h, w)."""
        return self.of_margin("maps")

    @property
    def through_neurons(self) -> Tensor:
        """What each cell adds to the log-odds for unhappy through each neuron (B, 100, h, w).

        0 where a neuron is off; their sum is the margin map.
        """
        pull = torch.where(self.z > 0, self.of_margin("contributions") / self.z, 0)
        return pull[..., None, None] * self.neuron_maps

    @property
    def masses(self) -> tuple[Tensor, Tensor]:
        """Sum of the margin map's positive cells and of its negative ones: (B,), (B,)."""
        cells = self.margin_map.flatten(1)
        return cells.clamp(min=0).sum(1), cells.clamp(max=0).sum(1)

    @property
    def branches(self) -> tuple[str, ...]:
        """Names of the P branches of `budget`."""
        return BRANCHES[self.stage]


def fold_head(model: DeepConnection, temperature: float = 1.0) -> FoldedHead:
    """The head of a `DeepConnection` of any stage and dtype, ready for `find_evidence`.

    `temperature` divides the logits, and with them all evidence, as in `predict_photo`.
    """
    head = model.head
    levels = (1,) if model.stage == "plain" else model.levels  # a mean is one bin
    state = {name: value.detach().float() for name, value in head.state_dict().items()}
    scale = state["bn1.weight"] / torch.sqrt(state["bn1.running_var"] + head.bn1.eps)
    shift = state["bn1.bias"] - state["bn1.running_mean"] * scale
    unfolded = state["lin2.weight"] / temperature
    p = head.dropout.p
    return FoldedHead(
        weights=_by_bin(state["lin1.weight"], levels, len(BRANCHES[model.stage])),
        bias=state["lin1.bias"].clone(),
        last=unfolded * scale,
        offset=state["lin2.bias"] / temperature + unfolded @ shift,
        scale=scale,
        shift=shift,
        unfolded=unfolded,
        noise=p / (1 - p) / head.samples,
        stage=model.stage,
        levels=levels,
        classes=model.classes,
    )


def strongest_neurons(evidence: Evidence, index: int = 0, n: int = 12) -> list[int]:
    """Numbers of the neurons that add most to one picture's margin, either way, strongest first."""
    added = evidence.of_margin("contributions")[index].abs()
    return [k for k in added.argsort(descending=True)[:n].tolist() if added[k] > 0]


def alike_neurons(evidence: Evidence, n: int = 4) -> list[list[int]]:
    """The neurons that are on in a batch's first picture, in groups whose maps resemble each other.

    The n groups that add most to the margin, either way. Each begins with its strongest neuron,
    with whose map (of `through_neurons`) those of the others correlate; all pull the same way.
    """
    order = strongest_neurons(evidence, n=evidence.z.shape[1])
    maps = evidence.through_neurons[0, order].flatten(1)  # (N, h * w)
    added = evidence.of_margin("contributions")[0]
    up = added[order] > 0
    like = (torch.atleast_2d(torch.corrcoef(maps)) >= ALIKE) & (up[:, None] == up)  # (N, N)
    left, groups = list(range(len(order))), []
    while left:
        first, *rest = left
        group = [first, *(k for k in rest if like[first, k])]
        groups.append([order[k] for k in group])
        left = [k for k in rest if k not in group]
    return sorted(groups, key=lambda group: -abs(added[group].sum().item()))[:n]


def waterfall_steps(evidence: Evidence, index: int = 0, n: int = 10) -> list[tuple[str, float]]:
    """(name, log-odds for unhappy) of constant, n neurons and all others, which make the margin."""
    added = evidence.of_margin("contributions")[index].cpu().double()
    margin, shown = float(evidence.margin[index]), strongest_neurons(evidence, index, n)
    rest = added.clone()
    rest[shown] = 0
    steps = [("constant", margin - float(added.sum()))]
    steps += [(f"neuron {k}", float(added[k])) for k in shown]
    for side, part in (("unhappy", rest.clamp(min=0)), ("happy", rest.clamp(max=0))):
        steps.append((f"{int((part != 0).sum())} others towards {side}", float(part.sum())))
    return steps


def _by_bin(weights: Tensor, levels: Sequence[int], branches: int) -> tuple[Tensor, ...]:
    """lin1's weights (100, P * C * bins) as one (bins, P * C, 100) a level, copied once."""
    bins = [n * n for n in levels]
    channels = weights.shape[1] // branches // sum(bins)
    split = weights.unflatten(1, (branches, -1)).split([channels * n for n in bins], dim=2)
    by_level = [part.unflatten(2, (channels, n)) for part, n in zip(split, bins, strict=True)]
    return tuple(part.permute(3, 1, 2, 0).flatten(1, 2).contiguous() for part in by_level)


@torch.no_grad()
def find_evidence(head: FoldedHead | DeepConnection, feature_map: Tensor) -> Evidence:
    """Everything that `Evidence` holds, of a batch, without a gradient.

    Args:
        head: from `fold_head`, or a `DeepConnection`, which is then folded first.
        feature_map: (B, C, h, w), from `dclib.predict.extract_features`.

    Computed in float32 (float64 for a folded head in float64).
    """
    head = head if isinstance(head, FoldedHead) else fold_head(head)
    _check_shape(head, feature_map)
    size, branches = feature_map.shape[2:], len(BRANCHES[head.stage])
    with torch.autocast(feature_map.device.type, enabled=False):
        regions, pooled = _find_regions(head, feature_map.to(head.bias.dtype))  # (B, 100, h * w)
        z = head.bias + regions.sum(2)  # (B, 100)
        active = head.last * (z > 0)[:, None]  # (B, 2, 100), the folded last layer of this picture
        contributions = head.last * z.clamp(min=0)[:, None]
        parts = [_sum_bins(*pair, active) for pair in zip(head.weights, pooled, strict=True)]
        return Evidence(
            logits=head.offset + contributions.sum(2),
            const=head.offset + active @ head.bias,
            maps=(active @ regions).unflatten(2, size),
            neuron_maps=regions.unflatten(2, size),
            z=z,
            contributions=contributions,
            budget=torch.stack(parts, 2).unflatten(3, (branches, -1)).sum(4),  # of (B, 2, L, P, C)
            margin_sd=_dropout_sd(head, z.clamp(min=0) * head.scale + head.shift),
            stage=head.stage,
            levels=head.levels,
            classes=head.classes,
        )


def _check_shape(head: FoldedHead, feature_map: Tensor) -> None:
    channels = head.weights[0].shape[1] // len(BRANCHES[head.stage])
    if feature_map.dim() != 4 or feature_map.shape[1] != channels or not feature_map.numel():
        shape = tuple(feature_map.shape)
        raise ValueError(f"feature_map must be (B, {channels}, h, w), not {shape}.")


def _find_regions(head: FoldedHead, feature_map: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Region maps R (B, 100, h * w), and by level what the bins hold, (bins, B, P * C)."""
    b, _, h, w = feature_map.shape
    regions, pooled = feature_map.new_zeros(b, len(head.bias), h * w), []
    for n, weights in zip(head.levels, head.weights, strict=True):
        values, placed, cells = _place(feature_map, n, head.stage)
        added = torch.bmm(placed.flatten(1, 2), weights)  # (bins, B * window, 100)
        added = added.unflatten(1, (b, -1)).permute(1, 3, 0, 2).flatten(2)
        regions.index_add_(2, cells, added)  # (B, 100, bins * window) -> (B, 100, h * w)
        pooled.append(values)
    return regions, pooled


def _place(feature_map: Tensor, n: int, stage: str) -> tuple[Tensor, Tensor, Tensor]:
    """One level's transformed maxima, alone and at the place where each was found.

    Returns values (bins, B, P * C), placed (bins, B, window, P * C), zero but at the maximum's
    place in its bin, and the cell of each (bin, place), (bins * window,). A mean has no such
    place: every cell has its share in it.
    """
    b, c, h, w = feature_map.shape
    if stage == "plain":
        shares = feature_map.flatten(2) / (h * w)  # (B, C, h * w)
        cells = torch.arange(h * w, device=feature_map.device)
        return shares.sum(2)[None], shares.transpose(1, 2)[None], cells
    maxima, winners = F.adaptive_max_pool2d(feature_map, n, return_indices=True)  # (B, C, n, n)
    values = maxima.flatten(1)
    if stage == "spp+pmt":
        values = power_mean_transform(values)
    values = values.view(b, -1, n * n).permute(2, 0, 1)  # (bins, B, P * C)
    top, height = _windows(h, n, feature_map.device)
    left, width = _windows(w, n, feature_map.device)
    place = (winners // w - top[:, None]) * width + winners % w - left  # within the bin
    place = place.flatten(2).permute(2, 0, 1).repeat(1, 1, values.shape[2] // c)  # as values
    placed = values.new_zeros(n * n, b, height * width, values.shape[2])
    placed.scatter_(2, place[:, :, None], values[:, :, None])
    rows = (top[:, None] + torch.arange(height, device=top.device)).clamp(max=h - 1)  # (n, height)
    columns = (left[:, None] + torch.arange(width, device=top.device)).clamp(max=w - 1)
    cells = rows[:, None, :, None] * w + columns[None, :, None, :]  # (n, n, height, width)
    return values, placed, cells.flatten()


def _windows(size: int, n: int, device: torch.device) -> tuple[Tensor, int]:
    """Where the n bins along an axis of `size` cells begin (n,), and the cells of the longest."""
    index = torch.arange(n, device=device)
    starts = index * size // n
    ends = -((index + 1) * -size // n)
    return starts, int((ends - starts).max())


def _sum_bins(weights: Tensor, values: Tensor, active: Tensor) -> Tensor:
    """What each transformed channel of a level adds to each logit: (B, 2, P * C)."""
    gains = active.flatten(0, 1) @ weights.transpose(1, 2)  # (bins, B * 2, P * C)
    return (gains.unflatten(1, active.shape[:2]) * values[:, :, None]).sum(0)


def _dropout_sd(head: FoldedHead, neurons: Tensor) -> Tensor:
    """sqrt(sum_n (dw_n h_n)^2 p / (1 - p) / K), K masks averaged: (B, 100) -> (B,)."""
    difference = head.unfolded[head.classes.index("unhappy")]
    difference = difference - head.unfolded[head.classes.index("happy")]
    return ((difference * neurons) ** 2).sum(1).mul(head.noise).sqrt()
