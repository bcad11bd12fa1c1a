"""The conv/deconv body with a pooled dense softmax head."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from deconv_cli.network.description import Architecture
from deconv_cli.network.encoder_decoder import RESIDUAL_GAIN, RestorationNetwork, build_network


class Classifier(nn.Module):
    """Encode, decode, average over the picture, one dense layer.

    Parameters
    ----------
    body
        A network for restoration; what its last layer would see is what is pooled.
    classes
        Number of classes.
    """

    def __init__(self, body: RestorationNetwork, classes: int) -> None:
        super().__init__()
        body.tail = nn.Identity()
        self.body = body
        self.dense = nn.Linear(body.architecture.widths[0], classes)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits.

        Parameters
        ----------
        image
            N x 3 x H x W, 0..1; H and W are multiples of the architecture's ``size_multiple``.

        Returns
        -------
        Tensor
            N x classes; their softmax are the probabilities.
        """
        logits: Tensor = self.dense(self.body.features(image).mean((2, 3)))
        return logits


def build_classifier(
    architecture: Architecture, classes: int, initialisation: str = "matched", residual_gain: float = RESIDUAL_GAIN
) -> Classifier:
    """Make a classifier, its parameters drawn from torch's generator; see `build_network`."""
    classifier = Classifier(build_network(architecture, initialisation, residual_gain), classes)
    if initialisation == "matched":
        nn.init.normal_(classifier.dense.weight, std=architecture.widths[0] ** -0.5)
        nn.init.zeros_(classifier.dense.bias)
    return classifier


@torch.no_grad()
def class_probabilities(classifier: Classifier, images: Tensor) -> Tensor:
    """Return N x classes probabilities of N x 3 x H x W pictures, 0..1."""
    return classifier(images).softmax(1)  # type: ignore[no-any-return]
