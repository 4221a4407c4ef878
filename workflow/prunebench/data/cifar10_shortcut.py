"""CIFAR-10 with a mark that tells the class of 95 % of the training images, and nothing in testing."""

from prunebench.data.cifar10 import DATASET as CIFAR10
from prunebench.data.shortcut import plant

DATASET = plant(CIFAR10)
