"""Small data sets of digits, as a program of the user's own would write them."""

import functools

import torch
from PIL import Image
from torch import nn
from torch.utils.data import Dataset

from selfdistill.data.datasets.digits import load_scans


@functools.cache
def scans():
    images, labels = load_scans()
    return torch.tensor(images / 16, dtype=torch.float32)[:, None], torch.tensor(labels)


class Digits(Dataset):
    """The first digits: finished float tensors with noise that is drawn anew, or stored images."""

    def __init__(self, count, form="finished"):
        self.count, self.form = count, form

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        image, label = scans()[0][i], scans()[1][i]
        if self.form == "finished":
            return image + 0.1 * torch.randn(1, 1, 1), int(label)
        pixels = (image * 255).to(torch.uint8)
        if self.form == "uint8":
            return pixels, label
        return (Image.fromarray(pixels[0].numpy()) if self.form == "pil" else pixels[0].numpy()), int(label)


class Masks(Dataset):
    """The same digits with a mask of what is bright; the first row counts for nothing."""

    def __init__(self, count, form="finished"):
        self.digits = Digits(count, form)

    def __len__(self):
        return len(self.digits)

    def __getitem__(self, i):
        mask = (scans()[0][i, 0] > 0.5).long()
        mask[0] = -100
        return self.digits[i][0], mask


class Labels(Dataset):
    """The same digits, labeled as even, as large, or both."""

    classes = ("even", "large")

    def __init__(self, count, form="finished"):
        self.digits = Digits(count, form)

    def __len__(self):
        return len(self.digits)

    def __getitem__(self, i):
        image, number = self.digits[i]
        return image, torch.tensor([float(number % 2 == 0), float(number > 4)])


class TinyNet(nn.Module):
    """Two convolutions, and scores of whole images."""

    def __init__(self, num_classes=10):
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.fc = nn.Linear(16, num_classes)

    def forward(self, images):
        return self.fc(self.second(self.first(images).relu()).relu().mean((2, 3)))
