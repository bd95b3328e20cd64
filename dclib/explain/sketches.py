"""Each method in one small drawing of a tiny example, computed by the functions of the package."""

import torch
from torch import Tensor

from dclib.explain.evidence import find_evidence, fold_head
from dclib.explain.gradcam import grad_cam as find_cams
from dclib.files import extra
from dclib.model import DeepConnection, MultiSampleDropoutHead
from dclib.plots import COLOURS, EVIDENCE, HAPPY, INK, ORANGE, SMALL, UNHAPPY, finish
from dclib.pmt import power_mean_transform
from dclib.predict import head_logits
from dclib.spp import spatial_pyramid_pool

with extra("plots"):
    import matplotlib.pyplot as plt
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap
    from matplotlib.figure import Figure

HILLS = ((2, 2, 3.0), (5, 6, 2.0), (6, 1, 1.2))  # row, column, height: where a channel fires
# A feature map as small as can be, (1, 3, 3, 3): three channels, each at home in another corner.
TOY_MAP = torch.tensor(
    [
        [[3, 1, 0], [2, 0, 0], [0, 0, 0]],
        [[0, 0, 2], [0, 0, 3], [0, 0, 1]],
        [[0, 0, 0], [0, 1, 0], [2, 3, 0]],
    ]
)[None].float()
CHANNEL_WEIGHTS = (1.0, -0.5, 0.5)  # what each channel says of "unhappy", in a network without bins
BIN_WEIGHTS = (  # and in one with 2 x 2 bins and one of the whole map
    *(0.1, 0.7, 0.7, 0.9, 0.1, -0.9, -0.9, -0.2, 0.6, 0.2, 0.7, -0.3),  # 3 channels, 4 bins
    *(-0.5, 0.8, -0.2),
)
CONSTANT = -0.4  # log-odds that its biases give


def pyramid(levels: tuple[int, ...] = (4, 2, 1)) -> Figure:
    """One channel of 8 x 8 cells, the bins of each level over it, a dot at each bin's maximum."""
    down, across = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    hills = [h * torch.exp(-((down - r) ** 2 + (across - c) ** 2) / 5) for r, c, h in HILLS]
    channel = torch.stack(hills).sum(0)
    fig, axes = plt.subplots(1, len(levels) + 1, figsize=(8, 2.2))
    for axis in axes:
        axis.imshow(channel.numpy(), cmap="Greys", vmin=0, vmax=4)
        axis.set_axis_off()
    axes[0].set_title("one channel of the map", fontsize=9)
    for axis, n in zip(axes[1:], levels, strict=True):
        for maximum in spatial_pyramid_pool(channel[None, None], (n,))[0]:
            row, column = (channel == maximum).nonzero()[0].tolist()
            axis.plot(column, row, "o", color=ORANGE, ms=5)
        for k in range(n + 1):
            axis.axhline(k * 8 / n - 0.5, color=INK, lw=1)
            axis.axvline(k * 8 / n - 0.5, color=INK, lw=1)
        axis.set_title(f"{n} x {n}: {n * n} {'maxima' if n > 1 else 'maximum'}", fontsize=9)
    total = " + ".join(str(n * n) for n in levels)
    numbers = spatial_pyramid_pool(channel[None, None], levels).shape[1]
    fig.text(0.5, 0.02, f"{total} = {numbers} numbers, whatever the map's size", ha="center")
    return fig


def power_mean(largest: float = 10.0) -> Figure:
    """log(1 + x) and its square against x: both hold large activations down."""
    x = torch.linspace(0, largest, 101)
    log, square = power_mean_transform(x[:, None]).T
    fig, axis = plt.subplots(figsize=(8, 2.2))
    lines = {"x itself": (x, "0.7", "-"), "log(1 + x)": (log, INK, "-")}
    for name, (values, colour, style) in (lines | {"its square": (square, ORANGE, "--")}).items():
        axis.plot(x.numpy(), values.numpy(), style, color=colour)
        end = values[-1].item()
        axis.text(largest * 1.01, end, f"{name}: {end:.1f}", va="center", fontsize=9)
    axis.set(xlim=(0, largest), ylim=(0, largest), xlabel="x, the maximum of a bin")
    return finish(fig)


def dropout_masks(samples: int = 8) -> Figure:
    """One picture's neurons under eight masks, and the pair of logits that each mask gives."""
    kept: list[Tensor] = []
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(1)
        head = MultiSampleDropoutHead(50, samples=samples)
        head.dropout.register_forward_hook(lambda *call: kept.append(call[2][:, 0] != 0))
        logits = head.sample_logits(torch.rand(16, 50))[:, 0].numpy()  # (S, 2), the first of 16
    fig, (masks, answers) = plt.subplots(1, 2, sharey=True, figsize=(8, 2.2), width_ratios=(3, 1))
    look = {"vmin": -1.5, "vmax": 1, "aspect": "auto", "interpolation": "none"}
    masks.imshow(kept[0].numpy(), cmap="Greys_r", **look)
    masks.set(xlabel="100 neurons (grey: left out)", ylabel=f"{samples} masks", yticks=[])
    for column, (name, colour) in enumerate(COLOURS.items()):
        answers.plot(logits[:, column], range(samples), "o", color=colour, ms=4, label=name)
        answers.axvline(logits[:, column].mean(), color=colour, lw=1)
    answers.set_xlabel(f"{samples} pairs of logits; lines: means", fontsize=9)
    answers.legend(**SMALL, loc="upper left", bbox_to_anchor=(1, 1))
    return finish(fig)


def grad_cam() -> Figure:
    """Each channel times the mean of its gradient, summed; of the sum, what is positive."""
    cells = TOY_MAP[0, 0].numel()
    network = _toy_network("plain", torch.tensor(CHANNEL_WEIGHTS) * cells)
    toy = TOY_MAP.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(head_logits(network, toy)[0, 1], toy)
    weights = gradient.mean((0, 2, 3)).tolist()  # (3,)
    cams = find_cams(network, TOY_MAP, ("unhappy",))
    fig, axes = plt.subplots(1, 5, figsize=(8, 2))
    for k, (channel, weight) in enumerate(zip(TOY_MAP[0], weights, strict=True)):
        _draw_cells(axes[k], channel, f"{weight:+.1f} x channel {k + 1}", "Greys", (-1, 6))
    _draw_cells(axes[3], cams["unhappy"][0], "= the sum")
    _draw_cells(axes[4], cams.positive[0, 0], "its positive part")
    return finish(fig)


def cells_sum() -> Figure:
    """The constant and the evidence of nine cells, one after another, up to the margin."""
    network = _toy_network("spp", torch.tensor(BIN_WEIGHTS), (2, 1))
    network.head.lin2.bias.data[1] = CONSTANT
    evidence = find_evidence(fold_head(network), TOY_MAP)
    margin = head_logits(network, TOY_MAP).diff().item()
    fig, (left, right) = plt.subplots(1, 2, figsize=(8, 2), width_ratios=(1, 4))
    _draw_cells(left, evidence.margin_map[0], "evidence of each cell")
    steps = torch.cat([evidence.of_margin("const"), evidence.margin_map.flatten()]).tolist()
    end = 0.0
    for k, step in enumerate(steps):
        colour = "0.6" if k == 0 else UNHAPPY if step > 0 else HAPPY
        right.bar(k, step, bottom=end, color=colour)
        end += step
        right.hlines(end, k - 0.4, k + 1.4, color=INK, lw=0.5)
    right.axhline(0, color="0.8", lw=1, zorder=0)
    right.text(len(steps) - 0.5, margin, f"margin {margin:+.1f}", va="center", fontsize=9)
    right.set_xticks(range(len(steps)), ["constant", *range(1, len(steps))], fontsize=9)
    right.set(xlim=(-0.6, 9.5), ylim=(-2, 2), ylabel="log-odds", xlabel="cells, row by row")
    return finish(fig)


def _toy_network(stage: str, weights: Tensor, levels: tuple[int, ...] = (1,)) -> DeepConnection:
    """A network whose logit of "unhappy" is the sum of its pooled features times `weights` (F,)."""
    with torch.random.fork_rng(devices=[]):  # weights that are drawn here are not used
        network = DeepConnection(stage, "resnet18", weights=None, levels=levels)
        network.head = MultiSampleDropoutHead(len(weights))
    first, last = network.head.lin1.weight.data, network.head.lin2.weight.data
    first[:], last[:] = torch.eye(*first.shape), 0  # a neuron for each feature
    last[1, : len(weights)] = weights
    return network.eval()


def _draw_cells(
    axis: Axes,
    cells: Tensor,
    title: str,
    colours: str | Colormap = EVIDENCE,
    ends: tuple[float, float] = (-3, 3),
) -> None:
    """A map with the number of every cell."""
    axis.imshow(cells.numpy(), cmap=colours, vmin=ends[0], vmax=ends[1])
    for row, values in enumerate(cells.tolist()):
        for column, value in enumerate(values):
            number = f"{round(value, 1) + 0.0:.1f}"  # never "-0.0"
            axis.text(column, row, number, ha="center", va="center", fontsize=8)
    axis.set_title(title, fontsize=9)
    axis.set_axis_off()
