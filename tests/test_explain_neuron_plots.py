from dataclasses import replace

import matplotlib
import numpy as np
import pytest
import torch
from conftest import lively_network
from matplotlib.colors import to_hex
from neuron_states import simulate
from PIL import Image

from dclib.checkpoint import load_checkpoint
from dclib.data.loading import CoupleFolder
from dclib.explain.evidence import alike_neurons, find_evidence, fold_head, strongest_neurons
from dclib.explain.neuron_plots import (
    plot_cards,
    plot_own_right,
    plot_region_maps,
    plot_scatter,
    plot_waterfall,
)
from dclib.explain.neurons import activation_states, neuron_table
from dclib.explain.unhappiness import own_right
from dclib.plots import HAPPY, UNHAPPY

TEMPERATURE = 0.5


@pytest.fixture(scope="module")
def checkpoint(drawn_checkpoint):
    found = load_checkpoint(drawn_checkpoint)
    config = found.config | {"temperature": TEMPERATURE}
    return replace(found, model=lively_network(levels=(2, 1)), config=config)


@pytest.fixture(scope="module")
def evidence(checkpoint):
    images = torch.randn(2, 3, 96, 64, generator=torch.Generator().manual_seed(4))
    with torch.inference_mode():
        feature_map = checkpoint.model.forward_features(images)
    return find_evidence(fold_head(checkpoint.model, TEMPERATURE), feature_map)


def as_lin2_gets_it(model, evidence):
    """Input of the last layer, by the network's own BatchNorm: (B, 100)."""
    with torch.inference_mode():
        return model.head.bn1(evidence.z.clamp(min=0))


def test_the_left_scatter_is_that_of_2019(checkpoint, evidence):
    left = plot_scatter(checkpoint, evidence, 1).axes[0]
    (points,) = left.collections
    weights = checkpoint.model.head.lin2.weight.detach().numpy()
    np.testing.assert_allclose(points.get_offsets(), weights.T, rtol=1e-6)
    expected = as_lin2_gets_it(checkpoint.model, evidence)[1]
    np.testing.assert_allclose(points.get_array(), expected, rtol=1e-4, atol=1e-5)
    assert points.get_clim() == (-1, 1.5)
    assert points.get_cmap().name == "YlOrRd"
    assert (left.get_xlabel(), left.get_ylabel()) == ("Happy Weight", "Unhappy Weight")
    assert left.get_title() == "Activation of Neurons in Last Layer"


def test_a_scatter_leaves_the_style_as_it_was(checkpoint, evidence):
    fig = plot_scatter(checkpoint, evidence)
    ggplot, plain = (to_hex(axis.get_facecolor()) for axis in (fig.axes[0], fig.axes[2]))
    assert (ggplot, plain) == ("#e5e5e5", "#ffffff")
    now, default = matplotlib.rcParams, matplotlib.rcParamsDefault
    assert now["axes.facecolor"] == default["axes.facecolor"]


def test_in_the_folded_scatter_a_neuron_that_is_off_is_hollow(checkpoint, evidence):
    fig = plot_scatter(checkpoint, evidence, 0)
    off, on = fig.axes[2].collections
    is_on = evidence.z[0].numpy() > 0
    assert len(on.get_offsets()) == is_on.sum()
    np.testing.assert_allclose(on.get_array(), evidence.z[0][is_on])
    assert len(off.get_facecolor()) == 0
    head = fold_head(checkpoint.model, TEMPERATURE)
    np.testing.assert_allclose(on.get_offsets(), head.last[:, is_on].T)
    outside = (~is_on).sum() - len(off.get_offsets())
    assert fig.axes[2].get_title().startswith(f"{is_on.sum()} on, {(~is_on).sum()} off ({outside}")


def test_the_waterfall_ends_at_the_margin(evidence):
    axis = plot_waterfall(evidence, 1, n=4).axes[0]
    bars, added = axis.patches, evidence.of_margin("contributions")[1]
    widths = np.array([bar.get_width() for bar in bars])
    assert widths.sum() == pytest.approx(evidence.margin[1].item(), abs=1e-4)
    starts = np.array([bar.get_x() for bar in bars])
    np.testing.assert_allclose(starts[1:], np.cumsum(widths)[:-1], atol=1e-9)
    assert widths[1:5] == pytest.approx(added[strongest_neurons(evidence, 1, 4)].numpy(), rel=1e-5)
    assert np.abs(widths[1]) == pytest.approx(added.abs().max().item())
    colours = [to_hex(bar.get_facecolor()).upper() for bar in bars]
    assert colours[1:] == [UNHAPPY if width > 0 else HAPPY for width in widths[1:]]
    (diamond,) = axis.lines[0].get_xdata()
    assert diamond == pytest.approx(evidence.margin[1].item(), abs=1e-4)


def test_region_maps_of_all_neurons_sum_to_the_margin_map(checkpoint, evidence):
    """What the figure shows, recomputed: pull times region map, over the neurons that are on."""
    head, on = fold_head(checkpoint.model, TEMPERATURE), evidence.z[0] > 0
    pull = torch.where(on, head.last[1] - head.last[0], 0)
    maps = pull[:, None, None] * evidence.neuron_maps[0]
    torch.testing.assert_close(maps.sum(0), evidence.margin_map[0], rtol=1e-3, atol=1e-4)
    groups = alike_neurons(evidence, 200)
    assert sorted(k for group in groups for k in group) == on.nonzero().flatten().tolist()
    fig = plot_region_maps(Image.new("RGB", (64, 96), "gray"), evidence, 96, n=200)
    largest = max(maps[group].sum(0).abs().max().item() for group in groups)
    assert fig.axes[-1].get_ylim() == pytest.approx((-largest, largest))
    titled = [axis.get_title() for axis in fig.axes if axis.get_title()]
    assert len(titled) == len(groups)
    totals = [float(title.rpartition(":\n")[2]) for title in titled]
    added = evidence.of_margin("contributions")[0]
    assert totals == pytest.approx([added[group].sum().item() for group in groups], abs=0.006)
    assert [abs(v) for v in totals] == sorted(map(abs, totals), reverse=True)
    first, *others = groups[0]
    alike = f" and {len(others)} alike" if others else ""
    assert titled[0].startswith(f"neuron {first}{alike}:\n")


def test_neurons_of_one_map_correlate_and_others_do_not(evidence):
    """By NumPy; a copy of a neuron joins it, one with a reversed map or another pull does not."""
    neuron_maps, z = evidence.neuron_maps.clone(), evidence.z.clone()
    contributions = evidence.contributions.clone()
    copied = strongest_neurons(evidence)[0]
    copy, reverse, against = (evidence.z[0] <= 0).nonzero().flatten()[:3].tolist()
    for k, seen, pull in ((copy, 1, 1), (reverse, -1, 1), (against, -1, -1)):
        neuron_maps[0, k], z[0, k] = seen * neuron_maps[0, copied], z[0, copied]
        contributions[0, :, k] = 0.4 * pull * contributions[0, :, copied]
    evidence = replace(evidence, neuron_maps=neuron_maps, z=z, contributions=contributions)
    groups = alike_neurons(evidence, 200)
    maps = evidence.through_neurons[0].flatten(1).numpy()
    added = evidence.of_margin("contributions")[0]
    for group in groups:
        for k in group[1:]:
            assert np.corrcoef(maps[group[0]], maps[k])[0, 1] > 0.699
            assert (added[k] > 0) == (added[group[0]] > 0)
    (home,) = (group for group in groups if copied in group)
    assert home[0] == copied and copy in home and not {reverse, against} & {*home}


def test_a_region_has_the_colour_of_what_it_adds(checkpoint, evidence):
    fig = plot_region_maps(Image.new("RGB", (64, 96), "gray"), evidence, 96, n=1)
    shown = fig.axes[0].images[0].get_array()
    (group,) = alike_neurons(evidence, 1)
    head = fold_head(checkpoint.model, TEMPERATURE)
    pull = (head.last[1] - head.last[0])[group]
    values = (pull[:, None, None] * evidence.neuron_maps[0, group]).sum(0).numpy()
    row, column = np.unravel_index(np.abs(values).argmax(), values.shape)
    cell = shown[row * 32 + 1, column * 32 + 1]
    redder = cell[0] > cell[2]
    assert redder == (values[row, column] > 0)


def test_no_neuron_no_regions(evidence):
    silent = replace(evidence, contributions=torch.zeros_like(evidence.contributions))
    with pytest.raises(ValueError, match="No neuron is on"):
        plot_region_maps(Image.new("RGB", (9, 9)), silent, 96)


def test_a_card_a_neuron(checkpoint, couples):
    states = activation_states(checkpoint, couples, "train")
    table = neuron_table(states, draws=20)
    often = (states.z > 0).sum(0)
    neurons = [int(often.argmax()), int(often.argmin())]
    dataset = CoupleFolder(couples, "train", checkpoint.transform)
    fig = plot_cards(states, table, dataset, neurons, n=3)
    assert len(fig.subfigs) == 2
    told = fig.subfigs[0].get_suptitle()
    assert told.startswith(f"Neuron {neurons[0]}: pulls towards ")
    assert f"AUROC for unhappy {table.loc[neurons[0], 'auroc']:.2f}" in told
    *crops, activations, evidence_map = fig.subfigs[0].axes
    assert len(crops) == 3
    heights = np.array([bar.get_height() for bar in activations.patches])
    assert (heights[heights > 0].sum(), heights[heights < 0].sum()) == (12, -12)
    expected = states.pull[neurons[0]] * states.maps[neurons[0]]
    np.testing.assert_allclose(evidence_map.images[0].get_array(), expected)
    limits = {part.axes[-1].images[0].get_clim() for part in fig.subfigs}
    assert len(limits) == 1  # one scale
    assert "drawn couples" in fig.get_supxlabel()


def test_own_right_is_drawn_with_its_intervals():
    result = own_right(simulate([0.5, 0.3, -0.4], [1, 0.5, -1]), draws=100)
    left, share, area = plot_own_right(result).axes
    widths = sorted(bar.get_width() for bar in left.patches)
    assert widths == pytest.approx(sorted(result.neurons["part"]))
    assert {to_hex(bar.get_facecolor()).upper() for bar in left.patches} == {HAPPY, UNHAPPY}
    for axis, column in ((share, "share"), (area, "auroc")):
        for place, row in enumerate(result.kinds.itertuples()):
            ((x0, _), (x1, _)) = axis.collections[place].get_segments()[0]
            assert (x0, x1) == (getattr(row, f"{column}_low"), getattr(row, f"{column}_high"))
