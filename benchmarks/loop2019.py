"""The 2019 notebook's loader, network and loop, written anew after it for comparison.

Kept as there: ImageFolder that decodes every picture in every epoch, Resize, imgaug and
normalisation in the loader, a new loader pass each epoch, eight calls of the last layer, Adam over
everything, a loss read after every batch, Apex O1 where it can be had. Changed so that it runs at
all: imgaug and its pooling come from dclib (the former fails on NumPy 2, the latter on most sizes;
results are the same), and the scheduler steps after the optimiser.
"""

import contextlib
import time

import numpy as np
import torch
from PIL import Image
from torch import nn
from torchvision import datasets, models, transforms

from dclib.augment import authors_policy
from dclib.data.loading import IMAGENET_MEAN, IMAGENET_STD
from dclib.pmt import power_mean_transform
from dclib.spp import spatial_pyramid_pool
from dclib.train.loop import Stopwatch


class ImgAug:
    def __init__(self):
        self.policy = authors_policy()

    def __call__(self, image):
        return Image.fromarray(self.policy.augment_image(np.array(image)))


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.convs = nn.Sequential(*list(models.resnet34(weights=None).children())[:-2])
        self.lin1, self.relu, self.bn1 = nn.Linear(2 * 43520, 100), nn.ReLU(), nn.BatchNorm1d(100)
        self.dp1, self.lin2 = nn.Dropout(0.5), nn.Linear(100, 2)
        for layer in (self.lin1, self.lin2):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x):
        x = power_mean_transform(spatial_pyramid_pool(self.convs(x)))
        x = self.bn1(self.relu(self.lin1(x)))
        return torch.stack([self.lin2(self.dp1(x)) for _ in range(8)]).mean(0)


def make_loaders(root, size, batch_size, workers):
    last = [transforms.ToTensor(), transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)]
    first = transforms.Resize((size, size))
    steps = {"train": [first, ImgAug(), *last], "val": [first, *last]}
    return {
        split: torch.utils.data.DataLoader(
            datasets.ImageFolder(root / split, transforms.Compose(steps[split])),
            batch_size,
            shuffle=True,
            num_workers=workers,
            drop_last=split == "train",  # a last batch of one would stop the 2019 loop
        )
        for split in steps
    }


def train(root, size, batch_size, epochs, workers, device):
    """Train. Returns a dict an epoch, the share of waiting, the precision."""
    torch.manual_seed(0)
    loaders, model = make_loaders(root, size, batch_size, workers), Network().to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4, weight_decay=0.1)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 15)
    scale_loss, precision = lambda loss, _: contextlib.nullcontext(loss), "float32"
    if device.type == "cuda":
        with contextlib.suppress(ImportError):
            from apex import amp

            model, optimizer = amp.initialize(model, optimizer, opt_level="O1", verbosity=0)
            scale_loss, precision = amp.scale_loss, "Apex O1"
    criterion, rows, times = nn.CrossEntropyLoss(), [], []
    for _ in range(epochs):
        start, losses = time.perf_counter(), []
        for phase in ("train", "val"):
            model.train(phase == "train")
            if phase == "train":
                watch = Stopwatch(device)
            for inputs, labels in loaders[phase]:
                if phase == "train":
                    watch.arrived()
                inputs, labels = inputs.to(device), labels.to(device)
                optimizer.zero_grad()
                with torch.set_grad_enabled(phase == "train"):
                    loss = criterion(model(inputs), labels)
                    if phase == "train":
                        with scale_loss(loss, optimizer) as scaled_loss:
                            scaled_loss.backward()
                        optimizer.step()
                if phase == "train":
                    losses.append(loss.item())
                    watch.done()
            if phase == "train":
                times.append(watch.stop())
        scheduler.step()
        rows.append({"seconds": time.perf_counter() - start, "losses": losses})
    seconds, waited = map(sum, zip(*times))
    return rows, waited / seconds, precision
