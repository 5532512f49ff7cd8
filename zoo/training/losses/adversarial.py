"""Losses of an adversarial training: of the discriminator, and of the network that it judges.

A discriminator returns logits of any shape, high where it takes the image for real.

Sources: Goodfellow et al., "Generative adversarial nets", 2014 (its non-saturating form); Mao et
al., "Least squares generative adversarial networks", 2017; Lim and Ye, "Geometric GAN", 2017;
Arjovsky et al., "Wasserstein GAN", 2017.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch.nn.functional as F
from torch import Tensor

from zoo.registry import Registry


class AdversarialLoss(ABC):
    """Says how real or made images are taken for what they are."""

    @abstractmethod
    def of_network(self, made: Tensor) -> Tensor:
        """Return the network's loss, a scalar: low if its images are taken for real ones.

        Args:
            made: logits of the network's images.
        """

    @abstractmethod
    def of_discriminator(self, real: Tensor, made: Tensor) -> Tensor:
        """Return the discriminator's loss, a scalar: low if it tells the images apart.

        Args:
            real: logits of clean images.
            made: logits of the network's images.
        """


ADVERSARIAL_LOSSES = Registry("adversarial_loss", AdversarialLoss)


@ADVERSARIAL_LOSSES.register("vanilla")
class Vanilla(AdversarialLoss):
    """Binary cross-entropy of the logits, in its non-saturating form (Real-ESRGAN)."""

    def of_network(self, made: Tensor) -> Tensor:
        return F.softplus(-made).mean()

    def of_discriminator(self, real: Tensor, made: Tensor) -> Tensor:
        return F.softplus(-real).mean() + F.softplus(made).mean()


@ADVERSARIAL_LOSSES.register("least_squares")
class LeastSquares(AdversarialLoss):
    """Squared distance of the logits to 1 for real images and to 0 for made ones."""

    def of_network(self, made: Tensor) -> Tensor:
        return (made - 1).square().mean()

    def of_discriminator(self, real: Tensor, made: Tensor) -> Tensor:
        return (real - 1).square().mean() + made.square().mean()


@ADVERSARIAL_LOSSES.register("hinge")
class Hinge(AdversarialLoss):
    """Logits of real images are to be above 1, those of made ones below -1; more is of no use."""

    def of_network(self, made: Tensor) -> Tensor:
        return -made.mean()

    def of_discriminator(self, real: Tensor, made: Tensor) -> Tensor:
        return F.relu(1 - real).mean() + F.relu(1 + made).mean()


@ADVERSARIAL_LOSSES.register("wasserstein")
class Wasserstein(AdversarialLoss):
    """Difference of the mean logits; spectral norm keeps it bounded."""

    def of_network(self, made: Tensor) -> Tensor:
        return -made.mean()

    def of_discriminator(self, real: Tensor, made: Tensor) -> Tensor:
        return made.mean() - real.mean()
