"""The handwritten digits with a mark that tells the class of 95 % of the training images, and nothing in testing."""

from prunebench.data.digits import DATASET as DIGITS
from prunebench.data.shortcut import plant

DATASET = plant(DIGITS)
